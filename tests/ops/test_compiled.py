"""The scans that numba compiles: as exact as the others, and only used where they pay."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from longmamba_mlx.ops import arrays, compiled, cpu
from tests.ops import oracles
from tests.ops.cases import LENGTHS, selective_case, ssd_case
from tests.ops.test_scans import TOLERANCE, relative_error


@pytest.fixture(params=["compiled", "interpreted"])
def scan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every scan through the compiled module: as machine code, and as the Python it was made of."""
    monkeypatch.setattr(cpu, "scans", lambda channels: compiled)
    if request.param == "interpreted":
        monkeypatch.setattr(compiled, "scan_one", compiled._scan_one)
        monkeypatch.setattr(compiled, "token_one", compiled._token_one)
    return str(request.param)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_oracle(scan: str, length: int, reverse: bool) -> None:
    if scan == "interpreted" and length > 65:
        pytest.skip("slow")
    case = selective_case(batch=1 + length % 2, length=length, seed=length) | {"reverse": reverse}
    y, state, kept = cpu.selective_scan(**case, return_kept=True)
    expected_y, expected_state, expected_kept = oracles.selective_scan(**case)
    assert relative_error(y, expected_y) < TOLERANCE["float32"]
    assert relative_error(state, expected_state) < TOLERANCE["float32"]
    np.testing.assert_array_equal(np.array(kept), expected_kept)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 65])
def test_ssd_equals_the_oracle(scan: str, length: int, groups: int) -> None:
    case = ssd_case(batch=2, length=length, groups=groups, seed=length)
    y, state, kept = cpu.ssd_scan(**case, return_kept=True)
    expected_y, expected_state, expected_kept = oracles.ssd_scan(**case)
    assert relative_error(y, expected_y) < TOLERANCE["float32"]
    assert relative_error(state, expected_state) < TOLERANCE["float32"]
    np.testing.assert_array_equal(np.array(kept), expected_kept)


def inputs(length: int, channels: int, size: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    u, step = rng.standard_normal((1, length, channels)), rng.random((1, length, channels)) ** 4 * 6
    rate = -np.arange(1, size + 1)[:, None] * rng.uniform(0.5, 2, (size, channels))
    b, c = rng.standard_normal((2, 1, length, size))
    return [array.astype(np.float32) for array in (u, step, rate, b, c, rng.standard_normal((1, size, channels)))]


@pytest.mark.parametrize("channels", [1, 127, 128, 300])
def test_equals_numpy_for_any_width(channels: int) -> None:
    given = inputs(40, channels, 16)
    state = given[-1].copy()
    y, expected = compiled.selective_scan(*given[:-1], state), arrays.selective_scan(*given)
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_allclose(state, given[-1], rtol=0, atol=2e-6 * np.abs(given[-1]).max())


def test_chunks_and_filtered_tokens_change_no_bit() -> None:
    u, step, rate, b, c, state = inputs(50, 130, 16)
    step[:, 10:20] = 0.0
    whole, before = state.copy(), state.copy()
    y = compiled.selective_scan(u, step, rate, b, c, whole)
    parts = [slice(0, 1), slice(1, 10), slice(10, 20), slice(20, 50)]
    pieces = []
    for part in parts:
        if part.start == 10:
            before = state.copy()
        pieces.append(compiled.selective_scan(u[:, part], step[:, part], rate, b[:, part], c[:, part], state))
        if part.start == 10:
            np.testing.assert_array_equal(state, before)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), y)
    np.testing.assert_array_equal(state, whole)


def test_not_a_number_stays_one() -> None:
    u, step, rate, b, c, state = inputs(8, 4, 3)
    step[0, 2, 1] = np.nan
    y = compiled.selective_scan(u, step, rate, b, c, state)
    assert np.isnan(y[0, 2:, 1]).all()
    assert np.isfinite(y[0, :, [0, 2, 3]]).all()


def test_a_token_that_is_filtered_out_changes_no_bit_of_a_heads_state() -> None:
    rng = np.random.default_rng(3)
    u, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 1, 4, 8), (1, 1, 2, 16), (1, 1, 2, 16)))
    state = rng.standard_normal((1, 4, 8, 16)).astype(np.float32)
    before, step = state.copy(), np.array([[[0.5, 0.0, 0.2, 0.0]]], dtype=np.float32)
    y = compiled.ssd_scan(u, step, -np.ones(4, np.float32), b, c, state)
    np.testing.assert_array_equal(state[:, [1, 3]], before[:, [1, 3]])
    assert (state[:, [0, 2]] != before[:, [0, 2]]).all()
    expected = arrays.ssd_scan(u, step, -np.ones(4, np.float32), b, c, before)
    np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_used_for_wide_layers_where_numba_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = cpu.scans.__wrapped__
    assert choose(256) is arrays
    assert choose(1536) is compiled
    monkeypatch.setattr(cpu, "find_spec", lambda name: None)
    assert choose(1536) is arrays


def test_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, longmamba_mlx.models.numpy_layers; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
