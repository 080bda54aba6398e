"""Haystacks and scores, checked against what was put in."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from longmamba_mlx.api import Model
from longmamba_mlx.documents import Document
from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.evaluation.names import draw_names, one_letter_off, split_of
from longmamba_mlx.evaluation.needles import Filler, hide
from longmamba_mlx.evaluation.niah import _row, _Score, answer_nll, measure, parse_lengths


@pytest.fixture(scope="module")
def filler(demo: Model, story: str) -> Filler:
    return Filler([story], lambda text: len(demo.tokenizer.encode(text)))


def test_sentences_put_together_are_the_text(story: str, filler: Filler) -> None:
    assert "".join(filler.sentences) == story.lstrip()


@pytest.mark.parametrize("tokens", (300, 1000, 9000))
def test_a_haystack_holds_its_needles_once_and_has_its_length(demo: Model, filler: Filler, tokens: int) -> None:
    for seed in range(5):
        stack = hide(filler, tokens, 4, random.Random(seed))
        assert len(stack.needles) == len(stack.strangers) == 4
        assert all(stack.text.count(needle.sentence) == 1 for needle in stack.needles)
        assert not any(f" of {name} is" in stack.text for name in stack.strangers)
        assert len({needle.code for needle in stack.needles}) > 1
        assert abs(len(demo.tokenizer.encode(stack.text)) - tokens) < 60 + 0.01 * tokens
        places = [stack.text.index(needle.sentence) / len(stack.text) for needle in stack.needles]
        assert places == sorted(places)
        assert all(abs(p - n.depth) < 0.25 for p, n in zip(places, stack.needles, strict=True))


def test_haystacks_are_reproducible(filler: Filler) -> None:
    assert hide(filler, 600, 3, random.Random(5)) == hide(filler, 600, 3, random.Random(5))
    assert hide(filler, 600, 3, random.Random(5)) != hide(filler, 600, 3, random.Random(6))


def test_what_cannot_be_made_is_refused(filler: Filler) -> None:
    with pytest.raises(UsageError):
        hide(filler, 100, 4, random.Random(0))
    with pytest.raises(DocumentError):
        Filler(["Too short."], len)


def test_names_stay_in_their_split() -> None:
    rng = random.Random(1)
    for split in ("train", "dev", "test"):
        for name in draw_names(rng, split, 60, ["harbour", "window"]):
            words = [word for word in name.split() if not word.isdigit()]
            assert any(split_of(word) == split for word in words) or name.split()[-1].isdigit()
    changed = one_letter_off("Harbour", rng)
    assert len(changed) == 7 and sum(a != b for a, b in zip(changed, "Harbour", strict=True)) == 1


def test_standard_error_is_over_documents() -> None:
    scores = [_Score(1.0, 0.1, 0.0), _Score(0.5, 0.3, 0.0), _Score(0.0, 0.5, 0.25)]
    row = _row("off", 512, scores, 4)
    assert row.accuracy == 0.5 and row.samples == 12 and row.documents == 3
    assert row.stderr == pytest.approx(0.5 / math.sqrt(3)) and row.nll == pytest.approx(0.3)
    assert row.refused == pytest.approx(0.25 / 3)


def test_answer_nll_is_the_log_likelihood_of_the_answer(demo: Model, story: str) -> None:
    book = demo.read(Document("story", story[:1200]))
    question, answer = "What is the access code of Zorvath?", " 48213"
    ids = np.concatenate([demo.tokenizer.encode(demo.form.ask(question)), demo.tokenizer.encode(answer)])
    import mlx.core as mx

    hidden, _ = demo.loaded.model(mx.array(ids[None]), book.state)
    logits = np.array(demo.loaded.model.head(hidden)[0], np.float64)
    wanted = len(demo.tokenizer.encode(answer))
    rows = logits[-wanted - 1 : -1]
    logs = rows - np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True)) - rows.max(1, keepdims=True)
    expected = -logs[np.arange(wanted), ids[-wanted:]].mean()
    assert answer_nll(book, question, answer) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_niah_rows(demo: Model, filler: Filler) -> None:
    rows = list(measure(demo, filler, [512, 1536], ["off", "longmamba", "last"], samples=8, facts=4))
    assert [(row.filter, row.length) for row in rows] == [
        (name, length) for length in (512, 1536) for name in ("off", "longmamba", "last")
    ]
    assert all(row.samples == 8 and row.documents == 2 and row.nll is not None for row in rows)
    assert rows[1].accuracy >= 0.75
    assert all(0 <= row.accuracy <= 1 for row in rows)
    absent = list(measure(demo, filler, [512], ["off"], samples=8, absent=True))
    assert absent[0].nll is None and absent[0].accuracy == absent[0].refused


def test_lengths() -> None:
    assert parse_lengths("512, 4x,10000", 512) == [512, 2048, 10000]
    for wrong in ("", "x", "-1", "0", "1e3", "99999999999"):
        with pytest.raises(UsageError):
            parse_lengths(wrong, 512)
