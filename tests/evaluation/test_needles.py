"""Haystacks: what was put in is in them, where it was wanted."""

from __future__ import annotations

import random

import pytest

from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.evaluation.names import draw_names, one_letter_off, split_of
from longmamba_mlx.evaluation.needles import Filler, hide
from longmamba_mlx.evaluation.niah import parse_depths, parse_lengths
from longmamba_mlx.session.api import Model


@pytest.fixture(scope="module")
def filler(demo: Model, story: str) -> Filler:
    return Filler([story], lambda text: len(demo.tokenizer.encode(text)))


def test_sentences_put_together_are_the_text_without_its_own_facts(story: str, filler: Filler) -> None:
    own = "The access code of Zorvath is 48213. "
    assert own in story and "".join(filler.sentences) == story.lstrip().replace(own, "")


@pytest.mark.parametrize("tokens", (300, 1000, 9000))
def test_a_haystack_holds_its_needles_once_and_has_its_length(demo: Model, filler: Filler, tokens: int) -> None:
    for seed in range(5):
        stack = hide(filler, tokens, 4, random.Random(seed))
        assert len(stack.needles) == len(stack.strangers) == 4
        assert all(stack.text.count(needle.sentence) == 1 for needle in stack.needles)
        assert not any(f" of {name} is" in stack.text for name in stack.strangers)
        assert len({needle.code for needle in stack.needles}) > 1
        assert abs(len(demo.tokenizer.encode(stack.text)) - tokens) < 80 + 0.01 * tokens
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


def test_a_fact_at_a_wanted_depth(filler: Filler) -> None:
    for depth in (0.0, 0.3, 1.0):
        stack = hide(filler, 2000, 3, random.Random(4), depth=depth)
        place = stack.text.index(stack.needles[stack.asked].sentence) / len(stack.text)
        assert abs(place - depth) < 0.06 and abs(stack.needles[stack.asked].depth - depth) < 0.02


def test_lengths() -> None:
    assert parse_lengths("512, 4x,10000", 512) == [512, 2048, 10000]
    for wrong in ("", "x", "-1", "0", "1e3", "99999999999"):
        with pytest.raises(UsageError):
            parse_lengths(wrong, 512)


def test_depths() -> None:
    assert parse_depths("") == [] and parse_depths("0, 0.5,1") == [0.0, 0.5, 1.0]
    assert parse_depths("3") == [0.0, 0.5, 1.0] and len(parse_depths("11")) == 11
    for wrong in ("x", "-0.1", "0,2", "nan"):
        with pytest.raises(UsageError):
            parse_depths(wrong)
