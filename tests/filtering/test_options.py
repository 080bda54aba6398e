"""Filter names with options, protected tokens, the authors' factor b, budgets for other windows."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import Calibration, build_plan, collect, policy_for
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.filtering.names import parse_filter
from longmamba_mlx.filtering.policies.decimamba import DeciMamba
from longmamba_mlx.filtering.policies.document import Document
from longmamba_mlx.filtering.policies.paper import Paper
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.session.api import Model
from tests.filtering.samples import TinyConfig, TinyModel, policy, raw_sample

WINDOWS = np.random.default_rng(3).integers(0, 512, (3, 64)).astype(np.uint32)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return collect(TinyModel(), WINDOWS, clamps=(0.05,))


def test_names_and_their_options() -> None:
    assert parse_filter("paper") == (Paper, {})
    assert parse_filter("document:last=64:r=2") == (Document, {"protect_last": 64, "budget_factor": 2.0})
    assert parse_filter("decimamba:layers=12+20:base=4000") == (DeciMamba, {"layers": (12, 20), "base": 4000})
    assert parse_filter("curve:nats=3")[1]["theta"] == pytest.approx(math.exp(-3))
    for wrong in ("paper:", "paper:zz=1", "paper:b", "paper:b=x", "curve:window=1.5", "decimamba:layers=a"):
        with pytest.raises(UsageError):
            parse_filter(wrong)


@pytest.mark.parametrize("name", ["paper:r=2", "paper:layers=1", "document:b=2", "curve:combine=max", "off:theta=0.1"])
def test_an_option_of_another_policy_is_refused_with_those_it_takes(name: str) -> None:
    with pytest.raises(UsageError, match="Unknown filter option") as refused:
        parse_filter(name)
    assert refused.value.hint is not None and "first, last" in refused.value.hint


def test_a_name_changes_only_what_it_names() -> None:
    config = TinyConfig(model_type="mamba2", training_length=2048)
    plain, changed = policy_for(config, "paper"), policy_for(config, "paper:theta=0.1:last=9")
    assert changed.record() == {**plain.record(), "theta": 0.1, "protect_last": 9}
    assert changed.canonical() != plain.canonical() and changed.name == "paper"
    assert policy_for(config, "longmamba:b=0.8").canonical() == policy_for(config, "paper:b=0.8").canonical()
    assert policy_for(config, "off:last=3").canonical() == policy_for(config, "off").canonical()


@pytest.mark.parametrize("mode", ["paper", "curve"])
def test_the_factor_multiplies_thresholds_on_delta(calibration: Calibration, mode: str) -> None:
    base = build_plan(calibration, policy(mode, theta=0.0), 640)
    half = build_plan(calibration, policy(mode, theta=0.0, threshold_factor=0.5), 640)
    for index in range(2):
        plain, scaled = base.thresholds(index), half.thresholds(index)
        assert plain is not None and scaled is not None
        np.testing.assert_allclose(delta_of(scaled), 0.5 * delta_of(plain), rtol=1e-5)


@pytest.mark.parametrize("mode", ["curve", "document"])
def test_a_budget_for_twice_the_window_is_twice_the_budget(calibration: Calibration, mode: str) -> None:
    window = build_plan(calibration, policy(mode, theta=0.0, budget_window=128), 640)
    factor = build_plan(calibration, policy(mode, theta=0.0, budget_factor=2.0), 640)
    for left, right in zip(window.layers, factor.layers, strict=True):
        assert (left.thresholds is None) == (mode == "document")
        if left.thresholds is not None and right.thresholds is not None:
            assert np.array_equal(left.thresholds, right.thresholds)
        assert left.identity == right.identity and (left.identity == b"-") == (mode == "curve")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 40), st.integers(65, 120))
def test_pieces_never_reach_across_a_protected_edge(first: int, last: int, chunk: int, total: int) -> None:
    plan = build_plan(_tiny_calibration(), policy("curve", theta=0.0, protect_first=first, protect_last=last), total)
    start = filtered = 0
    while start < total:
        stop = min(start + chunk, plan.next_edge(start))
        assert start < stop <= total
        inside = [first <= token < total - last for token in range(start, stop)]
        assert set(inside) == {plan.filters(start)}
        filtered += sum(inside)
        start = stop
    assert filtered == max(0, total - last - first)


_KNOWN: list[Calibration] = []


def _tiny_calibration() -> Calibration:
    if not _KNOWN:
        _KNOWN.append(collect(TinyModel(), WINDOWS, clamps=(0.05,)))
    return _KNOWN[0]


def test_the_documents_budget_is_that_of_what_may_be_filtered() -> None:
    raw = raw_sample(units=4, windows=1, length=700)[:, 0].T
    plan = build_plan(_tiny_calibration(), policy("document", theta=0.0, protect_first=100, protect_last=50), 700)
    inside = build_plan(_tiny_calibration(), policy("document", theta=0.0), 550)
    np.testing.assert_array_equal(plan.resolve(0, raw), inside.resolve(0, raw[100:650]))
    everything = build_plan(_tiny_calibration(), policy("document", theta=0.0, protect_last=700), 700)
    assert everything.resolve(0, raw) is None


def _read(model: Model, name: str, ids: np.ndarray, chunk: int = 512) -> Reading:
    model = model.with_filter(name)
    return prefill(model.loaded.model, ids, model.plan(len(ids), ids), chunk=chunk)


@pytest.mark.parametrize("mode", ["paper", "document"])
def test_protected_tokens_are_read_as_without_a_filter(demo: Model, story: str, mode: str) -> None:
    ids = demo.tokenizer.encode(story)[:1500]
    whole = _read(demo, f"{mode}:last=1500", ids)
    off = _read(demo, "off", ids)
    for one, other in zip(whole.state.layers, off.state.layers, strict=True):
        np.testing.assert_allclose(np.array(one.ssm), np.array(other.ssm), rtol=1e-4, atol=1e-5)
    part = _read(demo, f"{mode}:first=64:last=200", ids)
    assert part.kept is not None and (part.kept[:64] == 255).all() and (part.kept[-200:] == 255).all()
    assert (part.kept[64:-200] < 255).mean() > 0.5
    again = _read(demo, f"{mode}:first=64:last=200", ids, chunk=77)
    np.testing.assert_allclose(part.logits, again.logits, rtol=1e-4, atol=1e-4)


def test_protecting_the_tail_reads_it_after_the_filtered_rest(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:1500]
    model = demo.with_filter("paper:last=200")
    plan = model.plan(len(ids), ids)
    assert plan is not None
    limits = [None if values is None else mx.array(values) for values in map(plan.thresholds, range(len(plan.layers)))]
    network = model.loaded.model
    _, state = network(mx.array(ids[None, :1300]), None, limits)
    hidden, _ = network(mx.array(ids[None, 1300:]), state)
    expected = np.array(network.head(hidden[:, -1:])[0, 0])
    np.testing.assert_allclose(_read(demo, "paper:last=200", ids).logits, expected, rtol=1e-4, atol=1e-4)
