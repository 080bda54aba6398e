"""Waiting for what should come, and looking at what the screen says."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import Callable
from typing import Any

from textual.pilot import Pilot
from textual.widget import Widget

from longmamba_mlx.tui.app import ChatApp
from tests.tui.fakes import FakeSession

LIMIT_SECONDS = 15.0
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


class FakeClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_app(session: FakeSession, *paths: str, clock: Callable[[], float] | None = None) -> ChatApp:
    app = ChatApp(lambda: session, paths, clock=clock or FakeClock())
    app.animation_level = "none"
    return app


async def wait_until(pilot: Pilot[Any], condition: Callable[[], object], what: str = "") -> None:
    """Let the app run until `condition` holds; fails after a limit nobody should meet."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        await asyncio.sleep(0.01)
    await pilot.pause()


async def ready(pilot: Pilot[Any], session: FakeSession) -> None:
    """Let the reading come to its end."""
    session.let(session.chunks)
    app = chat_app(pilot)
    await wait_until(
        pilot,
        lambda: app.chat.controller.queue.document is not None and not app.chat.controller.busy,
        "the document is read",
    )


async def type_line(pilot: Pilot[Any], text: str) -> None:
    """Put text into the prompt and press Enter (keys one by one are tested on their own)."""
    chat_app(pilot).chat.prompt.focus()
    chat_app(pilot).chat.prompt.put(text)
    await pilot.press("enter")
    await pilot.pause()


def chat_app(pilot: Pilot[Any]) -> ChatApp:
    app = pilot.app
    assert isinstance(app, ChatApp)
    return app


def widget_text(widget: Widget) -> str:
    """What a widget shows now, line by line."""
    lines = (widget.render_line(row) for row in range(widget.size.height))
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)


def screen_text(pilot: Pilot[Any]) -> str:
    """What the terminal shows, row by row."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def said(pilot: Pilot[Any]) -> str:
    """What the terminal shows as one line, whatever was wrapped where."""
    return " ".join(screen_text(pilot).split())


def control_characters(text: str) -> set[str]:
    """Characters that would steer a terminal or turn the reading direction."""
    return {c for c in text if (unicodedata.category(c) == "Cc" and c != "\n") or c in BIDI}
