"""Copying with a program of the desktop or of tmux; without one only the terminal can be asked (OSC 52)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

_SECONDS = 2.0
_TMUX = ("tmux", "load-buffer", "-w", "-")  # -w: also into the clipboard of tmux's own terminal


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy: `certain` when a program has accepted the text; `where` is shown to the user."""

    certain: bool
    where: str

    def said(self, what: str) -> str:
        """One line: "Answer copied"."""
        return f"{what} copied{self.where}" if self.certain else f"{what} sent{self.where}"


def clipboard_command() -> list[str] | None:
    """The program that fills the clipboard of this desktop, else of tmux; None without one (ssh, console).

    Inside tmux OSC 52 would be lost: by default (`set-clipboard external`) tmux accepts it from no program.
    """
    candidates: list[tuple[str, ...]] = []
    if sys.platform == "darwin":
        candidates.append(("pbcopy",))
    elif os.environ.get("WAYLAND_DISPLAY"):
        candidates.append(("wl-copy",))
    elif os.environ.get("DISPLAY"):
        candidates += [("xclip", "-selection", "clipboard"), ("xsel", "--clipboard", "--input")]
    if os.environ.get("TMUX"):
        candidates.append(_TMUX)
    for name, *arguments in candidates:
        if program := shutil.which(name):
            return [program, *arguments]
    return None


def copy_text(text: str) -> Copied:
    """Fill the clipboard with a program. Where none takes the text, only the terminal's own clipboard is left."""
    command = clipboard_command()
    if command is None or not _run(command, text):
        return Copied(False, " to the terminal (OSC 52): not every one takes it")
    in_tmux = command[1:] == list(_TMUX[1:])
    return Copied(True, " in tmux: its prefix key and ] pastes" if in_tmux else "")


def _run(command: list[str], text: str) -> bool:
    try:
        subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return True
