"""Whatever a document, a model, a file name or an error says: it is shown as text and steers nothing."""

from __future__ import annotations

import itertools

import pytest
from textual.widgets import Markdown

from longmamba_mlx.errors import LongMambaError
from longmamba_mlx.passages import Passage
from longmamba_mlx.session import Notice
from longmamba_mlx.tui import plain
from longmamba_mlx.tui.passage_view import PassageView
from tests.tui.fakes import FakeSession
from tests.tui.helpers import (
    BIDI,
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
        await wait_until(pilot, lambda: session.asked and not app.chat.busy)
        text = said(pilot)
        assert f"Q{payload}" in text and f"P{payload}" in text and f"H{payload}" in text
        assert f"A{payload}".replace("\\[", "[") in text  # Markdown takes a backslash away
        session.open_error = LongMambaError(f"E{payload}", hint=f"I{payload}")
        await type_line(pilot, f"/open O{payload}")
        await wait_until(pilot, lambda: f"✗ E{payload} I{payload}" in said(pilot))
        await type_line(pilot, f"/C{payload}")
        assert f"No command /C{payload}" in said(pilot)
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
        await wait_until(pilot, lambda: app.chat.desk.document)
        await type_line(pilot, f"Q{text}")
        await wait_until(pilot, lambda: session.asked and not app.chat.busy)
        session.open_error = LongMambaError(text, hint=text)
        await type_line(pilot, f"/open {text}")
        await wait_until(pilot, lambda: "✗ " in said(pilot))
        await wait_until(pilot, lambda: not app.chat.busy)
        app.chat.status.flash(text)
        await pilot.pause()
        shown = everything(app.chat.walk_children()) + screen_text(pilot)
        assert "52;c;cHduZWQ=" in shown  # the harmless rest is there: the payloads did reach these widgets
        assert control_characters(shown) == set()
        assert control_characters(app.chat.query_one(Markdown).source) <= {"\t"}


@pytest.mark.parametrize("payload", ESCAPES)
def test_the_gate_lets_no_control_character_through(payload: str) -> None:
    for gated in (plain.literal(payload).plain, plain.one_line(payload), plain.markdown(payload)):
        assert control_characters(gated) == set()


async def test_a_text_that_breaks_the_markdown_widget_is_shown_plainly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(widget: Markdown, text: str) -> None:
        raise IndexError(text)

    monkeypatch.setattr(Markdown, "append", broken)
    session = FakeSession(pieces=["It is ", "**Ahab**."]).free()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: "It is **Ahab**." in said(pilot))
        await wait_until(pilot, lambda: not app.chat.busy)
