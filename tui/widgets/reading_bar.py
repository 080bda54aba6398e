"""Progress before questions can be answered: loading, counting, reading."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import ProgressBar, Static

from longmamba_mlx.events import Counted, Loaded, Loading, ReadProgress
from longmamba_mlx.ground.sizes import format_duration, format_size
from longmamba_mlx.tui.rendering import formatting, safe_text
from longmamba_mlx.tui.worker.download import Fetching


class ReadingBar(Vertical):
    """A bar and one line of numbers; hidden when nothing is in progress."""

    def __init__(self) -> None:
        super().__init__()
        self.fraction = 0.0
        self.title = ""
        self._parts: list[str] = []

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static("", id="doing", markup=False)
            yield ProgressBar(show_eta=False, show_percentage=False)
            yield Static("", id="percent", markup=False)
        yield Static("", id="numbers", markup=False)

    def begin(self, title: str) -> None:
        """Show that a document is being opened, under the user's name for it."""
        self.title, self.fraction = title, 0.0
        self.add_class("-shown")
        self._show("Opening", [safe_text.one_line(title)], None)

    def end(self) -> None:
        """Hide the bar."""
        self.remove_class("-shown")

    def report(self, event: Loading | Loaded | Counted | ReadProgress | Fetching) -> None:
        """Show one of the events that come before `ReadDone`."""
        match event:
            case Fetching(what, done, total):
                sizes = f"{format_size(done)} of {format_size(total)}" if total > 0 else "asking the Hub"
                parts = [sizes, safe_text.one_line(what)]
                self._show("Getting", parts, min(done / total, 1.0) if total > 0 else None)
            case Loading(name):
                self._show("Loading", [safe_text.one_line(name)], None)
            case Loaded(name, parameters, seconds):
                parts = [
                    safe_text.one_line(name),
                    formatting.parameters(parameters),
                    f"loaded in {format_duration(seconds)}",
                ]
                self._show("Counting", parts, None)
            case Counted(title, tokens):
                self.title = title
                self._show("Reading", [f"{formatting.count(tokens)} tokens", safe_text.one_line(title)], None)
            case ReadProgress(done, total, rate, left, memory, place):
                self.fraction = min(done / total, 1.0) if total > 0 else 0.0
                parts = [
                    f"{formatting.count(done)} of {formatting.count(total)} tokens",
                    f"{format_duration(left)} left",
                    formatting.rate(rate),
                    formatting.shorten(safe_text.one_line(place), 40),
                    f"memory {format_size(memory)}",
                ]
                self._show("Reading", parts, self.fraction)

    def on_resize(self) -> None:
        self._fit()

    def _show(self, doing: str, parts: list[str], fraction: float | None) -> None:
        self._parts = parts
        self.query_one("#doing", Static).update(doing)
        self.query_one("#percent", Static).update("" if fraction is None else f"{fraction:4.0%}")
        self.query_one(ProgressBar).update(total=None if fraction is None else 1.0, progress=fraction or 0.0)
        self._fit()

    def _fit(self) -> None:
        self.query_one("#numbers", Static).update(
            safe_text.literal(formatting.truncate_join(self._parts, max(self.size.width - 4, 1)))
        )
