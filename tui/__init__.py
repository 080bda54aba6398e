"""The terminal chat. Importing this is free: Textual loads when the chat starts."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longmamba_mlx.tui.app import ChatApp
    from longmamba_mlx.tui.worker.protocol import SessionFactory

__all__ = ["run_chat"]

_INTERRUPTED = 130
_JOIN_SECONDS = 10.0
_KEEP_SECONDS = 1.0  # for the last exchange, which the screen's thread puts into the file
# Libraries that load models like to draw bars and warnings over the screen.
_QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",  # else it warns when another program is started, to copy for instance
}
_TEXTUAL = {
    # Milliseconds until Esc is taken for the key and not for the beginning of another one's code; else 100.
    "ESCDELAY": "40",
    # How often a second Textual looks whether there is something to draw; else 60. After a long frame it lets one or
    # two of these pass: at 60 a letter typed while an answer comes waited 25 ms before it was drawn.
    "TEXTUAL_FPS": "240",
}


def run_chat(session_factory: SessionFactory, paths: Sequence[str], *, save: bool = True, model: str = "") -> int:
    """Chat about `paths` until the user leaves; returns the exit code.

    `session_factory` is called on the engine's thread, after the first frame; `model` is the name shown until then.
    `save`: keep the conversation and the theme. 0: left; 75: left in the middle of a reading, which the same command
    resumes; 130: SIGINT; 1: the chat broke (Textual has shown the traceback). A closed terminal ends the process, after
    what was read is kept.
    """
    for name, value in (_QUIET | _TEXTUAL).items():
        os.environ.setdefault(name, value)  # before Textual is imported
    gc.disable()  # until the first frame, in which little becomes garbage
    from longmamba_mlx.paths import conversations_file
    from longmamba_mlx.tui.app import ChatApp  # 0.35 s, most of it Textual
    from longmamba_mlx.tui.commands.arguments import absolute
    from longmamba_mlx.tui.history.store import ConversationStore
    from longmamba_mlx.tui.terminal.watch import watch_terminal

    app = ChatApp(
        session_factory,
        [absolute(path) for path in paths],
        store=ConversationStore(conversations_file()) if save else None,
        model=model,
    )
    gc.freeze()  # the program itself is no garbage: to look through it each time takes longer than a key may wait
    watch = watch_terminal(lambda: _end_without_terminal(app))
    try:
        result = app.run()
    finally:
        gc.unfreeze()
        gc.enable()
        watch.set()
        before = signal.signal(signal.SIGINT, lambda *_: _leave_at_once(_INTERRUPTED))  # while the engine ends
        app.engine.close()
        ended = app.engine.join(_JOIN_SECONDS)
        signal.signal(signal.SIGINT, before)
    code = app.return_code or result or 0
    if app.chat.controller.stopped_reading:
        print(f"Stopped in the middle of the reading. {app.engine.hint}".rstrip(), file=sys.stderr)
    if not ended:
        _leave_at_once(code)
    return code


def _end_without_terminal(app: ChatApp) -> None:
    """Keep what was read and said, then end the process."""
    from longmamba_mlx.tui.terminal.watch import HUNG_UP

    app.engine.close()
    app.engine.join(_JOIN_SECONDS)
    time.sleep(_KEEP_SECONDS)
    _leave_at_once(HUNG_UP)


def _leave_at_once(code: int) -> None:
    """End the process while the engine is still inside MLX.

    A thread that is computing while the interpreter and MLX take themselves down crashes. Files are written
    whole under their final name or not at all, so nothing is lost by not waiting longer.
    """
    with suppress(OSError, ValueError):  # nobody may be there to read it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
