"""The conversation: follows new text while scrolled to the bottom, else stays where the reader is.

However long a conversation is, only its newest exchanges are widgets; earlier ones are recreated when the reader
scrolls up to them.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from longmamba_mlx.tui.history.records import Exchange, Stage
from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.rendering.flat_containers import FlatBackground, FlatVertical
from longmamba_mlx.tui.widgets.exchange import ExchangeView
from longmamba_mlx.tui.widgets.note import ErrorNote, Note
from longmamba_mlx.tui.widgets.suggestions import Suggestions

_WELCOME = Content.assemble(
    "The document is read once, to its end, and questioned from memory.\n",
    ("Questions asked meanwhile wait their turn. Nothing leaves this machine.\n", safe_text.DIM),
    ("A small model can be wrong: look at the passages under an answer.", safe_text.DIM),
)
# Widgets of a conversation (`weight`): each costs time at every layout. Above MOST the oldest are removed until fewer
# than ENOUGH are left, a few screens full.
MOST, ENOUGH = 120, 60
MORE = 20  # so many are brought back at a time: making them takes longer than a key may


def weight(exchange: Exchange) -> int:
    """How many widgets an exchange is."""
    passages = [len(reply.answer.passages) + 1 for reply in exchange.replies if reply.answer and reply.answer.passages]
    return 3 + 3 * len(exchange.replies) + sum(passages)


class Earlier(Static):
    """Placeholder for the exchanges that are not widgets now."""

    def show(self, count: int) -> None:
        """Show the number; nothing for zero."""
        self.display = count > 0
        self.update(Content(f"↑ {formatting.count(count)} earlier · Page Up or a click brings them back"))


class ChatLog(VerticalScroll, FlatBackground, can_focus=False):
    """Notes and exchanges, in the order they came."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Exchange] = []
        self._earlier = 0  # so many records, from the front, have no widget
        self._bringing = False

    def compose(self) -> ComposeResult:
        # As high as the log at least: an anchored scroll view shifts content that is shorter than itself.
        with FlatVertical(id="items"):
            yield Static(_WELCOME, id="welcome", markup=False)
            yield Earlier("", id="earlier", markup=False)

    def on_mount(self) -> None:
        self.query_one(Earlier).show(0)
        self.anchor()

    @property
    def exchanges(self) -> list[ExchangeView]:
        """The exchanges that are widgets, oldest first."""
        return list(self.query(ExchangeView))

    @property
    def _items(self) -> FlatVertical:
        return self.query_one("#items", FlatVertical)

    async def ask(self, exchange: Exchange) -> ExchangeView:
        """Append a question and scroll to it."""
        self.records.append(exchange)
        await self._items.remove_children("#welcome, Suggestions")
        view = ExchangeView(exchange)
        await self._add(view, follow=True)
        return view

    async def withdraw(self, view: ExchangeView) -> None:
        """Remove a question that was not asked."""
        self.records.remove(view.exchange)
        await view.remove()

    async def offer(self, widget: Widget) -> None:
        """Show a widget at the top."""
        await self._items.mount(widget, after=self.query_one(Earlier))

    def suggest(self, questions: Sequence[str]) -> None:
        """Suggest first questions, until one is asked."""
        self.query(Suggestions).remove()
        self._items.mount(Suggestions(questions))

    async def note(self, text: str) -> None:
        """Show a note, before the questions that still wait."""
        waiting = next((view for view in self.exchanges if view.exchange.stage is Stage.WAITING), None)
        await self._items.mount(Note(text), before=waiting)

    def queue(self, text: str) -> Note:
        """Show at the end what waits for its turn; the caller removes the note."""
        note = Note(text, classes="queued")
        self.anchor()
        self._items.mount(note)
        return note

    async def error(self, message: str, hint: str | None) -> None:
        """Show an error."""
        await self._add(ErrorNote(message, hint), follow=True)

    async def show_conversation(self, exchanges: Sequence[Exchange]) -> None:
        """Replace everything by an earlier conversation, and show its end."""
        await self.clear()
        await self._items.remove_children("#welcome, StartMenu, Suggestions")
        self.records = list(exchanges)
        self._earlier = self._first_of(len(self.records), ENOUGH)
        self.query_one(Earlier).show(self._earlier)
        await self._items.mount_all([ExchangeView(exchange) for exchange in self.records[self._earlier :]])
        self.anchor()

    async def clear(self) -> None:
        """Remove all finished exchanges and notes; what waits or runs stays."""
        over = [view for view in self.exchanges if view.exchange.stage is Stage.DONE]
        notes = [note for note in self.query(Note) if not note.has_class("queued")]
        await self._items.remove_children([*over, *notes, *self.query(ErrorNote)])
        self.records = [record for record in self.records if record.stage is not Stage.DONE]
        self._earlier = 0
        self.query_one(Earlier).show(0)

    async def _add(self, widget: Widget, *, follow: bool) -> None:
        if follow:
            self.anchor()
            await self._shed()
        await self._items.mount(widget)

    async def _shed(self) -> None:
        """Remove the oldest widgets; the reader is at the bottom and sees none of them."""
        items = [child for child in self._items.children if isinstance(child, ExchangeView | Note | ErrorNote)]
        weights = [weight(child.exchange) if isinstance(child, ExchangeView) else 2 for child in items]
        if (left := sum(weights)) <= MOST:
            return
        old = []
        for child, own in zip(items, weights, strict=True):
            running = isinstance(child, ExchangeView) and child.exchange.stage is not Stage.DONE
            if left <= ENOUGH or running or child is items[-1]:
                break
            self._earlier += isinstance(child, ExchangeView)
            old.append(child)
            left -= own
        await self._items.remove_children(old)
        self.query_one(Earlier).show(self._earlier)

    def _first_of(self, end: int, left: int) -> int:
        """The first of the records before `end` that make about `left` widgets."""
        first = end
        while first > 0 and left > 0:
            first -= 1
            left -= weight(self.records[first])
        return first

    async def bring_back(self) -> None:
        """Recreate widgets of earlier exchanges, without moving what is on the screen."""
        if self._bringing or not self._earlier:
            return
        self._bringing = True
        first = self._first_of(self._earlier, MORE)
        views = [ExchangeView(exchange) for exchange in self.records[first : self._earlier]]
        height, place = self.virtual_size.height, self.scroll_y
        await self._items.mount_all(views, after=self.query_one(Earlier))
        self._earlier = first
        self.query_one(Earlier).show(first)

        def keep_place() -> None:
            self.scroll_to(y=place + self.virtual_size.height - height, animate=False, force=True)
            self._bringing = False

        self.call_after_refresh(keep_place)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value < 1 <= old_value and self._earlier:
            self.run_worker(self.bring_back(), group="earlier")

    async def on_click(self, event: events.Click) -> None:
        if isinstance(event.widget, Earlier):
            await self.bring_back()
