"""A question and its answer, or its two answers side by side: waiting, streaming, done."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from longmamba_mlx.events import Answer
from longmamba_mlx.tui.history.records import Exchange, Reply, Stage
from longmamba_mlx.tui.rendering import safe_text
from longmamba_mlx.tui.rendering.flat_containers import FlatContainer, FlatVertical
from longmamba_mlx.tui.widgets.answer import AnswerView


class ExchangeView(FlatVertical):
    """Shows a question at once and its answer as it comes."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange

    def compose(self) -> ComposeResult:
        how = safe_text.one_line(self.exchange.how.label)
        question = safe_text.literal(self.exchange.question)
        if how:
            question = Content.assemble(question, (f"\n{how}", "dim not bold"))
        yield Static(question, classes="question", markup=False)
        with FlatContainer(classes="replies"):
            for reply in self.exchange.replies:
                yield AnswerView(self.exchange, reply)

    def on_mount(self) -> None:
        self.set_class(len(self.exchange.replies) > 1, "-compared")

    @property
    def answers(self) -> list[AnswerView]:
        """One view, or two when filters are compared."""
        return list(self.query(AnswerView))

    @property
    def _current(self) -> AnswerView:
        return self.answers[-1]

    def wait_for(self, reason: str) -> None:
        """Not asked yet, and why."""
        self._current.say(Content(f"queued · {reason}"))

    def begin(self) -> None:
        """The question has been put to the model."""
        self.exchange.stage = Stage.ANSWERING
        if not self.exchange.how.compare:
            self._current.begin()
        else:
            self._current.say(Content("comparing…"))

    async def begin_reply(self, name: str) -> None:
        """The answer that comes now is the one with this filter."""
        if self.exchange.replies[-1].name:
            reply = Reply(name)
            self.exchange.replies.append(reply)
            await self.query_one(".replies").mount(AnswerView(self.exchange, reply))
        else:
            reply = self.exchange.replies[-1]
            reply.name = name
            await self._current.recompose()
        self.set_class(len(self.exchange.replies) > 1, "-compared")
        self._current.begin()

    def write(self, piece: str) -> None:
        """More of the answer."""
        self._current.write(piece)

    async def finish(self, answer: Answer) -> None:
        """An answer is complete."""
        await self._current.finish(answer)
        if not self.exchange.how.compare:
            self.exchange.stage = Stage.DONE

    def close(self, mark: str = "") -> None:
        """End the exchange. `mark`: the reason for an incomplete answer."""
        if mark and self._current.reply.answer is None:
            self._current.close(mark)
        self.exchange.stage = Stage.DONE

    def fail(self, message: str, hint: str | None) -> None:
        """It went wrong; what had come stays."""
        self._current.fail(message, hint)
        self.exchange.stage = Stage.DONE
