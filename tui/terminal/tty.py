"""Is there a terminal to chat in, and do its keys reach us?"""

from __future__ import annotations

import os
import sys


def reattach_keyboard() -> bool:
    """Make the keyboard file descriptor 0 again after the document came through it (`cat book.txt | … chat`).

    Call it when standard input has been read to its end. True when keys can be read afterwards. A closed
    `sys.stdin` is fine: Textual reads from the descriptor behind `sys.__stdin__`, which is restored here.
    """
    if not has_keyboard():
        try:
            keyboard = os.open("/dev/tty", os.O_RDWR)
        except OSError:
            return False
        if keyboard != 0:
            os.dup2(keyboard, 0)
            os.close(keyboard)
    if sys.__stdin__ is None or sys.__stdin__.closed:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it lives as long as the process
        sys.__stdin__ = sys.stdin  # type: ignore[misc]
    return True


def has_keyboard() -> bool:
    """Whether standard input is a terminal, and one that is still there."""
    return _is_terminal(0)


def why_no_chat() -> str | None:
    """Why a chat cannot be shown here, as one line; None when it can. Call it after `reattach_keyboard`."""
    if not has_keyboard():
        return "standard input is not a terminal"
    if not _is_terminal(1):
        return "standard output is not a terminal"
    if not _is_terminal(2):  # Textual draws on standard error
        return "standard error is not a terminal"
    if os.environ.get("TERM", "") in ("", "dumb"):
        return "this terminal cannot place text (TERM is unset or dumb)"
    return None


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False
