"""A converted model folder -> a model ready to read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from longmamba_mlx import ops
from longmamba_mlx.boundedjson import Reader
from longmamba_mlx.config import ModelConfig, parse_config, read_json
from longmamba_mlx.errors import ModelError
from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.safeio import sha256_file
from longmamba_mlx.weights import check_weights, read_weights, weight_files


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything that says which one it is.

    `fingerprint` is the sha256 (hex) over the weight files and the checked config; `quantisation` is "none"
    or e.g. "q4-g64"; `settings` is the "longmamba" block of config.json; `name` is the folder's.
    """

    model: LanguageModel
    config: ModelConfig
    folder: Path
    fingerprint: str
    quantisation: str
    settings: dict[str, object]
    name: str

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return sum(array.size for array in dict(tree_flatten(self.model.parameters())).values())


def load_model(folder: str | Path) -> LoadedModel:
    """Load the model in `folder` (config.json and *.safetensors), with every tensor in memory.

    Raises ModelError (ConfigError for config.json), with a hint, when something is missing, broken or
    unknown.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ModelError(f"no model folder {folder}", hint="convert a model first, or use the built-in one: demo")
    if not (folder / "config.json").is_file():
        raise ModelError(f"no config.json in {folder}", hint="is this a model folder?")
    raw = read_json(folder / "config.json")
    config = parse_config(raw)
    files = weight_files(folder)
    model = FAMILIES[config.model_type](config)
    weights = model.sanitize(read_weights(files))
    quantisation = _quantise(model, raw, weights)
    check_weights(dict(tree_flatten(model.parameters())), weights)
    model.load_weights(list(weights.items()))
    _make_ready(model)
    return LoadedModel(
        model=model,
        config=config,
        folder=folder,
        fingerprint=_fingerprint(files, config),
        quantisation=quantisation,
        settings=_settings(raw),
        name=folder.resolve().name,
    )


def _quantise(model: LanguageModel, raw: Mapping[str, object], weights: Mapping[str, mx.array]) -> str:
    """Give quantised layers to the modules whose weights are quantised, as mlx-lm's config describes them."""
    if raw.get("quantization") is None:
        return "none"
    reader = Reader(raw).table("quantization")
    bits, group = reader.integer("bits", 8, minimum=2), reader.integer("group_size", 128, minimum=16)
    nn.quantize(model, group, bits, class_predicate=lambda path, _: f"{path}.scales" in weights)
    return f"q{bits}-g{group}"


def _make_ready(model: LanguageModel) -> None:
    model.eval()
    if ops.numpy_backed():
        from longmamba_mlx.models.numpy_layers import use_numpy_layers

        use_numpy_layers(model)
    mx.eval(model.parameters())


def _fingerprint(files: list[Path], config: ModelConfig) -> str:
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
    for path in files:
        try:
            digest.update(bytes.fromhex(sha256_file(path)))
        except OSError as error:
            raise ModelError(f"cannot read {path.name}: {error.strerror or error}") from error
    return digest.hexdigest()


def _settings(raw: Mapping[str, object]) -> dict[str, object]:
    return dict(Reader(raw).table("longmamba").raw)
