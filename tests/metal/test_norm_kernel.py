"""The kernels of the gated norm and of the norms of dt, B and C, run thread by thread, against float64."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.ops import metal
from longmamba_mlx.ops import oracle as oracles
from tests.metal.test_scan_kernel import Y_TOLERANCE, error
from tests.ops.cases import DTYPES

pytestmark = pytest.mark.usefixtures("emulated")


def draw(*shape: int, seed: int = 0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def expected(y: mx.array, z: mx.array, weight: mx.array, groups: int, eps: float, before: bool) -> np.ndarray:
    value, gate = oracles.as64(y), oracles.silu(oracles.as64(z))
    value = value if before else value * gate
    split = value.reshape(*value.shape[:2], groups, -1)
    normed = (split / np.sqrt((split**2).mean(-1, keepdims=True) + eps)).reshape(value.shape) * oracles.as64(weight)
    return normed * gate if before else normed


def check(y: mx.array, z: mx.array, weight: mx.array, groups: int, before: bool, tolerance: float = 5e-7) -> None:
    got = metal.gated_rms_norm(y, z, weight, groups=groups, eps=0.1, norm_before_gate=before)
    assert got.dtype == y.dtype
    assert error(got, expected(y, z, weight, groups, 0.1, before)) <= tolerance


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("groups", [1, 3])
def test_dtypes_and_groups(dtype: str, before: bool, groups: int) -> None:
    y, z = (draw(2, 5, 210, seed=seed).astype(DTYPES[dtype]) for seed in (0, 1))
    check(y, z, draw(210, seed=2), groups, before, Y_TOLERANCE[dtype])


@pytest.mark.parametrize(("width", "groups"), [(1, 1), (7, 7), (32, 1), (33, 1), (64, 8), (300, 1), (1024, 2)])
def test_widths(width: int, groups: int) -> None:
    check(draw(1, 3, width), draw(1, 3, width, seed=1), draw(width, seed=2), groups, False)


def test_inputs_are_read_in_place() -> None:
    wide = draw(2, 7, 120)
    y, z = wide[:, :, 10:106:2], wide[:, :, 119:23:-2]
    check(y, z, draw(96, seed=2)[::2], 2, False)
    check(draw(48, 7, 2).transpose(2, 1, 0), z, draw(96, seed=2)[::2], 4, True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rank", "states", "weighted"), [(4, 16, True), (1, 1, False), (300, 33, True), (32, 16, False)]
)
def test_dt_b_c_norms(dtype: str, rank: int, states: int, weighted: bool) -> None:
    sizes = (rank, states, states)
    x = draw(2, 5, sum(sizes)).astype(DTYPES[dtype])
    weights = tuple(draw(size, seed=1 + i).astype(DTYPES[dtype]) for i, size in enumerate(sizes)) if weighted else None
    got = metal.dt_b_c_norms(x, sizes, eps=0.1, weights=weights)
    for part, wanted in zip(got, oracles.dt_b_c_norms(x, sizes, 0.1, weights), strict=True):
        assert part.dtype == mx.float32
        assert error(part, wanted) <= 5e-7


def test_dt_b_c_norms_read_in_place() -> None:
    x = draw(40, 7, 2).transpose(2, 1, 0)[:, :, 3:33:2]
    weights = (draw(14, seed=1)[::2], draw(4, seed=2), mx.broadcast_to(mx.array(0.5), (4,)))
    for part, wanted in zip(
        metal.dt_b_c_norms(x, (7, 4, 4), eps=0.1, weights=weights),
        oracles.dt_b_c_norms(x, (7, 4, 4), 0.1, weights),
        strict=True,
    ):
        assert error(part, wanted) <= 5e-7
