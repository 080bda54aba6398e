"""A question and its answer: waiting, streaming, done."""

from __future__ import annotations

from enum import Enum

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Label, Markdown, Static
from textual.widgets.markdown import MarkdownStream

from longmamba_mlx.session import Answer
from longmamba_mlx.tui import plain, words
from longmamba_mlx.tui.note import error_text
from longmamba_mlx.tui.passage_view import PassageView
from longmamba_mlx.tui.transcript import Turn


class Stage(Enum):
    """Where an exchange stands."""

    WAITING = "waiting"
    ANSWERING = "answering"
    DONE = "done"


class ExchangeView(Vertical):
    """Shows a question at once and its answer as it comes."""

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question
        self.stage = Stage.WAITING
        self.answer: Answer | None = None
        self.mark = ""
        self._pieces: list[str] = []
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        yield Static(plain.literal(self.question), classes="question", markup=False)
        yield Markdown(open_links=False, classes="answer")
        yield Static("", classes="state", markup=False)

    @property
    def text(self) -> str:
        """The answer as far as it has come."""
        return "".join(self._pieces)

    @property
    def turn(self) -> Turn:
        """This exchange as a record for copying and exporting."""
        return Turn(self.question, self.text, self.mark, self.answer)

    def wait_for(self, reason: str) -> None:
        """Not asked yet, and why."""
        self._state(Content(f"queued · {reason}"))

    def begin(self) -> None:
        """The question has been put to the model."""
        self.stage = Stage.ANSWERING
        self.add_class("-answering")
        self._stream = Markdown.get_stream(self.query_one(Markdown))
        self._state(Content("answering…"))

    async def write(self, piece: str) -> None:
        """More of the answer."""
        clean = plain.markdown(piece)
        self._pieces.append(clean)
        if self._stream is not None:
            await self._stream.write(clean)

    async def finish(self, answer: Answer) -> None:
        """The whole answer is there: say how it ended and show what belongs to it."""
        self.answer = answer
        if not self.text and answer.text:
            await self.write(answer.text)
        ends = {"stopped": "stopped", "length": f"cut off after {words.count(answer.tokens)} tokens"}
        self.mark = ends.get(answer.finish_reason, "" if answer.found else "not found in the document")
        rate = words.rate(answer.tokens / answer.seconds) if answer.seconds > 0 else ""
        tokens = f"{words.count(answer.tokens)} token{'s' * (answer.tokens != 1)}"
        detail = " · ".join(part for part in ("" if self.text else "no answer", tokens, rate) if part)
        await self._end(Content.assemble((f"{self.mark} · " if self.mark else "", "$text-warning"), detail))
        await self._show_passages(answer)

    async def close(self, mark: str) -> None:
        """It ended without a whole answer: stopped, or never asked."""
        self.mark = mark
        await self._end(Content.styled(mark, "$text-warning"))

    async def fail(self, message: str, hint: str | None) -> None:
        """It went wrong; what had come stays."""
        self.mark = plain.one_line(message)
        await self._end(error_text(message, hint))

    async def _end(self, state: Content) -> None:
        self.stage = Stage.DONE
        self.remove_class("-answering")
        self._state(state)
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            await stream.stop()
        except Exception:  # a text that the Markdown widget cannot show must not end the chat
            await self.query_one(Markdown).remove()
            await self.mount(Static(plain.literal(self.text), classes="answer", markup=False), after=0)

    async def _show_passages(self, answer: Answer) -> None:
        if answer.passages:
            heading = Label("related passages", classes="heading", markup=False)
            views = [PassageView(answer, index) for index in range(len(answer.passages))]
            await self.mount_all([heading, *views])

    def _state(self, content: Content) -> None:
        self.query_one(".state", Static).update(content)
