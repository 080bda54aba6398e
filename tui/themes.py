"""The chat's own colours, dark and light. All of Textual's themes stay in the command palette."""

from __future__ import annotations

from textual.theme import Theme

_DARK = Theme(
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

_LIGHT = Theme(
    name="mamba-light",
    primary="#1f7a55",
    secondary="#2d6391",
    accent="#9a5b00",
    foreground="#1c2420",
    background="#f6f7f4",
    surface="#eceee9",
    panel="#dfe3dc",
    success="#2f7a1f",
    warning="#8a5a00",
    error="#b3362a",
    dark=False,
)

THEMES = (_DARK, _LIGHT)  # the first one is what the chat begins with
