"""Documents with questions: answers, likelihoods, baselines, rows, and going on after an interruption."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import DiskError, UsageError
from longmamba_mlx.evaluation import measure as measuring
from longmamba_mlx.evaluation.measure import (
    Exam,
    PlannedDocument,
    Question,
    Reader,
    answer_nll,
    measure,
    readers_for,
    run_exam,
)
from longmamba_mlx.evaluation.needles import Filler
from longmamba_mlx.evaluation.niah import exact, first_number, niah_documents, passkey_documents
from longmamba_mlx.evaluation.report import rows
from longmamba_mlx.evaluation.samples import Cell, Sample, SampleLog, run_digest
from longmamba_mlx.session.api import Model
from longmamba_mlx.tokenization.prompt_format import PromptForm


@pytest.fixture(scope="module")
def filler(demo: Model, story: str) -> Filler:
    return Filler([story], lambda text: len(demo.tokenizer.encode(text)))


def test_answer_nll_is_the_log_likelihood_of_the_answer(demo: Model, story: str) -> None:
    book = demo.read(Document("story", story[:1200]))
    question, answer = Question("What is the access code of Zorvath?", (), formed=True), "48213"
    ids = np.concatenate([demo.tokenizer.encode(demo.form.ask(question.text)), demo.tokenizer.encode(f" {answer}")])
    hidden, _ = demo.loaded.model(mx.array(ids[None]), book.state)
    logits = np.array(demo.loaded.model.head(hidden)[0], np.float64)
    wanted = len(demo.tokenizer.encode(f" {answer}"))
    above = logits[-wanted - 1 : -1]
    logs = (
        above - np.log(np.exp(above - above.max(1, keepdims=True)).sum(1, keepdims=True)) - above.max(1, keepdims=True)
    )
    expected = -logs[np.arange(wanted), ids[-wanted:]].mean()
    assert answer_nll(book, question, answer) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_niah_with_baselines(demo: Model, filler: Filler) -> None:
    documents = list(niah_documents(filler, [512, 1536], samples=7, facts=4))
    readers = readers_for(demo, ["off", "longmamba", "decimamba", "last"], "")
    found = rows(measure(documents, readers, SampleLog(), {}, run_exam))
    assert [(row.length, row.filter) for row in found] == [
        (length, name) for length in (512, 1536) for name in ("off", "longmamba", "decimamba", "last")
    ]
    assert all(row.samples == 8 and row.documents == 2 and row.nll is not None for row in found)
    assert found[1].accuracy is not None and found[1].accuracy >= 0.75
    assert found[0].gain is None and found[1].gain is not None and found[1].gain.over == "off"
    last = readers[-1].read(filler.sentences[0] * 400)
    assert readers[-1].last and last.tokens <= demo.training_length + 2


def test_the_surest_part_answers_for_all_of_a_document(demo: Model, filler: Filler) -> None:
    (reader,) = readers_for(demo, ["surest"], "")
    assert reader.run({}) != readers_for(demo, ["longmamba"], "")[0].run({})
    (planned,) = niah_documents(filler, [3000], samples=4, seed=3)
    samples = run_exam(reader, planned, planned.make())
    assert [sample.score for sample in samples] == [1.0] * 4
    assert all(abs(sample.tokens - 3000) < 100 and (sample.nll or 0) < 0.5 for sample in samples)
    (planned,) = niah_documents(filler, [3000], samples=4, absent=True, seed=3)
    assert all(not sample.found for sample in run_exam(reader, planned, planned.make()))


def test_names_that_are_not_there(demo: Model, filler: Filler) -> None:
    documents = list(niah_documents(filler, [512], samples=4, absent=True))
    found = list(measure(documents, readers_for(demo, ["off"], ""), SampleLog(), {}, run_exam))
    assert all(sample.score == (not sample.found) and sample.nll is None for sample in found)


def test_a_grid_asks_for_the_fact_at_the_depth(filler: Filler) -> None:
    documents = list(niah_documents(filler, [1500], samples=2, facts=3, depths=[0.0, 1.0]))
    assert [(planned.cell.depth, planned.document, planned.questions) for planned in documents] == [
        (0.0, 0, 1), (0.0, 1, 1), (1.0, 0, 1), (1.0, 1, 1)
    ]  # fmt: skip
    for planned in documents:
        made = planned.make()
        assert len(made.questions) == 1
        place = made.document.index(made.questions[0].answers[0]) / len(made.document)
        assert abs(place - (planned.cell.depth or 0.0)) < 0.06


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0, None])
def test_the_pass_key_has_its_length_and_place(demo: Model, depth: float | None) -> None:
    def count(text: str) -> int:
        return len(demo.tokenizer.encode(text))

    planned = next(passkey_documents(count, [3000], samples=1, depths=[] if depth is None else [depth]))
    made = planned.make()
    key = made.questions[0].answers[0]
    assert made.document.count(key) == 2 and abs(count(made.document) - 3000) < 40
    if depth is not None:
        assert abs(made.document.index(key) / len(made.document) - depth) < 0.06
    assert made.score(f" {key}. Remember", [key]) == 1 and made.score(f"7 {key}", [key]) == 0
    assert first_number("none", ["1"]) == 0 and exact("12", ["12"]) == 1 and exact("12.", ["12"]) == 0


def test_rows_average_over_documents() -> None:
    cell = Cell("niah", 512)
    scores = {0: [1.0, 1.0], 1: [1.0, 0.0], 2: [0.0, 0.0]}
    samples = [
        Sample(cell, name, document, number, score if name == "off" else 1.0, nll=0.5, tokens=510)
        for name in ("off", "paper")
        for document, values in scores.items()
        for number, score in enumerate(values)
    ]
    off, paper = rows(samples)
    assert off.accuracy == 0.5 and off.documents == 3 and off.samples == 6
    assert off.stderr == pytest.approx(0.5 / math.sqrt(3))
    assert paper.gain is not None and paper.gain.difference == 0.5
    assert math.isnan(rows(samples[:2])[0].stderr)


class Counter:
    """Takes exams without a model, and may break off."""

    def __init__(self, most: int = 10**6) -> None:
        self.taken, self.most = 0, most

    def __call__(self, reader: Reader, planned: PlannedDocument[Exam], exam: Exam) -> list[Sample]:
        if self.taken >= self.most:
            raise KeyboardInterrupt
        self.taken += 1
        score = random.Random(f"{reader.name} {planned.document}").random()
        return [
            Sample(planned.cell, reader.name, planned.document, number, score) for number in range(planned.questions)
        ]


def _planned() -> list[PlannedDocument[Exam]]:
    return [
        PlannedDocument(Cell("t", length), number, 2, lambda: Exam("", (), exact))
        for length in (1, 2)
        for number in range(3)
    ]


def test_an_interrupted_measurement_goes_on(demo: Model, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    readers = readers_for(demo, ["off", "paper"], "")
    broken, rest, none = Counter(5), Counter(), Counter()
    with pytest.raises(KeyboardInterrupt):
        list(measure(_planned(), readers, SampleLog(path), {}, broken))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"run": "cut off')
    found = list(measure(_planned(), readers, SampleLog(path), {}, rest))
    assert rest.taken == 12 - 5 and len(found) == 24
    again = list(measure(_planned(), readers, SampleLog(path), {}, none))
    assert none.taken == 0 and again == found == list(measure(_planned(), readers, SampleLog(), {}, Counter()))
    path.write_text(2 * path.read_text(encoding="utf-8"), encoding="utf-8")  # two logs put together
    assert list(measure(_planned(), readers, SampleLog(path), {}, Counter(0))) == found


def test_changed_options_and_filters_never_mix(demo: Model, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    list(measure(_planned(), readers_for(demo, ["paper"], ""), SampleLog(path), {"seed": 1}, Counter()))
    for readers, facts, taken in (
        (["paper"], {"seed": 2}, 6),
        (["paper:b=0.5"], {"seed": 1}, 6),
        (["off", "paper"], {"seed": 1}, 6),
    ):
        counter = Counter()
        list(measure(_planned(), readers_for(demo, readers, ""), SampleLog(path), facts, counter))
        assert counter.taken == taken
    assert run_digest(a=1, b=2) == run_digest(b=2, a=1) != run_digest(a=1, b=3)
    assert {json.loads(line)["task"] for line in path.read_text(encoding="utf-8").splitlines()} == {"t"}


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DiskError):
        SampleLog(tmp_path / "file" / "log.jsonl").add("run", [Sample(Cell("t", 1), "off", 0, 0, 1.0)])


def test_unknown_filters_are_refused(demo: Model) -> None:
    for wrong in ("magic", "paper:x=1", "paper:b=x", "paper:b=-1", "document:b=2"):
        with pytest.raises(UsageError):
            readers_for(demo, ["off", wrong], "")


def test_a_model_that_was_never_measured_is_measured_once(
    demo: Model, story: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "_stored_calibration", lambda self: None)
    readers = readers_for(demo, ["off", "paper", "curve"], story)
    made = [reader.model.calibration for reader in readers]
    assert made[0] is None and made[1] is made[2] is not None
    assert measuring.LAST not in [reader.name for reader in readers]


def test_two_names_of_one_filter_are_measured_once(demo: Model) -> None:
    counter = Counter()
    readers = readers_for(demo, ["longmamba", demo.filter], "")
    found = list(measure(_planned()[:1], readers, SampleLog(), {}, counter))
    assert counter.taken == 1 and [sample.filter for sample in found] == ["longmamba"] * 2 + [demo.filter] * 2


def test_a_chat_models_turn_is_closed_before_the_answer() -> None:
    plain, chat = PromptForm(), PromptForm(question="\n\nTask\n\n{question}<end>\n<bot>", opening="<user>\n")
    asked = Question("\nWhat is it?", ("7",), begun=" It is")
    assert asked.prompt(plain) == "\nWhat is it? It is"
    assert asked.prompt(chat) == "\nWhat is it?<end>\n<bot> It is"
    assert Question("Why?", (), formed=True).prompt(chat) == chat.ask("Why?")
