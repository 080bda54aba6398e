"""Every screen as text, in two sizes and two themes, beside what it was.

The pictures are words, not bytes: another version of a library may draw another line, but the same things have to be
said in the same order. After an intended change: UPDATE_SNAPSHOTS=1 pytest tests/tui/test_snapshots.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from rich.color import Color
from textual.pilot import Pilot

from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.history.records import Exchange, Stage
from longmamba_mlx.tui.history.store import ConversationStore
from longmamba_mlx.tui.screens import model_choices
from longmamba_mlx.tui.screens import models as models_screen
from longmamba_mlx.tui.screens.confirm import ConfirmScreen
from longmamba_mlx.tui.screens.conversations import ConversationsScreen
from longmamba_mlx.tui.screens.help import HelpScreen
from longmamba_mlx.tui.screens.model_choices import ModelChoice
from longmamba_mlx.tui.screens.models import ModelsScreen
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.start_menu import StartMenu
from tests.tui.fakes import BOOK, FakeSession
from tests.tui.helpers import FakeClock, said, screen_text, type_line, wait_until

FOLDER = Path(__file__).with_name("snapshots")
SIZES = {"80x24": (80, 24), "150x44": (150, 44)}
PLACE = BOOK.index("Line 20 of chapter 9")
PASSAGE = Passage(99, PLACE, PLACE + 37, BOOK[PLACE : PLACE + 37], "CHAPTER 9", True, "CHAPTER 9")
KEPT = [0.1, 0.2, 0.4, 0.8] * 20
Step = Callable[[ChatApp, Pilot[int], FakeSession], Awaitable[None]]


async def start(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await wait_until(pilot, lambda: isinstance(app.focused, StartMenu))


async def reading(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await type_line(pilot, "/open /books/moby.txt")
    session.let(2)
    await wait_until(pilot, lambda: app.chat.bar.fraction == 0.5)
    await type_line(pilot, "Who hunts the whale?")
    await wait_until(pilot, lambda: "queued" in said(pilot))


async def answered(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await reading(app, pilot, session)
    session.free()
    await wait_until(pilot, lambda: app.chat.query(PassageView) and not app.chat.controller.busy)


async def text(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await answered(app, pilot, session)
    app.chat.query(PassageView).first().focus()
    await pilot.press("enter")
    await wait_until(pilot, lambda: "Line 20 of chapter 9" in said(pilot))


async def compared(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await answered(app, pilot, session)
    session.passages = ()
    await type_line(pilot, "/compare")
    await wait_until(pilot, lambda: len(app.chat.log_view.records) == 2 and not app.chat.controller.busy)


async def commands(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await answered(app, pilot, session)
    app.chat.prompt.put("/re")
    await wait_until(pilot, lambda: "/reread" in said(pilot))


async def help(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await pilot.press("f1")
    await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))


async def sessions(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await pilot.press("f4")
    await wait_until(pilot, lambda: isinstance(app.screen, ConversationsScreen) and "Tea" in said(pilot))


async def models(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await type_line(pilot, "/model")
    await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))


async def confirm(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await answered(app, pilot, session)
    await type_line(pilot, "/forget")
    await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))


async def error(app: ChatApp, pilot: Pilot[int], session: FakeSession) -> None:
    await type_line(pilot, "/nonsense")
    await wait_until(pilot, lambda: "✗" in said(pilot))


SCREENS: tuple[Step, ...] = (
    start, reading, answered, text, compared, commands, help, sessions, models, confirm, error,
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: screen.__name__)
async def test_screens_look_as_they_did(
    screen: Step, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = [ModelChoice("demo", "built in"), ModelChoice("owner/a-model-3b", "6.0 GB · 3 B · chat")]
    monkeypatch.setattr(models_screen, "model_choices", lambda: choices)
    monkeypatch.setattr(model_choices, "model_choices", lambda: choices)
    store = ConversationStore(tmp_path / "talks.sqlite")
    for title in ("Whales", "Tea [/"):
        store.put(store.begin(title, "moby.txt", (), "demo"), 0, Exchange("Who?", stage=Stage.DONE))
    session = FakeSession(kept=KEPT, passages=(PASSAGE,), pieces=["It is **about the whale.**"])
    app = ChatApp(lambda: session, [], store=store, clock=FakeClock())
    app.animation_level = "none"
    async with app.run_test(size=SIZES[size]) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, StartMenu))
        await screen(app, pilot, session)
        await pilot.pause()
        shown = screen_text(pilot)
        compare(f"{screen.__name__}-{size}", shown)
        assert unreadable(app) == []
        if size == "150x44":
            app.theme = "mamba-light"
            await pilot.pause()
            assert screen_text(pilot) == shown and unreadable(app) == []


def compare(name: str, shown: str) -> None:
    """The words and marks of a screen, row by row; lines, blanks and moving bars are nobody's business."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown + "\n", encoding="utf-8")
    assert words(shown) == words(path.read_text(encoding="utf-8")), f"{name} has changed:\n{shown}"


def words(shown: str) -> list[str]:
    rows = (" ".join(re.sub(r"[─-▟━╸╺]", " ", row).split()) for row in shown.split("\n"))
    return [row for row in rows if row]


def unreadable(app: ChatApp) -> list[str]:
    """Words on the screen whose colour is too near to the one below them (WCAG's ratio)."""
    found = []
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            style = segment.style
            if style is None or not any(c.isalnum() for c in segment.text) or not (style.color and style.bgcolor):
                continue
            ratio = contrast(style.color, style.bgcolor)
            if ratio < 2.0 and not app.screen.is_modal:  # what lies below a dialogue is dimmed on purpose
                found.append(f"{segment.text.strip()!r} {style} {ratio:.2f}")
    return found


def contrast(one: Color, other: Color) -> float:
    def light(colour: Color) -> float:
        parts = [part / 255 for part in colour.get_truecolor()]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)
