"""The text pane: beside or over the talk, jumps, highlights, search, places, any length."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from textual.pilot import Pilot
from textual.selection import Offset, Selection

from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.prompt import Prompt
from longmamba_mlx.tui.widgets.reader import Reader
from longmamba_mlx.tui.widgets.text_pane import TextPane
from tests.tui.fakes import BOOK, FakeSession
from tests.tui.helpers import make_app, ready, said, screen_text, type_line, wait_until, widget_text

PLACE = BOOK.index("Line 20 of chapter 9")
END = BOOK.index("\n", PLACE)
QUOTED = Passage(99, PLACE, END, BOOK[PLACE:END], "CHAPTER 9", True)
WIDE, NARROW = (140, 40), (80, 24)


@asynccontextmanager
async def reading(session: FakeSession, size: tuple[int, int]) -> AsyncIterator[tuple[ChatApp, Pilot[int]]]:
    """An app with its document read."""
    app = make_app(session, "moby.txt")
    async with app.run_test(size=size) as pilot:
        await ready(pilot, session)
        yield app, pilot


def pane_of(app: ChatApp) -> TextPane:
    return app.chat.query_one(TextPane)


def styled(app: ChatApp, row_with: str, attribute: str) -> str:
    """The text in a row of the pane that has a style's attribute."""
    pane = pane_of(app)
    for y in range(pane.size.height):
        strip = pane.render_line(y)
        if row_with in strip.text:
            return "".join(segment.text for segment in strip if segment.style and getattr(segment.style, attribute))
    raise AssertionError(f"{row_with!r} is not on the screen:\n{widget_text(pane)}")


async def test_the_text_stands_beside_a_wide_talk_and_not_over_a_narrow_one() -> None:
    async with reading(FakeSession(), WIDE) as (app, pilot):
        assert "Line 0 of chapter 1, about the whale." in screen_text(pilot)
        assert "§ 1" in screen_text(pilot) and "The document is read once" in screen_text(pilot)
        await pilot.resize_terminal(80, 24)
        await wait_until(pilot, lambda: "Line 0 of chapter 1" not in screen_text(pilot))
        await pilot.press("f2")
        await wait_until(pilot, lambda: "Line 0 of chapter 1" in screen_text(pilot))
        assert "The document is read once" not in screen_text(pilot) and "❯" in screen_text(pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "The document is read once" in screen_text(pilot))
        assert isinstance(app.focused, Prompt)


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("by", ["click", "enter"])
async def test_a_passage_jumps_into_the_text_and_is_highlighted(size: tuple[int, int], by: str) -> None:
    session = FakeSession(pieces=["about the whale."], passages=(QUOTED,)).free()
    async with reading(session, size) as (app, pilot):
        await type_line(pilot, "what?")
        await wait_until(pilot, lambda: app.chat.query(PassageView) and not app.chat.controller.busy)
        if by == "click":
            await pilot.click(PassageView)
        else:
            app.chat.query_one(PassageView).focus()
            await pilot.press("enter")
        await wait_until(pilot, lambda: "Line 20 of chapter 9" in widget_text(pane_of(app)))
        assert "▌" in styled(app, "Line 20 of chapter 9", "color") and "CHAPTER 9" in said(pilot)
        assert styled(app, "Line 20 of chapter 9", "bold") == "▌ about the whale"
        assert "▌" not in styled(app, "Line 19 of chapter 9", "color")
        assert app.chat.query_one(Reader).showing
        await pilot.press("f2")
        await wait_until(pilot, lambda: not app.chat.query_one(Reader).showing)


async def test_find_walks_through_the_matches_and_says_where_it_is() -> None:
    async with reading(FakeSession(), WIDE) as (app, pilot):
        await type_line(pilot, "/find LINE  7 of")
        await wait_until(pilot, lambda: "“LINE 7 of” 1 of 12" in said(pilot))
        assert styled(app, "Line 7 of chapter 1", "reverse") == "Line 7 of"
        await type_line(pilot, "/find")
        await wait_until(pilot, lambda: "2 of 12" in said(pilot) and "Line 7 of chapter 2" in said(pilot))
        pane_of(app).focus()
        await pilot.press("N", "N")
        await wait_until(pilot, lambda: "12 of 12" in said(pilot) and "Line 7 of chapter 12" in said(pilot))
        await pilot.press("n")
        await wait_until(pilot, lambda: " 1 of 12" in said(pilot))
        await pilot.press("slash")
        assert app.chat.prompt.text == "/find " and isinstance(app.focused, Prompt)
        await type_line(pilot, "/find ].*[/")
        await wait_until(pilot, lambda: "“].*[/” is not in the text" in said(pilot))


async def test_a_text_over_the_talk_gives_way_to_what_comes_there() -> None:
    async with reading(FakeSession().free(), NARROW) as (app, pilot):
        reader = app.chat.query_one(Reader)

        async def find() -> None:
            await type_line(pilot, "/find Line 7")
            await wait_until(pilot, lambda: reader.showing and "1 of 12" in said(pilot))

        for line, wanted in (
            ("Who?", "It is Ahab."), ("/books", "moby.txt · 4,000 tokens"), ("/nothing", "✗ Unknown command /nothing"),
        ):  # fmt: skip
            await find()
            await type_line(pilot, line)
            await wait_until(pilot, lambda line=wanted: not reader.showing and line in said(pilot))
        await find()
        app.chat.prompt.focus()
        await pilot.press("escape")
        await wait_until(pilot, lambda: not reader.showing)


async def test_find_crosses_line_ends_and_needs_words_and_a_text() -> None:
    app = make_app(FakeSession(text="The white\nwhale.\n" + "x\n" * 99))
    async with app.run_test(size=WIDE) as pilot:
        await type_line(pilot, "/find whale")
        await wait_until(pilot, lambda: "✗ There is no text to show yet" in said(pilot))
        await type_line(pilot, "/open moby.txt")
        app.chat.app.engine._session.free()  # type: ignore[union-attr]
        await wait_until(pilot, lambda: app.chat.panel.book)
        await type_line(pilot, "/find")
        await wait_until(pilot, lambda: "✗ /find needs words" in said(pilot))
        await type_line(pilot, "/find white whale")
        await wait_until(pilot, lambda: "1 of 1" in said(pilot))


async def test_brackets_walk_along_the_chapters_and_the_line_above_names_them() -> None:
    async with reading(FakeSession(), WIDE) as (app, pilot):
        pane_of(app).focus()
        await pilot.press("right_square_bracket", "right_square_bracket")
        await wait_until(pilot, lambda: widget_text(pane_of(app)).lstrip(" §").startswith("3│ CHAPTER 3"))
        assert styled(app, "CHAPTER 3", "bold") == "CHAPTER 3"
        await pilot.press("left_square_bracket")
        await wait_until(pilot, lambda: widget_text(pane_of(app)).lstrip(" §").startswith("2│ CHAPTER 2"))
        await pilot.press("end")
        await wait_until(pilot, lambda: "Line 39 of chapter 12" in screen_text(pilot))
        assert "end" in widget_text(app.chat.query_one("#where"))


async def test_a_new_width_keeps_the_place() -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "Some words of it. " * 20 for number in range(300))
    async with reading(FakeSession(text=text), WIDE) as (app, pilot):
        pane = pane_of(app)
        pane.jump(text.index("Paragraph 200."))
        await wait_until(pilot, lambda: "Paragraph 200." in widget_text(pane))
        top = pane.on_screen[0]
        for width in (200, 112, 160):
            await pilot.resize_terminal(width, 40)
            await wait_until(pilot, lambda: pane.on_screen[0] <= top < pane.on_screen[1])
        assert abs(pane.on_screen[0] - top) < 400


async def test_five_megabytes_are_drawn_row_by_row() -> None:
    text = ("Call me Ishmael. Some years ago, never mind how long precisely. " * 6 + "\n\n") * 13_000
    assert len(text) > 5_000_000
    async with reading(FakeSession(text=text), WIDE) as (app, pilot):
        pane = pane_of(app)
        drawn: list[int] = []
        render = pane.render_line
        pane.render_line = lambda y: (drawn.append(y), render(y))[1]  # type: ignore[method-assign]
        pane.focus()
        await pilot.press("pagedown", "pagedown")
        await wait_until(pilot, lambda: pane.scroll_offset.y >= 2 * pane.size.height - 2)
        assert 0 < len(drawn) <= 8 * pane.size.height
        await wait_until(pilot, lambda: pane._rows.complete)
        await pilot.press("end")
        await wait_until(pilot, lambda: pane.on_screen[1] >= len(text.rstrip()) - 1)


async def test_selected_text_is_the_documents_own() -> None:
    text = "A first line of the text that is rather long and has to be broken for the pane it stands in, surely.\n\nB"
    async with reading(FakeSession(text=text), (112, 30)) as (app, pilot):
        pane = pane_of(app)
        assert pane.get_selection(Selection(Offset(2, 0), Offset(5, 1))) is not None
        start, end = pane._rows.span(0)[0] + 2, pane._rows.span(1)[0] + 5
        assert pane.get_selection(Selection(Offset(2, 0), Offset(5, 1))) == (text[start:end], "\n")
        assert pane.get_selection(Selection(None, None)) == (text, "\n")
        await pilot.pause()


async def test_a_passage_of_a_text_that_is_not_open_says_so() -> None:
    session = FakeSession(passages=(QUOTED,)).free()
    async with reading(session, WIDE) as (app, pilot):
        await type_line(pilot, "what?")
        await wait_until(pilot, lambda: app.chat.query(PassageView) and not app.chat.controller.busy)
        app.chat.post_message(PassageView.Chosen("another digest", (), (0, 1), None))
        await wait_until(pilot, lambda: "The text of this passage is not open" in said(pilot))


async def test_text_is_selected_with_the_mouse_and_copied() -> None:
    async with reading(FakeSession(), WIDE) as (app, pilot):
        row = next(y for y in range(20) if "Line 3 of" in pane_of(app).render_line(y).text)
        await pilot.mouse_down(TextPane, offset=(9, row))
        await pilot.hover(TextPane, offset=(15, row))
        await pilot.mouse_up(TextPane, offset=(15, row))
        await wait_until(pilot, lambda: app.screen.get_selected_text())
        await pilot.press("ctrl+c")
        assert app.clipboard and app.clipboard in "Line 3 of chapter 1, about the whale."


async def test_pages_come_at_once_and_not_as_a_movement() -> None:
    async with reading(FakeSession(), WIDE) as (app, pilot):
        app.animation_level = "full"
        pane = pane_of(app)
        for focus, keys in ((pane, ["pagedown", "space", "pageup"]), (app.chat.prompt, ["pagedown", "pageup"])):
            focus.focus()
            for key in keys:
                await pilot.press(key)
                assert not app.animator.is_being_animated(pane, "scroll_y")
                assert not app.animator.is_being_animated(app.chat.log_view, "scroll_y")
        await wait_until(pilot, lambda: pane.scroll_offset.y == pane.size.height - 1 or pane.scroll_offset.y > 10)
