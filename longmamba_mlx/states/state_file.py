"""The state file: a model state after a document, with a key of everything it depends on.

The same format with fewer tokens done than its key says is a checkpoint inside the document.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from longmamba_mlx.documents.sanitise import sanitise
from longmamba_mlx.errors import LongMambaError, NumericError, StateError
from longmamba_mlx.storage import checked_safetensors, safetensors_header

if TYPE_CHECKING:
    import mlx.core as mx
    import numpy as np
    import numpy.typing as npt

    from longmamba_mlx.models.state import ModelState

    Threshold: TypeAlias = npt.NDArray[np.float32] | None

Info: TypeAlias = Mapping[str, str | int | float | bool | None]

FORMAT_VERSION = 2  # 2: added kept shares, text map, digest of the ids, and the prompt's opening in the key
_MAX_LAYERS = 1024
_THRESHOLD = "thresholds."
_KEPT = "kept"
_TEXT_MAP = "text_map"


class UnreadableStateError(StateError):
    """The file could not be read at the moment; its content may be valid."""


@dataclass(frozen=True, slots=True)
class StateKey:
    """Everything a state depends on: readings that differ in one field never share a state."""

    document: str  # sha256 of the text
    reader: int  # documents.READER_VERSION that gave the text; any other that gives this text will do
    tokens: int  # of the whole document
    tokenizer: str  # sha256 of tokenizer.json
    model: str  # fingerprint of the weights
    config: str  # sha256 of config.json, or its text
    quantisation: str
    filter: str  # digest of the plan's settings
    calibration: str  # sha256 of the calibration file, "" without one
    plan_length: int  # total length the plan was made for
    chunk: int  # tokens per model call
    kernel: str  # name and version of the scan
    dtype: str  # of the weights
    opening: str = ""  # sha256 of what the prompt form puts before the document, "" for nothing
    format_version: int = FORMAT_VERSION

    def digest(self) -> str:
        """The name under which the state is stored: sha256 of the fields as canonical JSON, hex."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> StateKey:
        """The inverse of `to_json`. Raises ValueError for missing, unknown or mistyped fields."""
        table = parse_table(text)
        # With `from __future__ import annotations` a field's type is its name.
        if {name: type(value).__name__ for name, value in table.items()} != {f.name: f.type for f in fields(cls)}:
            raise ValueError("its key is not of this version")
        return cls(**table)


@dataclass(frozen=True, slots=True)
class StoredState:
    """The content of a state file. `thresholds`: per layer (units,) float32, None where nothing was filtered.

    kept (tokens,) uint8 and text_map (2, k) int64 are described in `tokenization.offsets`, None if absent; `ids` is the
    sha256 (hex) of the token ids read, as little-endian uint32, "" if it was not computed.
    """

    key: StateKey
    state: ModelState
    thresholds: tuple[Threshold, ...]
    info: dict[str, Any]
    kept: npt.NDArray[np.uint8] | None = None
    text_map: npt.NDArray[np.int64] | None = None
    ids: str = ""


def write_state(
    path: Path,
    key: StateKey,
    state: ModelState,
    thresholds: Sequence[Threshold],
    info: Info,
    *,
    kept: npt.NDArray[np.uint8] | None = None,
    text_map: npt.NDArray[np.int64] | None = None,
    ids: str = "",
) -> None:
    """Write a state file atomically; the arguments are the fields of `StoredState`.

    `thresholds` has one entry per layer, or none at all. `info` is shown to people (title, source, date): texts,
    numbers and None, not nested. Raises DiskError; NumericError for a state that is not finite; ValueError or TypeError
    for arguments that do not belong together.
    """
    import numpy as np

    if not state.is_finite():
        raise NumericError("The document state holds NaN or infinity and is not stored.", hint="Read it again.")
    if not 0 <= state.tokens <= key.tokens or len(thresholds) not in (0, len(state.layers)):
        raise ValueError("key, state and thresholds do not belong together")
    arrays: dict[str, checked_safetensors.Array] = dict(state.arrays())
    for index, threshold in enumerate(thresholds):
        if threshold is not None:
            arrays[f"{_THRESHOLD}{index}"] = np.asarray(threshold, np.float32)
    if kept is not None:
        arrays[_KEPT] = np.asarray(kept, np.uint8)
    if text_map is not None:
        arrays[_TEXT_MAP] = np.asarray(text_map, np.int64)
    metadata = {
        "key": key.to_json(),
        "done": str(state.tokens),
        "ids": ids,
        "layers": str(len(thresholds)),
        "depth": str(len(state.layers)),
        "window": "" if state.window is None else str(state.window),
        "own_windows": " ".join(f"{layer}:{window}" for layer, window in state.own_windows.items()),
        "info": json.dumps(dict(info), ensure_ascii=True, allow_nan=False),
    }
    parse_table(metadata["info"])
    checked_safetensors.save_arrays(path, arrays, metadata)


def read_state(
    path: Path, *, key: StateKey | None = None, like: ModelState | None = None, whole: bool = True
) -> StoredState:
    """Read a state file and check all of it: layout, digests, numbers, and every field of `key` if given.

    `like` is the model's initial state: names, dtypes and shapes are compared with it before any data is read. A
    checkpoint is refused unless `whole` is False. Raises StateError, one line that says what is wrong;
    UnreadableStateError when the file could not be read at all.
    """
    from longmamba_mlx.models.state import ModelState

    try:
        expected = None if like is None else _expected(path, like)
        arrays, metadata = checked_safetensors.load_arrays(path, expected=expected)
        found = StateKey.from_json(metadata["key"])
        _compare(found, key)
        done = int(metadata["done"])
        if not 0 <= done <= found.tokens or (whole and done != found.tokens):
            raise ValueError("it ends before its document does")
        thresholds = _take_thresholds(arrays, int(metadata["layers"]))
        kept, text_map = _take_maps(arrays, done)
        state = ModelState.from_arrays(arrays, done, _depth(metadata), _window(metadata), _own_windows(metadata))
        if not state.is_finite():
            raise ValueError("it holds NaN or infinity")
        info, ids = parse_table(metadata["info"]), metadata["ids"]
    except (LongMambaError, ValueError) as error:
        _refuse(path, str(error), unreadable=isinstance(error, safetensors_header.UnreadableError))
    except KeyError as error:
        _refuse(path, f"{error} is missing")
    return StoredState(found, state, thresholds, info, kept, text_map, ids)


def read_key(path: Path) -> tuple[StateKey, dict[str, Any], int]:
    """Read a state file's key, info and number of tokens read from its header alone. Raises StateError."""
    try:
        metadata = safetensors_header.check_safetensors(path).get("__metadata__", {})
        key, info = StateKey.from_json(metadata["key"]), parse_table(metadata["info"])
        return key, info, int(metadata["done"])
    except (LongMambaError, ValueError) as error:
        _refuse(path, str(error))
    except KeyError as error:
        _refuse(path, f"{error} is missing")


def parse_table(text: str) -> dict[str, Any]:
    """Parse a flat JSON object: texts without control codes, numbers, None. Raises ValueError."""
    try:
        table = json.loads(text)
    except RecursionError:
        raise ValueError("it holds nested data") from None
    if not isinstance(table, dict) or any(isinstance(value, list | dict) for value in table.values()):
        raise ValueError("it holds nested data")
    return {sanitise(name): sanitise(value) if isinstance(value, str) else value for name, value in table.items()}


def _refuse(path: Path, reason: str, *, unreadable: bool = False) -> NoReturn:
    kind = UnreadableStateError if unreadable else StateError
    name = path.name if len(path.name) <= 24 else f"{path.name[:12]}…"
    raise kind(f"The stored state {name!r} cannot be used: {reason}.", hint="Read the document again.") from None


def _compare(found: StateKey, wanted: StateKey | None) -> None:
    for field in fields(StateKey):
        if wanted is not None and getattr(found, field.name) != getattr(wanted, field.name):
            raise ValueError(f"it was made with another {field.name.replace('_', ' ')}")


def _expected(path: Path, like: ModelState) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors that this state file of this model must hold; some layers have no thresholds."""
    header = safetensors_header.check_safetensors(path)
    shapes = like.shapes(int(header["__metadata__"]["done"]))
    expected = {name: (checked_safetensors.dtype_name(array), shapes[name]) for name, array in like.arrays().items()}
    for index, layer in enumerate(like.layers):
        name = f"{_THRESHOLD}{index}"
        if name in header and layer.ssm is not None:
            expected[name] = ("F32", (layer.ssm.shape[1],))  # one per unit: channel or head
    for name, dtype in ((_KEPT, "U8"), (_TEXT_MAP, "I64")):
        if name in header:  # their lengths follow from the document and are checked once they are read
            expected[name] = (dtype, tuple(header[name]["shape"]))
    return expected


def _depth(metadata: Mapping[str, str]) -> int | None:
    """The number of layers, which the arrays do not tell: a layer without state has none."""
    depth = int(metadata["depth"]) if "depth" in metadata else None
    if depth is not None and not 0 < depth <= _MAX_LAYERS:
        raise ValueError("its number of layers is invalid")
    return depth


def _window(metadata: Mapping[str, str]) -> int | None:
    """The attention window in tokens; older files have no such entry."""
    window = int(metadata["window"]) if metadata.get("window") else None
    if window is not None and window < 1:
        raise ValueError("its attention window is invalid")
    return window


def _own_windows(metadata: Mapping[str, str]) -> dict[int, int]:
    """The windows of layers that were trained with one; older files have no such entry."""
    pairs = [pair.partition(":") for pair in metadata.get("own_windows", "").split()]
    windows = {int(layer): int(window) for layer, _, window in pairs}
    if any(layer < 0 or window < 1 for layer, window in windows.items()):
        raise ValueError("its attention windows are invalid")
    return windows


def _take_thresholds(arrays: dict[str, mx.array], layers: int) -> tuple[Threshold, ...]:
    """Move the thresholds out of `arrays`; -inf marks a unit that is never filtered, NaN is invalid."""
    import numpy as np

    if not 0 <= layers <= len(arrays):
        raise ValueError("its number of layers is invalid")
    thresholds: list[Threshold] = []
    for index in range(layers):
        array = arrays.pop(f"{_THRESHOLD}{index}", None)
        threshold = None if array is None else np.array(array, np.float32)
        if threshold is not None and np.isnan(threshold).any():
            raise ValueError("its thresholds hold NaN")
        thresholds.append(threshold)
    return tuple(thresholds)


def _take_maps(
    arrays: dict[str, mx.array], done: int
) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.int64] | None]:
    """Move the kept shares and the text map out of `arrays`."""
    import numpy as np

    from longmamba_mlx.tokenization.offsets import TextMap

    kept, text_map = (arrays.pop(name, None) for name in (_KEPT, _TEXT_MAP))
    if kept is not None and kept.shape != (done,):
        raise ValueError("its kept shares are not one for each token")
    return (
        None if kept is None else np.array(kept, np.uint8),
        None if text_map is None else TextMap.from_array(np.array(text_map, np.int64)).array(),
    )
