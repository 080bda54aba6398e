"""The books on the shelf, and the two ways to look into one: its text and its memory map."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from longmamba_mlx.errors import UsageError
from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.widgets.memory_map import MemoryMap
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.reader import Reader
from longmamba_mlx.tui.worker.engine import Shelf
from longmamba_mlx.tui.worker.snapshot import Book

if TYPE_CHECKING:
    from longmamba_mlx.tui.chat import ChatScreen

_MOST_MATCHES = 10_000


class Library:
    """Which text is shown, where, and what is found in it."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.books: tuple[Book, ...] = ()
        self.current = 0
        self._words = ""
        self._found: list[tuple[int, int]] = []
        self._match = 0

    @property
    def book(self) -> Book | None:
        """The book that is questioned."""
        return self.books[self.current] if 0 <= self.current < len(self.books) else None

    @property
    def _reader(self) -> Reader:
        return self._screen.query_one(Reader)

    @property
    def beside(self) -> bool:
        """Whether there is room for the text beside the talk."""
        return self._screen.has_class("-roomy")

    def take(self, shelf: Shelf) -> None:
        """The engine's books have changed."""
        self.books, self.current = shelf.books, shelf.current
        self._screen.query_one(MemoryMap).open(self.book)
        if self._reader.pane.book is not self.book:
            self._open(self.book)
        if self.book is not None and self.book.text:
            self._screen.add_class("-beside")

    def _open(self, book: Book | None) -> None:
        self._words, self._found = "", []
        self._reader.note("")
        self._reader.pane.open(book)

    # Showing the text.

    def show(self) -> None:
        """Bring the text to the screen. Raises UsageError when there is none."""
        if self._reader.pane.book is None or not self._reader.pane.book.text:
            raise UsageError("There is no text to show yet", hint="/open FILE reads a document")
        self._screen.add_class("-beside" if self.beside else "-over")
        if not self.beside:
            self._reader.pane.focus()

    def hide(self) -> None:
        """Give the room back to the talk."""
        self._screen.remove_class("-beside" if self.beside else "-over")

    def toggle(self) -> None:
        """Show the text and go into it, or hide it."""
        if self._reader.showing:
            self.hide()
            self._screen.prompt.focus()
        else:
            self.show()
            self._reader.pane.focus()

    def leave(self) -> None:
        """Back to the prompt; a text over the talk goes away."""
        if not self.beside:
            self.hide()
        self._screen.prompt.focus()

    def give_way(self) -> bool:
        """Take away a text that lies over the talk, so that what comes there is seen; whether there was one."""
        over = self._screen.has_class("-over") and not self.beside
        if over:
            self.hide()
        return over

    def follow(self, passage: PassageView.Chosen) -> None:
        """Show a passage in its book. Raises UsageError when that book is not on the shelf."""
        shown = self._reader.pane.book
        if shown is None or shown.digest != passage.book:
            book = next((book for book in self.books if book.digest == passage.book), None)
            if book is None:
                raise UsageError("The text of this passage is not open", hint="Space shows all of the passage here.")
            self._open(book)
        self.show()
        self._reader.pane.mark(passage.passage, passage.quote)

    def jump(self, offset: int) -> None:
        """Show the text from a character on."""
        if self._reader.pane.book is not self.book:
            self._open(self.book)
        self.show()
        self._reader.pane.mark(None)
        self._reader.pane.jump(offset)

    # Searching it.

    def find(self, wanted: str) -> None:
        """Go to the first match at or after what is on the screen; "" goes to the next one of the last search."""
        if not wanted:
            self.step(1)
            return
        self.show()
        pane = self._reader.pane
        text = pane.book.text if pane.book else ""
        matches = formatting.pattern(wanted).finditer(text)
        self._found = [match.span() for _, match in zip(range(_MOST_MATCHES), matches, strict=False)]
        self._words = wanted
        self._match = bisect_left(self._found, (pane.on_screen[0], 0)) % max(len(self._found), 1)
        self._show_match()

    def step(self, step: int) -> None:
        """The next or the previous match; after the last comes the first. Raises UsageError before a search."""
        if not self._words:
            raise UsageError("/find needs words", hint="For example: /find white whale")
        self.show()
        self._match = (self._match + step) % max(len(self._found), 1)
        self._show_match()

    def _show_match(self) -> None:
        name = formatting.shorten(safe_text.one_line(self._words), 30)
        if not self._found:
            self._reader.pane.show_found([], None)
            self._reader.note(f"“{name}” is not in the text")
            return
        more = "+" if len(self._found) == _MOST_MATCHES else ""
        self._reader.note(f"“{name}” {formatting.count(self._match + 1)} of {formatting.count(len(self._found))}{more}")
        self._reader.pane.show_found(self._found, self._found[self._match])
