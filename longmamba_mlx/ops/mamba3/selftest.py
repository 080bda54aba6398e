"""Mamba-3's part of `longmamba-mlx selftest`: its cases, and its op and oracle as that compares them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np

from longmamba_mlx.ops.mamba3 import oracle
from longmamba_mlx.ops.mamba3.inputs import Mamba3Inputs, Mamba3Scan, Mamba3State
from longmamba_mlx.ops.mamba3.scan_shapes import KNOWN, Mamba3Shape, random_inputs
from longmamba_mlx.ops.oracle import Case, Values

Op = Callable[..., Any]
Pairs = list[tuple[mx.array, mx.array]]

_SMALL = Mamba3Shape(4, 6, 16, rank=1, angles=4, groups=2)
_MIMO = replace(_SMALL, rank=3, mimo=True)
_PER_TOKEN = ("x", "dt", "A", "B", "C", "trap", "angle", "z")


def takes_case(scan: Callable[[Mamba3Inputs], Mamba3Scan]) -> Op:
    """The scan on a case: y, all of the state but its angle in one row, the kept counts. (A wrong angle shows in k.)"""

    def op(inputs: Mamba3Inputs, **_: Any) -> tuple[mx.array, mx.array, mx.array]:
        y, state, *kept = scan(inputs)
        return y, _in_one_row(state), kept[0]

    return op


def expected(inputs: Mamba3Inputs, **_: Any) -> tuple[Values, Values, Any]:
    """The same in float64."""
    found = oracle.mamba3_scan(inputs)
    return found.y, np.concatenate([part.ravel() for part in (found.ssm, found.k, found.v)]), found.kept


def _in_one_row(state: Mamba3State) -> mx.array:
    return mx.concatenate([part.reshape(-1) for part in (state.ssm, state.k, state.v)])


def cases(long: int) -> Iterator[tuple[str, str, Case]]:
    """What is compared with float64: (name, dtype, arguments)."""
    for name, shape in (("SISO", _SMALL), ("MIMO", _MIMO)):
        for dtype in ("float32", "float16", "bfloat16"):
            for length in (1, 33):
                inputs = random_inputs(replace(shape, dtype=dtype), length, batch=2)
                yield f"{name}, {length} token{'s' * (length > 1)}", dtype, {"inputs": inputs}
        inputs = random_inputs(replace(shape, dtype="float32"), 37)
        yield f"{name}, no gate, no start", "float32", {"inputs": replace(inputs, z=None, initial_state=None)}
        yield f"{name}, steps of 5", "float32", {"inputs": replace(inputs, dt_bias=mx.full((4,), 5.0), threshold=None)}
    for rows, states, rank in ((64, 128, 1), (32, 64, 2)):
        shape = Mamba3Shape(1, rows, states, rank, states // 4, mimo=rank > 1, dtype="float32")
        yield f"sizes {rows} x {states}, rank {rank}", "float32", {"inputs": random_inputs(shape, 21)}
    one = Mamba3Shape(1, 2, 16, rank=1, angles=4, dtype="float32")
    yield f"{long} tokens", "float32", {"inputs": random_inputs(one, long)}
    for model, shape in KNOWN.items():
        for length in (1, 70):
            inputs = random_inputs(shape.smallest(), length)
            inputs = inputs if length > 1 else replace(inputs, threshold=None)
            yield f"{model.split('/')[-1]}, {length} token{'s' * (length > 1)}", shape.dtype, {"inputs": inputs}


def exact(scan: Callable[[Mamba3Inputs], Mamba3Scan]) -> Iterator[tuple[str, Callable[[Op], Pairs]]]:
    """What must hold to the bit, of `scan` itself."""
    inputs = random_inputs(replace(_MIMO, dtype="float32"), 65)
    heads = inputs.heads

    def filtered_at(threshold: float | None) -> list[mx.array]:
        given = None if threshold is None else mx.full((heads,), threshold)
        y, state, kept = scan(replace(inputs, threshold=given))  # type: ignore[misc]
        return [y, *state.arrays(), kept]

    def split(_: Op) -> Pairs:
        whole, after, _counts = scan(inputs)  # type: ignore[misc]
        parts, state = [], inputs.start
        for start, stop in pairwise((0, 1, 34, 65)):
            now = {name: getattr(inputs, name)[:, start:stop] for name in _PER_TOKEN}
            y, state, _counts = scan(replace(inputs, initial_state=state, **now))  # type: ignore[misc]
            parts.append(y)
        return [(mx.concatenate(parts, axis=1), whole), *zip(state.arrays(), after.arrays(), strict=True)]

    yield (
        "all filtered: state untouched",
        lambda _: list(zip(filtered_at(1e6)[1:5], inputs.start.arrays(), strict=True)),
    )
    yield (
        "none filtered: as no threshold",
        lambda _: list(zip(filtered_at(-math.inf), filtered_at(None), strict=True)),
    )
    yield "in three parts: as in one", split
