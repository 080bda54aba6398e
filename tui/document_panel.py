"""The open documents, and the two views of one: its text and its memory map."""

from __future__ import annotations

from bisect import bisect_left

from longmamba_mlx.errors import UsageError
from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.view import ChatView
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.reader import Reader
from longmamba_mlx.tui.worker.engine import OpenDocuments
from longmamba_mlx.tui.worker.snapshot import Book

_MOST_MATCHES = 10_000


class DocumentPanel:
    """The text pane's state: which text is shown, where, and the matches of a search."""

    def __init__(self, view: ChatView) -> None:
        self._view = view
        self.books: tuple[Book, ...] = ()
        self.current = 0
        self._words = ""
        self._found: list[tuple[int, int]] = []
        self._match = 0

    @property
    def book(self) -> Book | None:
        """The document that questions go to; None before one is open."""
        return self.books[self.current] if 0 <= self.current < len(self.books) else None

    @property
    def _reader(self) -> Reader:
        return self._view.reader

    @property
    def beside(self) -> bool:
        """Whether there is room for the text beside the conversation."""
        return self._view.has_class("-roomy")

    def take(self, documents: OpenDocuments) -> None:
        """Show the engine's open documents after a change."""
        self.books, self.current = documents.books, documents.current
        self._view.memory_map.open(self.book)
        if self._reader.pane.book is not self.book:
            self._open(self.book)
        if self.book is not None and self.book.text:
            self._view.set_class(True, "-beside")

    def _open(self, book: Book | None) -> None:
        self._words, self._found = "", []
        self._reader.note("")
        self._reader.pane.open(book)

    # Showing the text.

    def show(self) -> None:
        """Show the text. Raises UsageError when there is none."""
        if self._reader.pane.book is None or not self._reader.pane.book.text:
            raise UsageError("There is no text to show yet", hint="/open FILE reads a document")
        self._view.set_class(True, "-beside" if self.beside else "-over")
        if not self.beside:
            self._reader.pane.focus()

    def hide(self) -> None:
        """Hide the text."""
        self._view.set_class(False, "-beside" if self.beside else "-over")

    def toggle(self) -> None:
        """Show the text and focus it, or hide it."""
        if self._reader.showing:
            self.hide()
            self._view.prompt.focus()
        else:
            self.show()
            self._reader.pane.focus()

    def leave(self) -> None:
        """Focus the prompt; a text that covers the conversation is hidden."""
        if not self.beside:
            self.hide()
        self._view.prompt.focus()

    def give_way(self) -> bool:
        """Hide a text that covers the conversation; whether there was one."""
        over = self._view.has_class("-over") and not self.beside
        if over:
            self.hide()
        return over

    def follow(self, passage: PassageView.Chosen) -> None:
        """Show a passage in its document. Raises UsageError when that is not open."""
        shown = self._reader.pane.book
        if shown is None or shown.digest != passage.book:
            book = next((book for book in self.books if book.digest == passage.book), None)
            if book is None:
                files = formatting.shorten(formatting.files(passage.files), 40) or "The text of this passage"
                raise UsageError(f"{files} is not open", hint="Space shows it here.")
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
        """Go to the first match at or after the top of the screen; "" goes to the next match of the last search."""
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
        """Go to the next or the previous match, in a ring. Raises UsageError before a search."""
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
