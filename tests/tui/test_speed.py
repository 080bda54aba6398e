"""The screen keeps up with a fast model and with a long talk, and costs the engine nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest
from textual._compositor import Compositor
from textual.css.stylesheet import Stylesheet
from textual.geometry import Region
from textual.layouts.vertical import VerticalLayout
from textual.widget import Widget

from longmamba_mlx.tui.history.records import Exchange, Reply, Stage
from longmamba_mlx.tui.widgets.answer_text import AnswerText
from longmamba_mlx.tui.widgets.exchange import ExchangeView
from tests.tui.fakes import FakeSession, PacedSession
from tests.tui.helpers import make_app, ready, said, type_line, wait_until

RATE, COUNT = 300, 600


async def test_three_hundred_tokens_a_second_arrive_and_the_model_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    session = PacedSession(rate=RATE, count=COUNT)
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, session)
        shown: list[float] = []
        write = ExchangeView.write

        def timed(view: ExchangeView, piece: str) -> None:
            write(view, piece)
            shown.append(time.monotonic())

        monkeypatch.setattr(ExchangeView, "write", timed)
        await type_line(pilot, "count?")
        await wait_until(pilot, lambda: session.offered and not app.chat.controller.busy)
        behind = shown[-1] - session.offered[-1]
        assert f"w{COUNT - 1:05d}" in app.chat.log_view.records[0].text
    # Handing over a piece takes no time; the screen is at most a few frames behind (generous: machines are busy).
    assert session.late < 0.25 and behind < 1.0


async def test_a_frame_is_one_update_however_many_pieces_came() -> None:
    session = FakeSession(pieces=[f"{number} " for number in range(500)])
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "count?")
        await wait_until(pilot, lambda: app.chat.log_view.exchanges)
        view = app.chat.log_view.exchanges[0]
        writes: list[str] = []
        write = view.write

        def counted(piece: str) -> None:
            writes.append(piece)
            write(piece)

        view.write = counted  # type: ignore[method-assign]
        session.free()
        await wait_until(pilot, lambda: not app.chat.controller.busy)
    assert "".join(writes) == "".join(session.pieces) and len(writes) < 100


async def test_ten_thousand_lines_are_a_few_hundred_widgets() -> None:
    session = FakeSession().free()
    app = make_app(session, "moby.txt")
    text = "\n\n".join(f"Paragraph {number} of an answer." for number in range(25))
    talk = [Exchange(f"Question {n}?", stage=Stage.DONE, replies=[Reply("", text)]) for n in range(200)]
    talk.append(Exchange("Long?", stage=Stage.DONE, replies=[Reply("", "\n\n".join(["A line."] * 5000))]))
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot, session)
        await app.chat.log_view.show_conversation(talk)
        await pilot.pause()
        assert len(app.chat.log_view.walk_children()) < 400
        assert app.chat.log_view.virtual_size.height > 9_000
        await type_line(pilot, "And now?")
        await wait_until(pilot, lambda: "It is Ahab." in widget_text_of_screen(app))
        assert len(app.chat.log_view.walk_children()) < 400
        # One key changes one row: what is drawn again does not grow with the talk.
        await pilot.press("a")
        drawn: list[int] = []
        prompt = app.chat.prompt
        render = prompt.render_line
        prompt.render_line = lambda y: (drawn.append(y), render(y))[1]  # type: ignore[method-assign]
        await pilot.press("b")
        await wait_until(pilot, lambda: "ab" in prompt.text and drawn)
        assert len(drawn) <= 8


def widget_text_of_screen(app: object) -> str:
    strips = app.screen._compositor.render_strips()  # type: ignore[attr-defined]
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def test_a_growing_answer_is_one_widget_and_one_layout_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession(pieces=[f"- item {number}\n" for number in range(60)])
    app = make_app(session, "moby.txt")
    laid_out: list[int] = []
    reflow = Compositor.reflow

    def counted(compositor: Compositor, *arguments: Any) -> Any:
        laid_out.append(1)
        return reflow(compositor, *arguments)

    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "count?")
        await wait_until(pilot, lambda: app.chat.query(AnswerText))
        answer = app.chat.query_one(AnswerText)
        session.let()
        await wait_until(pilot, lambda: "item 0" in answer.source)
        before = len(app.chat.log_view.walk_children())
        monkeypatch.setattr(Compositor, "reflow", counted)
        for number in range(1, 40):
            session.let()
            await wait_until(pilot, lambda wanted=f"item {number}\n": wanted in answer.source)  # type: ignore[misc]
            await pilot.pause(0.02)
        # Textual lays the whole screen out again after each change of a size; here a frame is laid out once.
        assert len(laid_out) <= 45 and len(app.chat.log_view.walk_children()) == before


async def test_what_was_said_is_not_laid_out_again_while_an_answer_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession(pieces=[f"- item {number}\n" for number in range(10)])
    app = make_app(session, "moby.txt")
    laid_out: list[Widget] = []
    arrange = VerticalLayout.arrange

    def noted(layout: VerticalLayout, parent: Widget, *arguments: Any, **more: Any) -> Any:
        laid_out.append(parent)
        return arrange(layout, parent, *arguments, **more)

    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, session)
        said_before = [Exchange(f"{n}?", stage=Stage.DONE, replies=[Reply("", "An answer.")]) for n in range(12)]
        await app.chat.log_view.show_conversation(said_before)
        await type_line(pilot, "count?")
        session.let(2)
        await wait_until(pilot, lambda: "item 1" in said(pilot))
        monkeypatch.setattr(VerticalLayout, "arrange", noted)
        session.let(4)
        await wait_until(pilot, lambda: "item 5" in said(pilot))
        assert laid_out
        for view in app.chat.log_view.exchanges[:-1]:
            assert not {view, *view.walk_children()} & set(laid_out)


async def test_rows_that_have_not_changed_are_not_drawn_again() -> None:
    session = FakeSession(pieces=["One paragraph.\n\n", "Another one.\n\n", "A third."])
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "count?")
        session.let(2)
        await wait_until(pilot, lambda: "Another" in said(pilot))
        answer = app.chat.query_one(AnswerText)
        first = answer.render_lines(Region(0, 0, answer.size.width, 1))[0]
        session.let()
        await wait_until(pilot, lambda: "A third." in said(pilot))
        assert answer.render_lines(Region(0, 0, answer.size.width, 1))[0] is first and "One" in first.text


async def test_a_stop_reaches_the_model_at_once() -> None:
    heard: list[float] = []

    class Hearing(FakeSession):
        def stop(self) -> None:
            heard.append(time.monotonic())
            super().stop()

    session = Hearing()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: app.chat.controller.busy)
        pressed = time.monotonic()
        await pilot.press("escape")
        await wait_until(pilot, lambda: heard and not app.chat.controller.busy)
        assert heard[0] - pressed < 1.5  # a few milliseconds where the machine has nothing else to do


async def test_the_style_sheets_are_read_once_and_again_for_other_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Stylesheet] = []
    reparse = Stylesheet.reparse

    def counted(sheet: Stylesheet) -> None:
        read.append(sheet)
        reparse(sheet)

    monkeypatch.setattr(Stylesheet, "reparse", counted)
    app = make_app(FakeSession(), "moby.txt")
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.pause()
        assert read == [] and app.theme == "mamba"
        dark = app.chat.prompt.parent.styles.border_top[1]
        app.theme = "mamba-light"
        await wait_until(pilot, lambda: len(read) == 1)
        assert app.chat.prompt.parent.styles.border_top[1] != dark
