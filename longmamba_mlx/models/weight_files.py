"""Which files of a model folder hold its weights."""

from __future__ import annotations

from pathlib import Path

from longmamba_mlx.errors import ConfigError, ModelError
from longmamba_mlx.storage.json_config import read_json

INDEX = "model.safetensors.index.json"
CALIBRATION = "longmamba.safetensors"

MAX_HEADER_BYTES = 8 << 20
"""Of a weight file: some 80,000 tensors with long names, which take 280 MB to read."""

_MAX_INDEX_BYTES = 64 << 20
_MAX_SHARDS = 1024
_PACKAGE = Path(__file__).parents[1]
AGAIN = "download or convert the model again"


def file_in(folder: Path, name: str) -> Path | None:
    """Return the file `name` of a model folder; None if it does not exist.

    A link must stay within the folder, or lead to the Hub client's cache, which consists of links. Raises ModelError
    for any other: a downloaded folder must not present this machine's files as its own.
    """
    path = folder / name
    if not path.is_file():
        return None
    if not _is_own(path.resolve(), folder):
        raise ModelError(
            f"{name} of {folder.name} is a link to a file outside that folder.", hint="Put the file itself there."
        )
    return path


def _is_own(real: Path, folder: Path) -> bool:
    home = folder.resolve()
    if home.parent.name == "snapshots" and home.parents[1].name.startswith("models--"):
        home = home.parents[2]  # the whole cache: large files may be shared between models
    cached = real.parent.name == "blobs" and real.parents[1].name.startswith("models--")
    # Some installers make a package of links.
    return cached or real.is_relative_to(home) or folder.absolute().is_relative_to(_PACKAGE)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a folder's weights, in a fixed order.

    Those named in `model.safetensors.index.json` if it exists, else `model*.safetensors`, else every safetensors file
    but the calibration. Raises ModelError when there is none, or the index is invalid.
    """
    if file_in(folder, INDEX) is not None:
        return indexed_files(folder, INDEX)
    found = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("*.safetensors"))
    names = [path.name for path in found if path.name != CALIBRATION]
    files = [path for name in names if (path := file_in(folder, name)) is not None]
    if files:
        return files
    if any(folder.glob("pytorch_model*.bin")):
        raise ModelError(
            f"{folder.name} holds its weights as pytorch_model.bin, which must be converted first.",
            hint="longmamba-mlx convert --hf-path FOLDER --mlx-path NEW-FOLDER",
        )
    raise ModelError(f"No weights (*.safetensors) in {folder}.", hint="Was the download or conversion finished?")


def indexed_files(folder: Path, index: str) -> list[Path]:
    """The files that a shard index of `folder` names; all of them are there. Raises ModelError."""
    try:
        table = read_json(folder / index, max_bytes=_MAX_INDEX_BYTES).get("weight_map")
    except ConfigError as error:
        raise ModelError(str(error), hint=error.hint or AGAIN) from error
    if not isinstance(table, dict) or not table:
        raise ModelError(f"{index} holds no weight_map", hint=AGAIN)
    suffix = ".bin" if index.endswith(".bin.index.json") else ".safetensors"
    names = sorted({_shard_name(name, index, suffix) for name in table.values()})
    if len(names) > _MAX_SHARDS:
        raise ModelError(f"{index} names {len(names)} files, more than {_MAX_SHARDS}.", hint=AGAIN)
    files = []
    for name in names:
        path = file_in(folder, name)
        if path is None:
            raise ModelError(f"{name} is missing from {folder}.", hint="Finish the download, then try again.")
        files.append(path)
    return files


def _shard_name(name: object, index: str, suffix: str) -> str:
    """Check that an entry is a plain file name: an index must not lead out of its folder."""
    plain = (
        isinstance(name, str)
        and name.endswith(suffix)
        and not name.startswith((".", "~"))
        and name.isprintable()
        and len(name) <= 255
        and not set(name) & set("/\\:")
    )
    if not plain:
        shown = ascii(name)[:60] if isinstance(name, str) else type(name).__name__
        raise ModelError(f"{index} names a file that is not a plain {suffix[1:]} name: {shown}.", hint=AGAIN)
    return str(name)
