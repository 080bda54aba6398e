"""The engine: one thread, events in order, stops that are not lost, errors that do not kill it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from longmamba_mlx.errors import DocumentError
from longmamba_mlx.events import Answered, Event, Failed, Loading, Piece, ReadDone
from longmamba_mlx.tui.worker.engine import Ended, Engine, EngineEvent, Stamped
from longmamba_mlx.tui.worker.jobs import Ask, Open
from tests.tui.fakes import FakeSession


@pytest.fixture
def start() -> Iterator[Callable[[FakeSession], Engine]]:
    engines: list[Engine] = []

    def make(session: FakeSession) -> Engine:
        engines.append(Engine(lambda: session))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
        assert engine.join(10)


def collect(engine: Engine, until: Callable[[EngineEvent], bool]) -> list[EngineEvent]:
    reports: list[EngineEvent] = []
    deadline = time.monotonic() + 10
    while not any(until(report) for report in reports):
        assert time.monotonic() < deadline, reports
        reports += engine.drain()
        time.sleep(0.001)
    return reports


def ended(report: EngineEvent) -> bool:
    return isinstance(report, Ended)


def test_events_come_in_order_from_one_thread(start: Callable[[FakeSession], Engine]) -> None:
    session = FakeSession().free()
    engine = start(session)
    assert not engine.alive
    engine.submit(Open(("a", "b")))
    reports = collect(engine, ended)
    assert (
        reports[:2] == [Stamped({}), Loading("demo")]
        and isinstance(reports[-3], ReadDone)
        and reports[-1] == Ended(False)
    )
    engine.submit(Ask("who?"))
    reports = collect(engine, ended)
    assert [report.text for report in reports if isinstance(report, Piece)] == list(session.pieces)
    assert isinstance(reports[-2], Answered)
    assert len(session.threads) == 1 and threading.get_ident() not in session.threads
    assert session.opened == [("a", "b")] and session.asked == ["who?"]


def test_a_stopped_reading_ends_and_the_next_job_runs(start: Callable[[FakeSession], Engine]) -> None:
    session = FakeSession().let(1)
    engine = start(session)
    engine.submit(Open(("a",)))
    collect(engine, lambda report: report == Loading("demo"))
    engine.stop()
    reports = collect(engine, ended)
    assert reports[-1] == Ended(True) and not any(isinstance(report, Failed) for report in reports)
    session.free()
    engine.submit(Open(("a",)))
    assert isinstance(collect(engine, ended)[-3], ReadDone)


def test_a_stop_that_the_session_has_not_heard_is_repeated() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Deaf(FakeSession):
        """Forgets the stop that comes before its first event."""

        def open(self, paths: Sequence[str]) -> Iterator[Event]:
            begun.set()
            assert go_on.wait(10)
            return super().open(paths)

    session = Deaf()
    engine = Engine(lambda: session)
    engine.submit(Open(("a",)))
    assert begun.wait(10)
    engine.stop()
    go_on.set()
    assert collect(engine, ended)[-1] == Ended(True) and session.stops > 1
    engine.close()
    assert engine.join(10)


def test_errors_are_reported_and_the_thread_lives_on(start: Callable[[FakeSession], Engine]) -> None:
    session = FakeSession(open_error=DocumentError("no text in it", hint="Is it scanned?")).free()
    engine = start(session)
    engine.submit(Open(("a",)))
    assert Failed("no text in it", "Is it scanned?", 65) in collect(engine, ended)
    session.open_error = ZeroDivisionError("division by zero")
    engine.submit(Open(("a",)))
    (fault,) = [report for report in collect(engine, ended) if isinstance(report, Failed)]
    assert fault.message == "ZeroDivisionError: division by zero" and fault.hint and "fakes.py:" in fault.hint
    session.open_error = None
    engine.submit(Open(("a",)))
    assert isinstance(collect(engine, ended)[-3], ReadDone)


def test_a_factory_that_fails_is_tried_again() -> None:
    sessions: list[FakeSession] = []

    def factory() -> FakeSession:
        sessions.append(FakeSession().free())
        if len(sessions) == 1:
            raise OSError("no model")
        return sessions[-1]

    engine = Engine(factory)
    engine.submit(Open(("a",)))
    assert any(isinstance(report, Failed) for report in collect(engine, ended))
    engine.submit(Open(("a",)))
    assert isinstance(collect(engine, ended)[-3], ReadDone)
    engine.close()
    assert engine.join(10)


def test_closing_stops_the_reading_and_ends_the_thread(start: Callable[[FakeSession], Engine]) -> None:
    session = FakeSession()
    engine = start(session)
    engine.submit(Open(("a",)))
    collect(engine, lambda report: report == Loading("demo"))
    engine.close()
    assert engine.join(10) and session.saved
    assert not engine.alive and engine._thread.is_alive()  # it must outlive the interpreter: see the module's docstring
    engine.submit(Ask("late"))
    assert session.asked == []


def test_an_engine_that_never_ran_closes() -> None:
    engine = Engine(FakeSession)
    engine.close()
    assert engine.join(0)
