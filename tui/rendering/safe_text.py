"""The gate for text from outside: documents, models, file names, errors, the keyboard.

A widget of Textual passes control bytes through to the terminal and reads a plain `str` as markup. So no text
from outside reaches a widget but through one of these functions.
"""

from __future__ import annotations

from textual.content import Content

from longmamba_mlx.documents.sanitise import sanitise

DIM = "dim"  # the style of what matters less; the colours named "muted" do nothing within a text

# Markdown counts lines by "\n" only, Textual's incremental parser also by these: they must not disagree.
_LINE_SEPARATORS = {0x2028: "\n", 0x2029: "\n"}


def literal(text: str, style: str = "") -> Content:
    """Exactly this text: no markup, no control characters. `style` is ours, never from outside."""
    clean = sanitise(text)
    return Content.styled(clean, style) if style else Content(clean)


def one_for_one(text: str) -> str:
    """Safe text of the same length: offsets into the document stay valid."""
    text = text.replace("\t", " ")
    clean = sanitise(text)
    # A document was sanitised when it was read; whatever else comes here must not shift the places either.
    return clean if len(clean) == len(text) else "".join(sanitise(character) or " " for character in text)


def one_line(text: str) -> str:
    """Sanitised, with every run of white space as one space: for titles, names, errors."""
    return sanitise(" ".join(text.split()))


def markdown(text: str) -> str:
    """Sanitised source for the Markdown widget."""
    return sanitise(text).translate(_LINE_SEPARATORS)
