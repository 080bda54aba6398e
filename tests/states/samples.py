"""Small states and keys, without a model."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np

from longmamba_mlx.models.state import LayerState, ModelState
from longmamba_mlx.states.store import StateKey

KEY = StateKey(
    document="d" * 64,
    reader=1,
    tokens=40,
    tokenizer="t" * 64,
    model="m" * 64,
    config="c" * 64,
    quantisation="none",
    filter="f" * 64,
    calibration="",
    plan_length=40,
    chunk=512,
    kernel="reference-1",
    dtype="float32",
)
INFO = {"title": "Moby-Dick", "source": "moby.txt", "seconds": 1.5, "words": 10, "note": None}


def make_state(seed: int = 0, *, layers: int = 2, units: int = 4, tokens: int = 40, dtype=mx.bfloat16) -> ModelState:
    """A state with (1, 3, units) convolution windows and (1, units, 5) scan states."""
    random = np.random.default_rng(seed)
    return ModelState(
        tuple(
            LayerState(
                conv=mx.array(random.normal(size=(1, 3, units)).astype(np.float32)).astype(dtype),
                ssm=mx.array(random.normal(size=(1, units, 5)).astype(np.float32)),
            )
            for _ in range(layers)
        ),
        tokens,
    )


def make_thresholds(units: int = 4) -> list[np.ndarray | None]:
    return [None, np.array([-np.inf, -1.5, 0.25, np.inf][:units], np.float32)]


def key_for(tokens: int) -> StateKey:
    return replace(KEY, tokens=tokens)


def same(a: ModelState, b: ModelState) -> bool:
    """Bitwise equality of all arrays, dtypes included."""
    left, right = a.arrays(), b.arrays()
    return (
        a.tokens == b.tokens
        and left.keys() == right.keys()
        and all(left[n].dtype == right[n].dtype and mx.array_equal(left[n], right[n]).item() for n in left)
    )
