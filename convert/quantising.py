"""Write a quantised model folder, and measure what quantising changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mlx.utils import tree_flatten

from longmamba_mlx.builtin import sample_document
from longmamba_mlx.conversion.dialects import config_text
from longmamba_mlx.conversion.effect import Effect, measure_effect
from longmamba_mlx.conversion.folder import write_weights
from longmamba_mlx.conversion.layerwise import largest_layer
from longmamba_mlx.conversion.recipe import recipe_for
from longmamba_mlx.conversion.report import Report
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.loading import lazy_model
from longmamba_mlx.models.quantisation import LayerFormat
from longmamba_mlx.storage.atomic import write_text
from longmamba_mlx.system import total_bytes
from longmamba_mlx.tokenization.tokenizer import Tokenizer, tokenizer_file

_MEMORY_SHARE = 0.6
_BYTES_EACH = 12  # for a number of the largest layer: float32 in both models, and what is worked on
_BESIDE = 256 << 20  # activations, logits, the tokenizer


def write_quantised(
    draft: Path, build: Callable[[], LanguageModel], table: dict[str, object], form: LayerFormat, report: Report
) -> None:
    """Write config.json (`table` with what was quantised and how it did) and the quantised weights.

    `build` makes the unquantised model, with lazy tensors. They are quantised and written one by one, and the
    comparison with the unquantised model holds one layer of both, so memory holds little more than the largest layer.
    It runs on the folder as it was written. Raises ModelError or DiskError.
    """
    model = build()
    plain = dict(tree_flatten(model.parameters()))
    count, size_before = sum(array.size for array in plain.values()), sum(array.nbytes for array in plain.values())
    del plain
    needed = _BYTES_EACH * largest_layer(model) + _BESIDE
    quantisation = recipe_for(model, form)
    quantisation.apply(model)
    quantised = dict(tree_flatten(model.parameters()))
    del model  # nothing but `quantised` may hold the arrays: each is let go once it is written
    size = sum(array.nbytes for array in quantised.values())
    report.line(
        f"{quantisation.name}: {format_size(size)} instead of {format_size(size_before)}, "
        f"{8 * size / count:.2f} bits a weight"
    )
    table = {**table, "quantization": quantisation.as_config()}
    write_text(draft / "config.json", config_text(table), private=False)
    write_weights(draft, quantised, report)
    if needed > _MEMORY_SHARE * total_bytes():
        report.line(f"The effect was not measured: that takes {format_size(needed)} of memory.")
        return
    effect = _effect(draft, build, table)
    if effect is None:
        report.line("The effect was not measured: there is no tokenizer, or too little text.")
        return
    report.line(str(effect))
    block = table.get("longmamba")
    settings = {**(block if isinstance(block, Mapping) else {}), "quantisation_effect": effect.as_config()}
    write_text(draft / "config.json", config_text({**table, "longmamba": settings}), private=False)


def _effect(draft: Path, build: Callable[[], LanguageModel], table: Mapping[str, object]) -> Effect | None:
    if tokenizer_file(draft) is None:
        return None
    ids = Tokenizer.from_folder(draft).encode(sample_document().read_text(encoding="utf-8"))
    settings = table.get("longmamba")
    return measure_effect(build, partial(lazy_model, draft), ids, settings if isinstance(settings, Mapping) else {})
