"""Scores against cases worked by hand."""

from __future__ import annotations

import importlib.util

import pytest

from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation import metrics
from longmamba_mlx.evaluation.statistics import estimate, paired_gain


@pytest.mark.parametrize(
    ("answer", "references", "every", "some"),
    [
        ("The numbers are 12 and 34.", ["12", "34"], 1.0, 1.0),
        ("only 12", ["12", "34"], 0.5, 1.0),
        ("PARIS", ["paris"], 1.0, 1.0),
        ("", ["paris"], 0.0, 0.0),
    ],
)
def test_ruler_matches(answer: str, references: list[str], every: float, some: float) -> None:
    assert metrics.match_all(answer, references) == every and metrics.match_any(answer, references) == some


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("The cat, a dog.", "cat dog", 1.0),  # articles and marks do not count
        ("cat", "cat dog", 2 / 3),  # precision 1, recall 1/2
        ("cat cat bird", "cat dog", 2 / 5),  # one shared of three and two
        ("bird", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "a", 0.0),  # nothing is left of either
    ],
)
def test_token_f1(answer: str, reference: str, score: float) -> None:
    assert metrics.token_f1(answer, reference) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat sat", "the dog sat", 2 / 3),  # "the sat" of three different words each
        # Common subsequences "cat sat" and "a dog": four of the four different words of one and of five of the other.
        ("cat sat. a dog", "the cat sat. a dog", 8 / 9),
        ("sat cat", "cat sat", 1 / 2),  # only one of the two words is in order
        ("cat cat cat", "cat", 1.0),  # different words count, not their number
        ("", "cat", 0.0),
        ("...", "cat", 0.0),
    ],
)
def test_rouge_l(answer: str, reference: str, score: float) -> None:
    assert metrics.rouge_l(answer, reference) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("It is Food", "Food", 1.0),
        ("Food or Animal", "Food", 0.5),
        ("Animal", "Food", 0.0),
        ("Sports news", "Sports news", 1.0),  # "Sports" is part of the right class and does not count
        ("none", "Food", 0.0),
    ],
)
def test_classes(answer: str, reference: str, score: float) -> None:
    assert metrics.class_score(answer, reference, ["Food", "Animal", "Sports", "Sports news"]) == score


def test_numbers() -> None:
    assert metrics.number_score("Paragraph 15", "Paragraph 15") == 1.0
    assert metrics.number_score("15 or 16", "Paragraph 15") == 0.5
    assert metrics.number_score("none", "5") == 0.0 and metrics.number_score("5", "none") == 0.0


def test_code() -> None:
    assert metrics.code_score("\nreturn x\nmore", "return x") == 1.0
    assert metrics.code_score("# a comment\nreturn x", "return x") == 1.0
    assert metrics.code_score("```python\nreturn x", "return x") == 1.0
    # The longest common block is "ab": 2 * 2 / (3 + 3).
    assert metrics.code_score("abc", "abd") == 0.67
    assert metrics.code_score("// only", "abd") == 0.0 and metrics.code_score("", "abd") == 0.0


def test_chinese_needs_its_word_cutter() -> None:
    if importlib.util.find_spec("jieba") is None:
        with pytest.raises(UsageError, match="jieba"):
            metrics.token_f1_chinese("北京", "北京")
    else:
        assert metrics.token_f1_chinese("北京。", "北京") == 1.0
        assert metrics.rouge_l_chinese("北京", "北京") == pytest.approx(1.0, abs=1e-6)


def test_an_estimate_is_mean_and_standard_error() -> None:
    found = estimate([1.0, 0.0, 1.0, 0.0])
    assert found.mean == 0.5 and found.stderr == pytest.approx((1 / 3) ** 0.5 / 2) and found.documents == 4
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_a_paired_gain_knows_what_is_certain() -> None:
    documents = [str(number) for number in range(200)]
    base = {name: float(place % 2) for place, name in enumerate(documents)}
    better = {name: value + 0.25 for name, value in base.items()}
    gain = paired_gain(better, base, "off")
    assert gain is not None and (gain.difference, gain.low, gain.high) == (0.25, 0.25, 0.25)
    assert gain.probability == 0.0 and gain.documents == 200
    same = paired_gain(base, base, "off")
    assert same is not None and same.difference == 0.0 and same.probability == 1.0
    assert paired_gain(base, {"other": 1.0}, "off") is None


def test_the_bootstrap_interval_is_that_of_a_mean() -> None:
    # Differences of -1 and 1, 60 and 40 of a hundred: mean 0.2 over, spread of the mean 2 sqrt(.4 * .6 / 100) = 0.098.
    scores = {str(number): 1.0 if number < 60 else -1.0 for number in range(100)}
    gain = paired_gain(scores, dict.fromkeys(scores, 0.0), "off")
    assert gain is not None and gain.difference == pytest.approx(0.2)
    assert gain.low == pytest.approx(0.2 - 1.96 * 0.098, abs=0.03)
    assert gain.high == pytest.approx(0.2 + 1.96 * 0.098, abs=0.03)
    assert gain.probability == pytest.approx(0.05, abs=0.03)
