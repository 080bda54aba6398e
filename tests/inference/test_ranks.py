"""A document read by several ranks gives the bits of one that is read by one: all families, odd spans, any start."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import FilterPlan, build_plan, collect, policy_for
from longmamba_mlx.ground.steps import run_to_end
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.progress import Progress
from longmamba_mlx.inference.ranks import messages, sweeps
from longmamba_mlx.inference.ranks.messages import from_cells, to_cells
from longmamba_mlx.inference.ranks.ring import Ring
from longmamba_mlx.inference.ranks.sweeps import cut
from longmamba_mlx.inference.ranks.wave import wave_steps
from longmamba_mlx.inference.reading import PrefillOptions, Reading
from longmamba_mlx.models import LanguageModel, ModelState
from longmamba_mlx.models.loading import load_model, make_ready
from tests.inference.loopback import run_ranks
from tests.models.hybrids import write_folder
from tests.models.samples import CONFIGS, random_model
from tests.parity import comparing


def some_ids(length: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 37, length).astype(np.uint32)


def plan_for(model: LanguageModel, total: int, filter: str = "curve", **settings: object) -> FilterPlan:
    windows = np.random.default_rng(0).integers(0, 37, (3, 64)).astype(np.uint32)
    measured = collect(model, windows, clamps=(0.05,), knots=16, chunk=32)
    plan = build_plan(measured, policy_for(model.config, filter, {"theta": 1e-9, **settings}), total)
    assert not plan.is_off
    return plan


def read_by(
    size: int,
    model: LanguageModel,
    ids: np.ndarray,
    plan: FilterPlan | None,
    *,
    chunk: int = 8,
    marks: tuple[int, ...] = (),
    start: Reading | None = None,
) -> tuple[Reading, list[tuple[ModelState, np.ndarray | None]], list[Ring]]:
    """Rank 0's reading, what it saw after each sweep, and all ranks' places."""
    seen: list[tuple[ModelState, np.ndarray | None]] = []
    rings: list[Ring] = []

    def work(ring: Ring) -> Reading | None:
        rings.append(ring)

        def on_chunk(state: ModelState, kept: np.ndarray | None) -> None:
            assert ring.rank == 0
            seen.append((state, None if kept is None else kept.copy()))

        options = PrefillOptions(chunk, start=start, on_chunk=on_chunk)
        return run_to_end(wave_steps(model, ids, plan, options, ring, marks))

    first, *others = run_ranks(size, work)
    assert first is not None and others == [None] * (size - 1)
    return first, seen, rings


def assert_same(found: ModelState, expected: ModelState) -> None:
    assert found.tokens == expected.tokens
    ours, theirs = found.arrays(), expected.arrays()
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        assert mx.array_equal(ours[name], array).item(), name


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8])
def test_the_state_is_that_of_one_process_to_the_last_bit(name: str, size: int) -> None:
    model, ids = random_model(name), some_ids(203)
    make_ready(model)
    plan = plan_for(model, len(ids))
    whole = prefill(model, ids, plan, chunk=8, logits="none")
    found, seen, _ = read_by(size, model, ids, plan, marks=(40, 104, 200))
    assert_same(found.state, whole.state)
    assert whole.kept is not None and found.kept is not None
    assert np.array_equal(found.kept, whole.kept) and len(set(whole.kept)) > 2
    assert [state.tokens for state, _ in seen] == [40, 104, 200, 203]
    for state, kept in seen:
        assert_same(state, prefill(model, ids[: state.tokens], plan, chunk=8, logits="none").state)
        assert kept is not None and np.array_equal(kept, whole.kept[: state.tokens])


@pytest.mark.parametrize(
    "name", ["mamba3-siso-norm-groups-mlp", "mamba3-mimo", "llamba", "zamba2-1.2b", "nemotron_h-experts", "falcon_h1"]
)
def test_the_other_families_too(name: str, tmp_path: Path) -> None:
    fixture = comparing.fixture(name)
    model = load_model(fixture.write_folder(tmp_path / name), attention_window=20).model
    ids = np.resize(fixture.ids.reshape(-1), 150).astype(np.uint32)
    whole = prefill(model, ids, None, chunk=8, logits="none")
    for size in (2, 3):
        assert_same(read_by(size, model, ids, None, marks=(48,))[0].state, whole.state)


@pytest.mark.parametrize("size", [2, 3])
def test_a_reading_begins_where_another_number_of_ranks_left_off(size: int) -> None:
    model, ids = random_model("mamba2"), some_ids(150)
    plan = plan_for(model, len(ids))
    whole = prefill(model, ids, plan, chunk=8, logits="none")
    _, seen, _ = read_by(5 - size, model, ids, plan, marks=(64,))
    state, kept = seen[0]
    start = Reading(state, None, plan, kept)
    found, rest, _ = read_by(size, model, ids, plan, start=start)
    assert_same(found.state, whole.state)
    assert found.kept is not None and whole.kept is not None and np.array_equal(found.kept, whole.kept)
    assert len(rest) == 1
    alone = prefill(model, ids, plan, chunk=8, logits="none", start=start)  # and one process goes on from ranks
    assert_same(alone.state, whole.state)


def test_protected_ends_and_scaled_layers_are_read_alike() -> None:
    model, ids = random_model("mamba"), some_ids(150)
    for filter, settings in (("curve", {"protect_first": 13, "protect_last": 21}), ("scaled-dt", {})):
        plan = plan_for(model, len(ids), filter, **settings)
        whole = prefill(model, ids, plan, chunk=8, logits="none")
        found, _, _ = read_by(3, model, ids, plan, marks=(61,))
        assert_same(found.state, whole.state)


def test_what_is_sent_does_not_depend_on_the_length() -> None:
    model = random_model("mamba2")
    sent = []
    for length in (160, 640, 1280):
        ids = some_ids(length)
        marks = (length // 4, length // 2, length * 3 // 4)
        _, seen, rings = read_by(2, model, ids, plan_for(model, length), marks=marks)
        assert len(seen) == 4
        sent.append(sum(ring.sent for ring in rings))
    state = model.initial_state().nbytes
    assert sent == [4 * 2 * (state + 2 * messages.CELLS)] * 3


def test_long_spans_are_cut_and_their_kept_shares_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = random_model("mamba2"), some_ids(403)
    monkeypatch.setattr(messages, "CELLS", 16)
    monkeypatch.setattr("longmamba_mlx.inference.ranks.wave.CELLS", 16)
    monkeypatch.setattr(sweeps, "SPAN_BYTES", 4 * 24 * 64)
    plan = plan_for(model, len(ids))
    whole = prefill(model, ids, plan, chunk=8, logits="none")
    found, seen, _ = read_by(2, model, ids, plan)
    assert_same(found.state, whole.state)
    assert [state.tokens for state, _ in seen] == [96, 200, 304, 403]  # at most 2 x 64 tokens each
    assert found.kept is not None and whole.kept is not None
    for first in (0, 48):
        means = whole.kept[first : first + 48].reshape(16, 3).astype(int).sum(axis=1) // 3
        assert np.array_equal(found.kept[first : first + 48], np.repeat(means, 3))


def test_cells_hold_each_share_or_their_means() -> None:
    kept = np.random.default_rng(0).integers(0, 256, 2 * messages.CELLS + 5).astype(np.uint8)
    for length in (0, 1, 100, messages.CELLS):
        assert np.array_equal(from_cells(to_cells(kept[:length]), length), kept[:length])
    back = from_cells(to_cells(kept), len(kept))  # three tokens to a cell
    assert len(back) == len(kept)
    assert np.array_equal(back[: 3 * 100].reshape(100, 3)[:, 0], kept[:300].reshape(100, 3).astype(int).sum(1) // 3)


def test_sweeps_and_spans_cover_every_piece_once() -> None:
    for count in (1, 2, 7, 40):
        pieces = [(8 * number, 8 * number + 8) for number in range(count)]
        for most in (1, 3, 100):
            cuts = cut(pieces, (32, 99), most)
            assert [piece for sweep in cuts for piece in sweep.pieces] == pieces
            assert all(len(sweep.pieces) <= most for sweep in cuts)
            assert (32 in {sweep.stop for sweep in cuts}) == (count >= 4)
            for sweep in cuts:
                for size in (1, 2, 3, 8):
                    spans = [sweep.span(rank, size) for rank in range(size)]
                    assert sum(spans, ()) == sweep.pieces
                    assert max(map(len, spans)) - min(map(len, spans)) <= 1
                    for rank, span in enumerate(spans):
                        assert sweep.first(rank, size) == (span[0][0] if span else sweep.first(rank + 1, size))


def test_progress_goes_up_to_the_end() -> None:
    model, ids = random_model("mamba2"), some_ids(203)

    def work(ring: Ring) -> list[Progress]:
        return list(wave_steps(model, ids, None, PrefillOptions(8), ring, (104,)))

    for steps in run_ranks(3, work):
        done = [step.done for step in steps]
        assert done == sorted(done) and done[-1] == 203 and all(step.total == 203 for step in steps)


def test_what_ranks_cannot_read_is_refused_before_reading(tmp_path: Path) -> None:
    model, ids = random_model("mamba2"), some_ids(300)
    with pytest.raises(UsageError, match="'document' looks at the whole document"):
        read_by(2, model, ids, plan_for(model, 300, "document"))
    hybrid = load_model(write_folder(tmp_path / "nemotron_h", "nemotron_h")).model
    with pytest.raises(UsageError, match="attention remembers every token"):
        read_by(2, hybrid, ids, None)
