"""Ask questions about documents with several filters; every filter gets the same questions.

A `PlannedDocument` names one document of the measurement; its text is made only when some filter still needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import Document
from longmamba_mlx.evaluation.likelihood import continued_nll
from longmamba_mlx.evaluation.samples import Cell, Sample, SampleLog, run_digest
from longmamba_mlx.ground.steps import run_to_end
from longmamba_mlx.inference.decode import generate
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.session.api import Model, ReadDocument, calibrate
from longmamba_mlx.session.surest import Parts
from longmamba_mlx.tokenization.prompt_format import PromptForm

LAST = "last"  # the baseline: only the last training length of tokens is read, nothing is filtered
SUREST = "surest"  # the document's parts are read each from a fresh state, and the surest answers, as in `ask --surest`


Content = TypeVar("Content")


@dataclass(frozen=True, slots=True)
class Question:
    """A question after the document.

    `text` is put in the model's own prompt format, or used verbatim if not `formed`, with the given start of the answer
    (`begun`). `answers` are all correct ones; the likelihood is that of the first. `part` names the kind of question if
    a document has several."""

    text: str
    answers: tuple[str, ...]
    formed: bool = False
    begun: str = ""
    part: str = ""

    def prompt(self, form: PromptForm) -> str:
        """The text that follows the document. A chat model's turn is closed before the answer begins."""
        if self.formed:
            return form.ask(self.text)
        closing = form.question.partition("{question}")[2] if form.opening else ""
        return f"{self.text}{closing}{self.begun}"


@dataclass(frozen=True, slots=True)
class Exam:
    """A document, its questions, and how an answer is scored (0 to 1). `absent`: the correct answer says
    that the document does not contain it."""

    document: str
    questions: tuple[Question, ...]
    score: Callable[[str, Sequence[str]], float]
    max_tokens: int = 64
    likelihood: bool = True
    absent: bool = False


@dataclass(frozen=True, slots=True)
class PlannedDocument(Generic[Content]):
    """One document to be measured: its cell, its number in it, how many questions it has, and how to make it."""

    cell: Cell
    document: int
    questions: int
    make: Callable[[], Content]


@dataclass(frozen=True, slots=True)
class Reader:
    """A model with one of the compared filters; `last`: it sees the last training length only; `surest`: its answers
    come from the surest part of the document."""

    name: str
    model: Model
    last: bool = False
    surest: bool = False

    def opened(self, text: str) -> tuple[int, Callable[[Question], ReadDocument]]:
        """Read a document -> its tokens, and what answers a question about it."""
        if self.surest:
            return self._parts_of(text)
        book = self.read(text)
        return book.tokens, lambda question: book

    def _parts_of(self, text: str) -> tuple[int, Callable[[Question], ReadDocument]]:
        model, document = self.model, Document("document", text)
        counted = model.count(document)
        parts = Parts(model, document, len(counted.ids), counted.text_map)
        key = model.key(document.digest, len(counted.ids), None, parts.chunk)

        def surest_for(question: Question) -> ReadDocument:
            words = (
                model.form.as_known(question.text) if question.formed else None
            ) or question.text  # as `ask` puts it
            prompt = model.tokenizer.encode(replace(question, text=words).prompt(model.form))
            choice = run_to_end(parts.choose(prompt))
            return ReadDocument(model, None, Reading(choice.state, None, None), key, 0.0)

        return len(counted.ids), surest_for

    def read(self, text: str) -> ReadDocument:
        """The document as this reader remembers it."""
        if self.last:
            ids = self.model.tokenizer.encode(text)[-self.model.training_length :]
            text = self.model.tokenizer.decode(ids)
        book = self.model.read(Document("document", text))
        book.source = None  # no search for related passages: they are not scored
        return book

    def run(self, facts: Mapping[str, object]) -> str:
        """The digest of everything that decides this reader's results in a measurement described by `facts`."""
        model, calibration = self.model, self.model.calibration
        return run_digest(
            weights=model.loaded.fingerprint,
            quantisation=model.loaded.quantisation,
            tokenizer=model.tokenizer.identity,
            filter=LAST if self.last else model.policy.canonical() + (f", {SUREST} part" if self.surest else ""),
            calibration="" if calibration is None or model.filter == "off" else calibration.text_digest,
            **facts,
        )


def readers_for(model: Model, filters: Sequence[str], text: str) -> list[Reader]:
    """One reader per filter name, `last` and `surest` among them.

    A model that was never calibrated is measured on `text`, once. Raises UsageError for an unknown name.
    """
    names = list(dict.fromkeys(name.strip() for name in filters))
    stands_for = {LAST: "off", SUREST: "longmamba"}
    readers = [
        Reader(name, model.with_filter(stands_for.get(name, name)), last=name == LAST, surest=name == SUREST)
        for name in names
    ]
    waiting = [reader for reader in readers if reader.model.filter != "off" and reader.model.calibration is None]
    if waiting:
        calibration = calibrate(waiting[0].model, text, save=False)
        for reader in waiting:
            reader.model.calibration = calibration
    return readers


def measure(
    documents: Iterable[PlannedDocument[Content]],
    readers: Sequence[Reader],
    log: SampleLog,
    facts: Mapping[str, object],
    take: Callable[[Reader, PlannedDocument[Content], Content], list[Sample]],
    *,
    on_document: Callable[[PlannedDocument[Content], Reader], object] | None = None,
) -> Iterator[Sample]:
    """Measure every planned document with every reader, one document at a time.

    Samples already in the log are reused, also those of an equivalent reader with another name (`longmamba` and the
    policy it stands for).

    `facts`: the options that determine documents, questions and scores. `take` measures one document with one reader.
    `on_document` is called before each reading.
    """
    runs = {reader.name: reader.run(facts) for reader in readers}
    for planned in documents:
        content: Content | None = None
        taken: dict[str, list[Sample]] = {}
        for reader in readers:
            samples = log.known(runs[reader.name], planned.cell, reader.name, planned.document, planned.questions)
            if samples is None and runs[reader.name] in taken:
                samples = [replace(sample, filter=reader.name) for sample in taken[runs[reader.name]]]
            elif samples is None:
                if on_document is not None:
                    on_document(planned, reader)
                content = planned.make() if content is None else content
                samples = take(reader, planned, content)
                log.add(runs[reader.name], samples)
            taken[runs[reader.name]] = samples
            yield from samples


def run_exam(reader: Reader, planned: PlannedDocument[Exam], exam: Exam) -> list[Sample]:
    """Read the document once and ask every question from that state."""
    tokens, opened = reader.opened(exam.document)
    samples = []
    for number, question in enumerate(exam.questions):
        book = opened(question)
        if question.formed:
            reply = book.ask(question.text, max_tokens=exam.max_tokens)
            answer, found = reply.text, reply.found
        else:
            answer, found = continuation(book, question.prompt(book.model.form), exam.max_tokens), True
        right = question.answers[0] if exam.likelihood and question.answers else None
        samples.append(
            Sample(
                cell=planned.cell,
                filter=reader.name,
                document=planned.document,
                question=number,
                score=float(not found) if exam.absent else exam.score(answer, question.answers),
                nll=None if right is None else answer_nll(book, question, right),
                answer=answer,
                expected=question.answers,
                tokens=tokens,
                found=found,
                part=question.part,
            )
        )
    return samples


def continuation(book: ReadDocument, prompt: str, max_tokens: int) -> str:
    """Generate greedily after the document and `prompt`, up to an end-of-text token."""
    model = book.model
    ids = generate(
        model.network,
        book.state,
        model.tokenizer.encode(prompt),
        max_tokens=max_tokens,
        stop_ids=model.stop_ids,
    )
    return model.tokenizer.decode(list(ids))


def answer_nll(book: ReadDocument, question: Question, answer: str) -> float:
    """Mean negative log-likelihood of the tokens of `answer` (a space before it) after the question, in nats."""
    prompt = question.prompt(book.model.form)
    if not question.formed:
        prompt = prompt.rstrip(" ")
    tokens = book.model.tokenizer.encode
    return continuation_nll(book, tokens(prompt), tokens(f" {answer}"))


def continuation_nll(book: ReadDocument, prompt: NDArray[np.uint32], wanted: NDArray[np.uint32]) -> float:
    """Mean negative log-likelihood of ids `wanted` after the document and ids `prompt`, in nats."""
    return float(continued_nll(book.model.network, book.state, prompt, wanted).mean())
