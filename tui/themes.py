"""The chat's own colours. All of Textual's themes stay in the command palette."""

from __future__ import annotations

from textual.theme import Theme

MAMBA = Theme(
    name="mamba",
    primary="#7fc8a9",
    secondary="#8ab4d8",
    accent="#e0b973",
    foreground="#dfe5e1",
    background="#121614",
    surface="#19201d",
    panel="#202925",
    success="#8fd17f",
    warning="#e0b973",
    error="#e5786d",
    dark=True,
)
