"""A passage of the document that is related to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from longmamba_mlx.retrieval.excerpts import first_place
from longmamba_mlx.retrieval.words import folded, folded_words, names_in
from longmamba_mlx.tui.history.transcript import place_of
from longmamba_mlx.tui.rendering import formatting, safe_text

if TYPE_CHECKING:
    from longmamba_mlx.events import Answer, Passage

_EXCERPT, _WEAK_EXCERPT = 160, 60
_QUOTED_STYLE = "bold $text-success"


class PassageView(Static, can_focus=True):
    """A passage: place and excerpt, "✓ quote" if it contains the answer verbatim; Enter or a click goes to it.

    `short`: only the place, until the reader unfolds it. A passage without the name asked for is one dim row.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "choose", "Go to it in the text", show=False),
        Binding("escape", "screen.back", "Back to the prompt", show=False),
        Binding("space", "unfold", "Show all of it here", show=False),
        Binding("down,j", "app.focus_next", show=False),
        Binding("up,k", "app.focus_previous", show=False),
    ]

    @dataclass
    class Chosen(Message):
        """Show the passage in the text; `quote`: the span of the answer within it, if it is there."""

        book: str
        files: tuple[str, ...]
        passage: tuple[int, int]
        quote: tuple[int, int] | None

    def __init__(
        self, answer: Answer, index: int, book: str, *, files: tuple[str, ...] = (), short: bool = False
    ) -> None:
        super().__init__(markup=False)
        self._passage = answer.passages[index]
        self._question = answer.question
        self._answer = safe_text.one_line(answer.text).strip(" .!?\"'“”")
        self._book, self._files = book, files
        self._short = short
        self._weak = not self._passage.quoted and _lacks_names(self._passage, answer.question)
        self._whole = False

    def on_mount(self) -> None:
        self.set_class(self._weak, "-weak")
        self._show()

    def on_click(self) -> None:
        self.action_choose()

    def action_choose(self) -> None:
        """Ask for it in the text."""
        passage = self._passage
        quote = find_words(passage, self._answer) if passage.quoted else None
        self.post_message(self.Chosen(self._book, self._files, (passage.start, passage.end), quote))

    def action_unfold(self) -> None:
        """Switch between the excerpt and the whole passage."""
        self._whole = not self._whole
        self._show()

    def _show(self) -> None:
        passage = self._passage
        place = [f"¶ {formatting.count(passage.number)}", place_of(passage)]
        head = Content.assemble(
            ("✓ quote  " if passage.quoted else "", _QUOTED_STYLE), (formatting.truncate_join(place, 60), safe_text.DIM)
        )
        if self._whole or not (self._short or self._weak):
            head = Content("\n").join([head, self._body()])
        elif self._weak and not self._short:
            excerpt = formatting.shorten(safe_text.one_line(passage.text), _WEAK_EXCERPT)
            head = Content.assemble(head, "  ", safe_text.literal(excerpt, safe_text.DIM))
        self.update(head)

    def _body(self) -> Content:
        text = safe_text.one_line(self._passage.text)
        place = text.find(self._answer) if self._passage.quoted and self._answer else -1
        if self._whole:
            start, end = 0, len(text)
        else:
            middle = place + len(self._answer) // 2 if place >= 0 else first_place(text, self._question)
            start = max(min(middle - _EXCERPT // 2, len(text) - _EXCERPT), 0)
            start, end = _whole_words(text, start, start + _EXCERPT)
        if place < start or place + len(self._answer) > end:
            return safe_text.literal(_ellipses(text, start, end))
        stop = place + len(self._answer)
        return Content.assemble(
            _ellipses(text, start, place, tail=False),
            (text[place:stop], _QUOTED_STYLE),
            _ellipses(text, stop, end, head=False),
        )


def _lacks_names(passage: Passage, question: str) -> bool:
    """Whether a question asks for names and the passage has none of them."""
    names = {folded(word) for name in names_in(question) for word in name}
    return bool(names) and not names & folded_words(f"{passage.text} {place_of(passage)}")


def find_words(passage: Passage, answer: str) -> tuple[int, int] | None:
    """Find the words of an answer in a passage, in characters of the document; line ends count as spaces."""
    match = formatting.pattern(answer).search(passage.text) if answer else None
    return None if match is None else (passage.start + match.start(), passage.start + match.end())


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    if 0 < start < len(text):
        start = text.find(" ", start, end) + 1 or start
    if end < len(text):
        end = max(text.rfind(" ", start, end), start + 1)
    return start, end


def _ellipses(text: str, start: int, end: int, *, head: bool = True, tail: bool = True) -> str:
    before = "…" if head and start > 0 else ""
    after = "…" if tail and end < len(text) else ""
    return before + text[start:end] + after
