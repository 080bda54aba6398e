"""One answer: its text as it streams, how it ended, related passages."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Label, Static

from longmamba_mlx.events import Answer
from longmamba_mlx.ground.sizes import format_duration, format_size
from longmamba_mlx.session.no_answer import SEARCHED, real_model, why
from longmamba_mlx.tui.history.records import Exchange, Reply
from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.rendering.flat_containers import FlatVertical
from longmamba_mlx.tui.widgets.answer_text import AnswerText
from longmamba_mlx.tui.widgets.note import error_text
from longmamba_mlx.tui.widgets.passage import PassageView

_SHORT = 120  # characters of an answer that is read at a glance


class AnswerView(FlatVertical):
    """Shows a reply of an exchange and keeps its record up to date."""

    def __init__(self, exchange: Exchange, reply: Reply) -> None:
        super().__init__()
        self.reply = reply
        self._exchange = exchange

    def compose(self) -> ComposeResult:
        if self.reply.name:
            yield Static(safe_text.literal(f"filter {self.reply.name}"), classes="reply", markup=False)
        yield AnswerText(self.reply.text, classes="answer")
        yield Static(self._ending(self.reply.answer), classes="state", markup=False)
        if self.reply.answer is not None:
            yield from self._passages(self.reply.answer)

    def begin(self) -> None:
        """The question has been put to the model."""
        self.say(Content("answering…"))

    def say(self, content: Content) -> None:
        """One line under the answer."""
        self.query_one(".state", Static).update(content)

    def write(self, piece: str) -> None:
        """More of the answer."""
        clean = safe_text.markdown(piece)
        self.reply.text += clean
        self.query_one(AnswerText).append(clean)
        self._weigh()

    def _weigh(self) -> None:
        """A short answer is bold: nothing on the screen is stronger."""
        text = self.reply.text.strip()
        self.query_one(AnswerText).set_class(len(text) <= _SHORT and "\n" not in text, "-short")

    def on_mount(self) -> None:
        self._weigh()

    async def finish(self, answer: Answer) -> None:
        """The whole answer is there: say how it ended and show what belongs to it."""
        self.reply.answer = answer
        if not self.reply.text and answer.text:
            self.write(answer.text)
        ends = {"stopped": "stopped", "length": f"cut off after {formatting.count(answer.tokens)} tokens"}
        whole = answer.found or self._exchange.how.overview
        end = ends.get(answer.finish_reason, "" if whole else self._why_not(answer))
        self.reply.mark = " · ".join(part for part in (end, answer.doubt) if part)
        self.say(self._ending(answer))
        await self.mount_all(self._passages(answer))

    def _why_not(self, answer: Answer) -> str:
        return why(answer, self._exchange.how.as_of) or "not found in the document"

    def close(self, mark: str) -> None:
        """It ended without a whole answer: stopped, or never asked."""
        self.reply.mark = mark
        self.say(Content.styled(mark, "$text-warning"))

    def fail(self, message: str, hint: str | None) -> None:
        """It went wrong; what had come stays."""
        self.reply.mark = safe_text.one_line(message)
        self.say(error_text(message, hint))

    def _ending(self, answer: Answer | None) -> Content:
        mark = safe_text.one_line(self.reply.mark)
        if answer is None:
            return Content.styled(mark, "$text-warning")
        if answer.reason == "demo":
            model = real_model(quantise=False)
            name = safe_text.one_line(model.repository.partition("/")[2])
            offer = f"F5 gets {name} ({format_size(model.download_bytes)}), a real model that fits this machine"
            return Content.assemble((f"{mark}\n", "$text-warning"), (offer, "bold"))
        rate = "" if self._exchange.how.reads else formatting.rate_of(answer.tokens, answer.seconds)
        part = safe_text.one_line(answer.part.label) if answer.part is not None else ""
        parts = ["" if self.reply.text else "no answer", part, format_duration(answer.seconds), rate]
        detail = " · ".join(part for part in parts if part)
        return Content.assemble((f"{mark} · " if mark else "", "$text-warning"), detail)

    def _passages(self, answer: Answer) -> list[Static]:
        if not answer.passages or self._exchange.how.overview:
            return []
        heading = Label(SEARCHED if answer.reason else "related passages", classes="heading", markup=False)
        # Two answers that are compared have to be seen at once: their passages are one line each.
        book, short = self._exchange.book, bool(self.reply.name)
        views = [
            PassageView(answer, index, book, files=self._exchange.files, short=short)
            for index in range(len(answer.passages))
        ]
        return [heading, *views]
