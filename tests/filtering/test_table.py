"""`paper` mode against an independent, literal transcription of the published algorithm."""

from __future__ import annotations

import numpy as np
import pytest

from longmamba_mlx.filtering.calibration.collect import summarise
from longmamba_mlx.filtering.calibration.paper_table import (
    THOUSANDS,
    clamped,
    nearest_length,
    paper_active,
    paper_lengths,
    table_rows,
)
from longmamba_mlx.filtering.delta import delta_of, raw_of
from longmamba_mlx.filtering.thresholds import knot_ranks
from tests.filtering.samples import raw_sample

FREE = (0.0, float("inf"))


def literal(delta: np.ndarray, clamp: float, length: int) -> tuple[float, float, float, np.ndarray]:
    """One head, one window, as published: (g, alpha, T, the stretched list). For lengths above the
    window's."""
    window = len(delta)
    if clamp > 0:
        largest = sorted(delta, reverse=True)[: max(1, int(window * clamp))]
        delta = np.minimum(delta, largest[-1])
    budget = float(np.sum(delta))
    ordered = np.array(sorted(delta, reverse=True))
    stretched = np.empty(length)
    for j in range(length):
        source = min(max((j + 0.5) * window / length - 0.5, 0.0), window - 1.0)
        low = int(np.floor(source))
        high = min(low + 1, window - 1)
        stretched[j] = ordered[low] * (1 - (source - low)) + ordered[high] * (source - low)
    kept = int(np.argmax(np.cumsum(stretched) > budget)) + 1
    return float(stretched[kept]), min(1.0, kept / length), budget, stretched


@pytest.mark.parametrize("clamp", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("window", [40, 97, 200])
def test_rows_equal_the_literal_algorithm(clamp: float, window: int) -> None:
    delta = delta_of(raw_sample(units=4, windows=1, length=window)[:, 0])
    cut = clamped(delta, clamp)
    descending = np.sort(cut, axis=1)[:, ::-1]
    lengths = paper_lengths(window)
    for length, found, alpha in zip(lengths, *table_rows(descending, cut.sum(axis=1), lengths), strict=True):
        for unit in range(len(delta)):
            if length <= window:
                assert (found[unit], alpha[unit]) == (0.0, 1.0)
                continue
            expected, share, _, stretched = literal(delta[unit], clamp, length)
            # Sums in another order may cross the budget one point earlier or later.
            place = round(float(share * length))
            near = stretched[[place - 1, place, min(place + 1, length - 1)]]
            assert min(abs(found[unit] - near)) <= 1e-12
            assert abs(alpha[unit] - share) * length <= 1.0 + 1e-9
            assert found[unit] == pytest.approx(expected, rel=0.05)


def test_most_rows_are_exactly_the_literal_ones() -> None:
    delta = delta_of(raw_sample(units=8, windows=1, length=100, seed=5)[:, 0])
    descending = np.sort(delta, axis=1)[:, ::-1]
    lengths = paper_lengths(100)[2:]
    equal = [
        found == pytest.approx(literal(delta[unit], 0.0, length)[0], rel=1e-10)
        for length, row in zip(lengths, table_rows(descending, delta.sum(axis=1), lengths)[0], strict=True)
        for unit, found in enumerate(row)
    ]
    assert np.mean(equal) > 0.99


@pytest.mark.parametrize(("window", "clamp"), [(2000, 0.05), (2000, 0.2), (4000, 0.05)])
def test_all_published_lengths_to_a_millionth(window: int, clamp: float) -> None:
    """The published constants at the 25 published lengths: Mamba-2, Mamba-1 and Zamba2."""
    delta = delta_of(raw_sample(units=3, windows=1, length=window, seed=11)[:, 0])
    cut = clamped(delta, clamp)
    lengths = paper_lengths(window)
    assert len(lengths) == 25
    found, alpha = table_rows(np.sort(cut, axis=1)[:, ::-1], cut.sum(axis=1), lengths)
    for row, length in enumerate(lengths):
        for unit in range(len(delta)):
            if length <= window:
                assert (found[row, unit], alpha[row, unit]) == (0.0, 1.0)
                continue
            expected, share = literal_at_once(cut[unit], length)
            assert found[row, unit] == pytest.approx(expected, rel=1e-6)
            assert alpha[row, unit] == pytest.approx(share, abs=1.5 / length)


def literal_at_once(cut: np.ndarray, length: int) -> tuple[float, float]:
    """`literal` without its loop, for long lists; the clamp is already applied."""
    window, ordered = len(cut), np.sort(cut)[::-1]
    source = np.clip((np.arange(length) + 0.5) * window / length - 0.5, 0.0, window - 1.0)
    low = np.floor(source).astype(int)
    high = np.minimum(low + 1, window - 1)
    stretched = ordered[low] * (1 - (source - low)) + ordered[high] * (source - low)
    kept = int(np.argmax(np.cumsum(stretched) > cut.sum())) + 1
    return float(stretched[kept]), min(1.0, kept / length)


def test_the_two_transcriptions_agree() -> None:
    delta = delta_of(raw_sample(units=1, windows=1, length=90)[0, 0])
    for length in (91, 150, 1000):
        cut = clamped(delta[None], 0.1)[0]
        assert literal_at_once(cut, length) == pytest.approx(literal(delta, 0.1, length)[:2], rel=1e-12)


def test_calibration_tables_hold_mean_and_largest_of_the_windows() -> None:
    raw = raw_sample(units=3, windows=4, length=60)
    table = summarise(raw, np.ones((3, 1), np.float32), knot_ranks(240, 32), clamps=(0.1,), dt_range=FREE).table(0.1)
    for row, length in enumerate(paper_lengths(60)):
        if length <= 60:
            assert (table.mean[row] == -np.inf).all() and (table.maximum[row] == -np.inf).all()
            continue
        for unit in range(3):
            each = [literal(delta_of(raw[unit, k]), 0.1, length)[0] for k in range(4)]
            assert table.mean[row, unit] == pytest.approx(float(raw_of(np.mean(each))), abs=2e-3)
            assert table.maximum[row, unit] == pytest.approx(float(raw_of(np.max(each))), abs=2e-3)
    assert (table.maximum >= table.mean).all()
    budget = [literal(delta_of(raw[0, k]), 0.1, 120)[2] for k in range(4)]
    assert table.budgets[:, 0] == pytest.approx(budget, rel=1e-6)


def test_rows_rise_and_kept_shares_fall_with_the_length() -> None:
    delta = clamped(delta_of(raw_sample(units=6, windows=1, length=128)[:, 0]), 0.05)
    descending, budget = np.sort(delta, axis=1)[:, ::-1], delta.sum(axis=1)
    previous, share_before = np.zeros(6), np.ones(6)
    lengths = (129, 160, 200, 256, 512, 1000, 5000, 12_000)
    for length, found, share in zip(lengths, *table_rows(descending, budget, lengths), strict=True):
        assert (found >= previous - 1e-9).all()
        assert ((share > 0) & (share <= share_before)).all()
        # The budget is that of 128 tokens, and the largest come first (half-pixel centres cost a little).
        assert (share * length <= 128 * 1.02).all()
        previous, share_before = found, share


@pytest.mark.parametrize(
    "delta",
    [
        np.full((1, 50), 0.01),
        np.zeros((1, 50)),
        np.concatenate([np.full((1, 49), 1e-6), np.full((1, 1), 30.0)], axis=1),
        np.full((1, 2), 0.5),
    ],
)
def test_edges_give_numbers(delta: np.ndarray) -> None:
    descending = np.sort(delta, axis=1)[:, ::-1]
    found, alpha = table_rows(descending, delta.sum(axis=1), (1, 2, 50, 51, 100, 9_600))
    assert np.isfinite(found).all() and np.isfinite(alpha).all() and (alpha > 0).all()


def test_lengths_scale_with_the_training_length() -> None:
    published = tuple(1000 * k for k in THOUSANDS)
    assert paper_lengths(2000) == paper_lengths(4000) == published
    assert paper_lengths(512)[:4] == (256, 512, 768, 1024) and paper_lengths(512)[-1] == 96 * 512
    assert paper_lengths(1)[0] == 1 and len(set(paper_lengths(3))) == len(paper_lengths(3))


def test_nearest_length_and_its_ties() -> None:
    lengths = paper_lengths(2000)
    chosen = {tokens: lengths[nearest_length(lengths, tokens)] for tokens in (3000, 3499, 3500, 3501, 9000, 10**6)}
    assert chosen == {3000: 3000, 3499: 3000, 3500: 3000, 3501: 4000, 9000: 8000, 10**6: 192_000}


def test_the_released_codes_lower_bounds() -> None:
    assert not paper_active(2000, 2999) and paper_active(2000, 3000)
    assert not paper_active(4000, 5000) and paper_active(4000, 5001)
    assert not paper_active(512, 767) and paper_active(512, 768)


def test_lengths_together_equal_lengths_alone() -> None:
    delta = delta_of(raw_sample(units=16, windows=1, length=300, seed=9)[:, 0])
    descending, budget = np.sort(delta, axis=1)[:, ::-1], delta.sum(axis=1)
    lengths = paper_lengths(300)
    together = table_rows(descending, budget, lengths)[0]
    assert np.array_equal(together, np.concatenate([table_rows(descending, budget, (n,))[0] for n in lengths]))
