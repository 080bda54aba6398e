"""Tensor names of the known checkpoints -> the names transformers and this package use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from longmamba_mlx.errors import ModelError

T = TypeVar("T")

# What original mamba_ssm checkpoints call differently; all other names are equal.
_RENAMED = {"backbone.embedding.weight": "backbone.embeddings.weight"}

# Mistral and trainers that wrap the model put this in front of the same names.
_WRAPPED = re.compile(r"model\.(?=backbone\.|lm_head\.)")

# Computed from the config, and in old checkpoints stored beside the weights.
_COMPUTED = re.compile(r".*\.rotary_emb\.inv_freq")

# Left float32 in every conversion. They are small, and a 16-bit A_log, dt_bias or dt_proj moves slow decays
# and the step sizes the filter compares: in bfloat16 exp(-0.001) is 1, a state that never forgets. The last
# ones decide which experts a token goes to.
_FLOAT32 = re.compile(
    r"(.*\.)?(A_log|D|dt_bias|[BC]_bias|mimo_[xzo]|dt_proj([._]\d+)?[._](weight|bias)"
    r"|(dt|[BC])_norm_weight|[qk]_weight|subln\.weight|lambda_[qk][12]"
    r"|\w*norm\w*(\.\d+)?\.(weight|bias)|e_score_correction_bias)"
)


def rename(weights: Mapping[str, T]) -> dict[str, T]:
    """The tensors under this package's names. Raises ModelError when two would get the same name."""
    renamed: dict[str, T] = {}
    for name, value in weights.items():
        if _COMPUTED.fullmatch(name):
            continue
        plain = _WRAPPED.sub("", name, count=1) if _WRAPPED.match(name) else name
        new = _RENAMED.get(plain, plain)
        if new in renamed:
            raise ModelError(
                f"The checkpoint holds {ascii(new)[1:-1][:80]} twice, under two names.",
                hint="Is this one checkpoint, and whole?",
            )
        renamed[new] = value
    return renamed


def stays_float32(name: str) -> bool:
    """True for the small tensors that a conversion never rounds."""
    return _FLOAT32.fullmatch(name) is not None
