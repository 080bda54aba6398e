"""Answers for other programs: the words a person reads, and the same as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from longmamba_mlx.documents import one_line
from longmamba_mlx.events import Answer, Passage, ReadDone
from longmamba_mlx.retrieval.excerpts import excerpt
from longmamba_mlx.session.no_answer import SEARCHED, real_model, where, why

_LONG = 1500  # characters that are told of a passage


def explanation(answer: Answer, as_of: str | None = None) -> str:
    """The reason for no answer, and the results of a text search; "" if there is an answer."""
    if not answer.reason:
        return ""
    reason = why(answer, as_of)
    lines = [f"{reason[0].upper()}{reason[1:]}."] if reason else []
    if answer.passages:
        lines += [f"{SEARCHED}:", *passage_lines(answer.passages, answer.question)]
    elif answer.reason == "demo":
        lines.append("A text search finds no word of the question in the document.")
    if answer.reason == "demo":
        lines.append(f"A real model that fits this machine: {real_model().command}")
    return "\n".join(lines)


def content(answer: Answer, as_of: str | None = None) -> str:
    """The model's output, followed by the reason if it is not an answer."""
    return "\n\n".join(filter(None, (answer.text, explanation(answer, as_of))))


def with_passages(answer: Answer, as_of: str | None = None) -> str:
    """`content`, with the passages that an answer is related to and its doubts."""
    lines = [content(answer, as_of)]
    if answer.part is not None:
        lines += ["", f"From {one_line(answer.part.label, 200)}."]
    if not answer.reason and answer.passages:
        lines += ["", "Related passages of the document:", *passage_lines(answer.passages, answer.question)]
    if answer.doubt:
        lines += ["", f"Note: {answer.doubt}."]
    return "\n".join(lines)


def passage_lines(passages: Sequence[Passage], question: str, width: int = 300) -> list[str]:
    """One line per passage: its place, and about `width` characters around the words of the question."""
    return [
        f"- {where(passage)}: {one_line(excerpt(passage.text, question, width), 2 * width)}" for passage in passages
    ]


def answer_table(answer: Answer, done: ReadDone, as_of: str | None = None) -> dict[str, Any]:
    """An answer as JSON. `passages_from` says whether passages are evidence of the answer or results of a search."""
    demo = answer.reason == "demo"
    return {
        "document": one_line(done.title, 120),
        "question": answer.question,
        "answer": None if demo else answer.text,
        "found": None if demo else answer.found,
        "reason": answer.reason,
        "why": why(answer, as_of),
        "not_in_text": list(answer.not_in_text),
        "passages_from": "text search, not an answer" if answer.reason else "related to the answer",
        "passages": [passage_table(passage, answer.question) for passage in answer.passages],
        "part": None if answer.part is None else asdict(answer.part),
        "finish_reason": answer.finish_reason,
        "tokens": answer.tokens,
        "tokens_read": done.tokens,
        "seconds": round(answer.seconds, 4),
        "reopened": done.reopened,
    }


def passage_table(passage: Passage, question: str) -> dict[str, Any]:
    """A passage as JSON, shortened around the words of the question; start and end are characters of the document."""
    return {
        "where": where(passage),
        "paragraph": passage.number,
        "place": one_line(passage.place, 120),
        "text": passage.text if len(passage.text) <= _LONG else excerpt(passage.text, question, _LONG),
        "start": passage.start,
        "end": passage.end,
        "quoted": passage.quoted,
    }


def reading_table(done: ReadDone) -> dict[str, Any]:
    """A finished reading as JSON."""
    return {
        "document": one_line(done.title, 120),
        "key": done.stored,
        "digest": done.digest,
        "tokens": done.tokens,
        "tokens_read_before": done.tokens if done.reopened else done.before,
        "reopened": done.reopened,
        "seconds": round(done.seconds, 3),
        "state_bytes": done.state_bytes,
        "filter": done.filter,
    }
