"""Hostile and broken safetensors headers: refused by name, before anything else reads the file."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longmamba_mlx.storage import checked_safetensors
from longmamba_mlx.storage.safetensors_header import SafetensorsError, check_safetensors


def put(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(shape: object, start: object, end: object, dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


FOUR = b"\x00" * 4
HOSTILE: dict[str, tuple[object, bytes]] = {
    "product wraps to zero": ({"a": entry([65536] * 4, 0, 0)}, b""),
    "extent of 2^62": ({"a": entry([2**62], 0, 0)}, b""),
    "extent of 2^62 + 4": ({"a": entry([2**62 + 1], 0, 4)}, FOUR),
    "extent of 2^64": ({"a": entry([2**64], 0, 0)}, b""),
    "extent of 2^31 beside zero": ({"a": entry([0, 2**31], 0, 0)}, b""),
    "negative extents": ({"a": entry([-1, -1], 0, 4)}, FOUR),
    "float extent": ({"a": entry([1.0], 0, 4)}, FOUR),
    "true as extent": ({"a": entry([True], 0, 4)}, FOUR),
    "text as extent": ({"a": entry(["1"], 0, 4)}, FOUR),
    "null as extent": ({"a": entry([None], 0, 4)}, FOUR),
    "shape is a number": ({"a": entry(1, 0, 4)}, FOUR),
    "shape is a table": ({"a": entry({}, 0, 4)}, FOUR),
    "2,000 dimensions": ({"a": entry([1] * 2000, 0, 4)}, FOUR),
    "overlap": ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, FOUR),
    "partial overlap": ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, FOUR * 3),
    "hole": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, FOUR * 3),
    "hole at the start": ({"a": entry([1], 4, 8)}, FOUR * 2),
    "data beyond the tensors": ({"a": entry([1], 0, 4)}, FOUR * 2),
    "data without tensors": ({}, FOUR),
    "data missing": ({"a": entry([2], 0, 8)}, FOUR),
    "offsets reversed": ({"a": entry([1], 4, 0)}, FOUR),
    "offset negative": ({"a": entry([1], -4, 0)}, b""),
    "offset float": ({"a": entry([1], 0.0, 4)}, FOUR),
    "offset true": ({"a": entry([1], False, 4)}, FOUR),
    "offset huge": ({"a": entry([1], 2**63, 2**63 + 4)}, FOUR),
    "three offsets": ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}}, FOUR),
    "no offsets": ({"a": {"dtype": "F32", "shape": [1]}}, FOUR),
    "one key more": ({"a": {**entry([1], 0, 4), "x": 1}}, FOUR),
    "entry is a list": ({"a": [1]}, b""),
    "entry is null": ({"a": None}, b""),
    "unknown dtype": ({"a": entry([1], 0, 4, "F33")}, FOUR),
    "dtype of half a byte": ({"a": entry([2], 0, 1, "F4")}, b"\x00"),
    "small letters dtype": ({"a": entry([1], 0, 4, "f32")}, FOUR),
    "dtype is a list": ({"a": entry([1], 0, 4, ["F32"])}, FOUR),
    "dtype too small": ({"a": entry([1], 0, 4, "F16")}, FOUR),
    "metadata is a list": ({"__metadata__": ["x"]}, b""),
    "metadata is nested": ({"__metadata__": {"a": {"b": "c"}}}, b""),
    "metadata is a number": ({"__metadata__": {"a": 1}}, b""),
    "escape in a name": ({"a\x1b[2J": entry([1], 0, 4)}, FOUR),
    "NUL in a name": ({"a\x00": entry([1], 0, 4)}, FOUR),
    "half a character in a name": ({"a\ud800": entry([1], 0, 4)}, FOUR),
    "key twice": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', FOUR),
    "tensor twice": (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        + b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        FOUR,
    ),
    "deep data under an unknown key": (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":' + b"[" * 5000 + b"]" * 5000 + b"}}",
        FOUR,
    ),
    "5,000 digits under an unknown key": (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":' + b"9" * 5000 + b"}}",
        FOUR,
    ),
    "key twice within": (b'{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', FOUR),
    "not a number": (b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', FOUR),
    "infinity": (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,Infinity]}}', FOUR),
    "a number of 5,000 digits": (
        b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}',
        FOUR,
    ),
    "a million brackets": (b'{"a":' + b"[" * 1_000_000, b""),
    "a list": (b"[]", b""),
    "a text": (b'"a"', b""),
    "null": (b"null", b""),
    "empty header": (b"", b""),
    "blanks before": (b"  {}", b""),
    "no UTF-8": (b'{"\xff":1}', b""),
    "byte order mark": (b"\xef\xbb\xbf{}", b""),
    "garbage after": (b"{} x", b""),
    "unfinished": (b'{"a":', b""),
    "pickle": (b"\x80\x04}q\x00.", b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(tmp_path: Path, name: str) -> None:
    header, data = HOSTILE[name]
    path = put(tmp_path / "a.safetensors", header, data)
    with pytest.raises(SafetensorsError) as caught:
        check_safetensors(path)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()
    with pytest.raises(SafetensorsError):
        checked_safetensors.load_arrays(path)


@pytest.mark.parametrize("length", [1, 7, 2**20 + 1, 2**31, 2**63, 2**64 - 1])
def test_lengths_that_lie(tmp_path: Path, length: int) -> None:
    with pytest.raises(SafetensorsError):
        check_safetensors(put(tmp_path / "a", b"{}", length=length))


def test_a_header_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with open(path, "wb") as file:
        file.write((1 << 34).to_bytes(8, "little"))
        file.truncate((1 << 34) + 8)  # 16 GB of nothing: only its size is real
    with pytest.raises(SafetensorsError, match="over the limit"):
        check_safetensors(path)


def test_the_limit_can_be_raised(tmp_path: Path) -> None:
    path = put(tmp_path / "a", b"{" + b" " * (1 << 20) + b"}")
    with pytest.raises(SafetensorsError):
        check_safetensors(path)
    assert check_safetensors(path, max_header=1 << 21) == {}


@pytest.mark.parametrize("content", [b"", b"\x02", b"\x02" + b"\x00" * 7, b"{}" * 40, b"\x89PNG\r\n\x1a\n" * 3])
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(SafetensorsError):
        check_safetensors(tmp_path / "a")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none", Path("/dev/zero"), "nul\x00l"):
        with pytest.raises(SafetensorsError):
            check_safetensors(path)


def test_good_files(tmp_path: Path) -> None:
    arrays = {
        "a": mx.zeros((2, 3), mx.bfloat16),
        "b": mx.zeros((0, 4)),
        "c": mx.array(3.0),
        "d": mx.zeros(5, mx.bool_),
    }
    mx.save_safetensors(str(tmp_path / "a.safetensors"), arrays, {"k": "v"})
    header = check_safetensors(tmp_path / "a.safetensors")
    assert header["__metadata__"] == {"k": "v"}
    assert header["a"]["shape"] == [2, 3] and header["a"]["dtype"] == "BF16"
    assert set(header) == {"__metadata__", *arrays}
    assert check_safetensors(put(tmp_path / "b", b"{}  ")) == {}


NOISE = st.binary(max_size=300)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NOISE, st.booleans())
def test_noise_is_refused_or_empty(tmp_path: Path, noise: bytes, framed: bool) -> None:
    path = tmp_path / "noise"
    path.write_bytes(len(noise).to_bytes(8, "little") + noise if framed else noise)
    with suppress(SafetensorsError):
        assert check_safetensors(path).keys() <= {"__metadata__"}


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_passes_is_laid_out_without_gap(tmp_path: Path, data: st.DataObject) -> None:
    """Headers near a good one: those that pass describe exactly the bytes of the file."""
    small = st.integers(-2, 9)
    names = data.draw(st.lists(st.text("abc", min_size=1, max_size=2), unique=True, max_size=3))
    header = {n: entry(data.draw(st.lists(small, max_size=2)), data.draw(small), data.draw(small), "U8") for n in names}
    size = data.draw(st.integers(0, 12))
    path = put(tmp_path / "near", header, b"x" * size)
    try:
        check_safetensors(path)
    except SafetensorsError:
        return
    covered = sorted(i for e in header.values() for i in range(*e["data_offsets"]))
    assert covered == list(range(size))
    assert all(np.prod(e["shape"]) == e["data_offsets"][1] - e["data_offsets"][0] for e in header.values())


def change(path: Path, count: int, record_property: Callable[[str, object], None]) -> None:
    """Change bytes of a sound file: it is refused, or what MLX reads are the bytes that its header names."""
    arrays = {"a": mx.arange(24.0).reshape(4, 6), "b.c": mx.zeros((3,), mx.float16), "empty": mx.zeros((0, 2))}
    mx.save_safetensors(str(path), arrays, {"k": "v"})
    content, dice, read = path.read_bytes(), random.Random(count), 0
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(dice.choice((1, 1, 2, 4))):
            place = dice.randrange(header if dice.random() < 0.9 else len(content))
            changed[place] = dice.choice((dice.randrange(256), *b'0123456789[]{}",:'))
        path.write_bytes(changed)
        with suppress(SafetensorsError):
            table = check_safetensors(path)
            assert "F64" not in str(table) and "F8" not in str(table), "no dtype is near another that MLX lacks"
            data = changed[8 + int.from_bytes(changed[:8], "little") :]
            for name, array in mx.load(str(path)).items():
                first, end = table[name]["data_offsets"]
                assert bytes(memoryview(array.reshape(-1).view(mx.uint8))) == data[first:end], name
            read += 1
    record_property("changed files", f"{count}, {read} of them sound and read as their headers say")


def test_changed_files(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    change(tmp_path / "a.safetensors", 500, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_fifty_thousand_changed_files(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    change(tmp_path / "a.safetensors", 50_000, record_property)
