"""Several books on one shelf: switched, compared, forgotten, talked to and asked as of a place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import DocumentMissingError, ModelError, StoppedError, UsageError
from longmamba_mlx.events import Answer, Answered, Event, Loaded, Loading, Piece, ReadDone, ReadProgress, Side
from longmamba_mlx.session.api import Model
from longmamba_mlx.session.evidence import Evidence
from longmamba_mlx.session.session import Session

QUESTION = "What is the access code of Zorvath?"


def book(name: str, code: str, words: int = 900) -> str:
    """Chapters of plain sentences, a fact in the second one; some 1,300 tokens."""
    line = "The old road went along the river and the rain did not stop. "
    chapter = line * (words // 36)
    second = f"{chapter}The access code of {name} is {code}. {chapter}"
    return "\n\n".join(["CHAPTER 1", chapter, "CHAPTER 2", second, "CHAPTER 3", chapter])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = []
    for name, code in (("Zorvath", "48213"), ("Marrow", "77120")):
        path = tmp_path / f"{name}.txt"
        path.write_text(book(name, code), encoding="utf-8")
        paths.append(str(path))
    return paths


def read(session: Session, path: str) -> ReadDone:
    last = list(session.open([path]))[-1]
    assert isinstance(last, ReadDone)
    return last


def answer(events: list[Event]) -> Answer:
    assert isinstance(events[-1], Answered)
    return events[-1].answer


def ask(session: Session, question: str, **options: object) -> str:
    return answer(list(session.ask(question, **options))).text  # type: ignore[arg-type]


def test_books_join_the_shelf_and_are_switched(files: list[str]) -> None:
    session = Session(save=False)
    assert (session.books, session.current, session.document) == ((), -1, None)
    for path in files:
        read(session, path)
    assert [one.title for one in session.books] == ["Zorvath.txt", "Marrow.txt"] and session.current == 1
    assert ask(session, "What is the access code of Marrow?") == "77120"
    session.switch(0)
    assert session.document is session.books[0] and ask(session, QUESTION) == "48213"
    for index in (2, -1):
        with pytest.raises(UsageError):
            session.switch(index)
    assert session.current == 0


def test_the_same_source_replaces_its_book(files: list[str]) -> None:
    session = Session()
    read(session, files[0])
    read(session, files[1])
    Path(files[0]).write_text(book("Zorvath", "55555"), encoding="utf-8")
    done = read(session, files[0])
    assert not done.reopened and len(session.books) == 2 and session.current == 0
    assert ask(session, QUESTION) == "55555"
    text = Document("other", book("Zorvath", "55555"))
    list(session.open(text))
    assert len(session.books) == 2, "the same text under another name is the same book"


def test_a_failed_opening_leaves_the_shelf(files: list[str], tmp_path: Path) -> None:
    session = Session()
    read(session, files[0])
    with pytest.raises(DocumentMissingError):
        list(session.open([str(tmp_path / "missing.txt")]))
    with pytest.raises(StoppedError):
        for event in session.open([files[1]]):
            if isinstance(event, ReadProgress):
                session.stop()
    assert len(session.books) == 1 and ask(session, QUESTION) == "48213"


def test_progress_tells_the_place(files: list[str]) -> None:
    places = [event.place for event in Session(chunk=64).open([files[0]]) if isinstance(event, ReadProgress)]
    order = list(dict.fromkeys(places))
    assert len(order) == 3 and all(f"{number}" in place for number, place in enumerate(order, 1))


def test_compare_reads_without_filter_once(files: list[str]) -> None:
    session = Session()
    read(session, files[0])
    for turn in range(2):
        events = list(session.compare(QUESTION))
        sides = [event.filter for event in events if isinstance(event, Side)]
        assert sides == ["off", session.books[0].filter] and sides[1] != "off"
        assert sum(isinstance(event, Answered) for event in events) == 2
        first = next(index for index, event in enumerate(events) if isinstance(event, Side))
        assert any(isinstance(event, ReadProgress) for event in events[:first]) == (turn == 0)
        assert answer(events).text == "48213"
    assert len(session.books) == 1
    list(session.ask(QUESTION))
    talk = session.books[0].conversation
    list(session.compare(QUESTION))
    assert session.books[0].conversation is talk is not None, "comparing is no part of the talk"
    remembered = [event for event in Session(filter="off").open([files[0]]) if isinstance(event, ReadDone)]
    assert remembered[0].reopened, "what comparing read is remembered too"


def test_compare_says_when_there_is_nothing_to_compare(files: list[str]) -> None:
    short = Document("note.txt", "The access code of Zorvath is 48213.")
    for session, source, why, hint in (
        (Session(filter="off", save=False), [files[0]], "was read without a filter", "/filter longmamba"),
        (Session(save=False), short, "note.txt is short enough to be kept whole", "more than 512 tokens"),
    ):
        list(session.open(source))
        with pytest.raises(UsageError, match=why) as caught:
            list(session.compare(QUESTION))
        assert hint in str(caught.value.hint)


def test_forget_deletes_what_is_stored_and_keeps_the_book(files: list[str], private_home: Path) -> None:
    session = Session()
    done = read(session, files[0])
    assert session.forget() == done.stored and session.forget() is None
    assert not list((private_home / "states").rglob("*.safetensors"))
    assert ask(session, QUESTION) == "48213" and not read(Session(), files[0]).reopened
    with pytest.raises(UsageError):
        Session().forget()


def test_another_model_takes_the_books_with_it(files: list[str]) -> None:
    session = Session(save=False)
    for path in files:
        read(session, path)
    session.switch(0)
    events = list(session.use_model("demo-mamba1"))
    assert [type(event) for event in events[:2]] == [Loading, Loaded]
    assert [event.title for event in events if isinstance(event, ReadDone)] == ["Zorvath.txt", "Marrow.txt"]
    assert session.model == "demo-mamba1" and session.current == 0
    assert {one.model.name for one in session.books} == {"demo-mamba1"} and ask(session, QUESTION) == "48213"
    list(session.use_model("demo", filter="off"))
    assert session.books[0].filter == "off"


def test_another_model_that_fails_changes_nothing(files: list[str]) -> None:
    session = Session(save=False)
    read(session, files[0])
    with pytest.raises(ModelError):
        list(session.use_model("nonsense"))
    with pytest.raises(StoppedError):
        for event in session.use_model("demo-mamba1"):
            if isinstance(event, ReadProgress):
                session.stop()
    assert session.model == "demo" and session.books[0].model.name == "demo" and ask(session, QUESTION) == "48213"


def test_keep_goes_on_from_the_talk(demo: Model, story: str) -> None:
    """A kept question is answered as if the talk so far had followed the document in one go."""
    read_book = demo.read(Document("story", story))
    first = read_book.ask(QUESTION)
    second = read_book.ask("Are you sure of Zorvath", keep=True)
    tokenizer, form = demo.tokenizer, demo.form
    from longmamba_mlx.inference.decode import generate

    prompt = np.concatenate(
        [tokenizer.encode(form.ask(QUESTION)), tokenizer.encode(f" {first.text}"),
         tokenizer.encode(form.ask("Are you sure of Zorvath", again=True))]
    )  # fmt: skip
    ids = list(generate(demo.loaded.model, read_book.state, prompt, max_tokens=64, stop_ids=demo.stop_ids))
    assert demo.tokenizer.decode(ids).strip().startswith(second.text)
    read_book.reset_conversation()
    assert read_book.ask(QUESTION, keep=True).text == first.text, "without a talk it starts from the document"


def test_rereading_puts_passages_before_the_question(demo: Model, story: str) -> None:
    code = "99887"
    text = f"{story}\n\nThe access code of Quellin is {code}."
    far = demo.read(Document("far", text))
    assert far.ask("What is the access code of Quellin?", reread=2).text == code
    assert far.ask("What is the access code of Quellin?", reread=2, keep=True).text == code


def test_as_of_a_place_knows_nothing_of_what_follows(files: list[str]) -> None:
    session = Session()
    read(session, files[0])
    before = list(session.ask(QUESTION, as_of="chapter 1"))
    assert any(isinstance(event, ReadProgress) for event in before)
    assert not answer(before).found and not answer(before).passages, "not even a related passage tells"
    again = list(session.ask(QUESTION, as_of="chapter 1"))
    assert not any(isinstance(event, ReadProgress) for event in again), "it is not read twice"
    assert ask(session, QUESTION, as_of="chapter 2") == "48213"
    assert ask(session, QUESTION, as_of="100%") == ask(session, QUESTION) == "48213"
    with pytest.raises(UsageError, match="chapter 9"):
        list(session.ask(QUESTION, as_of="chapter 9"))


def test_passages_as_of_a_place_come_from_before_it(demo: Model) -> None:
    """However many better ones stand behind the place."""
    early = "Somebody said that the gate of Zorvath was green."
    later = "\n\n".join(f"The gate of Zorvath, the access code of Zorvath, said for the {n}th time." for n in range(60))
    whole = demo.read(Document("gate", f"CHAPTER 1\n\n{early}\n\nCHAPTER 2\n\n{later}"))
    first = whole.ask("What is the access code of the gate of Zorvath?", as_of="chapter 1")
    assert all(passage.end <= len(early) + 13 for passage in first.passages)
    assert whole.document is not None
    evidence = Evidence(whole.index(), whole.document.find_place("chapter 1"))
    found = evidence.passages("What is the gate of Zorvath?", "")
    assert any(passage.text == early for passage in found)
    with pytest.raises(UsageError):
        whole.ask("What is the access code of Zorvath?", as_of="0.001%")


def test_as_of_equals_reading_that_far(demo: Model, story: str) -> None:
    from longmamba_mlx.inference.prefill import prefill

    whole = demo.read(Document("story", story))
    end = whole.document.find_place("50%")  # type: ignore[union-attr]
    assert end is not None
    list(whole.answering(QUESTION, as_of="50%"))
    part = prefill(demo.loaded.model, demo.tokenizer.encode(story[:end], as_text=True), whole.reading.plan)
    assert whole._as_of is not None
    for name, array in part.state.arrays().items():
        np.testing.assert_array_equal(np.array(array), np.array(whole._as_of[1].arrays()[name]))


def test_the_memory_map(files: list[str]) -> None:
    session = Session()
    read(session, files[0])
    first = session.books[0]
    assert first.kept is not None and first.kept.shape == (first.tokens,) and first.kept.dtype == np.uint8
    regions = first.regions(10)
    text = first.document.text  # type: ignore[union-attr]
    assert [region.start for region in regions] == sorted(region.start for region in regions)
    assert regions[0].start == 0 and regions[-1].end == len(text) and len(regions) == 10
    assert all(a.end == b.start for a, b in pairwise(regions))
    assert all(0 <= region.kept <= 1 for region in regions)
    np.testing.assert_allclose(np.mean([region.kept for region in regions]), first.kept.mean() / 255, atol=0.02)
    assert regions[-1].place and regions[-1].place != regions[0].place
    again = Session()
    assert read(again, files[0]).reopened
    np.testing.assert_array_equal(again.books[0].kept, first.kept)
    assert again.books[0].regions(10) == regions
    off = Session(filter="off", save=False)
    read(off, files[0])
    assert off.books[0].kept is None and off.books[0].regions(10) == ()


def test_kept_counts_are_those_of_the_step_sizes(demo: Model, story: str) -> None:
    """Counted again from the raw step sizes of the first layer that is filtered."""
    import mlx.core as mx

    from longmamba_mlx.inference.prefill import prefill

    ids = demo.tokenizer.encode(story)
    for mode in ("curve", "document"):
        plan = demo.with_filter(mode).plan(len(ids), ids)
        reading = prefill(demo.loaded.model, ids, plan, chunk=300)
        assert reading.plan is not None and reading.kept is not None
        model, hidden = demo.loaded.model, demo.loaded.model.embed(mx.array(ids[None]))
        counts, units = np.zeros(len(ids), int), 0
        for index in range(model.config.n_layer):
            state = model.initial_state().layers[index]
            thresholds = reading.plan.thresholds(index)
            if thresholds is not None:
                raw = np.array(model.raw_step(index, hidden, state)[0][0])
                wanted = thresholds > -np.inf
                counts += (raw[:, wanted] > thresholds[wanted]).sum(axis=1)
                units += int(wanted.sum())
            limit = None if thresholds is None else mx.array(thresholds)
            hidden, _ = model.layer(index, hidden, state, limit)
        expected = (counts * 255 // units).astype(np.uint8)
        assert (np.abs(expected.astype(int) - reading.kept) > 255 // units + 1).sum() == 0
        assert (expected == reading.kept).mean() > 0.99  # the last bits of a step may differ with the chunk


def test_pieces_come_before_the_answer(files: list[str]) -> None:
    session = Session(save=False)
    read(session, files[0])
    events = list(session.ask(QUESTION))
    assert isinstance(events[0], Piece) and "".join(e.text for e in events if isinstance(e, Piece)).strip() == "48213"
