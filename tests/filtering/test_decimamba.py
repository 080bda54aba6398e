"""DeciMamba: which tokens stay, and that dropping them is leaving them out of scan and all layers above."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.policies.decimamba import LEAST, decimation, default_layers, kept_positions
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.ops import implementation
from longmamba_mlx.ops.cpu import numpy_ops
from longmamba_mlx.session.api import Model, load
from tests.filtering.samples import raw_sample

FREE = (0.0, float("inf"))


def test_published_layers_and_counts() -> None:
    assert default_layers(24, True, range(24)) == default_layers(48, True, range(48)) == (12,)
    assert default_layers(64, True, range(64)) == (22,)
    assert default_layers(48, False, range(48)) == (6, 20, 22, 32)
    assert default_layers(3, False, range(3)) == default_layers(2, True, range(2)) == (1,)
    assert default_layers(1, True, [0]) == (0,)
    assert default_layers(48, False, [0, 7, 21, 30]) == (7, 21, 30)  # a hybrid: the next layers with a scan
    assert decimation((12, 14, 16), 2000, 0.5, range(24)).counts == (2000, 1000, 500)
    assert decimation((3,), 5, 1.0, range(24)).counts == (LEAST,)
    chosen = decimation((3,), 100, 1.0, range(24))
    assert chosen.count(3) == 100 and chosen.count(4) is None
    for layers, scans in (((24,), range(24)), ((1,), [0, 2])):
        with pytest.raises(UsageError, match="with a scan"):
            decimation(layers, 100, 1.0, scans)


@given(st.integers(0, 200), st.integers(1, 80), st.integers(0, 10), st.integers(0, 10))
def test_the_largest_norms_stay(seed: int, count: int, first: int, last: int) -> None:
    raw = raw_sample(units=3, windows=1, length=60, seed=seed)[:, 0].T
    kept = kept_positions(raw, count, FREE, first=first, last=last)
    assert (np.diff(kept) > 0).all() and kept[0] >= 0 and kept[-1] < 60
    norms = np.sqrt((np.log1p(np.exp(raw.astype(np.float64))) ** 2).sum(1))
    inside = np.arange(first, 60 - last)
    chosen, dropped = np.intersect1d(kept, inside), np.setdiff1d(inside, kept)
    assert len(chosen) == min(count, len(inside))
    if len(dropped):
        assert norms[chosen].min() >= norms[dropped].max()
    assert set(range(first)) <= set(kept) and set(range(60 - last, 60)) <= set(kept)


def test_equal_norms_keep_the_earlier_token() -> None:
    assert kept_positions(np.zeros((9, 2), np.float32), 4, FREE).tolist() == [0, 1, 2, 3]


@pytest.fixture(scope="module", params=["demo", "demo-mamba1"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(request.param, filter="decimamba:layers=1:base=300")


@pytest.mark.skipif(implementation() != "cpu", reason="reaches into the NumPy layers")
def test_dropping_equals_a_step_of_zero_in_every_unit(
    model: Model, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that neither writes nor decays in any unit is as good as gone from a scan: leaving it out in layer 1 must
    give the state that zero steps give, and the layers above must see the kept tokens' outputs only."""
    ids = model.tokenizer.encode(story)[:1100]
    network = model.loaded.model
    reading = prefill(network, ids, model.plan(len(ids), ids))
    assert reading.kept is not None
    kept = np.flatnonzero(reading.kept == 255)
    assert len(kept) == 300 and set(reading.kept) == {0, 255}

    plain = numpy_ops.filtered_dt
    states = network.initial_state().layers
    import mlx.core as mx

    hidden, first = network.layer(0, network.embed(mx.array(ids[None])), states[0])
    place = [0]

    def zeroed(raw: Any, threshold: Any, limit: Any) -> Any:
        step, keep = plain(raw, threshold, limit)
        mask = np.isin(np.arange(place[0], place[0] + raw.shape[1]), kept)
        place[0] += raw.shape[1]
        return np.ascontiguousarray(step * mask[None, :, None].astype(np.float32)), keep

    monkeypatch.setattr(numpy_ops, "filtered_dt", zeroed)
    hidden, second = network.layer(1, hidden, states[1])
    monkeypatch.setattr(numpy_ops, "filtered_dt", plain)
    hidden, after = hidden[:, mx.array(kept.astype(np.int32))], [first, second]
    for index in range(2, len(states)):
        hidden, above = network.layer(index, hidden, states[index])
        after.append(above)
    for found, expected in zip(reading.state.layers, after, strict=True):
        np.testing.assert_allclose(np.array(found.ssm), np.array(expected.ssm), rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(np.array(found.conv), np.array(expected.conv), rtol=1e-3, atol=1e-4)
    expected_logits = np.array(network.head(hidden[:, -1:])[0, 0])
    np.testing.assert_allclose(reading.logits, expected_logits, rtol=1e-3, atol=1e-3)


def test_any_chunking_gives_the_same_state(model: Model, story: str) -> None:
    ids = model.tokenizer.encode(story)[:900]
    plan = model.plan(len(ids), ids)
    whole = prefill(model.loaded.model, ids, plan, chunk=900)
    for chunk in (7, 256):
        pieces = prefill(model.loaded.model, ids, plan, chunk=chunk)
        np.testing.assert_allclose(pieces.logits, whole.logits, rtol=1e-3, atol=1e-3)


def test_short_documents_and_large_counts_drop_nothing(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:900]
    assert demo.with_filter("decimamba").plan(900, ids) is None  # fewer than two training windows
    assert demo.with_filter("decimamba:base=900").plan(900, ids) is None
    assert demo.with_filter("decimamba:base=899").plan(900, ids) is not None


def test_protected_tokens_and_progress(demo: Model, story: str) -> None:
    ids = demo.tokenizer.encode(story)[:1100]
    reader = demo.with_filter("decimamba:base=100:first=20:last=30")
    seen: list[int] = []
    reading = prefill(
        reader.loaded.model, ids, reader.plan(len(ids), ids), on_progress=lambda step: seen.append(step.done)
    )
    assert reading.kept is not None and (reading.kept[:20] == 255).all() and (reading.kept[-30:] == 255).all()
    assert (reading.kept == 255).sum() == 150 and reading.state.tokens == 1100
    assert seen == sorted(seen) and seen[-1] == 1100
    assert reader.plan(1100, ids).digest() != demo.with_filter("decimamba:base=100").plan(1100, ids).digest()  # type: ignore[union-attr]
