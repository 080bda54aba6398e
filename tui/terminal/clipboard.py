"""Copying with the desktop's own program; for terminals that know OSC 52 the app does the rest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

_SECONDS = 2.0


def system_command() -> list[str] | None:
    """The program that fills the clipboard of this desktop, None without one (ssh, console)."""
    candidates: list[list[str]] = []
    if sys.platform == "darwin":
        candidates.append(["pbcopy"])
    elif os.environ.get("WAYLAND_DISPLAY"):
        candidates.append(["wl-copy"])
    elif os.environ.get("DISPLAY"):
        candidates += [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    for name, *arguments in candidates:
        if program := shutil.which(name):
            return [program, *arguments]
    return None


def copy_to_system(text: str) -> bool:
    """Fill the desktop's clipboard; False when there is none or the program fails."""
    command = system_command()
    if command is None:
        return False
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
