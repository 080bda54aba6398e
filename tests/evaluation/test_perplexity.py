"""Perplexity: which windows, which tokens, and that their likelihood is the model's own."""

from __future__ import annotations

import numpy as np
import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.measure import measure, readers_for
from longmamba_mlx.evaluation.perplexity import SCORED, perplexity_documents, take_window, token_nll, window_ends
from longmamba_mlx.evaluation.report import rows
from longmamba_mlx.evaluation.samples import SampleLog
from longmamba_mlx.session.api import Model


@pytest.fixture(scope="module")
def ids(demo: Model, story: str) -> np.ndarray:
    return demo.tokenizer.encode(story)


def direct(model: Model, ids: np.ndarray) -> np.ndarray:
    logits = model.logits(ids).astype(np.float64)[:-1]
    logs = logits - logits.max(1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    return -logs[np.arange(len(logs)), ids[1:]]


@pytest.mark.parametrize("name", ["off", "paper", "document", "paper:last=200:first=33"])
def test_token_likelihoods_are_the_models(demo: Model, ids: np.ndarray, name: str) -> None:
    model, window = demo.with_filter(name), ids[:1300]
    found = token_nll(model, window, model.plan(len(window), window))
    np.testing.assert_allclose(found, direct(model, window), rtol=2e-3, atol=2e-3)


def test_windows_end_at_the_same_places_for_all_lengths(ids: np.ndarray) -> None:
    books = {"long": ids, "short": ids[:1400], "other": ids[:1600]}
    documents, short = perplexity_documents(books, [600, 1500], samples=6)
    assert short == ["short"] and len(documents) == 12
    first, second = documents[:6], documents[6:]
    for left, right in zip(first, second, strict=True):
        a, b = left.make(), right.make()
        assert (len(a), len(b)) == (600, 1500) and np.array_equal(a[-SCORED:], b[-SCORED:])
        assert left.document == right.document
    assert window_ends(1000, 400, 4) == [400, 600, 800, 1000] and window_ends(1000, 400, 1) == [1000]


def test_texts_and_lengths_that_do_not_fit(ids: np.ndarray) -> None:
    with pytest.raises(UsageError, match="has 100,000 tokens"):
        perplexity_documents({"a": ids}, [100_000], samples=1)
    with pytest.raises(UsageError, match="too short"):
        perplexity_documents({"a": ids}, [SCORED], samples=1)


def test_all_filters_score_the_same_tokens(demo: Model, ids: np.ndarray) -> None:
    documents, _ = perplexity_documents({"a": ids}, [512, 1500], samples=2)
    readers = readers_for(demo, ["off", "paper", "decimamba", "last"], "")
    found = {(row.length, row.filter): row for row in
             rows(measure(documents, readers, SampleLog(), {}, take_window), likelihood=True)}  # fmt: skip
    for name in ("paper", "decimamba", "last"):  # nothing is filtered, dropped or left out up to the training length
        assert found[512, name].nll == pytest.approx(found[512, "off"].nll, rel=1e-4)
    window = documents[2].make()
    expected = [direct(demo.with_filter("off"), planned.make()) for planned in documents[2:]]
    assert len(window) == 1500
    assert found[1500, "off"].nll == pytest.approx(np.mean([nll[-SCORED:].mean() for nll in expected]), rel=1e-3)
    assert found[1500, "off"].nll_whole == pytest.approx(np.mean([nll.mean() for nll in expected]), rel=1e-3)
    assert found[1500, "decimamba"].nll_whole is None and found[1500, "last"].nll_whole is None
    assert found[1500, "off"].accuracy is None and found[1500, "paper"].gain is not None
