"""Convert checkpoints (Hub or folder; transformers or original mamba_ssm layout) into MLX model folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longmamba_mlx.conversion.report import Report

__all__ = ["convert"]


def convert(
    hf_path: str | Path,
    mlx_path: str | Path,
    dtype: str | None = None,
    *,
    revision: str | None = None,
    offline: bool = False,
    tokenizer: str | Path | None = None,
    quantize: bool = False,
    q_bits: int | None = None,
    q_group_size: int | None = None,
    q_mode: str = "affine",
    report: Report | None = None,
) -> Path:
    """Write the model of `hf_path` as an MLX model folder at `mlx_path`, and return that folder.

    hf_path: a folder with config.json and safetensors files or pytorch_model.bin (read without torch; nothing
    in it is run), or a Hub id ("owner/name", at `revision`), of which only the required files are downloaded and
    verified (`offline`: taken from the local cache). dtype: "float32", "float16" or "bfloat16" for the large
    matrices, None to keep theirs; parameters of step sizes and decays (A_log, D, dt_bias, dt_proj) and the norms
    are always float32. tokenizer: a tokenizer.json, a folder or a Hub id, for checkpoints without one.

    quantize: to `q_bits` bits (default 4) in groups of `q_group_size` (default 64), q_mode as in mlx-lm; the
    projections of step sizes, embeddings and head get 8 bits, and the effect is measured and stored. report:
    receives sizes and progress.

    `mlx_path` must not exist yet, or be empty; it appears complete or not at all. Raises ModelError (ConfigError
    for config.json, DiskError for writing), each with a hint.
    """
    # Imported here so that importing the package loads neither MLX nor the Hub's client.
    from longmamba_mlx.conversion.checkpoint import Request, convert_checkpoint
    from longmamba_mlx.conversion.recipe import format_for
    from longmamba_mlx.conversion.report import Silent

    form = format_for(q_bits, q_group_size, q_mode) if quantize else None
    request = Request(hf_path, dtype, revision, offline, tokenizer, form, report or Silent())
    target = Path(mlx_path).expanduser()
    convert_checkpoint(request, target)
    return target
