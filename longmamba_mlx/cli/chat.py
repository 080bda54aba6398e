"""`chat`: a terminal, or one line that says why not."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from longmamba_mlx.cli.defaults import CHAT_TOKENS, FILTER, SEED, TEMPERATURE
from longmamba_mlx.errors import UsageError
from longmamba_mlx.session.session import Session


def chat_about(
    files: list[str],
    model: str,
    *,
    filter: str = FILTER,
    max_tokens: int = CHAT_TOKENS,
    temperature: float = TEMPERATURE,
    seed: int = SEED,
    chunk: int | None = None,
    offline: bool = False,
    save: bool = True,
    attention_window: int | None = None,
    encoding: str = "",
) -> int:
    """Open the chat and return its exit code. A document in standard input is read to its end first."""
    from longmamba_mlx.tui import run_chat
    from longmamba_mlx.tui.terminal.tty import reattach_keyboard, why_no_chat

    # Bad options are told before the screen changes.
    session = Session(model, filter=filter, max_tokens=max_tokens, temperature=temperature, seed=seed, chunk=chunk,
                      offline=offline, save=save, attention_window=attention_window, encoding=encoding)  # fmt: skip
    piped = not sys.stdin.isatty() and (not files or "-" in files)
    if not piped and (reason := why_no_chat()) is not None:
        raise UsageError(f"chat needs a terminal: {reason}.", hint=_ASK)
    with tempfile.TemporaryDirectory(prefix="longmamba-") as folder:
        if piped:
            data = sys.stdin.buffer.read()
            reattach_keyboard()
            if (reason := why_no_chat()) is not None:
                raise UsageError(f"chat needs a terminal: {reason}.", hint=_ASK)
            copy = Path(folder) / "stdin"
            copy.write_bytes(data)
            files = [str(copy) if name == "-" else name for name in files or ["-"]]
        return run_chat(lambda: session, files, save=save, model=model)


_ASK = 'For pipes and scripts there is: longmamba-mlx ask --file FILE "QUESTION"'
