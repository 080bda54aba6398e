"""The overview of a document: a question for a model that can answer it, else the table of contents."""

from __future__ import annotations

from longmamba_mlx.tui.worker.snapshot import Book

QUESTION = (
    "Give a short overview of this document in three sentences. Then list three questions that a reader could ask "
    "about it."
)
_MOST_PLACES = 40
_BEGINNING = 200  # characters


def table_of_contents(book: Book) -> str:
    """Markdown: the length of a document, and its chapters, pages or files with their starts."""
    words = len(book.text.split())
    lines = [f"{book.tokens:,} tokens, about {words:,} words."]
    for kind, noun in (("chapter", "chapters"), ("file", "files"), ("page", "pages")):
        places = [place for place in book.places if place.kind == kind]
        if len(places) > 1:
            lines.append(f"\n{len(places):,} {noun} were found:\n")
            for place in places[:_MOST_PLACES]:
                label = " ".join((book.place_at(place.start) or place.label).split())
                lines.append(f"- {label} ({place.start / max(len(book.text), 1):.0%})")
            if len(places) > _MOST_PLACES:
                lines.append(f"- … and {len(places) - _MOST_PLACES:,} more")
            return "\n".join(lines)
    beginning = " ".join(book.text[: 4 * _BEGINNING].split())[:_BEGINNING].rsplit(" ", 1)[0]
    lines.append(f"\nNo chapters or pages were found in it. It begins: “{beginning}…”")
    return "\n".join(lines)
