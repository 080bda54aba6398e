"""Started by chat_latency.py: the whole chat on a session without a model, so that only the chat is measured.

    python benchmarks/chat_child.py BOOK RATE COUNT NOTES

An answer is COUNT words, RATE of them a second; when each was offered is written to NOTES at the end, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from longmamba_mlx.tui import run_chat
from tests.tui.fakes import PacedSession


def main() -> None:
    book, rate, count, notes = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    session = PacedSession(title=book.name, text=book.read_text("utf-8"), rate=rate, count=count)
    session.free()
    code = run_chat(lambda: session, [str(book)])
    notes.write_text(json.dumps({"offered": session.offered, "late": session.late}), "utf-8")
    sys.exit(code)


if __name__ == "__main__":
    main()
