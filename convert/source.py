"""Find a checkpoint, and its config and tensor files whatever their layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longmamba_mlx.builtin import BUILT_IN, built_in_model
from longmamba_mlx.conversion.hub.download import snapshot
from longmamba_mlx.conversion.hub.files import TORCH_INDEX
from longmamba_mlx.conversion.report import Report
from longmamba_mlx.conversion.torch_pickle.archive import to_safetensors
from longmamba_mlx.errors import ModelError
from longmamba_mlx.ground.hub_id import is_hub_id
from longmamba_mlx.models.config.parse import parse_config, read_json
from longmamba_mlx.models.quantisation import parse_quantisation
from longmamba_mlx.models.weight_files import INDEX, file_in, indexed_files, weight_files

_TORCH = "pytorch_model.bin"


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint's folder; `repository` and `revision` (a commit) where it came from the Hub."""

    folder: Path
    repository: str | None = None
    revision: str | None = None

    @property
    def origin(self) -> dict[str, object] | None:
        """The origin recorded in a converted folder, without paths of this machine."""
        return None if self.repository is None else {"repository": self.repository, "revision": self.revision}


def find_source(hf_path: str | Path, *, revision: str | None, offline: bool, report: Report) -> Source:
    """The folder of a checkpoint: a folder, a built-in model's, or downloaded. Raises ModelError."""
    folder = Path(hf_path).expanduser()
    if folder.is_dir():
        return Source(folder)
    if str(hf_path) in BUILT_IN:
        return Source(built_in_model(str(hf_path)))
    if is_hub_id(str(hf_path)):
        found = snapshot(
            str(hf_path), revision=revision, offline=offline, report=report, check_config=_refuse_unsupported
        )
        return Source(found.folder, found.repository, found.revision)
    raise ModelError(
        f"There is no folder '{hf_path}'.", hint="Give a folder, or a Hub id such as state-spaces/mamba-130m-hf"
    )


def _refuse_unsupported(folder: Path) -> None:
    """Raise ModelError for a model of another family, or quantised by another program: its weights stay where they
    are."""
    raw = read_config(folder)
    parse_config(raw)
    parse_quantisation(raw)


def read_config(folder: Path) -> dict[str, object]:
    """The raw config, in one of the dialects that `parse_config` knows. Raises ModelError or ConfigError."""
    if (path := file_in(folder, "config.json")) is not None:
        return read_json(path)
    if (path := file_in(folder, "params.json")) is not None:
        return _from_mistral(read_json(path))
    raise ModelError(f"No config.json in {folder}.", hint="Is this a model folder?")


def _from_mistral(params: Mapping[str, object]) -> dict[str, object]:
    """Mistral's own params.json (Codestral-Mamba) in the words of mamba_ssm, whose layer it uses."""
    if params.get("model_type") != "mamba" or "dim" not in params or "n_layers" not in params:
        raise ModelError("params.json is not that of a Mamba model", hint="Is this a model folder?")
    layer: dict[str, object] = {"layer": "Mamba2"}
    if "n_groups" in params:
        layer["ngroups"] = params["n_groups"]
    renamed = {"dim": "d_model", "n_layers": "n_layer"}
    same = ("vocab_size", "pad_vocab_size_multiple", "tie_embeddings", "rms_norm")
    table = {new: params[old] for old, new in renamed.items()} | {key: params[key] for key in same if key in params}
    return {"ssm_cfg": layer, "tie_embeddings": False, "pad_vocab_size_multiple": 1} | table


def tensor_files(folder: Path, workplace: Path) -> list[Path]:
    """The safetensors files that hold the tensors; pytorch_model.bin, where there are none, rewritten in `workplace`.

    Raises ModelError, OSError when `workplace` cannot be written.
    """
    if file_in(folder, INDEX) is None and not any(folder.glob("*.safetensors")):
        files = _torch_files(folder)
        if files:
            return [_rewritten(path, workplace) for path in files]
    return weight_files(folder)


def _torch_files(folder: Path) -> list[Path]:
    if file_in(folder, TORCH_INDEX) is not None:
        return indexed_files(folder, TORCH_INDEX)
    path = file_in(folder, _TORCH)
    return [] if path is None else [path]


def _rewritten(path: Path, workplace: Path) -> Path:
    workplace.mkdir(exist_ok=True)
    target = workplace / f"{path.name}.safetensors"
    to_safetensors(path, target)
    return target
