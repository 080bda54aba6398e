"""The bottom line: facts about the open document, then the keys; facts that do not fit are left out."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Static

from longmamba_mlx.events import Answer, ReadDone
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.tui.rendering import formatting, safe_text

_KEYS = {False: "F1 help  ^P menu  ^Q quit", True: "Esc stop  F1 help  ^Q quit"}
_FEW_KEYS = {False: "F1 help", True: "Esc stop"}
_WIDE, _NARROW = 100, 60
_PADDING = 4
_ENOUGH_LOOKS = 12  # at the memory, before anything is said about it


class StatusLine(Horizontal):
    """One row. A flash replaces the facts until the next key or event."""

    def __init__(self) -> None:
        super().__init__()
        self._done: ReadDone | None = None
        self._memory: list[int] = []
        self._rate = ""
        self._busy = False
        self._flash = ""
        self._filter = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="facts", markup=False)
        yield Static("", id="keys", markup=False)

    def on_mount(self) -> None:
        self._show()

    def on_resize(self) -> None:
        self._show()

    def read_done(self, event: ReadDone) -> None:
        """A document is open."""
        self._done = event
        if event.seconds > 0 and not event.reopened:
            self._rate = formatting.rate((event.tokens - event.before) / event.seconds)
        self._show()

    def show_filter(self, name: str) -> None:
        """Name the filter that the document was read with."""
        self._filter = name
        self._show()

    def answered(self, answer: Answer) -> None:
        """Show how fast the last answer came."""
        self._rate = formatting.rate_of(answer.tokens, answer.seconds) or self._rate
        self._show()

    def memory(self, size: int) -> None:
        """Note the process's memory in bytes, repeatedly during a reading."""
        self._memory.append(size)
        self._show()

    def forget_memory(self) -> None:
        """Forget the memory figures: another reading starts."""
        self._memory.clear()

    def busy(self, busy: bool) -> None:
        """Whether Esc has something to stop."""
        self._busy = busy
        self._show()

    def flash(self, text: str) -> None:
        """Say something small, "" to take it away."""
        self._flash = safe_text.one_line(text)
        self._show()

    def _parts(self) -> list[str]:
        done = self._done
        if done is None:
            return ["questions wait until the document is read" if self._busy else "no document is open"]
        return [
            f"{formatting.count(done.tokens)} tokens read",
            formatting.remembered(done.state_bytes, stored=done.stored is not None),
            f"filter {safe_text.one_line(self._filter)}" if self._filter else "",
            self._rate,
            self._memory_words(),
            safe_text.one_line(done.title),
        ]

    def _memory_words(self) -> str:
        """ "constant" only where it was measured: within 5 % since the first quarter of the reading."""
        if not self._memory:
            return ""
        late = self._memory[len(self._memory) // 4 :]
        flat = len(self._memory) >= _ENOUGH_LOOKS and max(late) <= 1.05 * min(late)
        return f"memory {format_size(self._memory[-1])}{', constant' if flat else ''}"

    def _show(self) -> None:
        if not self.is_mounted:
            return
        width = self.size.width - _PADDING
        keys = (_KEYS if self.size.width >= _WIDE else _FEW_KEYS)[self._busy] if self.size.width >= _NARROW else ""
        facts = self._flash.split(" · ") if self._flash else self._parts()
        line = self.query_one("#keys", Static)
        line.display = bool(keys)
        line.update(keys)
        room = width - (len(keys) + 2 if keys else 0)
        self.query_one("#facts", Static).update(safe_text.literal(formatting.truncate_join(facts, room)))
