"""torch.save files: exact on real ones; everything hostile or foreign is one error, with nothing run."""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.conversion import convert
from longmamba_mlx.conversion.torch_pickle.archive import read_tensors, to_safetensors
from longmamba_mlx.conversion.torch_pickle.machine import PickleError
from longmamba_mlx.conversion.torch_pickle.tensors import read_tensor_table
from longmamba_mlx.errors import ModelError
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.storage.safetensors_header import check_safetensors
from tests.conversion import torch_files as f
from tests.conversion.checkpoints import TABLES, original_tensors, tiny_tokenizer
from tests.models.samples import random_ids, random_model

FILES = Path(__file__).parent / "files"
KINDS = {
    "f64": "f8", "f32": "f4", "f16": "f2", "i64": "i8", "i32": "i4", "i16": "i2", "i8": "i1", "u8": "u1", "bool": "u1",
}  # fmt: skip


def expected() -> dict[str, np.ndarray]:
    """The tensors of make_torch_files.py, without torch."""
    base = np.arange(24, dtype=np.float32).reshape(4, 6) / np.float32(7)
    shared = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    arrays = {name: np.arange(5).astype(kind) for name, kind in KINDS.items()}
    arrays["bool"] = np.array([0, 1, 1, 1, 1], np.uint8)
    arrays["bf16"] = (np.arange(5, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    arrays |= {"turned": base.T, "slice": base[1:3, ::2], "tied.a": shared, "tied.b": shared}
    return arrays | {
        "scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.float32),
        "parameter": np.ones((2, 3), np.float32) / np.float32(3),
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4])
def test_torchs_own_files_are_read_exactly(protocol: int) -> None:
    got = read_tensors(FILES / f"tensors-protocol{protocol}.bin")
    wanted = expected()
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        if name.startswith("tied"):  # two ways of counting up: the last bit may differ
            np.testing.assert_allclose(got[name], array, rtol=1e-6)
        else:
            assert got[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


def test_rewriting_keeps_every_bit_but_float64s(tmp_path: Path) -> None:
    source, target = FILES / "tensors-protocol2.bin", tmp_path / "out.safetensors"
    to_safetensors(source, target)
    check_safetensors(target)
    for name, array in mx.load(str(target)).items():
        if name == "bf16":
            array = array.view(mx.uint16)
        kept = expected()[name].astype("<f4") if name == "f64" else read_tensors(source)[name]
        assert np.array_equal(np.array(array), kept) and np.array(array).shape == kept.shape, name
        assert (name == "f64") == (kept.dtype != expected()[name].dtype)


def test_a_modules_table_is_read_without_its_versions() -> None:
    got = read_tensors(FILES / "state-dict.bin")
    assert list(got) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert np.array_equal(got["0.weight"], np.arange(6, dtype=np.float32).reshape(2, 3))


@pytest.mark.parametrize(
    ("name", "match"),
    [("legacy", "before version 1.6"), ("module", r"asks for torch\.nn"), ("complex", "asks for torch.Complex")],
)
def test_other_files_of_torch_are_refused(name: str, match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        read_tensors(FILES / f"{name}.bin")
    assert caught.value.hint and str(caught.value).startswith(f"{name}.bin: ")


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("dialect", ["original-mamba1", "original-mamba2"])
def test_original_checkpoints_convert(tmp_path: Path, dialect: str, shards: int) -> None:
    sample, config = TABLES[dialect]
    model = random_model(sample)
    source = tmp_path / "hf"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config))
    (source / "tokenizer.json").write_text(tiny_tokenizer())
    tensors = {name: np.array(array) for name, array in original_tensors(dialect, model).items()}
    names, weight_map = np.array_split(sorted(tensors), shards), {}
    for number, part in enumerate(names):
        name = "pytorch_model.bin" if shards == 1 else f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        write_arrays(source / name, {key: tensors[key] for key in part.tolist()})
        weight_map |= dict.fromkeys(part.tolist(), name)
    if shards > 1:
        (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    convert(source, tmp_path / "mlx")
    assert sorted(os.listdir(tmp_path / "mlx")) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(os.listdir(tmp_path)) == ["hf", "mlx"]
    loaded = load_model(tmp_path / "mlx").model
    a, b = (np.array(each.head(each(random_ids(30))[0])) for each in (loaded, model))
    assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """float32 arrays as torch.save writes them."""
    pairs, entries = [], {}
    for number, (name, array) in enumerate(arrays.items()):
        strides = tuple(stride // 4 for stride in np.ascontiguousarray(array).strides)
        of = f.storage(key=str(number), count=array.size)
        pairs += [f.text(name), f.tensor(array.shape, strides, of=of)]
        entries[f"m/data/{number}"] = array.astype("<f4").tobytes()
    f.write_zip(path, {"m/data.pkl": f.table(*pairs), **entries})


# ---------------------------------------------------------------- nothing is run


class Canary:
    """Fails the test when anything of a kind that a pickle could start is started while it watches."""

    EVENTS = (
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "compile", "exec",
        "pickle.find_class", "socket.connect", "shutil.rmtree", "os.remove", "os.rename", "builtins.input",
        "ctypes.dlopen",
    )  # fmt: skip
    watching = False
    seen: ClassVar[list[str]] = []

    @classmethod
    def hook(cls, event: str, _: Any) -> None:
        if cls.watching and event in cls.EVENTS:
            cls.seen.append(event)

    def __enter__(self) -> None:
        type(self).seen.clear()
        type(self).watching = True

    def __exit__(self, *_: object) -> None:
        type(self).watching = False
        assert not self.seen


sys.addaudithook(Canary.hook)


class Calls:
    """Pickles as a call of `function` with `arguments`, as attackers make them."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


PICKLES = Counter[str]()


@pytest.fixture(autouse=True)
def counted(record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Record how many pickles and mutations a test tried."""
    PICKLES.clear()
    yield
    for what, count in PICKLES.items():
        record_property(what, count)


def refused(data: bytes, tmp_path: Path, match: str = "pytorch_model") -> None:
    PICKLES["hostile pickles"] += 1
    path = f.write_torch(tmp_path / "pytorch_model.bin", data)
    with Canary(), pytest.raises(ModelError, match=match) as caught:
        to_safetensors(path, tmp_path / "out.safetensors")
    assert caught.value.hint and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not (tmp_path / "out.safetensors").exists()


NAMED = [
    "os system", "posix system", "nt system", "subprocess Popen", "subprocess check_output", "builtins eval",
    "builtins exec", "builtins getattr", "builtins __import__", "builtins compile", "builtins open", "__builtin__ eval",
    "runpy run_path", "importlib import_module", "pickle loads", "_pickle loads", "shutil rmtree", "socket socket",
    "ctypes CDLL", "operator attrgetter", "functools partial", "torch load", "torch.hub load",
    "torch._utils __import__",
    "torch.jit load", "torch.serialization load", "numpy.core.multiarray _reconstruct", "numpy load", "codecs encode",
    "pip main", "asyncio run", "collections namedtuple", "collections OrderedDict.__class__", "torch UntypedStorage",
    "torch._utils _rebuild_tensor_v2.__globals__", "torch.storage _load_from_bytes", "copyreg _reconstructor",
    "torch FloatStorage.__init__", "torch._tensor _rebuild_from_type_v2", "torch._utils _rebuild_tensor",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("how", ["global", "stack"])
def test_other_names_are_refused(tmp_path: Path, name: str, how: str) -> None:
    module, attribute = name.split()
    asked = f"c{module}\n{attribute}\n".encode() if how == "global" else f.text(module) + f.text(attribute) + b"\x93"
    refused(f.one(asked + f.text("touch /tmp/canary") + b"\x85R"), tmp_path, "asks for")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "function",
    [os.system, eval, exec, getattr, __import__, open, print, zipfile.ZipFile, np.load, pickle.loads, compile,
     subprocess.Popen, os.execv, ctypes.CDLL],
)  # fmt: skip
def test_pickles_that_call_are_refused(tmp_path: Path, function: Any, protocol: int) -> None:
    for payload in (Calls(function, "x"), {"w": Calls(function, "x")}, [Calls(function)]):
        refused(pickle.dumps(payload, protocol), tmp_path)


PLAIN = f.tensor()
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no stop": b"\x80\x02}",
    "two values": b"\x80\x02}}.",
    "open mark": b"\x80\x02(}.",
    "no mark": b"\x80\x02t.",
    "empty stack": b"\x80\x02R.",
    "protocol 6": b"\x80\x06}.",
    "protocol late": b"}\x80\x02.",
    "not a table": b"\x80\x02].",
    "a tensor alone": b"\x80\x02" + PLAIN + b".",
    "a text": f.one(f.text("x")),
    "a number": f.one(f.number(3)),
    "a nested table": f.one(b"}"),
    "a storage": f.one(f.storage()),
    "a name": f.one(f.ORDERED),
    "a number as name": f.table(f.number(1), PLAIN),
    "a tuple as name": f.table(b")", PLAIN),
    "empty name": f.table(f.text(""), PLAIN),
    "control characters": f.table(f.text("a\x1b[2J"), PLAIN),
    "a name twice": f.table(f.text("a"), PLAIN, f.text("a"), PLAIN),
    "no extent beside huge ones": f.one(f.tensor((0, 2**31 - 1, 2**31 - 1), (0, 0, 0))),
    "huge ones before none": f.one(f.tensor((2**31 - 1, 2**31 - 1, 0), (1, 1, 1))),
    "odd items": b"\x80\x02}(" + f.text("a") + b"u.",
    "items into a tensor": b"\x80\x02" + PLAIN + f.text("a") + f.text("b") + b"s.",
    "items into a text": b"\x80\x02" + f.text("q") + f.text("a") + f.text("b") + b"s.",
    "items into a list": b"\x80\x02]" + f.text("a") + f.text("b") + b"s.",
    "append to a table": b"\x80\x02}" + f.text("a") + b"a.",
    "appends to a tensor": b"\x80\x02" + PLAIN + b"(" + f.text("a") + b"e.",
    "extension": b"\x80\x02\x82\x01.",
    "extension 4": b"\x80\x02\x84\x01\0\0\0.",
    "object": b"\x80\x02" + f.ORDERED + b")\x81.",
    "object with words": b"\x80\x04" + f.ORDERED + b")}\x92.",
    "instance": b"(ios\nsystem\n.",
    "old object": b"(cos\nsystem\no.",
    "text persistent id": b"Pstorage\n.",
    "long of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "long of 255 bytes": b"\x80\x02\x8a\xff" + b"\xff" * 255 + b".",
    "text of 4 GB": b"\x80\x02X\xff\xff\xff\xff.",
    "long text": b"\x80\x02" + f.text("x" * 5000) + b".",
    "no utf-8": b"\x80\x02X\x02\0\0\0\xff\xfe.",
    "endless name": b"\x80\x02c" + b"a" * 10000,
    "bytes": b"\x80\x03C\x01a.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "buffer": b"\x80\x05\x97.",
    "frozenset": b"\x80\x04(\x91.",
    "set": b"\x80\x04\x8f.",
    "memo unknown": b"\x80\x02h\x07.",
    "memo of nothing": b"\x80\x02q\x00.",
    "pop": b"\x80\x02}0.",
    "build a tensor": b"\x80\x02" + PLAIN + b"}b.",
    "build with a tuple": b"\x80\x02}" + b")b.",
    "build __setstate__": b"\x80\x02}}" + f.text("__setstate__") + b"csys\nexit\n" + b"sb.",
    "build __class__": b"\x80\x02}}" + f.text("__class__") + f.ORDERED + b"sb.",
    "build a name": b"\x80\x02" + f.ORDERED + b"}b.",
    "call of a text": b"\x80\x02" + f.text("os.system") + f.text("id") + b"\x85R.",
    "call without a tuple": b"\x80\x02" + f.ORDERED + b"]R.",
    "ordered dict of pairs": b"\x80\x02" + f.ORDERED + b"]\x85R.",
    "call of a storage type": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "call of a tensor": b"\x80\x02" + PLAIN + b")R.",
    "parameter of a text": b"\x80\x02ctorch._utils\n_rebuild_parameter\n(" + f.text("x") + b"\x89)tR.",
    "tensor without a storage": f.one(f.tensor(of=f.text("x"))),
    "tensor of a name": f.one(f.tensor(of=b"ctorch\nFloatStorage\n")),
    "too few arguments": f.one(f.TENSOR + b"(" + f.storage() + b"K\0tR"),
    "too many arguments": f.one(f.tensor(more=b"\x89" + f.ORDERED + b")R}")),
    "shape of a list": f.one(f.TENSOR + b"(" + f.storage() + b"K\0]](tt" + b"\x89NtR"),
    "shape and strides differ": f.one(f.tensor((2, 2), (1,))),
    "nine dimensions": f.one(f.tensor((1,) * 9, (1,) * 9)),
    "negative extent": f.one(f.tensor((-4,), (1,))),
    "huge extent": f.one(f.tensor((1 << 62,), (0,))),
    "wrapping extents": f.one(f.tensor((1 << 16,) * 4, (0,) * 4)),
    "negative stride": f.one(f.tensor((4,), (-1,))),
    "stride 0": f.one(f.tensor((1000,), (0,))),
    "strides beyond": f.one(f.tensor((2, 2), (3, 1))),
    "offset beyond": f.one(f.tensor((4,), (1,), 1)),
    "negative offset": f.one(f.tensor((1,), (1,), -1)),
    "huge offset": f.one(f.tensor((1,), (1,), (1 << 63) - 1)),
    "true as an offset": f.one(f.TENSOR + b"(" + f.storage() + b"\x88" + f.whole((1,)) + f.whole((1,)) + b"\x89NtR"),
    "float as an extent": f.one(
        f.TENSOR + b"(" + f.storage() + b"K\0(G" + b"\0" * 8 + b"t" + f.whole((1,)) + b"\x89NtR"
    ),
    "storage of nothing": b"\x80\x02Q.",
    "storage of a text": f.one(f.text("storage") + b"Q"),
    "storage of four": f.one(
        b"(" + f.text("storage") + b"ctorch\nFloatStorage\n" + f.text("0") + f.text("cpu") + b"tQ"
    ),
    "storage without a type": f.one(b"(" + f.text("storage") + f.text("F") + f.text("0") + f.text("cpu") + b"K\4tQ"),
    "storage of a function": f.one(b"(" + f.text("storage") + f.TENSOR + f.text("0") + f.text("cpu") + b"K\4tQ"),
    "module id": f.one(b"(" + f.text("module") + b"ctorch\nFloatStorage\n" + f.text("0") + f.text("cpu") + b"K\4tQ"),
    "key leads out": f.one(f.tensor(of=f.storage(key="../../etc/passwd"))),
    "key elsewhere": f.one(f.tensor(of=f.storage(key="7"))),
    "key of other digits": f.one(f.tensor(of=f.storage(key="\u0663"))),
    "count too large": f.one(f.tensor(of=f.storage(count=5))),
    "count too small": f.one(f.tensor((1,), (1,), of=f.storage(count=3))),
    "count negative": f.one(f.tensor(of=f.storage(count=-4))),
    "one storage as two types": f.table(f.text("a"), PLAIN, f.text("b"), f.tensor(of=f.storage("DoubleStorage"))),
    "deep": b"\x80\x02" + b"]" * 150_000 + b"a" * 149_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 300_000 + b".",
    "laughs": b"\x80\x02)" + b"q\0h\0\x86" * 60 + b"q\0}h\0K\1s.",
    "marks": b"\x80\x02" + b"(" * 300_000 + b".",
    "endless": b"\x80\x02" + b"}0" * 10,
    "many steps": b"\x80\x02" + b")" * 450_000 + b".",
    "memo filled": b"\x80\x02}" + b"".join(b"r" + struct.pack("<I", n) for n in range(200_000)),
    "many shares": f.table(*(part for n in range(40) for part in (f.text(f"t{n}"), PLAIN))),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path: Path, case: str) -> None:
    refused(HOSTILE[case], tmp_path)


def test_a_table_over_the_limit_is_not_even_read(tmp_path: Path) -> None:
    refused(b"\x80\x02" + b"}" * (17 << 20), tmp_path, "larger than")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=80))
def test_noise_is_refused_or_plain(data: bytes) -> None:
    with suppress(PickleError):
        assert isinstance(read_tensor_table(data), dict)


@settings(max_examples=500, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_mutations_of_a_real_pickle_are_refused_or_plain(changes: list[tuple[int, int]]) -> None:
    with zipfile.ZipFile(FILES / "tensors-protocol2.bin") as archive:
        data = bytearray(archive.read("tensors-protocol2/data.pkl"))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        table = read_tensor_table(bytes(data))
    except PickleError:
        return
    assert all(view.storage.key.isdigit() for view in table.values())


# ---------------------------------------------------------------- the zip around it


def broken(path: Path, match: str) -> None:
    with Canary(), pytest.raises(ModelError, match=match) as caught:
        read_tensors(path)
    assert caught.value.hint and "\n" not in str(caught.value)


def test_files_that_are_no_such_zip(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    good = f.write_torch(path, f.one(PLAIN)).read_bytes()
    assert np.array_equal(read_tensors(path)["w"], np.zeros(4, np.float32))
    for data, match in (
        (b"", "cut short"), (b"PK", "cut short"), (good[:-1], "cut short"), (good + b"\0", "cut short"),
        (good[: len(good) // 2], "cut short"), (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "before version 1.6"), (b"x" + good, "not where it says"),
        (pickle.dumps({"a": 1}), "before version 1.6"),
    ):  # fmt: skip
        path.write_bytes(data)
        broken(path, match)
    path.unlink()
    path.mkdir()
    broken(path, "not a regular file|opened")


def test_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    pickled = f.one(PLAIN)
    for entries, match in (
        ({"a/data.pkl": pickled, "a/byteorder": b"big", "a/data/0": b"\0" * 16}, "big-endian"),
        ({"a/data.pkl": pickled, "a/constants.pkl": b"", "a/data/0": b"\0" * 16}, "TorchScript"),
        ({"a/data.pkl": pickled, "a/code/__torch__.py": b"", "a/data/0": b"\0" * 16}, "TorchScript"),
        ({"a/data.pkl": pickled}, "are missing"),
        ({"a/data.pkl": pickled, "a/data/0": b"\0" * 15}, "another size"),
        ({"a/data.pkl": pickled, "b/data.pkl": pickled}, "no table"),
        ({"data.pkl": pickled}, "no table"), ({"a/b/data.pkl": pickled}, "no table"), ({}, "no table"),
        ([("a/data.pkl", pickled), ("a/data.pkl", b"."), ("a/data/0", b"\0" * 16)], "called a/data.pkl"),
        ({"a\n/data.pkl": pickled}, "impossible name"),
    ):  # fmt: skip
        f.write_zip(path, entries)  # type: ignore[arg-type]
        broken(path, match)


def test_compressed_bombs_and_encrypted_entries(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * (1 << 20))
    broken(path, "compressed")
    data = bytearray(f.write_torch(path, f.one(PLAIN)).read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    broken(path, "encrypted")


FIELDS = {"size": 24, "packed": 20, "name length": 28, "extra length": 30, "disk": 34, "offset": 42, "method": 10}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [1, 7, 0xFFFF])
def test_a_lying_directory(tmp_path: Path, field: str, value: int) -> None:
    path = f.write_torch(tmp_path / "pytorch_model.bin", f.one(PLAIN))
    data = bytearray(path.read_bytes())
    place = data.index(b"PK\1\2") + FIELDS[field]
    data[place : place + 2] = value.to_bytes(2, "little")
    path.write_bytes(data)
    broken(path, "pytorch_model")


def test_overlapping_entries_and_two_names(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    inner = f.write_zip(tmp_path / "inner", {"x/data/0": b"\0" * 16}).read_bytes()
    local = inner[: inner.index(b"PK\1\2")]
    f.write_zip(path, {"x/data.pkl": local + f.one(PLAIN), "x/data/0": b"\0" * 16})
    data = bytearray(path.read_bytes())
    second = data.rindex(b"PK\1\2") + 42
    data[second : second + 4] = (30 + len("x/data.pkl")).to_bytes(4, "little")  # into the first entry's data
    path.write_bytes(data)
    broken(path, "overlap")
    data = f.write_torch(path, f.one(PLAIN)).read_bytes().replace(b"archive/data/0", b"archive/data/1", 1)
    path.write_bytes(data)
    broken(path, "two names")


def test_every_single_byte_of_the_directory_matters_or_is_harmless(tmp_path: Path) -> None:
    path = f.write_torch(tmp_path / "pytorch_model.bin", f.one(PLAIN), data=bytes(range(16)))
    good = path.read_bytes()
    wanted = read_tensors(path)["w"].tobytes()
    for place in range(good.index(b"PK\1\2"), len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            assert read_tensors(path)["w"].tobytes() == wanted
        except ModelError as error:
            assert error.hint
        except KeyError:
            pytest.fail("a table without its tensor")


def test_a_directory_of_a_million_entries(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0, 0)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 10**6, 10**6, 46 * 10**6, 0)
    path.write_bytes(record + struct.pack("<4sLQL", b"PK\6\7", 0, 0, 1) + end)
    broken(path, "entries, more than")


def mutate(count: int) -> None:
    """Change a real pickle in one to eight places: it is refused or plain, and nothing is run."""
    with zipfile.ZipFile(FILES / "tensors-protocol2.bin") as archive:
        good = archive.read("tensors-protocol2/data.pkl")
    dice = random.Random(count)
    with Canary():
        for _ in range(count):
            data = bytearray(good)
            for _ in range(dice.choice((1, 1, 2, 3, 8))):
                place = dice.randrange(len(data))
                match dice.randrange(4):
                    case 0:
                        del data[place : place + dice.randrange(1, 20)]
                    case 1:
                        data[place:place] = dice.randbytes(dice.randrange(1, 8))
                    case _:
                        data[place] = dice.randrange(256)
            with suppress(PickleError):
                read_tensor_table(bytes(data))
    PICKLES["mutations"] += count


def test_mutations() -> None:
    mutate(2000)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_a_million_mutations() -> None:
    mutate(1_000_000)
