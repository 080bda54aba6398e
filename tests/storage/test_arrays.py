"""save_arrays / load_arrays: exact, and no flipped bit or cut goes unnoticed."""

from __future__ import annotations

import random
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.storage import atomic, checked_safetensors, safetensors_header
from longmamba_mlx.storage.safetensors_header import SafetensorsError

NUMPY = [
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "float16",
    "int32",
    "uint32",
    "float32",
    "int64",
    "uint64",
    "float64",
]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    arrays = {
        "layers.0.conv": mx.array(np.arange(12, dtype=np.float32).reshape(1, 3, 4)).astype(mx.bfloat16),
        "layers.0.ssm": np.linspace(-1, 1, 20, dtype=np.float32).reshape(1, 4, 5),
    }
    path = tmp_path / "sample.safetensors"
    checked_safetensors.save_arrays(path, arrays, {"key": "value", "text": 'ü"\\\n'})
    return path


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (0, 2), (2, 0)])
def test_numpy_arrays_come_back_exactly(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    checked_safetensors.save_arrays(tmp_path / "a", {"a": array}, {})
    plain, metadata = checked_safetensors.load_numpy(tmp_path / "a")
    assert metadata == {}
    assert plain["a"].dtype == array.dtype and plain["a"].shape == shape
    assert plain["a"].tobytes() == array.tobytes()
    arrays, _ = checked_safetensors.load_arrays(tmp_path / "a")
    assert str(arrays["a"].dtype) == f"mlx.core.{dtype}"
    assert arrays["a"].shape == shape


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32, mx.int32, mx.uint8, mx.bool_])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_mlx_arrays_come_back_exactly(tmp_path: Path, dtype: mx.Dtype, shape: tuple[int, ...]) -> None:
    array = (mx.random.normal(shape, key=mx.random.key(0)) * 10).astype(dtype)
    checked_safetensors.save_arrays(tmp_path / "a", {"a": array}, {})
    back = checked_safetensors.load_arrays(tmp_path / "a")[0]["a"]
    assert back.dtype == dtype and back.shape == shape
    assert mx.array_equal(back, array).item()


def test_strides_and_byte_order_do_not_matter(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {"t": base.T, "s": base[::2, ::-1], "b": base.astype(">f4"), "m": mx.array(base)[:, ::2]}
    checked_safetensors.save_arrays(tmp_path / "a", arrays, {})
    back, _ = checked_safetensors.load_numpy(tmp_path / "a")
    assert all(np.array_equal(back[name], np.array(array)) for name, array in arrays.items())


def test_nan_and_infinity_keep_their_bits(tmp_path: Path) -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32)
    checked_safetensors.save_arrays(tmp_path / "a", {"a": array}, {})
    assert checked_safetensors.load_numpy(tmp_path / "a")[0]["a"].tobytes() == array.tobytes()


def test_other_readers_read_it(sample: Path) -> None:
    arrays, metadata = mx.load(str(sample), return_metadata=True)
    assert metadata["text"] == 'ü"\\\n' and len(metadata["sha256"]) == 64
    assert arrays["layers.0.conv"].dtype == mx.bfloat16 and arrays["layers.0.ssm"].shape == (1, 4, 5)


def test_the_data_digest_is_over_the_data_section(sample: Path) -> None:
    import hashlib

    content = sample.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    digest = safetensors_header.check_safetensors(sample)["__metadata__"]["sha256"]
    assert digest == hashlib.sha256(content[start:]).hexdigest()
    assert start % 8 == 0


def test_what_cannot_be_stored(tmp_path: Path) -> None:
    for arrays, metadata in [
        ({"a": np.array(["x"])}, {}),
        ({"a": np.zeros(2, complex)}, {}),
        ({"a": np.zeros(2, object)}, {}),
        ({}, {"sha256": "x"}),
        ({}, {"header_sha256": "x"}),
        ({}, {"a": 1}),
        ({}, {"a": "x" * (1 << 20)}),
    ]:
        with pytest.raises(TypeError):
            checked_safetensors.save_arrays(tmp_path / "a", arrays, metadata)
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_not_for_numpy(sample: Path) -> None:
    with pytest.raises(SafetensorsError, match="bfloat16"):
        checked_safetensors.load_numpy(sample)


def test_expected_arrays(sample: Path) -> None:
    good = {"layers.0.conv": ("BF16", (1, 3, 4)), "layers.0.ssm": ("F32", (1, 4, 5))}
    assert set(checked_safetensors.load_arrays(sample, expected=good)[0]) == set(good)
    for bad in (
        {},
        {**good, "layers.1.ssm": ("F32", (1,))},
        {**good, "layers.0.ssm": ("F32", (1, 5, 4))},
        {**good, "layers.0.ssm": ("I32", (1, 4, 5))},
        {"layers.0.ssm": ("F32", (1, 4, 5))},
    ):
        with pytest.raises(SafetensorsError):
            checked_safetensors.load_arrays(sample, expected=bad)


def test_a_size_limit(sample: Path) -> None:
    with pytest.raises(SafetensorsError, match="over the limit"):
        checked_safetensors.load_arrays(sample, max_bytes=103)


def test_a_file_without_digests_is_refused(tmp_path: Path) -> None:
    mx.save_safetensors(str(tmp_path / "a.safetensors"), {"a": mx.zeros(3)})
    with pytest.raises(SafetensorsError, match="digest"):
        checked_safetensors.load_arrays(tmp_path / "a.safetensors")


def refused(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        checked_safetensors.load_arrays(path)
    except SafetensorsError:
        return True
    return False


def test_every_single_bit_flip_is_noticed(sample: Path) -> None:
    """All bits of the file: its length field, its header with the blanks at the end, its data."""
    content = sample.read_bytes()
    assert len(content) < 1000
    for bit in range(len(content) * 8):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        assert refused(sample, bytes(changed)), bit


def test_every_cut_is_noticed(sample: Path) -> None:
    content = sample.read_bytes()
    assert all(refused(sample, content[:size]) for size in range(len(content)))


def test_other_damage_is_noticed(sample: Path) -> None:
    content = sample.read_bytes()
    half = len(content) // 2
    dice = random.Random(1)
    assert refused(sample, content + b"\x00")
    assert refused(sample, content * 2)
    assert refused(sample, content[half:] + content[:half])
    assert refused(sample, bytes(len(content)))
    for _ in range(300):
        start = dice.randrange(len(content) - 8)
        size = dice.randrange(1, len(content) - start)
        fill = bytes(size) if dice.random() < 0.5 else dice.randbytes(size)
        changed = content[:start] + fill + content[start + size :]
        assert changed == content or refused(sample, changed)


def test_sha256_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert atomic.sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
