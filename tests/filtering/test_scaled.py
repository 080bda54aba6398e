"""Policies that scale A or dt: what they choose, and that a model so read is the model with those numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.perplexity import token_nll
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.filtering.delta import delta_of, raw_of
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.models.scaled import scaled
from longmamba_mlx.ops import reference
from longmamba_mlx.ops.inputs import ScanInputs
from longmamba_mlx.session.api import Model, load
from longmamba_mlx.session.session import Session
from tests.filtering.samples import policy

KERNELS = ("cpu", "compiled", "reference")


def plan_of(model: Model, name: str, total: int) -> FilterPlan:
    plan = model.with_filter(name).plan(total)
    assert plan is not None
    return plan


def read(model: Model, name: str, ids: np.ndarray, chunk: int = 512) -> Reading:
    model = model.with_filter(name)
    return prefill(model.loaded.model, ids, model.plan(len(ids), ids), chunk=chunk)


def close(one: Reading, other: Reading, rtol: float = 1e-3) -> bool:
    return all(
        np.allclose(np.array(a.ssm), np.array(b.ssm), rtol=rtol, atol=rtol * np.abs(np.array(b.ssm)).max())
        for a, b in zip(one.state.layers, other.state.layers, strict=True)
    )


def test_the_default_factor_is_the_training_length_over_the_documents(demo: Model) -> None:
    for name, write in (("scaled-dt", 0.125), ("scaled-a", 1.0)):
        plan = plan_of(demo, name, 8 * demo.training_length)
        for layer in plan.layers:
            assert layer.factors is not None
            assert layer.factors[0] == np.float32(0.125) and layer.factors[1] == write
        assert plan.is_scaled and not plan.is_off and not plan.needs_document and not plan.has_thresholds
        assert demo.with_filter(name).plan(demo.training_length) is None


def test_factors_are_given_for_all_layers_or_for_each(demo: Model) -> None:
    count = demo.loaded.config.n_layer
    each = "+".join(str(1 / (2 + index)) for index in range(count))
    found = [layer.factors for layer in plan_of(demo, f"scaled-a:factors={each}", 2000).layers]
    assert [pair is not None and float(pair[0]) for pair in found] == pytest.approx([1 / (2 + i) for i in range(count)])
    with pytest.raises(UsageError, match="factors"):
        demo.with_filter(f"scaled-a:factors={each}+1").plan(2000)


@pytest.mark.parametrize("name", ["demo", "demo-mamba1"])
def test_clipping_moves_the_extremes_of_a_layer_to_its_percentiles(name: str) -> None:
    model = load(name)
    plan = plan_of(model, "clipped-a:low=25:high=75", 2000)
    for index, layer in enumerate(plan.layers):
        rates = model.loaded.model.decay_rates(index)
        assert layer.factors is not None and layer.factors[1] == 1.0
        clipped = layer.factors[0].reshape(rates.shape) * rates
        low, high = np.percentile(rates, (25, 75))
        np.testing.assert_allclose(clipped, np.clip(rates, low, high), rtol=1e-5)
        inside = (rates >= low) & (rates <= high)
        assert 0.4 < inside.mean() < 0.7
    assert plan_of(model, "clipped-a:low=0:high=100", 2000).layers[0].factors[0] == pytest.approx(1.0)  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scaled-dt", {"factor": -1.0}),
        ("scaled-dt", {"factor": float("inf")}),
        ("scaled-dt", {"factor": float("nan")}),
        ("scaled-a", {"factors": (0.5, 0.0)}),
        ("scaled-a", {"factors": (float("nan"),)}),
        ("clipped-a", {"low": 60.0, "high": 40.0}),
        ("clipped-a", {"high": 101.0}),
    ],
)
def test_options_without_meaning_are_refused(name: str, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        policy(name, **options)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["demo", "demo-mamba1"])
def test_a_scaled_scan_is_that_of_other_weights(
    name: str, kernel: str, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A multiplied by s is log s added to A_log, on every backend; and the model itself is as before."""
    monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
    model = load(name, filter="off")
    ids = model.tokenizer.encode(story)[:540]
    before = read(model, "off", ids)
    found = read(model, "scaled-a:factors=0.25", ids)
    assert not close(found, before)
    assert close(read(model, "off", ids), before, rtol=1e-6)
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    plain = load(name, filter="off").loaded.model
    for layer in plain.layers:
        mixer = layer.scan
        assert mixer is not None
        mixer.A_log = mixer.A_log + np.log(0.25)
    assert close(found, prefill(plain, ids, None))


@pytest.mark.parametrize("kernel", ["cpu", "reference"])
@pytest.mark.parametrize("name", ["demo", "demo-mamba1"])
def test_scaled_dt_is_that_of_a_scan_with_other_steps(
    name: str, kernel: str, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dt is multiplied by s: the same as the specification with raw steps whose softplus is s times as large."""
    ids = load(name).tokenizer.encode(story)[:540]
    monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
    found = read(load(name, filter="off"), "scaled-dt:factor=0.25", ids)
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")

    def with_other_steps(scan: Any) -> Any:
        def run(inputs: ScanInputs) -> Any:
            raw = np.array(inputs.dt if inputs.dt_bias is None else inputs.dt + inputs.dt_bias)
            return scan(inputs._replace(dt=mx.array(raw_of(0.25 * delta_of(raw))), dt_bias=None))

        return run

    for scan in ("selective_scan", "ssd_scan"):
        monkeypatch.setattr(reference, scan, with_other_steps(getattr(reference, scan)))
    assert close(found, read(load(name, filter="off"), "off", ids))


@pytest.mark.parametrize("filter", ["scaled-dt", "scaled-a:factors=0.5", "clipped-a"])
def test_any_chunking_gives_the_same_state_and_no_map(demo: Model, story: str, filter: str) -> None:
    ids = demo.tokenizer.encode(story)[:1100]
    whole = read(demo, filter, ids, chunk=1100)
    assert whole.kept is None and whole.plan is not None
    for chunk in (77, 512):
        assert close(read(demo, filter, ids, chunk), whole)


def test_protected_tokens_are_read_as_without_a_filter(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:900]
    assert close(read(demo, "scaled-dt:last=900", ids), read(demo, "off", ids), rtol=1e-5)
    network = demo.loaded.model
    plan = plan_of(demo, "scaled-dt:last=200", 900)
    half = scaled(network, [layer.factors for layer in plan.layers])
    _, state = half(mx.array(ids[None, :700]))
    _, state = network(mx.array(ids[None, 700:]), state)
    expected = Reading(state, None, None)
    assert close(read(demo, "scaled-dt:last=200", ids), expected)


def test_digests_tell_factors_apart(demo: Model) -> None:
    names = ("scaled-dt", "scaled-a", "clipped-a", "scaled-dt:factor=0.5", "scaled-a:factors=0.5", "clipped-a:low=5")
    digests = [plan_of(demo, name, total).digest() for name in names for total in (1000, 2000)]
    assert len(set(digests)) == len(digests)
    assert json.loads(demo.with_filter("scaled-dt").policy.canonical()) == {
        "factor": 0.0, "mode": "scaled-dt", "protect_first": 0, "protect_last": 0,
    }  # fmt: skip


def test_perplexity_scores_what_the_scaled_model_says(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:540]
    plan = plan_of(demo, "scaled-a:factors=4", 540)
    twin = replace(demo.loaded, model=scaled(demo.loaded.model, [layer.factors for layer in plan.layers]))
    expected = token_nll(Model(twin, demo.tokenizer, "off", demo.form), ids, None)
    np.testing.assert_allclose(token_nll(demo, ids, plan), expected, rtol=1e-3, atol=1e-3)
    assert np.abs(expected - token_nll(demo, ids, None)).max() > 0.01


def test_a_longer_document_is_read_from_its_beginning(tmp_path: Path, story: str) -> None:
    """The factor depends on the length: a state of the shorter text is not that of the longer one's beginning."""
    path = tmp_path / "story.txt"
    path.write_text(story[:4000], encoding="utf-8")
    session = Session("demo", filter="scaled-dt")
    list(session.open([str(path)]))
    path.write_text(story, encoding="utf-8")
    list(session.open([str(path)]))
    grown = np.array(session.books[-1].state.layers[1].ssm)
    fresh = load("demo", filter="scaled-dt").read(str(path))
    np.testing.assert_array_equal(grown, np.array(fresh.state.layers[1].ssm))
