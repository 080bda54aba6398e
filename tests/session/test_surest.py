"""The surest part of a document answers; the parts' states are kept beside the document's and bounded."""

from __future__ import annotations

import dataclasses
import os
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import StoppedError, UsageError
from longmamba_mlx.events import Answered, Event, Notice, ReadProgress
from longmamba_mlx.models.batches import joined, rows_of
from longmamba_mlx.session import surest
from longmamba_mlx.session.api import Model, load
from longmamba_mlx.session.parts import Layout, layout_of, rows_for
from longmamba_mlx.session.read_document import ReadDocument
from longmamba_mlx.session.refusals import Refusals, refusals_of
from longmamba_mlx.session.session import Session
from longmamba_mlx.tokenization.prompt_format import PromptForm

QUESTION = "What is the access code of Zorvath?"


@pytest.fixture(scope="module")
def text(story: str) -> str:
    """Three chapters of about 5,000 tokens together, the fact in the second."""
    plain = story.replace("The access code of Zorvath is 48213. ", "")
    return f"CHAPTER 1\n\n{plain}\n\nCHAPTER 2\n\n{story}\n\nCHAPTER 3\n\n{plain[:6000]}"


@pytest.fixture(scope="module")
def book(demo: Model, text: str) -> ReadDocument:
    return demo.read(Document("story", text))


def kept(session: Session, path: str) -> list[Event]:
    list(session.open([path]))
    return list(session.ask(QUESTION, surest=True))


def notices(events: list[Event]) -> str:
    return " ".join(event.text for event in events if isinstance(event, Notice))


@pytest.mark.parametrize("total", [1, 511, 512, 513, 992, 993, 5000, 123_457])
def test_parts_cover_the_document_and_none_is_longer(total: int) -> None:
    layout = layout_of(total, 512, 1, 1 << 30)
    spans = [layout.span(number) for number in range(layout.count)]
    assert spans[0][0] == 0 and spans[-1][1] == total
    assert all(end - start == min(512, total) for start, end in spans)
    assert all(before[1] - after[0] >= 32 for before, after in pairwise(spans))
    assert [number for group in layout.groups(7) for number in group] == list(range(layout.count))


def test_parts_grow_where_their_states_would_not_fit() -> None:
    assert layout_of(1_000_000, 512, 1, 1 << 30).size == 512
    assert layout_of(64_000_000, 512, 1, 1 << 30).count <= 4096
    large = layout_of(1_000_000, 2000, 100_000_000, 2_000_000_000)
    assert large.count <= 20 and large.size >= 64_000 and large.overlap == 125
    assert layout_of(1_000_000, 131_072, 1, 1 << 30).size == 2048, "a long training length is no reason for long parts"
    assert layout_of(10_000, 512, 1 << 30, 1).count == 2
    assert rows_for(1 << 40) == 1 and rows_for(1) == 32
    assert Layout(100, 512, 32).count == 1


def test_the_surest_part_answers_and_says_where_it_is(book: ReadDocument, text: str) -> None:
    answer = book.ask(QUESTION, surest=True)
    assert (answer.text, answer.found, answer.finish_reason) == ("48213", True, "stop")
    part = answer.part
    assert part is not None and part.place == "CHAPTER 2" and 1 < part.number < part.count
    assert part.start < text.index("48213") < part.end and 0.5 < part.probability <= 1
    assert answer.passages and all(passage.end > part.start for passage in answer.passages)
    assert answer.passages[0].quoted and "48213" in answer.passages[0].text
    assert book.ask(QUESTION).part is None


def test_it_is_the_part_of_least_entropy_that_does_not_refuse(book: ReadDocument, demo: Model) -> None:
    """Against every part read and asked on its own."""
    from longmamba_mlx.inference.prefill import prefill

    book.ask(QUESTION, surest=True)
    parts = book._parts
    assert parts is not None
    ids = demo.tokenizer.encode(book.source.text)  # type: ignore[union-attr]
    prompt, entropies = demo.tokenizer.encode(demo.form.ask(QUESTION)), {}
    for number in range(parts.layout.count):
        start, end = parts.span(number)
        state = prefill(demo.loaded.model, ids[start:end], None, logits="none").state
        asked = surest.ask_all(demo.loaded.model, state, 1, prompt)
        (written,) = surest.write_all(demo.loaded.model, asked, [0], max_tokens=8, stop_ids=demo.stop_ids)
        if demo.form.found(surest.answer_text(demo, written)):
            entropies[number] = float(asked.entropy[0])
    assert 0 < len(entropies) < parts.layout.count
    *_, last = book.answering(QUESTION, surest=True)
    assert isinstance(last, Answered) and last.answer.part is not None
    assert last.answer.part.number == 1 + min(entropies, key=entropies.__getitem__)


def test_all_parts_refuse(book: ReadDocument) -> None:
    answer = book.ask("What is the access code of Quellin?", surest=True)
    assert (answer.found, answer.part, answer.reason) == (False, None, "not_found")


def test_a_short_answer_is_told_from_a_refusal_all_the_same(book: ReadDocument) -> None:
    answer = book.ask(QUESTION, surest=True, max_tokens=2)
    assert (answer.text, answer.finish_reason) == ("48", "length") and answer.part is not None
    assert answer.part.place == "CHAPTER 2"


def test_a_follow_up_goes_on_from_the_part(book: ReadDocument) -> None:
    book.ask(QUESTION, surest=True)
    assert book.conversation is not None and book.conversation.state.tokens == 512
    assert book.ask(QUESTION, keep=True).text == "48213"
    book.reset_conversation()


def test_a_short_document_has_one_part(demo: Model) -> None:
    short = demo.read(Document("short", "The access code of Zorvath is 48213. It rained."))
    answer = short.ask(QUESTION, surest=True)
    assert (answer.text, answer.part) == ("48213", None)


@pytest.mark.parametrize("other", [{"keep": True}, {"reread": 2}, {"as_of": "50%"}])
def test_other_ways_of_asking_are_refused(book: ReadDocument, other: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        book.ask(QUESTION, surest=True, **other)


def test_states_are_stored_once_and_go_with_the_document(tmp_path: Path, private_home: Path, text: str) -> None:
    path = tmp_path / "story.txt"
    path.write_text(text, encoding="utf-8")
    first = kept(Session(), str(path))
    assert "parts of 512 tokens are read" in notices(first) and "remembered with the document" in notices(first)
    files = list(private_home.rglob("part-512-*.safetensors"))
    assert files and all(file.stat().st_mode & 0o077 == 0 for file in files)
    again = Session()
    second = kept(again, str(path))
    assert not notices(second) and any(isinstance(event, ReadProgress) for event in second)
    assert [event.answer.text for event in (*first, *second) if isinstance(event, Answered)] == ["48213"] * 2
    again.forget()
    assert not list(private_home.rglob("part-*"))


def test_a_broken_file_is_read_again_and_told(tmp_path: Path, private_home: Path, text: str) -> None:
    path = tmp_path / "story.txt"
    path.write_text(text, encoding="utf-8")
    kept(Session(), str(path))
    (file, *_) = private_home.rglob("part-512-*.safetensors")
    raw = bytearray(file.read_bytes())
    raw[-9] ^= 1
    file.write_bytes(raw)
    events = kept(Session(), str(path))
    assert "These parts are read again" in notices(events)
    assert [event.answer.text for event in events if isinstance(event, Answered)] == ["48213"]
    assert not notices(kept(Session(), str(path)))


def test_a_stop_keeps_what_was_read(demo: Model, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surest, "rows_for", lambda state_bytes: 2)
    book = demo.read(Document("story", text))
    seen: list[Event] = []
    events = book.answering(QUESTION, surest=True, should_stop=lambda: len(seen) > 5)
    with pytest.raises(StoppedError):
        for event in events:
            seen.append(event)
    before = sum("are read" in event.text for event in seen if isinstance(event, Notice))
    read: list[int] = []
    parts = book._parts
    assert parts is not None and before == 1
    plain = parts._read
    monkeypatch.setattr(parts, "_read", lambda group, *rest: read.append(group.start) or plain(group, *rest))
    assert book.ask(QUESTION, surest=True).text == "48213"
    assert read and read[0] > 0, "the first group was kept"


def test_without_room_every_question_reads(demo: Model, text: str) -> None:
    book = demo.read(Document("story", text))
    book.shelf = dataclasses.replace(book.shelf, budget=100_000)  # type: ignore[type-var]
    assert book.ask(QUESTION, surest=True).found
    assert book._parts is not None and book._parts.layout.count == 2
    assert "read again for every question" in notices(list(book.answering(QUESTION, surest=True)))


def test_parts_of_a_size_that_was_asked_for(book: ReadDocument) -> None:
    usual = book.ask(QUESTION, surest=True).part
    answer = book.ask(QUESTION, surest=True, part_tokens=1024)
    assert usual is not None and answer.part is not None and answer.text == "48213"
    assert answer.part.count < 0.6 * usual.count
    for wrong in ({"surest": True, "part_tokens": 15}, {"part_tokens": 512}):
        with pytest.raises(UsageError, match="tokens of a part"):
            book.ask(QUESTION, **wrong)


def test_refusals_in_other_words() -> None:
    has = Refusals(PromptForm(), frozenset({"das sagt der text nicht"})).has
    refusals = """The document does not say.|The passage doesn't mention his age.|I don't know.|Not specified.
        I'm sorry, but the text above does not contain that.|It is not mentioned.|Unknown|N/A|Error
        Das sagt der Text nicht!|There is no information about it in the document.
        The provided text does not specify when it ends.
        The name of the captain is not mentioned in the text.|It cannot be determined from the passage.
        No information is given.
        I am unable to answer.|This document does not clearly state it|The end date is not known from the document."""
    answers = """48213|None.|No.|Nothing.|The treasure was never found.|He did not know her name.|Never
        Unknown Pleasures|        It was not the captain, but the cook, who told him.
        I did not see him that night.|There was no answer.
        The documents were not signed until 3 May.|He was not named in the will.|The tenant may not sublet.
        Not known to his wife, he had sold the house.|Not far from the coast|The article is not binding.|Document 12"""
    assert [text for text in _each(refusals) if not has(text)] == []
    assert [text for text in _each(answers) if has(text)] == []
    assert has("")


def _each(texts: str) -> list[str]:
    return [text.strip() for text in texts.replace("\n", "|").split("|") if text.strip()]


def test_a_models_own_refusal_is_learnt(demo: Model) -> None:
    assert refusals_of(demo).own == {"the document does not say"}


@pytest.mark.parametrize("name", ["demo", "demo-mamba1"])
def test_states_join_and_part_again(name: str) -> None:
    model = load(name).loaded.model
    rng = np.random.default_rng(3)
    states = [model(mx.array(rng.integers(0, 2000, (1, 9))))[1] for _ in range(3)]
    batch = joined(states)
    for number, state in enumerate(states):
        alone = rows_of(batch, [number])
        for key, array in state.arrays().items():
            np.testing.assert_array_equal(np.array(array), np.array(alone.arrays()[key]))
    with pytest.raises(ValueError, match="different lengths"):
        joined([states[0], model(mx.array([[1]]))[1]])


def test_nothing_is_left_beside_the_store(tmp_path: Path, private_home: Path, text: str) -> None:
    path = tmp_path / "story.txt"
    path.write_text(text, encoding="utf-8")
    assert "held in memory" in notices(kept(Session(save=False), str(path)))
    assert not list(private_home.rglob("part-*")) and os.listdir(tmp_path) == ["story.txt"]
