"""One answer: streaming, then what it rests on."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Label, Markdown, Static
from textual.widgets.markdown import MarkdownStream

from longmamba_mlx.session import Answer
from longmamba_mlx.tui import plain, words
from longmamba_mlx.tui.exchange import Exchange, Reply
from longmamba_mlx.tui.note import error_text
from longmamba_mlx.tui.passage_view import PassageView

_LONG = 120  # lines


def is_long(text: str) -> bool:
    """Whether an answer is shown as plain text once it is whole: as Markdown every block of it is a widget."""
    return text.count("\n") > _LONG


class AnswerView(Vertical):
    """Shows a reply of an exchange and keeps its record up to date."""

    def __init__(self, exchange: Exchange, reply: Reply) -> None:
        super().__init__()
        self.reply = reply
        self._exchange = exchange
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        if self.reply.name:
            yield Static(plain.literal(f"filter {self.reply.name}"), classes="reply", markup=False)
        if is_long(self.reply.text):
            yield self._as_text()
        else:
            yield Markdown(plain.markdown(self.reply.text), open_links=False, classes="answer")
        yield Static(self._ending(self.reply.answer), classes="state", markup=False)
        if self.reply.answer is not None:
            yield from self._passages(self.reply.answer)

    def begin(self) -> None:
        """The question has been put to the model."""
        self._stream = Markdown.get_stream(self.query_one(Markdown))
        self.say(Content("answering…"))

    def say(self, content: Content) -> None:
        """One line under the answer."""
        self.query_one(".state", Static).update(content)

    async def write(self, piece: str) -> None:
        """More of the answer."""
        clean = plain.markdown(piece)
        self.reply.text += clean
        if self._stream is not None:
            await self._stream.write(clean)

    async def finish(self, answer: Answer) -> None:
        """The whole answer is there: say how it ended and show what belongs to it."""
        self.reply.answer = answer
        if not self.reply.text and answer.text:
            await self.write(answer.text)
        ends = {"stopped": "stopped", "length": f"cut off after {words.count(answer.tokens)} tokens"}
        self.reply.mark = ends.get(answer.finish_reason, "" if answer.found else "not found in the document")
        await self.end(self._ending(answer))
        await self.mount_all(self._passages(answer))

    async def close(self, mark: str) -> None:
        """It ended without a whole answer: stopped, or never asked."""
        self.reply.mark = mark
        await self.end(Content.styled(mark, "$text-warning"))

    async def fail(self, message: str, hint: str | None) -> None:
        """It went wrong; what had come stays."""
        self.reply.mark = plain.one_line(message)
        await self.end(error_text(message, hint))

    async def end(self, state: Content) -> None:
        """Nothing more comes."""
        self.say(state)
        stream, self._stream = self._stream, None
        if stream is None:
            return
        whole = not is_long(self.reply.text)
        try:
            await stream.stop()
        except Exception:  # a text that the Markdown widget cannot show must not end the chat
            whole = False
        if not whole:
            markdown = self.query_one(Markdown)
            await self.mount(self._as_text(), before=markdown)
            await markdown.remove()

    def _as_text(self) -> Static:
        return Static(plain.literal(self.reply.text), classes="answer", markup=False)

    def _ending(self, answer: Answer | None) -> Content:
        mark = plain.one_line(self.reply.mark)
        if answer is None:
            return Content.styled(mark, "$text-warning")
        rate = words.rate(answer.tokens / answer.seconds) if answer.seconds > 0 else ""
        tokens = f"{words.count(answer.tokens)} token{'s' * (answer.tokens != 1)}"
        detail = " · ".join(part for part in ("" if self.reply.text else "no answer", tokens, rate) if part)
        return Content.assemble((f"{mark} · " if mark else "", "$text-warning"), detail)

    def _passages(self, answer: Answer) -> list[Static]:
        if not answer.passages:
            return []
        heading = Label("related passages", classes="heading", markup=False)
        # Two answers that are compared have to be seen at once: their passages are one line each.
        book, short = self._exchange.book, bool(self.reply.name)
        views = [PassageView(answer, index, book, short=short) for index in range(len(answer.passages))]
        return [heading, *views]
