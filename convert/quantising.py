"""Writing a quantised model folder, and measuring what quantising changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from longmamba_mlx.builtin import sample_document
from longmamba_mlx.conversion.dialects import config_text
from longmamba_mlx.conversion.effect import Effect, measure_effect
from longmamba_mlx.conversion.folder import write_weights
from longmamba_mlx.conversion.recipe import recipe_for
from longmamba_mlx.conversion.report import Report
from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.base import ModelConfig
from longmamba_mlx.models.loading import load_model, make_ready
from longmamba_mlx.models.quantisation import LayerFormat
from longmamba_mlx.sizes import format_size
from longmamba_mlx.storage.atomic import write_text
from longmamba_mlx.system import total_bytes
from longmamba_mlx.tokenization.tokenizer import Tokenizer

_MEMORY_SHARE = 0.6


def write_quantised(
    draft: Path,
    config: ModelConfig,
    weights: dict[str, mx.array],
    table: dict[str, object],
    form: LayerFormat,
    report: Report,
) -> None:
    """Write config.json (`table` with what was quantised and how it did) and the quantised `weights`.

    The comparison with the unquantised model runs on the folder as it was written. Raises ModelError or
    DiskError.
    """
    before: LanguageModel | None = _model(config, weights)
    after = _model(config, weights)
    quantisation = recipe_for(after, form)
    quantisation.apply(after)
    quantised = dict(tree_flatten(after.parameters()))
    size_before, size = (sum(array.nbytes for array in arrays.values()) for arrays in (weights, quantised))
    report.line(
        f"{quantisation.name}: {format_size(size)} instead of {format_size(size_before)}, "
        f"{8 * size / sum(array.size for array in weights.values()):.2f} bits a weight"
    )
    if size_before + size > _MEMORY_SHARE * total_bytes():
        before = None
    # Nothing but `before` may hold the unquantised arrays now: each is let go once it is quantised and written.
    weights.clear()
    del after
    table = {**table, "quantization": quantisation.as_config()}
    write_text(draft / "config.json", config_text(table))
    write_weights(draft, quantised, report)
    if before is None:
        report.line(f"The effect was not measured: that takes {format_size(size_before + size)} of memory.")
        return
    effect = _effect(draft, before, table)
    if effect is None:
        report.line("The effect was not measured: there is no tokenizer, or too little text.")
        return
    report.line(str(effect))
    block = table.get("longmamba")
    settings = {**(block if isinstance(block, Mapping) else {}), "quantisation_effect": effect.as_config()}
    write_text(draft / "config.json", config_text({**table, "longmamba": settings}))


def _model(config: ModelConfig, weights: Mapping[str, mx.array]) -> LanguageModel:
    model = FAMILIES[config.model_type](config)
    model.load_weights(list(weights.items()))
    return model


def _effect(draft: Path, before: LanguageModel, table: Mapping[str, object]) -> Effect | None:
    loaded = load_model(draft)
    if not (draft / "tokenizer.json").is_file():
        return None
    ids = Tokenizer.from_folder(draft).encode(sample_document().read_text(encoding="utf-8"))
    make_ready(before)
    settings = table.get("longmamba")
    return measure_effect(before, loaded.model, ids, settings if isinstance(settings, Mapping) else {})
