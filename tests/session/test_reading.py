"""Reading: any chunking gives one state, the filter works on the whole document, stopping stops."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import LongMambaError, StoppedError
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.progress import Progress
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.models import state
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.session.api import Model, load

MODES = ("off", "paper", "curve", "document")


def plan_of(model: Model, mode: str, ids: np.ndarray) -> FilterPlan | None:
    return model.with_filter(mode).plan(len(ids), ids)


def largest_difference(first: Reading, second: Reading) -> float:
    pairs = zip(first.state.arrays().values(), second.state.arrays().values(), strict=True)
    return max(float(np.abs(np.array(a) - np.array(b)).max() / (np.abs(np.array(a)).max() + 1e-9)) for a, b in pairs)


@pytest.mark.parametrize("mode", MODES)
def test_every_chunking_gives_the_same_state_and_logits(demo: Model, story: str, mode: str) -> None:
    ids = demo.tokenizer.encode(story)[:1500]
    plan = plan_of(demo, mode, ids)
    whole = prefill(demo.loaded.model, ids, plan, chunk=len(ids))
    assert whole.logits is not None and whole.logits.shape == (demo.loaded.config.vocab_size,)
    for chunk in (512, 77):
        parts = prefill(demo.loaded.model, ids, plan, chunk=chunk)
        assert parts.state.tokens == whole.state.tokens == len(ids)
        assert largest_difference(whole, parts) < 1e-4
        assert parts.logits is not None
        np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-3 * np.abs(whole.logits).max())


@pytest.mark.parametrize("mode", ("off", "paper"))
def test_a_gpu_is_waited_for_once_a_chunk(demo: Model, story: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mx.eval waits; none for a layer on its own, or for the kept counts. NumPy's layers run where there is no
    GPU, and may wait."""
    ids = demo.tokenizer.encode(story)[:1500]
    plan, waits, evaluate = plan_of(demo, mode, ids), [], mx.eval

    def waited(*arrays: object) -> None:
        waits.append(sys._getframe(1).f_globals["__name__"])
        evaluate(*arrays)

    monkeypatch.setattr(mx, "eval", waited)
    prefill(demo.loaded.model, ids, plan, logits="none")
    assert [name for name in waits if not name.startswith("longmamba_mlx.ops.cpu.")] == 3 * [state.__name__]


@pytest.mark.parametrize("mode", MODES)
def test_one_chunk_ahead_gives_the_same_reading(
    demo: Model, story: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLX computes lazily the next chunk is begun before this one is told: never more than one."""
    ids = demo.tokenizer.encode(story)[:700]
    plan = plan_of(demo, mode, ids)
    expected = prefill(demo.loaded.model, ids, plan, chunk=128)
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model, begun, told = load("demo").loaded.model, [], []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda piece: begun.append(piece.shape[1]) or embed(piece))
    states = []

    def tell(progress: Progress) -> None:
        told.append(progress.done)
        if mode != "document":
            assert len(begun) == min(len(told) + 1, 6)

    reading = prefill(
        model, ids, plan, chunk=128, on_progress=tell, on_chunk=lambda state, _: states.append(state.tokens)
    )
    assert told[-1] == 700 and (mode == "document" or told == states == [128, 256, 384, 512, 640, 700])
    assert largest_difference(expected, reading) < 1e-4
    assert (reading.kept is None) == (expected.kept is None)
    if reading.kept is not None and expected.kept is not None:
        assert np.abs(reading.kept.astype(int) - expected.kept).max() <= 2


def test_one_token_at_a_time(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:560]
    plan = plan_of(demo, "document", ids)
    whole, single = (prefill(demo.loaded.model, ids, plan, chunk=chunk) for chunk in (560, 1))
    assert largest_difference(whole, single) < 1e-4


@pytest.mark.parametrize("mode", ("paper", "curve", "document"))
def test_filters_change_long_readings_and_leave_short_ones(demo: Model, story: str, mode: str) -> None:
    ids = demo.tokenizer.encode(story)
    plan = plan_of(demo, mode, ids)
    assert plan is not None and not plan.is_off
    off, on = (prefill(demo.loaded.model, ids, p) for p in (None, plan))
    assert largest_difference(off, on) > 0.01
    assert on.plan is not None and not on.plan.needs_document
    assert plan_of(demo, mode, ids[:512]) is None


def test_a_fixed_plan_reads_chunk_by_chunk_to_the_same_state(demo: Model, story: str) -> None:
    """The thresholds that the document order finds, used in the streaming order, give the same state."""
    ids = demo.tokenizer.encode(story)[:1400]
    by_layer = prefill(demo.loaded.model, ids, plan_of(demo, "document", ids))
    assert by_layer.plan is not None
    assert largest_difference(by_layer, prefill(demo.loaded.model, ids, by_layer.plan)) < 1e-4


def test_the_budget_is_met_on_this_document(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)
    plan = plan_of(demo, "document", ids)
    assert plan is not None
    reading = prefill(demo.loaded.model, ids, plan, chunk=len(ids))
    model, calibration = demo.loaded.model, demo.calibration
    assert reading.plan is not None and calibration is not None
    raw, _ = model.raw_step(0, model.embed(mx.array(ids[None])), model.initial_state().layers[0])
    delta = np.log1p(np.exp(np.array(raw[0], np.float64)))
    thresholds = reading.plan.thresholds(0)
    if thresholds is None:
        pytest.skip("the first layer has no global head")
    budget = calibration.layers[0].budgets.astype(np.float64).mean(axis=0)
    for unit in np.flatnonzero(thresholds > -np.inf):
        kept = delta[np.array(raw[0])[:, unit] > thresholds[unit], unit].sum()
        counts = np.unique(delta[:, unit].round(12), return_counts=True)
        largest_group = float((counts[0] * counts[1]).max())
        assert abs(kept - budget[unit]) <= largest_group + 1e-6


def test_progress_counts_up_to_all_tokens(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:1300]
    for mode in ("off", "document"):
        seen: list[Progress] = []
        prefill(demo.loaded.model, ids, plan_of(demo, mode, ids), chunk=256, on_progress=seen.append)
        done = [progress.done for progress in seen]
        assert done == sorted(done) and done[-1] == 1300 == seen[-1].total
        assert seen[-1].memory > 1_000_000 and seen[-1].tokens_per_second > 0 and seen[-1].seconds_left == 0


@pytest.mark.parametrize("mode", ("off", "document"))
def test_stopping_ends_within_a_chunk(demo: Model, story: str, mode: str) -> None:
    ids = demo.tokenizer.encode(story)
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls == 3

    with pytest.raises(StoppedError):
        prefill(demo.loaded.model, ids, plan_of(demo, mode, ids), chunk=128, should_stop=stop)
    assert calls == 3


def test_logits_for_every_token(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:700]
    whole = demo.logits(ids, chunk=512)
    assert whole.shape == (700, demo.loaded.config.vocab_size) and whole.dtype == np.float32
    last = prefill(demo.loaded.model, ids, demo.plan(700, ids)).logits
    assert last is not None
    np.testing.assert_allclose(whole[-1], last, atol=1e-3 * np.abs(last).max())


def test_nonsense_is_refused(demo: Model) -> None:
    for ids, chunk in (([], 4), ([1, 2], 0), ([[1, 2]], 4)):
        with pytest.raises(ValueError):
            prefill(demo.loaded.model, np.asarray(ids, np.uint32), None, chunk=chunk)


def test_broken_weights_are_named_not_answered(tmp_path: Path) -> None:
    import mlx.core as mx

    from longmamba_mlx.registry.resolve import resolve

    folder = tmp_path / "broken"
    shutil.copytree(resolve("demo"), folder)
    weights = mx.load(str(folder / "model.safetensors"))
    name = "backbone.layers.1.mixer.D"
    weights[name] = weights[name] * float("nan")
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    with pytest.raises(LongMambaError, match=r"NaN|finite"):
        prefill(load_model(folder).model, np.arange(50, dtype=np.uint32), None)
