"""While a document is read: the bar, the queue, stopping, taking up again, leaving."""

from __future__ import annotations

import threading
from pathlib import Path

from longmamba_mlx.errors import DocumentMissingError
from longmamba_mlx.events import Notice
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.widgets.exchange import Stage
from tests.tui.fakes import FakeSession
from tests.tui.helpers import FakeClock, make_app, ready, screen_text, type_line, wait_until


async def test_the_prompt_is_there_before_the_session_is_made() -> None:
    gate, made_on = threading.Event(), []
    session = FakeSession().free()

    def factory() -> FakeSession:
        made_on.append(threading.get_ident())
        gate.wait(20)
        return session

    app = ChatApp(factory, ["moby.txt"])
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: made_on)
        assert "Type a question" in screen_text(pilot) and "Opening" in screen_text(pilot)
        await type_line(pilot, "who?")
        assert "queued · will be asked when the document is read" in screen_text(pilot)
        gate.set()
        await wait_until(pilot, lambda: session.asked == ["who?"] and not app.chat.controller.busy)
        assert made_on != [threading.get_ident()] and session.threads == set(made_on)


async def test_reading_shows_numbers_then_gives_way_to_facts() -> None:
    session = FakeSession(extra=(Notice("calibration was made from this document"),))
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(120, 30)) as pilot:
        session.let(2)
        await wait_until(pilot, lambda: app.chat.bar.fraction == 0.5)
        text = screen_text(pilot)
        assert "reading moby.txt" in text and "50%" in text and "Esc stop" in text
        assert "2,000 of 4,000 tokens · 0.4 s left · 5,214 tok/s · chapter 2 · memory 1.9 GB" in text
        assert "calibration was made from this document" in text
        await ready(pilot, session)
        text = screen_text(pilot)
        assert "Reading" not in text and "Ask about moby.txt…" in text
        assert "4,000 tokens read · remembered in 12.6 MB · filter longmamba · 5,214 tok/s" in text
        assert "Read moby.txt · 4,000 tokens in 0.8 s" in text


async def test_questions_typed_meanwhile_wait_in_order_and_are_asked() -> None:
    session = FakeSession()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 30)) as pilot:
        for question in ("first?", "second?"):
            await type_line(pilot, question)
        assert screen_text(pilot).count("queued · will be asked when the document is read") == 2
        session.let(session.chunks)
        await wait_until(pilot, lambda: session.asked == ["first?"])
        text = screen_text(pilot)
        assert "answering…" in text and "queued · will be asked after the answer above" in text
        # What was said about the reading stands before the questions that waited for it.
        assert text.index("Read moby.txt") < text.index("first?")
        session.free()
        await wait_until(pilot, lambda: session.asked == ["first?", "second?"] and not app.chat.controller.busy)
        assert "queued" not in screen_text(pilot)


async def test_esc_stops_the_reading_and_open_takes_it_up_again() -> None:
    session = FakeSession()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 30)) as pilot:
        session.let(1)
        await wait_until(pilot, lambda: app.chat.bar.fraction == 0.25)
        await type_line(pilot, "who?")
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        text = screen_text(pilot)
        assert "Stopped reading moby.txt at 25%. /open reads it again." in text and session.saved
        assert "no document is open" in text and "queued" in text and session.asked == []
        session.gate = threading.Semaphore(0)
        await type_line(pilot, "/open")
        session.let(session.chunks + len(session.pieces))
        await wait_until(pilot, lambda: session.asked == ["who?"] and not app.chat.controller.busy)
        assert session.opened == [("moby.txt",), ("moby.txt",)]


async def test_esc_with_nothing_running_takes_a_queued_question_back() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(80, 24)) as pilot:
        await type_line(pilot, "who?")
        assert "no document is open: /open FILE" in screen_text(pilot)
        await pilot.press("escape")
        assert app.chat.prompt.text == "who?" and app.chat.log_view.exchanges == []


async def test_an_error_is_one_line_with_its_hint_and_the_chat_goes_on() -> None:
    session = FakeSession(open_error=DocumentMissingError("No such file: moby.txt", hint="Is the name right?"))
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "✗ No such file: moby.txt  Is the name right?" in screen_text(pilot))
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        session.open_error = None
        session.free()
        await type_line(pilot, "/open other.txt")
        await wait_until(pilot, lambda: app.chat.controller.queue.document)
        assert session.opened[-1] == (str(Path("other.txt").absolute()),)


async def test_a_second_document_that_fails_leaves_the_first_and_drops_what_was_meant_for_it() -> None:
    session = FakeSession()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "/open other.txt")
        await type_line(pilot, "about the other?")
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert "not asked: the document it was meant for was not read to its end" in screen_text(pilot)
        assert session.asked == [] and app.chat.log_view.records[0].stage is Stage.DONE
        session.free()
        await type_line(pilot, "about the first?")
        await wait_until(pilot, lambda: session.asked == ["about the first?"])


async def test_leaving_while_reading_stops_the_session_and_says_so_in_the_exit_code() -> None:
    session = FakeSession()
    app = make_app(session, "moby.txt")
    async with app.run_test() as pilot:
        session.let(1)
        await wait_until(pilot, lambda: app.chat.bar.fraction == 0.25)
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: not app.is_running)
    assert app.return_value == 75 and session.saved and app.engine.join(5)


async def test_leaving_does_not_wait_forever_for_a_model_that_does_not_stop() -> None:
    gate, clock = threading.Event(), FakeClock()

    def factory() -> FakeSession:
        gate.wait(20)
        return FakeSession()

    app = ChatApp(factory, ["moby.txt"], clock=clock)
    async with app.run_test() as pilot:
        await wait_until(pilot, lambda: app.engine.alive)
        await pilot.press("ctrl+q")
        await pilot.pause()
        assert app.is_running and app.engine.alive
        clock.now += 60
        await wait_until(pilot, lambda: not app.is_running)
    gate.set()
    assert app.engine.join(5)


async def test_ctrl_q_twice_leaves_at_once() -> None:
    gate = threading.Event()

    def factory() -> FakeSession:
        gate.wait(20)
        return FakeSession()

    app = ChatApp(factory, ["moby.txt"], clock=FakeClock())
    async with app.run_test() as pilot:
        await wait_until(pilot, lambda: app.engine.alive)
        await pilot.press("ctrl+q", "ctrl+q")
        await wait_until(pilot, lambda: not app.is_running)
    gate.set()
    assert app.engine.join(5)


async def test_leaving_when_nothing_runs_is_plain_zero() -> None:
    app = make_app(FakeSession())
    async with app.run_test() as pilot:
        await type_line(pilot, "/quit")
        await wait_until(pilot, lambda: not app.is_running)
    assert app.return_value == 0
