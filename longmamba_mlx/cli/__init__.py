"""The command line: `longmamba-mlx`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from longmamba_mlx.cli.memory import require_address_space
from longmamba_mlx.cli.quick_chat import chat_about_files, only_files
from longmamba_mlx.cli.streams import flush, open_missing, output_error
from longmamba_mlx.errors import INTERRUPTED, LongMambaError, StoppedError
from longmamba_mlx.tui.terminal.tty import why_no_chat

COMMANDS = ("ask", "bench", "calibrate", "chat", "convert", "demo", "doctor", "eval", "mcp",
            "models", "rank", "read", "selftest", "serve", "states", "use")  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code: one line and a hint for a user's error, never a traceback."""
    words = with_default_command(sys.argv[1:] if arguments is None else arguments)
    code = _code_of(_run, words)
    sys.exit(_code_of(flush) or code)


def _run(words: list[str]) -> int:
    """The exit code of a command."""
    open_missing()
    if words and not words[0].startswith("-"):
        require_address_space()
    files = only_files(words)
    if files is not None and (code := chat_about_files(files)) is not None:
        return code
    from longmamba_mlx.cli.app import app

    app(args=words, prog_name="longmamba-mlx", standalone_mode=True)
    return 0


def _code_of(work: Callable[..., int | None], *arguments: object) -> int:
    """Run some work, print its error, and return the exit code."""
    try:
        return work(*arguments) or 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except LongMambaError as error:
        report(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except MemoryError:
        report(LongMambaError("Not enough memory.", hint="Close other programs, or take a smaller model (or -q)."))
        return LongMambaError.exit_code
    except BrokenPipeError:  # the reader of our output has left
        with suppress(OSError):
            flush()
        return LongMambaError.exit_code
    except OSError as error:
        if (told := output_error(error)) is None:
            raise
        report(told)
        with suppress(OSError):
            flush()
        return told.exit_code


def with_default_command(words: list[str]) -> list[str]:
    """`longmamba-mlx book.txt` means `chat --file book.txt`, unless a command has that name; nothing means `chat`.

    Without a terminal, nothing stays nothing: the help is printed.
    """
    if not words and not why_no_chat():
        return ["chat"]
    if not words or words[0].startswith("-") or words[0] in COMMANDS:
        return words
    looks_like_file = Path(words[0]).exists() or "." in words[0] or "/" in words[0]
    return ["chat", "--file", *words] if looks_like_file else words


def report(error: LongMambaError) -> None:
    """The error and its hint on stderr, free of control characters."""
    from longmamba_mlx.documents import one_line

    if isinstance(error, StoppedError):  # as the user wished: one line that says how to go on
        print(one_line(f"{error} {error.hint or ''}", 500), file=sys.stderr)
        return
    print(f"Error: {one_line(str(error), 500)}", file=sys.stderr)
    if error.hint:
        print(f"Hint: {one_line(error.hint, 500)}", file=sys.stderr)
