"""A converted model folder -> a model ready to read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from longmamba_mlx.errors import ModelError
from longmamba_mlx.models import FAMILIES, LanguageModel, memory
from longmamba_mlx.models.config.parse import ModelConfig, parse_config, read_json
from longmamba_mlx.models.kernel_check import check_kernels
from longmamba_mlx.models.linear import use_batched_linears
from longmamba_mlx.models.quantisation import few_bit_steps, parse_quantisation, unpack_layers
from longmamba_mlx.models.weight_files import file_in, weight_files
from longmamba_mlx.models.weights import check_weights, read_weights
from longmamba_mlx.ops import backend, precision
from longmamba_mlx.storage.atomic import sha256_file
from longmamba_mlx.storage.json_config import Reader

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class LoadedModel:
    """A model with everything that says which one it is.

    `fingerprint` is the sha256 (hex) over the weight files and the checked config; `quantisation` is "none"
    or e.g. "q4-g64"; `settings` is the "longmamba" block of config.json; `name` is the folder's; `notes` are lines
    for a person about what the weights were made to be.
    """

    model: LanguageModel
    config: ModelConfig
    folder: Path
    fingerprint: str
    quantisation: str
    settings: dict[str, object]
    name: str
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers the weights hold."""
        return sum(array.size for array in dict(tree_flatten(self.model.parameters())).values())


@dataclass(frozen=True)
class _Folder:
    """A model folder whose tensors are checked and assigned, and still lazy."""

    model: LanguageModel
    config: ModelConfig
    raw: Mapping[str, object]
    files: list[Path]
    quantisation: str


def load_model(folder: str | Path, *, attention_window: int | None = None) -> LoadedModel:
    """Load the model in `folder` (config.json and *.safetensors), with every tensor in memory.

    With `attention_window` the attention layers of a hybrid remember that many of the latest tokens, and the first
    four. Raises ModelError (ConfigError for config.json), with a hint, when something is missing, broken or unknown.
    """
    precision.ask_for_float32()
    folder = Path(folder).expanduser()
    found = _assemble(folder, attention_window)
    notes = _notes(found.model)
    memory.require(
        memory.weights_bytes(found.model),
        folder.resolve().name,
        "Take a smaller model: longmamba-mlx models lists some",
    )
    make_ready(found.model)
    return LoadedModel(
        model=found.model,
        config=with_end_tokens(found.config, folder),
        folder=folder,
        fingerprint=_fingerprint(found.files, found.config),
        quantisation=found.quantisation,
        settings=_settings(found.raw),
        name=folder.resolve().name,
        notes=notes,
    )


def lazy_model(folder: Path, attention_window: int | None = None) -> LanguageModel:
    """The model in `folder` with tensors that are loaded when they are used. Raises ModelError."""
    model = _assemble(folder, attention_window).model
    model.eval()
    return model


def _assemble(folder: Path, attention_window: int | None) -> _Folder:
    if not folder.is_dir():
        raise ModelError(f"No model folder {folder}.", hint="Convert a model first, or use the built-in one: demo")
    if not (folder / "config.json").is_file():
        raise ModelError(f"No config.json in {folder}.", hint="Is this a model folder?")
    raw = read_json(folder / "config.json")
    config = parse_config(raw)
    files = weight_files(folder)
    family = FAMILIES[config.model_type]
    config, stored = family.mended(config, read_weights(files))
    if config.hybrid is not None:
        config = dataclasses.replace(config, hybrid=config.hybrid.within(attention_window))
    model = family(config)
    weights = model.sanitize(stored)
    quantisation = _quantise(model, raw, weights)
    check_weights(dict(tree_flatten(model.parameters())), weights)
    model.load_weights(list(weights.items()))
    return _Folder(model, config, raw, files, quantisation)


def _notes(model: LanguageModel) -> tuple[str, ...]:
    bits = few_bit_steps(model)
    if bits is None:
        return ()
    return (
        f"The layers that decide step sizes are stored in {bits} bits here: the filter keeps other tokens than in the "
        "unquantised model. longmamba-mlx convert -q keeps these layers at 8 bits.",
    )


def with_end_tokens(config: ModelConfig, folder: Path) -> ModelConfig:
    """The config with the tokens that end an answer in generation_config.json: chat models often name them only there.

    Raises ConfigError.
    """
    path = file_in(folder, "generation_config.json")
    if path is None:
        return config
    more = Reader(read_json(path)).token_ids("eos_token_id", config.vocab_size)
    return dataclasses.replace(config, eos_token_ids=tuple(dict.fromkeys([*config.eos_token_ids, *more])))


def _quantise(model: LanguageModel, raw: Mapping[str, object], weights: Mapping[str, mx.array]) -> str:
    """Give quantised layers to the modules whose weights are quantised, as mlx-lm's config describes them."""
    quantisation = parse_quantisation(raw)
    if quantisation is None:
        return "none"
    quantisation.apply(model, weights)
    return quantisation.name


def make_ready(model: LanguageModel) -> None:
    """Bring a model whose parameters are set into the form that runs fastest on this machine."""
    model.eval()
    if backend.in_numpy():
        from longmamba_mlx.models.numpy_layers import use_numpy_layers

        unpack_layers(model)
        use_numpy_layers(model)
    else:
        _widen(model)
        use_batched_linears(model)
    mx.eval(model.parameters())
    check_kernels(model)


def make_layer_ready(model: LanguageModel, index: int) -> None:
    """`make_ready` for one layer: only its tensors are loaded."""
    layer = model.layers[index]
    if backend.in_numpy():
        from longmamba_mlx.models.numpy_layers import use_numpy_layer

        unpack_layers(layer)
        use_numpy_layer(layer, model.config)
    else:
        _widen(layer)
    mx.eval(layer.parameters())


def make_table_ready(table: nn.Module, config: ModelConfig) -> None:
    """`make_ready` for the table of the head alone."""
    if backend.in_numpy():
        from longmamba_mlx.models.numpy_layers import use_numpy_linears_of

        use_numpy_linears_of(table, config)


def _widen(model: nn.Module) -> None:
    """Keep in float32 what is used in it: the norms of the residual stream, and the projection that makes dt.

    Every call would convert them otherwise: four launches a layer for 1 or 2 % of a 16-bit model's memory. The norms of
    Mamba-3's B and C have 16-bit inputs, which would be converted.
    """
    for name, module in model.named_modules():
        norm = isinstance(module, nn.RMSNorm | nn.LayerNorm) and not name.endswith(("B_norm", "C_norm"))
        if norm or (type(module) is nn.Linear and name.endswith("dt_proj")):
            module.update({key: array.astype(mx.float32) for key, array in module.parameters().items()})


def _fingerprint(files: list[Path], config: ModelConfig) -> str:
    facts = dataclasses.asdict(config)
    # Keys that are younger than the fingerprints of models which do not need them.
    for key in ("hybrid", "mamba3"):
        if facts[key] is None:
            del facts[key]
    if config.hybrid is not None:
        if config.hybrid.conv_activation:
            del facts["hybrid"]["conv_activation"]
        if config.hybrid.attention is not None:
            del facts["hybrid"]["attention"]["window"]  # how it is run, not which model it is
            del facts["hybrid"]["attention"]["first"]
            for key in ("conv", "own_window"):
                if not facts["hybrid"]["attention"][key]:
                    del facts["hybrid"]["attention"][key]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in files:
        digest.update(bytes.fromhex(_checked_sha256(path)))
    return digest.hexdigest()


def _checked_sha256(path: Path) -> str:
    """A weight file's sha256 (hex). Raises ModelError where it is not the one by which the Hub's cache names it."""
    try:
        found = sha256_file(path)
    except OSError as error:
        raise ModelError(f"Cannot read {path.name}: {error.strerror or error}") from error
    named = path.resolve().name if path.is_symlink() else found
    if _SHA256.fullmatch(named) and named != found:
        raise ModelError(
            f"{path.name} is damaged in the Hub client's cache: its sha256 is another.",
            hint="Delete it there and download it again.",
        )
    return found


def _settings(raw: Mapping[str, object]) -> dict[str, object]:
    return dict(Reader(raw).table("longmamba").raw)
