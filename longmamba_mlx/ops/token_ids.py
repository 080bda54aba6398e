"""Token ids from NumPy to MLX, none outside the vocabulary."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from numpy.typing import NDArray

from longmamba_mlx.errors import ModelError


def token_ids(ids: NDArray[Any], vocabulary: int) -> mx.array:
    """`ids` as an mx.array. Raises ModelError for an id outside the vocabulary: MLX checks no index, and would take
    whatever the memory behind a table holds for a token's embedding."""
    if ids.size:
        for token in (int(ids.max()), int(ids.min())):
            if not 0 <= token < vocabulary:
                raise ModelError(
                    f"Token {token} is outside the model's vocabulary of {vocabulary}.",
                    hint="Convert the checkpoint again with its own tokenizer.json.",
                )
    return mx.array(ids)
