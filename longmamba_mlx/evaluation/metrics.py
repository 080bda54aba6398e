"""Scores of answers, each from 0 to 1, as the published benchmarks define them.

RULER: `match_all`, `match_any`. LongBench: token F1, ROUGE-L, class, paragraph number, count and code similarity;
the Chinese tasks segment words with `jieba`; an error asks for it when it is missing.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

from longmamba_mlx.errors import UsageError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBERS = re.compile(r"\d+")
_CHINESE_MARKS = frozenset(
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."
)
_MARKS = frozenset(string.punctuation)


def match_all(answer: str, references: Sequence[str]) -> float:
    """The share of references that occur in the answer, ignoring case."""
    return sum(reference.lower() in answer.lower() for reference in references) / len(references)


def match_any(answer: str, references: Sequence[str]) -> float:
    """Whether any reference occurs in the answer, ignoring case."""
    return float(any(reference.lower() in answer.lower() for reference in references))


def normalised(text: str) -> str:
    """Lower case, no ASCII punctuation, no articles, single spaces (as SQuAD scores answers)."""
    plain = "".join(letter for letter in text.lower() if letter not in _MARKS)
    return " ".join(_ARTICLES.sub(" ", plain).split())


def token_f1(answer: str, reference: str) -> float:
    """F1 of the two bags of normalised words."""
    return _bag_f1(normalised(answer).split(), normalised(reference).split())


def token_f1_chinese(answer: str, reference: str) -> float:
    """F1 of the two bags of Chinese words without punctuation."""
    return _bag_f1(_plain_chinese(answer), _plain_chinese(reference))


def _bag_f1(answer: list[str], reference: list[str]) -> float:
    shared = (Counter(answer) & Counter(reference)).total()
    return 2 * shared / (len(answer) + len(reference)) if shared else 0.0


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L (F1) of two summaries, as LongBench computes it: full stops end sentences, and every distinct word on
    a longest common subsequence of a pair of sentences counts once. 0 if either has no sentence."""
    answers, references = _sentences(answer), _sentences(reference)
    if not answers or not references:
        return 0.0
    union: set[str] = set()
    for wanted in references:
        for given in answers:
            union |= set(_common_subsequence(wanted.split(" "), given.split(" ")))
    precision = len(union) / len({word for sentence in answers for word in sentence.split(" ")})
    recall = len(union) / len({word for sentence in references for word in sentence.split(" ")})
    return 2 * precision * recall / (precision + recall + 1e-8)


def rouge_l_chinese(answer: str, reference: str) -> float:
    """ROUGE-L over Chinese words."""
    return rouge_l(" ".join(_chinese_words(answer)), " ".join(_chinese_words(reference)))


def _sentences(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(".") if part]


def _common_subsequence(first: list[str], second: list[str]) -> list[str]:
    """A longest common subsequence; of several the one found from the end, stepping back in `first` on ties only where
    that keeps more."""
    lengths = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, left in enumerate(first, 1):
        for j, right in enumerate(second, 1):
            lengths[i][j] = lengths[i - 1][j - 1] + 1 if left == right else max(lengths[i - 1][j], lengths[i][j - 1])
    i, j, words = len(first), len(second), []
    while i and j:
        if first[i - 1] == second[j - 1]:
            words.append(first[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words[::-1]


def class_score(answer: str, reference: str, classes: Sequence[str]) -> float:
    """1 over the number of classes named in the answer where the right one is among them.

    Names that are part of the right one ("sport" in "sports news") do not count against it, but for those that
    directly follow another such name: LongBench removes them from the list it walks through, and so does this.
    """
    named = [name for name in classes if name in answer]
    for name in named:  # shrinks while it is walked through, as the published score does
        if name in reference and name != reference:
            named.remove(name)
    return 1 / len(named) if reference in named else 0.0


def number_score(answer: str, reference: str) -> float:
    """The share of numbers in the answer that are the reference's first number."""
    wanted = _NUMBERS.findall(reference)
    given = _NUMBERS.findall(answer)
    return sum(number == wanted[0] for number in given) / len(given) if wanted and given else 0.0


def code_score(answer: str, reference: str) -> float:
    """Similarity (0 to 1, in hundredths) of the reference and the answer's first line that is not comment or markup."""
    lines = answer.lstrip("\n").split("\n")
    line = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    if not line or not reference:
        return 0.0
    return round(100 * SequenceMatcher(None, line, reference).ratio()) / 100


def _plain_chinese(text: str) -> list[str]:
    def plain(word: str) -> str:
        letters = "".join(letter for letter in word.lower() if letter not in _MARKS and letter not in _CHINESE_MARKS)
        return "".join(letters.split())

    return [word for word in map(plain, _chinese_words(text)) if word]


def _chinese_words(text: str) -> list[str]:
    try:
        import jieba
    except ImportError:
        raise UsageError("The Chinese tasks need the package jieba.", hint="pip install jieba") from None
    return list(jieba.cut(text, cut_all=False))
