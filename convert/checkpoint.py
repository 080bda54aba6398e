"""Convert a checkpoint: read and check it, rename, cast and quantise its tensors, write a folder that appears whole."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from longmamba_mlx.conversion.dialects import config_text, normalised_config
from longmamba_mlx.conversion.folder import drafted, refuse_occupied, require_space, write_weights
from longmamba_mlx.conversion.names import rename, stays_float32
from longmamba_mlx.conversion.report import Report, Silent
from longmamba_mlx.conversion.source import Source, find_source, read_config, tensor_files
from longmamba_mlx.conversion.vocabulary import write_tokenizer
from longmamba_mlx.errors import ModelError
from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import ModelConfig, parse_config
from longmamba_mlx.models.loading import with_end_tokens
from longmamba_mlx.models.quantisation import LayerFormat, parse_quantisation
from longmamba_mlx.models.weights import check_weights, read_weights
from longmamba_mlx.storage.atomic import write_text

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
_SPARE = 16 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What to convert and how; see `longmamba_mlx.conversion.convert`. `form`: None for not quantised."""

    hf_path: str | Path
    dtype: str | None = None
    revision: str | None = None
    offline: bool = False
    tokenizer: str | Path | None = None
    form: LayerFormat | None = None
    report: Report = field(default_factory=Silent)


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """A source whose config and tensors are read, checked and cast; `raw` is the source's config."""

    source: Source
    raw: Mapping[str, object]
    config: ModelConfig
    weights: dict[str, mx.array]


def find(request: Request) -> Source:
    """The checkpoint on this machine, downloaded if need be. Raises ModelError, DiskError."""
    if request.dtype is not None and request.dtype not in DTYPES:
        raise ModelError(f"Unknown dtype '{request.dtype}'", hint=f"Use one of: {', '.join(DTYPES)}")
    return find_source(request.hf_path, revision=request.revision, offline=request.offline, report=request.report)


def convert_checkpoint(request: Request, target: Path) -> None:
    """Write the model folder `target`; see `longmamba_mlx.conversion.convert`."""
    refuse_occupied(target)
    convert_source(request, find(request), target)


def convert_source(request: Request, source: Source, target: Path) -> None:
    """Write the model folder `target` from a checkpoint that is on this machine. Raises ModelError, DiskError."""
    refuse_occupied(target)
    raw = read_config(source.folder)
    _refuse_quantised(raw)
    config = parse_config(raw)
    with drafted(target) as draft:
        write_tokenizer(
            draft, source.folder, config, raw,
            choice=request.tokenizer, offline=request.offline, report=request.report,
        )  # fmt: skip
        workplace = draft / "source"
        files = tensor_files(source.folder, workplace)
        read = partial(_read, request, source, raw, config, files)
        require_space(target, sum(array.nbytes for array in read().weights.values()) + _SPARE)
        _write(draft, read, request)
        shutil.rmtree(workplace, ignore_errors=True)


def _refuse_quantised(raw: Mapping[str, object]) -> None:
    if parse_quantisation(raw) is not None:
        raise ModelError(
            "The checkpoint is quantised already, in MLX format, and needs no conversion.",
            hint="Use it as it is: longmamba-mlx use OWNER/NAME or FOLDER; for other bits convert the original with -q",
        )


def _read(
    request: Request, source: Source, raw: Mapping[str, object], config: ModelConfig, files: Sequence[Path]
) -> _Checkpoint:
    """Check and cast the tensors. They are lazy: each is loaded when it is used, and again after a next call."""
    weights = rename(read_weights(files))
    config = _with_head(config, raw, weights)
    family = FAMILIES[config.model_type]
    mended, stored = family.mended(config, weights)
    model = family(mended)
    weights = model.sanitize(stored)
    check_weights(dict(tree_flatten(model.parameters())), weights)
    weights = {name: _cast(name, array, request.dtype) for name, array in weights.items()}
    if config.hybrid is not None:
        # After the cast: factors that are multiplied into float32 weights are not rounded to 16 bit.
        raw, weights = model.to_mlx_lm(raw, weights)
        config = parse_config(raw)
    return _Checkpoint(source, raw, config, weights)


def _write(draft: Path, read: Callable[[], _Checkpoint], request: Request) -> None:
    checkpoint = read()
    block: dict[str, object] = {}
    if checkpoint.source.origin is not None:
        block["source"] = checkpoint.source.origin
    ends = with_end_tokens(checkpoint.config, checkpoint.source.folder).eos_token_ids
    table = normalised_config(checkpoint.config, checkpoint.raw, dtype=request.dtype, end_tokens=ends, block=block)
    if request.form is None:
        write_text(draft / "config.json", config_text(table), private=False)
        write_weights(draft, checkpoint.weights, request.report)
    else:
        from longmamba_mlx.conversion.quantising import write_quantised

        del checkpoint  # its tensors would stay in memory once they are loaded
        write_quantised(draft, lambda: _model(read()), table, request.form, request.report)


def _model(checkpoint: _Checkpoint) -> LanguageModel:
    model = FAMILIES[checkpoint.config.model_type](checkpoint.config)
    model.load_weights(list(checkpoint.weights.items()))
    return model


def _with_head(config: ModelConfig, raw: Mapping[str, object], weights: Mapping[str, mx.array]) -> ModelConfig:
    """Where a config does not say whether the head is tied to the embedding, the tensors do."""
    if "tie_word_embeddings" in raw or "tie_embeddings" in raw or config.hybrid is not None:
        return config
    tied = config.tie_embeddings or "lm_head.weight" not in weights
    return dataclasses.replace(config, tie_embeddings=tied)


def _cast(name: str, array: mx.array, dtype: str | None) -> mx.array:
    if not mx.issubdtype(array.dtype, mx.floating):
        raise ModelError(
            f"Tensor {ascii(name)[1:-1][:80]} has dtype {array.dtype}.", hint="Quantised checkpoints are not converted."
        )
    if stays_float32(name):
        return _as(array, mx.float32)
    if dtype is not None:
        return _as(array, DTYPES[dtype])
    return array if array.dtype in DTYPES.values() else _as(array, mx.float32)


def _as(array: mx.array, dtype: mx.Dtype) -> mx.array:
    # The GPU has no float64.
    return array.astype(dtype, stream=mx.cpu) if array.dtype == mx.float64 else array.astype(dtype)
