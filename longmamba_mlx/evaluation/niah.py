"""Needles in a haystack: exact match of facts hidden in a long text, by document length and filter."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from longmamba_mlx.api import Model, ReadDocument
from longmamba_mlx.documents import Document
from longmamba_mlx.errors import UsageError
from longmamba_mlx.evaluation.needles import Filler, Haystack, hide

LAST = "last"  # the baseline: only the last training length of tokens is read, nothing is filtered


@dataclass(frozen=True, slots=True)
class Row:
    """One cell. `length` in tokens of document; `depth` None: anywhere; `stderr` over documents, not questions
    (questions about one document are not independent); `nll` of the right answer, nats per token."""

    filter: str
    length: int
    depth: float | None
    samples: int
    documents: int
    accuracy: float
    stderr: float
    nll: float | None
    refused: float


def measure(
    model: Model,
    filler: Filler,
    lengths: Sequence[int],
    filters: Sequence[str],
    *,
    samples: int,
    facts: int = 4,
    split: str = "test",
    absent: bool = False,
    seed: int = 0,
) -> Iterator[Row]:
    """One Row per length and filter, as soon as it is known; every filter sees the same documents.

    `samples` questions a cell (rounded up to whole documents of `facts` questions). `absent` asks for names that are
    not there: right is an answer that says so.
    """
    readers = {name: model.with_filter("off" if name == LAST else name) for name in filters}
    for length in lengths:
        documents = math.ceil(samples / facts)
        stacks = [_stack(filler, length, facts, split, seed, number) for number in range(documents)]
        for name, reader in readers.items():
            scores = [_score(reader, stack, last=name == LAST, absent=absent) for stack in stacks]
            yield _row(name, length, scores, facts)


def _stack(filler: Filler, length: int, facts: int, split: str, seed: int, number: int) -> Haystack:
    return hide(filler, length, facts, random.Random(f"{seed} {length} {number}"), split=split)  # noqa: S311


@dataclass(frozen=True, slots=True)
class _Score:
    right: float
    nll: float
    refused: float


def _score(model: Model, stack: Haystack, *, last: bool, absent: bool) -> _Score:
    text = stack.text
    if last:
        ids = model.tokenizer.encode(text)[-model.training_length :]
        text = model.tokenizer.decode(ids)
    book = model.read(Document("haystack", text))
    answers = [book.ask(question) for question in _questions(stack, absent)]
    refused = statistics.mean(not answer.found for answer in answers)
    if absent:
        return _Score(refused, math.nan, refused)
    right = statistics.mean(a.text == n.code for a, n in zip(answers, stack.needles, strict=True))
    nll = statistics.mean(answer_nll(book, n.question, f" {n.code}") for n in stack.needles)
    return _Score(right, nll, refused)


def _questions(stack: Haystack, absent: bool) -> list[str]:
    if absent:
        return [f"What is the access code of {name}?" for name in stack.strangers]
    return [needle.question for needle in stack.needles]


def answer_nll(book: ReadDocument, question: str, answer: str) -> float:
    """Mean negative log-likelihood of the answer's tokens, in nats."""
    tokenizer, model = book.model.tokenizer, book.model.loaded.model
    prompt, wanted = tokenizer.encode(book.model.form.ask(question)), tokenizer.encode(answer)
    hidden, _ = model(mx.array(np.concatenate([prompt, wanted[:-1]])[None]), book.state)
    logits = model.head(hidden[:, len(prompt) - 1 :])[0]
    chosen = mx.take_along_axis(logits, mx.array(wanted.astype(np.int32))[:, None], axis=1)[:, 0]
    return float(np.array((mx.logsumexp(logits, axis=1) - chosen).mean()))


def _row(name: str, length: int, scores: list[_Score], facts: int) -> Row:
    right = [score.right for score in scores]
    spread = statistics.stdev(right) / math.sqrt(len(right)) if len(right) > 1 else math.nan
    nll = statistics.mean(score.nll for score in scores)
    return Row(
        filter=name,
        length=length,
        depth=None,
        samples=len(scores) * facts,
        documents=len(scores),
        accuracy=statistics.mean(right),
        stderr=spread,
        nll=None if math.isnan(nll) else nll,
        refused=statistics.mean(score.refused for score in scores),
    )


def parse_lengths(text: str, training_length: int) -> list[int]:
    """ "512,16x" -> tokens; 16x is 16 training lengths. Raises UsageError."""
    lengths = []
    for word in text.split(","):
        number, times = word.strip().removesuffix("x"), word.strip().endswith("x")
        if not number.isdigit() or not 0 < int(number) <= 10**7:
            raise UsageError(f"{word!r} is not a length.", hint="For example: --lengths 512,2048,16x")
        lengths.append(int(number) * (training_length if times else 1))
    return lengths
