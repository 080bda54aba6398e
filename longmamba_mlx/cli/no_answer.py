"""What `ask` says where there is no answer: why, what a text search finds instead, and a model that could answer."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from longmamba_mlx.documents import one_line
from longmamba_mlx.events import Answer, Passage
from longmamba_mlx.retrieval.excerpts import excerpt
from longmamba_mlx.tokenization.prompt_format import PromptForm


def explain(answer: Answer, known_questions: Sequence[str], as_of: str | None) -> None:
    """Print why there is no answer on standard error, and the text search's passages on standard output; else nothing.

    `known_questions`: the questions that the model was made for, () for any.
    """
    if not answer.reason:
        return
    if why := _why(answer, known_questions, as_of):
        print(f"Note: {why}", file=sys.stderr)
    if answer.passages:
        print("From a text search (related passages, not an answer):")
        for passage in answer.passages:
            print(f"  {_where(passage)}: {one_line(excerpt(passage.text, answer.question), 400)}")
    elif answer.reason == "demo":
        print("Note: a text search finds no word of the question in the document.", file=sys.stderr)
    if answer.reason == "demo":
        print(f"Note: {offer()}", file=sys.stderr)
    sys.stdout.flush()


def offer() -> str:
    """One real model that fits this machine, its size, and the command that fetches it."""
    from longmamba_mlx.registry.known_models import recommended
    from longmamba_mlx.sizes import format_size

    model = recommended()
    size = format_size(model.download_bytes)
    return f"a real model that fits this machine ({size} to download): {model.command}"


def _why(answer: Answer, known_questions: Sequence[str], as_of: str | None) -> str:
    if answer.reason == "demo":
        example = known_questions[0].replace("{name}", "NAME") if known_questions else ""
        return (
            f"the built-in demonstration model only answers questions such as \u201c{example}\u201d and was not asked."
        )
    if answer.reason == "not_yet":
        return f"not known yet at {as_of}; the text search finds it later in the document."
    if not answer.text:
        return "not found in the document: the model says nothing."
    if not PromptForm().found(answer.text):
        return ""  # the answer says it itself
    return "not found in the document: no word of the question or this answer is in it."


def _where(passage: Passage) -> str:
    return one_line(f"\u00b6 {passage.number}" + (f", {passage.place}" if passage.place else ""), 120)
