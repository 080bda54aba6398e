"""The Metal kernels of Mamba-3's filtered scan: what each token does in each head, then one token after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import mlx.core as mx

from longmamba_mlx.metal_kernels import source
from longmamba_mlx.metal_kernels.scan_inputs import numbers

# Longer inputs are read in pieces: a launch stays far below the seconds after which macOS stops it, and the angles of
# its tokens within some megabytes.
MAX_TOKENS = 8192
_SIMD = 32
_STEP_THREADS = 64
_MAX_THREADS = 256
_STATES_A_THREAD = 16
_ROWS_A_THREAD = 2  # what is read of a key is used for both
# Floats of keys and queries that are staged at once, of the 8,192 that a threadgroup has; at most 8 tokens' worth.
_STAGED_FLOATS = 6144
_MOST_STAGED = 8
_MAX_KEYS = 2048
_MAX_RANK = 16


@dataclass(frozen=True, slots=True)
class Fixed:
    """What does not change with time: B_bias, C_bias (h, r, n); D, dt_bias (h,), all floating; threshold (h,) float32,
    where None filters nothing; `mimo`, the projections (h, r, p) of x, of z and back, or None; the lowest decay rate
    where A is raw, or None; and the tables of softplus and tanh."""

    B_bias: mx.array
    C_bias: mx.array
    D: mx.array
    dt_bias: mx.array
    threshold: mx.array | None
    mimo: tuple[mx.array, mx.array, mx.array] | None
    A_floor: float | None
    tables: tuple[mx.array, mx.array]


@dataclass(frozen=True, slots=True)
class PerToken:
    """What a token brings: x, z (b, l, h, p); B, C (b, l, r, g, n); dt, A, trap (b, l, h); angle (b, l, s)."""

    x: mx.array
    z: mx.array | None
    B: mx.array
    C: mx.array
    dt: mx.array
    A: mx.array
    trap: mx.array
    angle: mx.array

    def part(self, now: slice) -> PerToken:
        """Some of the tokens."""
        names = [name for name in self.__dataclass_fields__ if getattr(self, name) is not None]
        return replace(self, **{name: getattr(self, name)[:, now] for name in names})


State = tuple[mx.array, mx.array, mx.array, mx.array]
"""ssm (b, h, p, n), angle (b, h, s) uint32, k (b, h, r, n), v (b, h, p)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the scan's work is laid out: `lanes` threads for `together` rows, `staged` tokens at once, `group` threads a
    threadgroup, `width` threads a head, a multiple of `group`."""

    lanes: int
    together: int
    staged: int
    group: int
    width: int


def fits(rank: int, states: int) -> bool:
    """True where the keys of a token fit the kernel's threadgroup memory and registers."""
    return rank <= _MAX_RANK and rank * states <= _MAX_KEYS


def layout(rows: int, states: int, rank: int) -> Layout:
    """Choose for these sizes. Which threads share a row changes y in the order of a sum, and the state not at all."""
    lanes = 1
    while states % (2 * lanes) == 0 and lanes < _SIMD and states // lanes > _STATES_A_THREAD:
        lanes *= 2
    together = _ROWS_A_THREAD if lanes >= _ROWS_A_THREAD and states // lanes <= _STATES_A_THREAD else 1
    staged = 1
    while staged < _MOST_STAGED and (4 * staged + 1) * rank * states <= _STAGED_FLOATS:
        staged *= 2
    threads = -(-rows // together) * lanes
    group = min(_MAX_THREADS, -(-threads // _SIMD) * _SIMD)
    return Layout(lanes, together, staged, group, -(-threads // group) * group)


@lru_cache(maxsize=1)
def _steps_kernel() -> Any:
    per_token = ["dt", "A", "trap", "angle"]
    fixed = ["dt_bias", "threshold", "D", "angle_in", "softplus_table", "tanh_table", "least", "sizes"]
    return mx.fast.metal_kernel(
        name="longmamba_mamba3_steps",
        input_names=per_token + fixed,
        output_names=["steps", "angles", "angle_out", "kept"],
        source=source("mamba3_steps"),
        header=source("softplus") + source("turns"),
        ensure_row_contiguous=False,
    )


@lru_cache(maxsize=1)
def _scan_kernel() -> Any:
    given = ["x", "z", "B", "C", "steps", "angles", "B_bias", "C_bias", "mimo_x", "mimo_z", "mimo_out"]
    return mx.fast.metal_kernel(
        name="longmamba_mamba3_scan",
        input_names=[*given, "ssm_in", "k_in", "v_in", "sizes"],
        output_names=["y", "ssm_out", "k_out", "v_out"],
        source=source("mamba3_scan"),
        header=source("turns"),
        ensure_row_contiguous=False,
    )


def steps(
    tokens: PerToken, angle: mx.array, fixed: Fixed, *, return_kept: bool = False, verbose: bool = False
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """One launch: in one row each, four numbers for every token and head (decay, weights of both writes, D), float32,
    and the angles (b l h s), uint32; the last angles (b, h, s); what was kept (b, l, h) uint8, or one zero. Arguments
    are not checked here."""
    batch, length, heads = tokens.dt.shape
    angles = tokens.angle.shape[2]
    threshold = fixed.dt_bias if fixed.threshold is None else fixed.threshold  # read, not used
    sizes = (length, angles, int(fixed.threshold is not None), int(fixed.A_floor is not None))
    result: tuple[mx.array, mx.array, mx.array, mx.array] = tuple(
        _steps_kernel()(
            inputs=[tokens.dt, tokens.A, tokens.trap, tokens.angle, fixed.dt_bias, threshold, fixed.D, angle,
                    *fixed.tables, numbers(fixed.A_floor or 0.0), numbers(*sizes)],
            output_shapes=[(tokens.dt.size * 4,), (tokens.dt.size * angles,), (batch, heads, angles),
                           tokens.dt.shape if return_kept else (1,)],
            output_dtypes=[mx.float32, mx.uint32, mx.uint32, mx.uint8],
            grid=(-(-angles // _STEP_THREADS) * _STEP_THREADS, heads, batch),
            threadgroup=(_STEP_THREADS, 1, 1),
            template=[("GROUP", _STEP_THREADS), ("KEPT", return_kept)],
            verbose=verbose,
        )
    )  # fmt: skip
    return result


def scan(
    tokens: PerToken, steps: mx.array, angles: mx.array, state: State, fixed: Fixed, *, verbose: bool = False
) -> tuple[mx.array, mx.array, mx.array, mx.array]:
    """One launch on what `steps` returned: y (b, l, h, p) in x's dtype, with mimo and without z (b, l, r, h, p), and
    the state's ssm, k and v. Arguments are not checked here."""
    batch, length, heads, rows = tokens.x.shape
    rank, groups, states = tokens.B.shape[2:]
    plan = layout(rows, states, rank)
    mimo, gated = fixed.mimo is not None, tokens.z is not None
    ssm, _, k, v = state
    nothing = (fixed.B_bias,) * 3  # not read
    shape = (batch, length, rank, heads, rows) if mimo and not gated else tokens.x.shape
    result: tuple[mx.array, mx.array, mx.array, mx.array] = tuple(
        _scan_kernel()(
            inputs=[tokens.x, tokens.z if gated else tokens.x, tokens.B, tokens.C, steps, angles,
                    fixed.B_bias, fixed.C_bias, *(fixed.mimo or nothing), ssm, k, v,
                    numbers(length, rows, heads // groups, tokens.angle.shape[2])],
            output_shapes=[shape, ssm.shape, k.shape, v.shape],
            output_dtypes=[tokens.x.dtype, mx.float32, mx.float32, mx.float32],
            grid=(plan.width, heads, batch),
            threadgroup=(plan.group, 1, 1),
            template=[("T", tokens.x.dtype), ("N", states), ("RANK", rank), ("S", plan.lanes), ("W", plan.together),
                      ("TB", plan.staged), ("GROUP", plan.group), ("MIMO", mimo), ("HAS_Z", gated)],
            verbose=verbose,
        )
    )  # fmt: skip
    return result


def mamba3(
    tokens: PerToken, state: State, fixed: Fixed, *, return_kept: bool = False
) -> tuple[mx.array, State, mx.array]:
    """Two launches for each `MAX_TOKENS` tokens: y, the state and kept counts (b, l) int32 (one zero without
    `return_kept`). Any split is bitwise the whole."""
    length = tokens.x.shape[1]
    edges = [*range(0, length, MAX_TOKENS), length]
    results = []
    for start, stop in pairwise(edges):
        part = tokens if len(edges) == 2 else tokens.part(slice(start, stop))
        each, angles, angle, kept = steps(part, state[1], fixed, return_kept=return_kept)
        y, ssm, k, v = scan(part, each, angles, state, fixed)
        state = (ssm, angle, k, v)
        # MLX sums bytes in uint32; to see that as int32 is no launch.
        results.append((y, kept.sum(axis=-1).view(mx.int32) if return_kept else kept))
    if len(results) == 1:
        return results[0][0], state, results[0][1]
    kept = mx.concatenate([kept for _, kept in results], axis=1) if return_kept else results[0][1]
    return mx.concatenate([y for y, _ in results], axis=1), state, kept
