"""The façade: events in order, remembered documents, stops, full disks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from longmamba_mlx.documents import child
from longmamba_mlx.errors import (
    CalibrationError,
    DiskError,
    DocumentMissingError,
    ModelError,
    StateError,
    StoppedError,
    UsageError,
)
from longmamba_mlx.events import Answered, Counted, Loaded, Loading, Notice, Piece, ReadDone, ReadProgress
from longmamba_mlx.session.api import Model
from longmamba_mlx.session.session import Session

QUESTION = "What is the access code of Zorvath?"


@pytest.fixture
def file(tmp_path: Path, story: str) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(story, encoding="utf-8")
    return path


def done(session: Session, file: Path) -> ReadDone:
    last = list(session.open([str(file)]))[-1]
    assert isinstance(last, ReadDone)
    return last


def test_events_of_a_reading_and_an_answer(file: Path) -> None:
    session = Session(chunk=256)
    events = list(session.open([str(file)]))
    kinds = [type(event) for event in events]
    assert kinds[:3] == [Loading, Loaded, Counted] and kinds[-1] is ReadDone
    assert set(kinds[3:-1]) == {ReadProgress}
    assert isinstance(events[2], Counted) and isinstance(events[-1], ReadDone)
    assert events[2].tokens == events[-1].tokens and events[-1].stored and not events[-1].reopened
    assert events[-1].filter == "paper"
    answer = list(session.ask(QUESTION))
    assert isinstance(answer[0], Piece) and isinstance(answer[-1], Answered) and answer[-1].answer.text == "48213"


def test_a_read_document_is_reopened_and_answers_alike(file: Path) -> None:
    first = done(Session(), file)
    session = Session()
    again = done(session, file)
    assert again.reopened and again.stored == first.stored and again.tokens == first.tokens
    assert next(e for e in session.ask(QUESTION) if isinstance(e, Answered)).answer.text == "48213"


@pytest.mark.parametrize(
    "other", [{"filter": "off"}, {"filter": "curve"}, {"chunk": 100}, {"model": "demo-mamba1"}], ids=str
)
def test_anything_the_state_depends_on_makes_another_state(file: Path, other: dict[str, object]) -> None:
    first = done(Session(), file)
    second = done(Session(**other), file)  # type: ignore[arg-type]
    assert not second.reopened and second.stored != first.stored


def test_a_changed_document_is_read_again(file: Path) -> None:
    done(Session(), file)
    file.write_text(file.read_text() + " More.", encoding="utf-8")
    assert not done(Session(), file).reopened


def test_a_broken_state_is_set_aside_and_the_document_read_again(file: Path, private_home: Path) -> None:
    first = done(Session(), file)
    assert first.stored
    path = next((private_home / "states").rglob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    events = list(Session().open([str(file)]))
    notices = [event for event in events if isinstance(event, Notice)]
    assert notices and "cannot be used" in notices[0].text
    assert isinstance(events[-1], ReadDone) and not events[-1].reopened
    assert path.exists() and path.with_name(path.name + ".bad").exists()


def test_nothing_is_written_without_saving(file: Path, private_home: Path) -> None:
    assert done(Session(save=False), file).stored is None
    assert not list(private_home.rglob("*.safetensors"))


def test_a_full_disk_costs_the_memory_not_the_answer(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskError("The disk is full.")

    monkeypatch.setattr("longmamba_mlx.states.store.StateStore.save", full)
    session = Session()
    events = list(session.open([str(file)]))
    assert any(isinstance(event, Notice) and "disk is full" in event.text for event in events)
    assert isinstance(events[-1], ReadDone) and events[-1].stored is None
    assert isinstance(list(session.ask(QUESTION))[-1], Answered)


def test_stop_while_reading_and_while_answering(file: Path) -> None:
    session = Session(chunk=64)
    with pytest.raises(StoppedError):
        for event in session.open([str(file)]):
            if isinstance(event, ReadProgress):
                session.stop()
    done(session, file)
    pieces = []
    for event in session.ask(QUESTION):
        if isinstance(event, Piece):
            pieces.append(event.text)
            session.stop()
        elif isinstance(event, Answered):
            assert event.answer.finish_reason == "stopped"
    assert len(pieces) == 1


def test_stop_while_a_file_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    page.write_text("<html><p>Once")
    session = Session()
    answer = child._answer
    monkeypatch.setattr(child, "_answer", lambda process: (session.stop(), time.sleep(0.5), answer(process))[-1])
    with pytest.raises(StoppedError, match="stopped"):
        list(session.open([str(page)]))


def test_wrong_use_is_told_before_any_work(tmp_path: Path, file: Path) -> None:
    with pytest.raises(UsageError):
        next(iter(Session().ask(QUESTION)))
    with pytest.raises(DocumentMissingError):
        list(Session(model="no/such").open([str(tmp_path / "missing.txt")]))
    for wrong in ({"chunk": 0}, {"max_tokens": 0}, {"temperature": -1.0}):
        with pytest.raises(UsageError):
            Session(**wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        done(Session(filter="sharp"), file)
    with pytest.raises(ModelError):
        done(Session(model="nonsense"), file)


def test_a_calibration_of_another_model_is_refused(file: Path, tmp_path: Path) -> None:
    import shutil

    from longmamba_mlx.registry.resolve import resolve

    folder = tmp_path / "model"
    shutil.copytree(resolve("demo"), folder)
    shutil.copy(resolve("demo-mamba1") / "longmamba.safetensors", folder)
    with pytest.raises(CalibrationError) as caught:
        done(Session(model=str(folder)), file)
    assert caught.value.hint


def test_a_model_without_calibration_is_measured_once(file: Path, tmp_path: Path, private_home: Path) -> None:
    import shutil

    from longmamba_mlx.registry.resolve import resolve

    folder = tmp_path / "model"
    shutil.copytree(resolve("demo"), folder)
    (folder / "longmamba.safetensors").unlink()
    assert done(Session(model=str(folder)), file).filter == "paper"
    kept = list((private_home / "calibrations").iterdir())
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert done(Session(model=str(folder)), file).reopened and kept[0].stat().st_mtime_ns == before


def test_save_and_open_one_file(demo: Model, file: Path, tmp_path: Path) -> None:
    book = demo.read(file)
    book.save(tmp_path / "book.state")
    again = demo.open(tmp_path / "book.state", file)
    assert again.ask(QUESTION).text == "48213" and again.ask(QUESTION).passages
    assert demo.open(tmp_path / "book.state").ask(QUESTION).text == "48213"
    other = tmp_path / "other.txt"
    other.write_text("Something else.", encoding="utf-8")
    with pytest.raises(StateError, match="another document"):
        demo.open(tmp_path / "book.state", other)
    from longmamba_mlx.session.api import load

    with pytest.raises(StateError):
        load("demo-mamba1").open(tmp_path / "book.state")


def test_read_takes_several_files(demo: Model, file: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.md"
    second.write_text("# Notes\n\nThe access code of Marrow is 77120.\n", encoding="utf-8")
    seen: list[object] = []
    book = demo.read([file, second], on_progress=seen.append)
    assert seen and book.ask("What is the access code of Marrow?").text == "77120"
