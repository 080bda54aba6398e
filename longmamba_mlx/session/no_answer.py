"""One line on why there is no answer, and a real model to suggest instead of a demonstration model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from longmamba_mlx.documents import one_line
from longmamba_mlx.events import Answer, Passage
from longmamba_mlx.tokenization.prompt_format import PromptForm

if TYPE_CHECKING:
    from longmamba_mlx.registry.known_models import Recommendation

SEARCHED = "From a text search (related passages, not an answer)"


def why(answer: Answer, as_of: str | None = None) -> str:
    """One line without a full stop; "" where there is an answer, or where the answer says it itself."""
    if answer.reason == "demo":
        return f"the built-in demonstration model only answers questions such as “{answer.example}” and was not asked"
    if answer.reason == "not_yet":
        return f"not known yet at {as_of}; the text search finds it later in the document"
    if answer.reason == "" or (answer.text and not PromptForm().found(answer.text)):
        return ""
    if not answer.text:
        return "not found in the document: the model says nothing"
    return "not found in the document: its text does not support this answer"


def where(passage: Passage) -> str:
    """The passage's number and place: "¶ 12, Chapter 3"."""
    return one_line(f"¶ {passage.number}" + (f", {passage.place}" if passage.place else ""), 120)


def real_model(*, quantise: bool = True) -> Recommendation:
    """The known model to get first on this machine; without `quantise` one that fits as it is downloaded."""
    from longmamba_mlx.registry.known_models import recommended  # most answers need no table of models

    return recommended(quantise=quantise)
