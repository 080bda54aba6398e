"""Every combination of kernel, dtype and size class that the checks of a kernel's text go through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import mlx.core as mx

from longmamba_mlx.metal_kernels import chunked_ssd
from longmamba_mlx.metal_kernels import conv as conv_kernel
from longmamba_mlx.metal_kernels import dt_b_c_norm as parts_kernel
from longmamba_mlx.metal_kernels import gated_norm as norm_kernel
from longmamba_mlx.metal_kernels import mamba3 as mamba3_kernel
from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from tests.emulator.texts import texts
from tests.ops.cases import DTYPES

Launch = tuple[Callable[..., list[mx.array]], tuple[mx.array, ...]]


def scan_launch(dtype: str, heads: int, rows: int, states: int, per_head: bool, **options: object) -> Launch:
    """A verbose launch of the scan on 3 tokens. `options`: gate, threshold (bools), reverse, return_kept, lanes."""
    low, gate, filtered = DTYPES[dtype], options.pop("gate", True), options.pop("threshold", True)
    units = heads if per_head else rows

    def launch(
        x: mx.array, dt: mx.array, A: mx.array, B: mx.array, state: mx.array, vector: mx.array
    ) -> list[mx.array]:
        fixed = scan_kernel.Coefficients(A, vector, vector, vector if filtered else None, (0.0, 1.0), per_head)
        return list(
            scan_kernel.sequential_scan(x, dt, x if gate else None, B, B, state, fixed, verbose=True, **options)
        )  # type: ignore[arg-type]

    arrays = (
        mx.zeros((1, 3, heads, rows), dtype=low),
        mx.zeros((1, 3, heads, 1 if per_head else rows)),
        mx.zeros((units, 1 if per_head else states)),
        mx.zeros((1, 3, heads if per_head else 1, states), dtype=low),
        mx.zeros((1, heads, rows, states)),
        mx.zeros((units,)),
    )
    return launch, arrays


def chunked_launch(dtype: str, heads: int, rows: int, states: int, **options: object) -> Launch:
    """A verbose launch of the chunked scan on one chunk. `options`: gate, threshold (bools), reverse, return_kept."""
    low, gate, filtered = DTYPES[dtype], options.pop("gate", True), options.pop("threshold", True)

    def launch(x: mx.array, dt: mx.array, B: mx.array, state: mx.array, vector: mx.array) -> list[mx.array]:
        fixed = scan_kernel.Coefficients(
            vector[:, None], vector, vector, vector if filtered else None, (0.0, 1.0), per_head=True
        )
        z = x if gate else None
        return list(chunked_ssd.chunked_ssd(x, dt, z, B, B, state, fixed, verbose=True, **options))  # type: ignore[arg-type]

    arrays = (
        mx.zeros((1, 64, heads, rows), dtype=low),
        mx.zeros((1, 64, heads, 1)),
        mx.zeros((1, 64, 1, states), dtype=low),
        mx.zeros((1, heads, rows, states)),
        mx.zeros((heads,)),
    )
    return launch, arrays


def conv_launch(dtype: str, channels: int, taps: int) -> Launch:
    """A verbose launch of the convolution on 3 tokens."""
    low = DTYPES[dtype]

    def launch(x: mx.array, weight: mx.array, bias: mx.array, initial: mx.array) -> list[mx.array]:
        return list(conv_kernel.causal_conv1d(x, weight, bias, initial, verbose=True))

    arrays = (mx.zeros((1, 3, channels), dtype=low), mx.zeros((channels, taps)), mx.zeros((channels,)))
    return launch, (*arrays, mx.zeros((1, taps - 1, channels), dtype=low))


def norm_launch(dtype: str, width: int, groups: int, before: bool) -> Launch:
    """A verbose launch of the gated norm on 3 tokens."""
    low = DTYPES[dtype]

    def launch(y: mx.array, z: mx.array, weight: mx.array) -> list[mx.array]:
        options = {"groups": groups, "eps": 1e-5, "norm_before_gate": before}
        return [norm_kernel.gated_rms_norm(y, z, weight, verbose=True, **options)]  # type: ignore[arg-type]

    return launch, (mx.zeros((1, 3, width), dtype=low), mx.zeros((1, 3, width), dtype=low), mx.zeros((width,)))


def parts_launch(dtype: str, first: int, rest: int) -> Launch:
    """A verbose launch of the norms of dt, B and C on 3 tokens."""
    low = DTYPES[dtype]

    def launch(x: mx.array, weight: mx.array, other: mx.array) -> list[mx.array]:
        return list(parts_kernel.dt_b_c_norms(x, (weight, other, other), 1e-5, verbose=True))

    return launch, (mx.zeros((1, 3, first + 2 * rest), dtype=low), mx.zeros((first,)), mx.zeros((rest,), dtype=low))


def mamba3_launches(
    dtype: str, heads: int, rows: int, states: int, rank: int, *, gate: bool = True, kept: bool = True
) -> tuple[Launch, Launch]:
    """Verbose launches of Mamba-3's two kernels on 3 tokens; more than one key a token is MIMO."""
    low, angles = DTYPES[dtype], max(1, states // 4)

    def given(x: mx.array, dt: mx.array, B: mx.array, angle: mx.array, bias: mx.array, vector: mx.array, mimo: mx.array,
              table: mx.array) -> tuple[mamba3_kernel.PerToken, mamba3_kernel.Fixed]:  # fmt: skip
        tokens = mamba3_kernel.PerToken(x, x if gate else None, B, B, dt, dt, dt, angle)
        parts = (mimo,) * 3 if rank > 1 else None
        return tokens, mamba3_kernel.Fixed(bias, bias, vector, vector, vector, parts, 0.1, (table, table))

    def steps(start: mx.array, *arrays: mx.array) -> list[mx.array]:
        tokens, fixed = given(*arrays)
        return list(mamba3_kernel.steps(tokens, start, fixed, return_kept=kept, verbose=True))

    def scan(steps: mx.array, turned: mx.array, *rest: mx.array) -> list[mx.array]:
        (ssm, k, v), (tokens, fixed) = rest[:3], given(*rest[3:])
        return list(mamba3_kernel.scan(tokens, steps, turned, (ssm, turned, k, v), fixed, verbose=True))

    arrays = (
        mx.zeros((1, 3, heads, rows), dtype=low),
        mx.zeros((1, 3, heads), dtype=low),
        mx.zeros((1, 3, rank, 1, states), dtype=low),
        mx.zeros((1, 3, angles), dtype=low),
        mx.zeros((heads, rank, states), dtype=low),
        mx.zeros((heads,)),
        mx.zeros((heads, rank, rows), dtype=low),
        mx.zeros((8193, 4), dtype=mx.int64),
    )
    state = (mx.zeros((1, heads, rows, states)), mx.zeros((1, heads, rank, states)), mx.zeros((1, heads, rows)))
    made = (mx.zeros((12 * heads,)), mx.zeros((3 * heads * angles,), dtype=mx.uint32))
    start = mx.zeros((1, heads, angles), dtype=mx.uint32)
    return (steps, (start, *arrays)), (scan, (*made, *state, *arrays))


def all_launches() -> Iterator[tuple[str, Launch]]:
    """Kernels x dtypes x tiny (arrays of under 8 elements lie in another address space) and normal shapes."""
    for dtype in DTYPES:
        for per_head, sizes in ((False, ((1, 2, 2), (1, 40, 16))), (True, ((2, 1, 2), (4, 64, 128)))):
            for heads, rows, states in sizes:
                for name, options in (
                    ("plain", {"gate": False, "threshold": False}),
                    ("gated, kept", {"return_kept": True}),
                    ("reverse", {"reverse": True, "return_kept": True}),
                    ("one lane", {"lanes": 1}),
                ):
                    title = f"mamba{2 if per_head else 1} {dtype} {heads}x{rows}x{states} {name}"
                    yield title, scan_launch(dtype, heads, rows, states, per_head, **options)
        for heads, rows, states in ((1, 8, 64), (9, 64, 128), (9, 64, 256)):
            for name, options in (
                ("plain", {"gate": False, "threshold": False}),
                ("gated, kept", {"return_kept": True}),
                ("reverse", {"reverse": True, "return_kept": True}),
            ):
                yield (
                    f"chunked {dtype} {heads}x{rows}x{states} {name}",
                    chunked_launch(dtype, heads, rows, states, **options),
                )
        for channels, taps in ((1, 2), (40, 4)):
            yield f"conv {dtype} {channels}x{taps}", conv_launch(dtype, channels, taps)
        for width, groups, before in ((2, 1, False), (64, 2, True)):
            yield f"norm {dtype} {width}", norm_launch(dtype, width, groups, before)
        yield from _all_of_mamba3(dtype)
        for first, rest in ((1, 2), (40, 16)):
            yield f"parts {dtype} {first}", parts_launch(dtype, first, rest)


def _all_of_mamba3(dtype: str) -> Iterator[tuple[str, Launch]]:
    for heads, rows, states, rank in ((1, 2, 2, 1), (2, 64, 128, 1), (1, 1, 2, 2), (2, 64, 128, 4)):
        for gate in (True, False):
            title = f"{dtype} {heads}x{rows}x{states} rank {rank}{' gated' * gate}"
            steps, scan = mamba3_launches(dtype, heads, rows, states, rank, gate=gate, kept=gate)
            yield f"mamba3 steps {title}", steps
            yield f"mamba3 scan {title}", scan


def text_of(launch: Launch) -> str:
    return texts(launch[0], *launch[1])[0]
