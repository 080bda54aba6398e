"""End the program with its terminal: Textual would wait for ever to write to a closed one."""

from __future__ import annotations

import threading
from collections.abc import Callable

from longmamba_mlx.tui.terminal.tty import has_keyboard

HUNG_UP = 129  # as a shell reports a program that a closed terminal has ended
_LOOK_SECONDS = 1.0


def watch_terminal(end: Callable[[], None]) -> threading.Event:
    """Call `end` on a separate thread once the terminal is gone; set the event to stop watching.

    This does not rely on a signal: the main thread may be waiting for the terminal, and some shells send none.
    """
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            if not has_keyboard():
                end()
                return

    threading.Thread(target=look, name="longmamba-terminal", daemon=True).start()
    return over
