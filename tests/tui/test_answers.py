"""Answers: streamed exactly, stopped, followed, copied, exported, with their passages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.geometry import Region
from textual.pilot import Pilot

from longmamba_mlx.errors import NumericError
from longmamba_mlx.events import Answer, Part
from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.history.records import Exchange, How, Reply
from longmamba_mlx.tui.history.transcript import to_markdown
from longmamba_mlx.tui.widgets.answer_text import AnswerText
from longmamba_mlx.tui.widgets.passage import PassageView
from tests.tui.fakes import FakeSession
from tests.tui.helpers import (
    FakeClock,
    make_app,
    ready,
    said,
    screen_text,
    type_line,
    wait_until,
    widget_text,
)

LONG = "Towards thee I roll, thou all-destroying but unconquering whale. " * 5
PASSAGES = (
    Passage(4812, 0, 9, f"{LONG}Then spoke Ahab of the whale; and it sank. {LONG}", "Chapter 135", True),
    Passage(211, 9, 12, "Not Ahab of the whale, but Moby Dick dismasted me.", "", False),
)


@asynccontextmanager
async def chatting(session: FakeSession, **options: Any) -> AsyncIterator[tuple[ChatApp, Pilot[int]]]:
    """An app with its document read."""
    app = make_app(session, "moby.txt", clock=options.pop("clock", None))
    async with app.run_test(size=options.pop("size", (80, 40))) as pilot:
        await ready(pilot, session)
        yield app, pilot


def sources(app: ChatApp) -> list[str]:
    return [view.query_one(AnswerText).source for view in app.chat.log_view.exchanges]


def shows(app: ChatApp, wanted: str) -> bool:
    return sources(app) == [wanted]


async def test_pieces_are_streamed_exactly() -> None:
    pieces = ("It", " is **Ah", "ab**,\n\n- who\n", "- what\n\n```\nx[", "0]\n```\n", " é", "\tend")
    session = FakeSession(pieces=pieces)
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "who?")
        for count in range(1, len(pieces) + 1):
            session.let(1)
            wanted = "".join(pieces[:count])
            await wait_until(pilot, partial(shows, app, wanted), wanted)
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert sources(app) == ["".join(pieces)]
        text = screen_text(pilot)
        assert "0.1 s · 70 tok/s" in text and "• who" in text and "x[0]" in text


async def test_esc_stops_an_answer_within_a_piece_and_keeps_what_came() -> None:
    session = FakeSession(pieces=["one ", "two ", "three ", "four "])
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "count?")
        session.let(2)
        await wait_until(pilot, lambda: sources(app) == ["one two "])
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert sources(app) == ["one two "]
        assert "stopped · 0.1 s" in screen_text(pilot) and session.stops >= 1
        assert app.chat.log_view.records[0].replies[0].mark == "stopped"


async def test_ctrl_c_stops_and_twice_within_a_second_leaves() -> None:
    clock = FakeClock()
    session = FakeSession()
    async with chatting(session, clock=clock) as (app, pilot):
        await type_line(pilot, "who?")
        await pilot.press("ctrl+c")
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        clock.now += 1.5
        await pilot.press("ctrl+c")
        assert "Ctrl+C again leaves" in screen_text(pilot) and app.is_running
        clock.now += 0.5
        await pilot.press("ctrl+c")
        await wait_until(pilot, lambda: not app.is_running)
    assert app.return_value == 0


async def test_ctrl_c_copies_selected_text_and_does_not_stop() -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "who?")
        app.chat.prompt.put("some words")
        await pilot.press("ctrl+shift+left", "ctrl+c")
        assert app.clipboard == "words" and app.chat.controller.busy and session.stops == 0
        await pilot.press("ctrl+c")
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert session.stops >= 1


@pytest.mark.parametrize(
    ("found", "pieces", "shown"),
    [(False, ("not given",), "not found in the document · 0.1 s"), (True, (), "no answer · 0.1 s")],
)
async def test_how_an_answer_ended_is_said(found: bool, pieces: tuple[str, ...], shown: str) -> None:
    session = FakeSession(found=found, pieces=pieces).free()
    async with chatting(session) as (_, pilot):
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: shown in screen_text(pilot), shown)


async def test_numbers_that_the_document_does_not_have_are_told() -> None:
    session = FakeSession(pieces=["48214"], not_in_text=("48214",)).free()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: "not word for word in the text: 48214 · 0.1 s" in screen_text(pilot))
        (record,) = app.chat.log_view.records
        back = Exchange.from_json(record.as_json())
        assert back.replies[0].answer == record.replies[0].answer
        assert "*not word for word in the text: 48214*" in to_markdown("Book", [back])
        session.not_in_text = ()
        await type_line(pilot, "again?")
        await wait_until(pilot, lambda: len(app.chat.log_view.records) == 2 and session_idle(app))
        assert screen_text(pilot).count("not word for word") == 1


def test_the_part_of_an_answer_is_kept_and_exported() -> None:
    part = Part(12, 37, 100, 900, "chapter 5", 0.98)
    answer = Answer("who?", "Ahab", True, (), 1, 1.0, "stop", part=part)
    back = Exchange.from_json(Exchange("who?", How(surest=True), replies=[Reply("", "Ahab", "", answer)]).as_json())
    assert back.replies[0].answer == answer and back.how.surest
    text = to_markdown("Book", [back])
    assert "From part 12 of 37, chapter 5." in text and "*asked of every part*" in text


async def test_where_the_surest_answer_came_from_is_under_it() -> None:
    part = Part(12, 37, 100, 900, "chapter 5", 0.98)
    async with chatting(FakeSession(part=part).free()) as (_, pilot):
        await type_line(pilot, "/surest who?")
        await wait_until(pilot, lambda: "part 12 of 37, chapter 5 · " in screen_text(pilot))


async def test_a_talk_kept_before_answers_were_compared_with_the_text_is_still_understood() -> None:
    data = Exchange("who?", replies=[Reply("", "x", "", Answer("who?", "x", True, (), 1, 1.0, "stop"))]).as_json()
    del data["answers"][0]["answer"]["not_in_text"]
    assert Exchange.from_json(data).replies[0].answer is not None


async def test_an_answer_cut_off_says_so() -> None:
    async with chatting(FakeSession().free()) as (app, pilot):
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: session_idle(app))
        await app.chat.log_view.exchanges[0].finish(Answer("who?", "x", True, (), 64, 1.0, "length"))
        await wait_until(pilot, lambda: "cut off after 64 tokens" in screen_text(pilot))


def session_idle(app: ChatApp) -> bool:
    return bool(app.chat.log_view.exchanges) and not app.chat.controller.busy


async def test_an_error_in_an_answer_keeps_what_came_and_the_chat_goes_on() -> None:
    session = FakeSession(ask_error=NumericError("NaN in layer 3", hint="Try --dtype float32.")).free()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: session_idle(app))
        text = screen_text(pilot)
        assert "✗ NaN in layer 3  Try --dtype float32." in text and "It is Ahab." in text
        session.ask_error = None
        await type_line(pilot, "again?")
        await wait_until(pilot, lambda: len(session.asked) == 2 and not app.chat.controller.busy)


async def test_passages_are_related_and_only_a_verbatim_one_is_a_quote() -> None:
    session = FakeSession(pieces=["Ahab of ", "the whale."], passages=PASSAGES).free()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: len(app.chat.query(PassageView)) == 2)
        first, second = (widget_text(view) for view in app.chat.query(PassageView))
        assert "✓ quote  ¶ 4,812 · Chapter 135" in first and "Ahab of the whale" in first
        assert first.count("…") == 2 and len(first) < 300
        assert "¶ 211" in second and "quote" not in second
        assert [bold(view) for view in app.chat.query(PassageView)] == ["✓ quote  Ahab of the whale", ""]
        assert "related passages" in screen_text(pilot)
        await pilot.press("tab", "space")
        assert len(widget_text(app.chat.query(PassageView).first())) > 600


def bold(view: PassageView) -> str:
    """The emphasised text of a passage."""
    segments = (segment for row in range(view.size.height) for segment in view.render_line(row))
    return "".join(segment.text for segment in segments if segment.style and segment.style.bold)


async def test_new_text_is_followed_from_the_bottom_only() -> None:
    lines = [f"line {number}\n\n" for number in range(60)]
    session = FakeSession(pieces=lines)
    async with chatting(session, size=(80, 24)) as (app, pilot):
        log = app.chat.log_view
        await type_line(pilot, "count?")
        session.let(40)
        await wait_until(pilot, lambda: "line 39" in screen_text(pilot))
        await pilot.press("pageup", "pageup")
        await wait_until(pilot, lambda: log.scroll_y < log.max_scroll_y - 10)
        place = log.scroll_y
        session.let(20)
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert log.scroll_y == place and "line 59" not in screen_text(pilot)
        await type_line(pilot, "next?")
        await wait_until(pilot, lambda: "next?" in screen_text(pilot))


async def test_a_link_is_shown_and_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(ChatApp, "open_url", lambda _, url, **__: opened.append(url))
    session = FakeSession(pieces=["[see](https://example.org/x?a=1)"]).free()
    async with chatting(session) as (_, pilot):
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: "see (https://example.org/x?a=1)" in said(pilot))
        await pilot.click(AnswerText, offset=(1, 0))
        await pilot.click(AnswerText, offset=(8, 0))
        assert opened == []


async def test_a_selection_in_an_answer_is_marked_and_copied() -> None:
    session = FakeSession(pieces=["It is **Ahab**, who\n\n- hunts\n- sinks"]).free()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: "hunts" in said(pilot) and session_idle(app))
        answer = app.chat.query_one(AnswerText)
        await pilot.mouse_down(AnswerText, offset=(3, 0))
        await pilot.hover(AnswerText, offset=(5, 2))
        await pilot.pause()
        await pilot.mouse_up(AnswerText, offset=(5, 2))
        await wait_until(pilot, lambda: app.chat.get_selected_text())
        assert app.chat.get_selected_text() == "is Ahab, who\n\n • hun"
        ground = app.chat.get_component_rich_style("screen--selection").bgcolor
        first = answer.render_lines(Region(0, 0, answer.size.width, 1))[0]
        marked = [segment.text for segment in first if segment.style and segment.style.bgcolor == ground]
        assert "".join(marked).rstrip() == "is Ahab, who"


async def test_copy_export_clear(tmp_path: Path) -> None:
    session = FakeSession(passages=PASSAGES).free()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "/copy")
        assert "✗ There is no answer to copy yet" in screen_text(pilot)
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: session_idle(app))
        await type_line(pilot, "/copy")
        assert app.clipboard == "It is Ahab." and "Answer copied" in screen_text(pilot)
        path = tmp_path / "my notes.md"
        await type_line(pilot, f"/export {path}")
        text = path.read_text()
        assert text.startswith("# moby.txt\n\n## who?\n\nIt is Ahab.\n\nRelated passages:\n\n> **¶ 4812, Chapter 135**")
        await type_line(pilot, f"/export {path}")
        assert "my notes.md exists already" in said(pilot) and path.read_text() == text
        await type_line(pilot, "/clear")
        assert app.chat.log_view.exchanges == [] and "exists already" not in said(pilot)
        assert app.chat.controller.queue.document is not None
        await type_line(pilot, "/export x.md")
        assert "nothing to export" in screen_text(pilot)
