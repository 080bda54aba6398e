"""Whatever a document, a model, a file name or an error says: it is shown as text and steers nothing."""

from __future__ import annotations

import itertools
import json
import sqlite3
from pathlib import Path

import pytest
from rich import markdown

from longmamba_mlx.documents import Document, Place
from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.events import Notice, ReadDone
from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.history.store import ConversationStore
from longmamba_mlx.tui.rendering import safe_text
from longmamba_mlx.tui.screens.confirm import ConfirmScreen
from longmamba_mlx.tui.screens.conversations import ConversationsScreen
from longmamba_mlx.tui.widgets.answer_text import AnswerText
from longmamba_mlx.tui.widgets.memory_map import MemoryMap
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.start_menu import StartMenu
from longmamba_mlx.tui.worker.jobs import Switch
from tests.tui.fakes import FakeBook, FakeSession
from tests.tui.helpers import (
    BIDI,
    FakeClock,
    control_characters,
    make_app,
    ready,
    said,
    screen_text,
    type_line,
    wait_until,
    widget_text,
)

MARKUP = ("[/", "[IMPORTANT]", "[@click=app.quit]x[/]", "\\[b]z[/b]")
INTRODUCERS = ("\x1b[", "\x9b", "\x1b]", "\x9d", "\x1bP", "\x90", "\x1b_", "\x1b^", "\x1b", "\r\x1b[")
BODIES = ("2J", "52;c;cHduZWQ=\x07", "0;title\x1b\\", "?1049l", "6n\x08\x08")
ESCAPES = [
    *("".join(parts) for parts in itertools.product(INTRODUCERS, BODIES)),
    *("\x00", "\x07", "\x08", "\x0b", "\x0c", "\x0e", "\x7f", "\x85", BIDI, "a\r\nb\rc"),
]


REPLY = {"name": "", "text": "", "mark": "", "answer": None}


def everything(app_widgets: object) -> str:
    return "\n".join(widget_text(widget) for widget in app_widgets)  # type: ignore[attr-defined]


@pytest.mark.parametrize("payload", MARKUP)
async def test_markup_is_shown_literally_everywhere(payload: str) -> None:
    session = FakeSession(title=f"T{payload}", pieces=[f"A{payload}"], extra=(Notice(f"N{payload}"),))
    session.passages = (Passage(1, 0, 1, f"P{payload}", f"H{payload}", True),)
    app = make_app(session, f"F{payload}")
    async with app.run_test(size=(120, 40)) as pilot:
        await wait_until(pilot, lambda: f"T{payload}" in said(pilot), "title while reading")
        await ready(pilot, session)
        session.free()
        assert f"Ask about T{payload}…" in said(pilot) and f"N{payload}" in said(pilot)
        await type_line(pilot, f"Q{payload}")
        await wait_until(pilot, lambda: session.asked and not app.chat.controller.busy)
        text = said(pilot)
        assert f"Q{payload}" in text and f"P{payload}" in text and f"H{payload}" in text
        assert f"A{payload}".replace("\\[", "[") in text  # Markdown takes a backslash away
        session.open_error = LongMambaError(f"E{payload}", hint=f"I{payload}")
        await type_line(pilot, f"/open O{payload}")
        await wait_until(pilot, lambda: f"✗ E{payload} I{payload}" in said(pilot))
        await type_line(pilot, f"/C{payload}")
        assert f"Unknown command /C{payload}" in said(pilot)
        await pilot.click(PassageView)
        assert app.is_running


async def test_no_control_character_reaches_a_widget() -> None:
    assert len(ESCAPES) == 60
    text = "|".join(ESCAPES)
    session = FakeSession(title=text, pieces=ESCAPES, extra=(Notice(text),))
    session.passages = (Passage(1, 0, 1, text, text, True), Passage(2, 0, 1, text, text, False))
    app = make_app(session, text)
    async with app.run_test(size=(400, 150)) as pilot:
        session.let(1)
        await wait_until(pilot, lambda: app.chat.bar.fraction == 0.25)
        assert control_characters(screen_text(pilot)) == set()
        session.free()
        await wait_until(pilot, lambda: app.chat.controller.queue.document)
        await type_line(pilot, f"Q{text}")
        await wait_until(pilot, lambda: session.asked and not app.chat.controller.busy)
        session.open_error = LongMambaError(text, hint=text)
        await type_line(pilot, f"/open {text}")
        await wait_until(pilot, lambda: "✗ " in said(pilot))
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        app.chat.status.flash(text)
        await pilot.pause()
        shown = everything(app.chat.walk_children()) + screen_text(pilot)
        assert "52;c;cHduZWQ=" in shown  # the harmless rest is there: the payloads did reach these widgets
        assert control_characters(shown) == set()
        assert control_characters(app.chat.query_one(AnswerText).source) <= {"\t"}


@pytest.mark.parametrize("payload", ESCAPES)
def test_the_gate_lets_no_control_character_through(payload: str) -> None:
    for gated in (safe_text.literal(payload).plain, safe_text.one_line(payload), safe_text.markdown(payload)):
        assert control_characters(gated) == set()


async def test_a_text_that_markdown_breaks_on_is_shown_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise IndexError("a text that cannot be laid out")

    monkeypatch.setattr(markdown.Markdown, "__rich_console__", broken)
    session = FakeSession(pieces=["It is ", "**Ahab**."]).free()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: "It is **Ahab**." in said(pilot))
        await wait_until(pilot, lambda: not app.chat.controller.busy)


def hostile_session(text: str) -> FakeSession:
    """A session whose reader and model let everything through."""
    document = Document("t", "x")
    object.__setattr__(document, "text", f"{text}\n" * 40)
    place = Place(0, "chapter", text, 1)
    for name, value in (("places", (place,)), ("place_at", lambda offset: text)):
        object.__setattr__(document, name, value)
    session = FakeSession(title=text, pieces=[text]).free()
    session.books, session.current = [FakeBook(document, 9, [0.5] * 9)], 0
    object.__setattr__(session.books[0].document, "title", text)
    return session


def hostile_store(path: Path, text: str) -> ConversationStore:
    """Talks that somebody else has written into the file."""
    store = ConversationStore(path)
    with sqlite3.connect(path) as database:
        store.set("a", "b")
        row = (text, text, json.dumps([text]), text)
        database.execute("INSERT INTO talks VALUES (1, ?, ?, ?, ?, 0, 0)", row)
        record = json.dumps(
            {"question": text, "how": {"as_of": text}, "book": text, "answers": [REPLY | {"text": text}]}
        )
        database.execute("INSERT INTO exchanges VALUES (1, 0, ?, ?, ?)", (text, text, record))
    return store


async def test_the_new_places_let_no_control_character_through_and_show_markup_literally(tmp_path: Path) -> None:
    """The text pane, the map and its tooltip, the shelf, comparisons, sessions, the first screen, what is typed."""
    text = "|".join(ESCAPES) + "".join(MARKUP)
    session, store = hostile_session(text), hostile_store(tmp_path / "talks.sqlite", text)
    app = ChatApp(lambda: session, [], store=store, clock=FakeClock())
    app.animation_level = "none"
    seen: list[str] = []

    def look() -> None:
        assert control_characters(screen_text(pilot)) == set()
        widgets = everything(app.screen.walk_children())
        assert control_characters(widgets) == set()
        seen.append(widgets)

    async with app.run_test(size=(400, 150)) as pilot:
        await wait_until(pilot, lambda: app.chat.query(StartMenu))
        look()
        await type_line(pilot, "/books 1")
        await wait_until(pilot, lambda: app.chat.panel.book or app.chat.query("ErrorNote"))
        app.chat.controller.submit(Switch(0))
        await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        await pilot.hover(MemoryMap, offset=(5, 0))
        await wait_until(pilot, lambda: app.chat.query_one(MemoryMap).tooltip is not None)
        assert control_characters(str(app.chat.query_one(MemoryMap).tooltip)) == set()
        app.chat.controller.queue.document = ReadDone(text, 9, 1.0, 9, False, None, text)
        for line in ("/books", f"/find {text}", f"/compare {text}", f"/as-of {text}: {text}", f"/rename {text}"):
            await type_line(pilot, line)
            await wait_until(pilot, lambda: not app.chat.controller.busy)
            look()
        await pilot.press("f4")
        await wait_until(pilot, lambda: isinstance(app.screen, ConversationsScreen))
        look()
        await pilot.press("ctrl+d")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        look()
        await pilot.press("n")
        await wait_until(pilot, lambda: isinstance(app.screen, ConversationsScreen))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.screen is app.chat)
        await wait_until(pilot, lambda: "Resuming" in said(pilot))
        look()
    assert all("[2J" in widgets for widgets in seen)  # the harmless rest is there
    assert sum("[IMPORTANT]" in widgets for widgets in seen) >= 5
