"""The table of tensors in a torch.save pickle: five names are known, and none of them is a function here."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.conversion.torch_pickle.machine import Machine, PickleError

MAX_BYTES = 16 << 20
_MAX_DIMENSIONS = 8
_MAX_EXTENT = 2**31 - 1
_MAX_COUNT = 1 << 48

# What torch calls its storages, in safetensors' names for the same numbers.
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}


@dataclass(frozen=True, slots=True)
class Storage:
    """`count` numbers of `dtype` (safetensors' name) in the zip entry `key`."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """A strided window on a storage that does not reach beyond it; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """A global of the pickle, only ever compared. `dtype` is a storage type's."""

    text: str
    dtype: str = ""


_DICT = _Name("collections OrderedDict")
_TENSOR = _Name("torch._utils _rebuild_tensor_v2")
_PARAMETER = _Name("torch._utils _rebuild_parameter")
_KNOWN = {name.text: name for name in (_DICT, _TENSOR, _PARAMETER)} | {
    f"torch {name}": _Name(f"torch {name}", dtype) for name, dtype in _STORAGES.items()
}


def read_tensor_table(data: bytes) -> dict[str, TensorView]:
    """Name -> tensor, as a pickle (data.pkl of a torch.save file) describes them.

    Nothing is imported, called or allocated beyond the description itself. The contents of the storages are
    not known here. Raises PickleError for everything but a table of tensors.
    """
    if len(data) > MAX_BYTES:
        raise PickleError(f"its table of tensors is larger than {MAX_BYTES:,} bytes")
    table = Machine(data, _TorchMeanings()).run()
    if not isinstance(table, dict):
        raise PickleError(f"it holds {_kind(table)}, not a table of tensors")
    for name, value in table.items():
        if not isinstance(value, TensorView):
            raise PickleError(f"it holds {_kind(value)} under {ascii(name)[:60]}, not only tensors")
        if not name or not name.isprintable():
            raise PickleError(f"a tensor has the impossible name {ascii(name)[:60]}")
    return table


class _TorchMeanings:
    """See `pickle_machine.Meanings`."""

    def name(self, module: str, name: str) -> object:
        known = _KNOWN.get(f"{module} {name}")
        if known is None:
            raise PickleError(
                f"its pickle asks for {ascii(f'{module}.{name}')[1:-1][:80]}; nothing but tensors is read from it",
                hint="use a revision with safetensors files; a table of tensors needs no code",
            )
        return known

    def call(self, function: object, arguments: tuple[object, ...]) -> object:
        if function is _DICT and not arguments:
            return {}
        if function is _TENSOR:
            return _tensor(arguments)
        if function is _PARAMETER and len(arguments) == 3 and isinstance(arguments[0], TensorView):
            return arguments[0]
        raise PickleError("its pickle builds something that is not a tensor")

    def state(self, value: object, state: object) -> None:
        """A module's table carries version numbers of its layers: dropped."""
        if type(value) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
            raise PickleError("its pickle sets attributes of something")

    def reference(self, identity: object) -> object:
        """The only kind there is: ("storage", type, key, device, count)."""
        if not isinstance(identity, tuple) or len(identity) != 5 or not _is_text(identity[0], "storage"):
            raise PickleError("its pickle refers to something that is not a storage")
        _, name, key, _, count = identity
        if not isinstance(name, _Name) or not name.dtype:
            raise PickleError("a storage in its pickle has no type")
        if not isinstance(key, str) or not key.isascii() or not key.isdigit() or len(key) > 12:
            raise PickleError("a storage in its pickle has an impossible key")
        return Storage(name.dtype, key, _whole(count, _MAX_COUNT))


def _tensor(arguments: tuple[object, ...]) -> TensorView:
    """From what _rebuild_tensor_v2 is given: storage, offset, shape, strides, requires_grad, hooks."""
    if len(arguments) != 6:
        raise PickleError("a tensor in its pickle is not described as torch.save does it")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage):
        raise PickleError("a tensor in its pickle has no storage")
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise PickleError("a tensor in its pickle has no shape")
    if len(shape) > _MAX_DIMENSIONS:
        raise PickleError(f"a tensor in its pickle has {len(shape)} dimensions")
    view = TensorView(
        storage,
        _whole(offset, _MAX_COUNT),
        tuple(_whole(extent, _MAX_EXTENT) for extent in shape),
        tuple(_whole(stride, _MAX_COUNT) for stride in strides),
    )
    size, extents, last = 1, 1, view.offset
    for extent, stride in zip(view.shape, view.strides, strict=True):
        size *= extent
        extents *= max(extent, 1)
        last += (extent - 1) * stride
    if extents > _MAX_COUNT:  # an extent of 0 beside others that NumPy cannot multiply
        raise PickleError("a tensor in its pickle has an impossible size")
    # Strides of 0 could make a huge tensor of a small storage; no checkpoint is written so.
    if size and (last >= storage.count or size > storage.count):
        raise PickleError("a tensor in its pickle reaches beyond its storage")
    return view


def _whole(value: object, maximum: int) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise PickleError("a tensor in its pickle has an impossible size")
    return value


def _is_text(value: object, text: str) -> bool:
    return isinstance(value, str) and value == text


def _kind(value: object) -> str:
    names = {dict: "a table", list: "a list", tuple: "a tuple", str: "a text", TensorView: "a tensor"}
    return names.get(type(value), "something else")
