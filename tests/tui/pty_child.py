"""Started in a terminal of its own by test_tui_terminal.py: the chat with a session that needs no model."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from longmamba_mlx.tui import run_chat
from longmamba_mlx.tui.terminal.tty import reattach_keyboard, why_no_chat
from longmamba_mlx.tui.widgets.status_line import StatusLine
from tests.tui.fakes import FakeSession

PAYLOADS = [
    "\x1b]52;c;cHduZWQ=\x07",
    "\x1b]0;PWNED\x07",
    "\x1b[5;5HPWNED",
    "\x9b31m",
    "[@click=app.quit]x[/]",
]


def crash(line: StatusLine, answer: object) -> None:
    raise RuntimeError("a fault of the program")


def main() -> None:
    title = "book.txt"
    if sys.argv[1] == "piped":
        title = sys.stdin.read().strip()
        sys.stdin.close()
    if not reattach_keyboard() or (reason := why_no_chat()):
        sys.exit(f"no terminal: {reason}")
    if sys.argv[1] == "crash":
        StatusLine.answered = crash  # type: ignore[method-assign,assignment]
    session = FakeSession(title=title + PAYLOADS[1], pieces=["It is ", "Ahab.", *PAYLOADS])
    if sys.argv[1] != "reading":
        session.free()
    code = run_chat(lambda: session, [title])
    print(f"left with {code}, asked {session.asked}, saved {session.saved}")
    sys.exit(code)


if __name__ == "__main__":
    main()
