"""A passage of the document that has to do with an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from longmamba_mlx.tui import plain, words

if TYPE_CHECKING:
    from longmamba_mlx.session import Answer

_EXCERPT = 160
_QUOTED_STYLE = "bold $text-success"


class PassageView(Static, can_focus=True):
    """Place and excerpt, "✓ quote" where the answer stands in it word for word; Enter or a click opens it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "unfold", "Show all of it", show=False)]

    def __init__(self, answer: Answer, index: int) -> None:
        super().__init__(markup=False)
        self._passage = answer.passages[index]
        self._answer = plain.one_line(answer.text).strip(" .!?\"'“”")
        self._whole = False

    def on_mount(self) -> None:
        self._show()

    def on_click(self) -> None:
        self.action_unfold()

    def action_unfold(self) -> None:
        """Switch between the excerpt and the whole passage."""
        self._whole = not self._whole
        self._show()

    def _show(self) -> None:
        passage = self._passage
        place = [f"¶ {words.count(passage.number)}", plain.one_line(passage.heading or "")]
        head = Content.assemble(
            ("✓ quote  " if passage.quoted else "", _QUOTED_STYLE), (words.fit(place, 60), plain.DIM)
        )
        self.update(Content("\n").join([head, self._body()]))

    def _body(self) -> Content:
        text = plain.one_line(self._passage.text)
        place = text.find(self._answer) if self._passage.quoted and self._answer else -1
        if self._whole:
            start, end = 0, len(text)
        else:
            middle = place + len(self._answer) // 2 if place >= 0 else 0
            start = max(min(middle - _EXCERPT // 2, len(text) - _EXCERPT), 0)
            start, end = _whole_words(text, start, start + _EXCERPT)
        if place < start or place + len(self._answer) > end:
            return plain.literal(_ellipses(text, start, end))
        stop = place + len(self._answer)
        return Content.assemble(
            _ellipses(text, start, place, tail=False),
            (text[place:stop], _QUOTED_STYLE),
            _ellipses(text, stop, end, head=False),
        )


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
