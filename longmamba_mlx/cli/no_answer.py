"""Output of `ask` without an answer: the reason, the results of a text search, and a model that could answer."""

from __future__ import annotations

import sys

from longmamba_mlx.documents import one_line
from longmamba_mlx.events import Answer
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.retrieval.excerpts import excerpt
from longmamba_mlx.session.no_answer import SEARCHED, real_model, where, why


def explain(answer: Answer, as_of: str | None) -> None:
    """Print why there is no answer on standard error and the search's passages on standard output; else nothing."""
    if not answer.reason:
        return
    if reason := why(answer, as_of):
        print(f"Note: {one_line(reason, 500)}.", file=sys.stderr)
    if answer.passages:
        print(f"{SEARCHED}:")
        for passage in answer.passages:
            print(f"  {where(passage)}: {one_line(excerpt(passage.text, answer.question), 400)}")
    elif answer.reason == "demo":
        print("Note: a text search finds no word of the question in the document.", file=sys.stderr)
    if answer.reason == "demo":
        model = real_model()
        size = format_size(model.download_bytes)
        offer = f"a real model that fits this machine ({size} to download): {model.command}"
        print(f"Note: {offer}", file=sys.stderr)
    sys.stdout.flush()
