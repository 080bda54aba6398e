"""Policies beyond the paper, compared on the development split: `python benchmarks/policies.py --model demo`.

Each is measured on the documents of the filters `paper` and `document`; `docs/results.md` says what was kept. What
lost lives here only, to be measured again on another model. Soft thresholds and question-aware budgets reach
into the NumPy layers and run where those do (Linux).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from longmamba_mlx.documents import Document, read_document
from longmamba_mlx.evaluation.measure import Exam, PlannedDocument, Question, Reader, answer_nll, measure, run_exam
from longmamba_mlx.evaluation.needles import Filler
from longmamba_mlx.evaluation.niah import niah_documents
from longmamba_mlx.evaluation.report import rows
from longmamba_mlx.evaluation.samples import Sample, SampleLog
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.filtering.delta import delta_of
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops.cpu import numpy_ops
from longmamba_mlx.retrieval.passages import PassageIndex
from longmamba_mlx.session.api import Model, ReadDocument, load

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
CHUNK = 512
Read = Callable[[Model, np.ndarray, FilterPlan], Reading]


@dataclass(frozen=True)
class Policy(Reader):
    """A reader that answers in its own way; `about` makes lines of the log its own."""

    take: Callable[[Reader, Exam, Question], tuple[str, bool, float | None]] | None = None
    whole: Read | None = None
    about: str = ""

    def run(self, facts: Any) -> str:
        return super().run({**facts, "policy": self.about})


def taken(reader: Reader, planned: PlannedDocument[Exam], exam: Exam) -> list[Sample]:
    """All questions of a document, by the reader's own way of reading or of answering."""
    if not isinstance(reader, Policy) or (reader.take is None and reader.whole is None):
        return run_exam(reader, planned, exam)
    if reader.whole is not None:
        return run_exam(_Whole(reader.name, reader.model, read=reader.whole), planned, exam)
    samples = []
    for number, question in enumerate(exam.questions):
        answer, found, nll = reader.take(reader, exam, question)
        samples.append(
            Sample(planned.cell, reader.name, planned.document, number, exam.score(answer, question.answers), nll,
                   answer=answer, expected=question.answers, found=found)
        )  # fmt: skip
    return samples


@dataclass(frozen=True)
class _Whole(Reader):
    """Reads with `read` in place of the reading loop."""

    read: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_way", self.read)
        object.__setattr__(self, "read", self._read)

    def _read(self, text: str) -> Any:
        ids = self.model.tokenizer.encode(text)
        plan = self.model.plan(len(ids), ids)
        if plan is None:
            reading = prefill(self.model.loaded.model, ids, None, logits="none")
        else:
            reading = self._way(self.model, ids, plan)
        return _book(self.model, Document("document", text), reading, plan)


# (a) the document's budget, estimated from windows spread over it: one pass over the windows, then chunk by chunk.
def sampled(share: float, least: int) -> Read:
    def read(model: Model, ids: np.ndarray, plan: FilterPlan) -> Reading:
        length = model.training_length
        count = max(least, round(share * len(ids) / length))
        if count * length >= len(ids):
            return prefill(model.loaded.model, ids, plan, logits="none")
        starts = np.linspace(0, len(ids) - length, count).round().astype(int)
        network = model.loaded.model
        hidden = network.embed(mx.array(np.stack([ids[start : start + length] for start in starts])))
        state, fixed = network.initial_state(count), []
        for index in range(network.config.n_layer):
            raw, _ = network.raw_step(index, hidden, state.layers[index])
            fixed.append(plan.resolve(index, np.array(raw, np.float32).reshape(count * length, -1)))
            limit = None if fixed[-1] is None else mx.array(fixed[-1])
            hidden, _ = network.layer(index, hidden, state.layers[index], limit)
        return prefill(network, ids, plan.resolved(fixed), logits="none")

    return read


# (a') both rules: the clamped table's threshold, but never more than `factor` budgets (estimated from windows).
def bounded(factor: float, share: float, least: int) -> Read:
    def read(model: Model, ids: np.ndarray, plan: FilterPlan) -> Reading:
        upper = model.with_filter(f"document:r={factor}").plan(len(ids), ids)
        length, network = model.training_length, model.loaded.model
        count = max(least, round(share * len(ids) / length))
        starts = np.linspace(0, len(ids) - length, count).round().astype(int)
        hidden = network.embed(mx.array(np.stack([ids[start : start + length] for start in starts])))
        state, fixed = network.initial_state(count), []
        for index in range(network.config.n_layer):
            raw, _ = network.raw_step(index, hidden, state.layers[index])
            budget = upper.resolve(index, np.array(raw, np.float32).reshape(count * length, -1))
            table = plan.thresholds(index)
            both = [values for values in (budget, table) if values is not None]
            fixed.append(np.maximum.reduce(both) if both else None)
            limit = None if fixed[-1] is None else mx.array(fixed[-1])
            hidden, _ = network.layer(index, hidden, state.layers[index], limit)
        return prefill(network, ids, plan.resolved(fixed), logits="none")

    return read


# (b) soft thresholds: Delta * sigmoid((log Delta - log g) / tau), g such that the sum is still the budget.
def soft(tau: float) -> Read:
    def read(model: Model, ids: np.ndarray, plan: FilterPlan) -> Reading:
        def solve(index: int, raw: np.ndarray, hidden: list[mx.array]) -> Any:
            layer, budgets = plan.layers[index], _budgets(model, plan, index)
            logs = np.log(np.maximum(delta_of(raw), 1e-30))
            middle = np.full(raw.shape[1], -np.inf)
            for unit in np.flatnonzero(layer.is_global):
                low, high = -40.0, 10.0
                for _ in range(40):
                    guess = 0.5 * (low + high)
                    mass = (np.exp(logs[:, unit]) / (1 + np.exp(np.clip((guess - logs[:, unit]) / tau, -50, 50)))).sum()
                    low, high = (guess, high) if mass > budgets[unit] else (low, guess)
                middle[unit] = guess

            def steps(place: int, raw: np.ndarray, step: np.ndarray) -> np.ndarray:
                logs = np.log(np.maximum(step, 1e-30))
                with np.errstate(invalid="ignore"):
                    return step / (1 + np.exp(np.clip((middle - logs) / tau, -50, 50)))

            return steps

        return _by_layer(model, ids, plan, solve)

    return read


def _budgets(model: Model, plan: FilterPlan, index: int) -> np.ndarray:
    """The budgets (units,) of a plan of the policy `document`."""
    return plan.policy.budgets(model.calibration, model.calibration.layers[index])


def _by_layer(model: Model, ids: np.ndarray, plan: FilterPlan, solve: Any) -> Reading:
    """Layer by layer; solve(layer, raw (S, units), chunks) -> (first token, raw, step) -> the steps to use."""
    network = model.loaded.model
    hidden = [network.embed(mx.array(ids[None, start : start + CHUNK])) for start in range(0, len(ids), CHUNK)]
    states, after = network.initial_state(), []
    for index in range(network.config.n_layer):
        state, raws = states.layers[index], []
        for piece in hidden:
            raw, state = network.raw_step(index, piece, state)
            raws.append(np.array(raw, np.float32)[0])
        steps = solve(index, np.concatenate(raws), hidden)
        state = states.layers[index]
        with changed_steps(steps):
            for number, piece in enumerate(hidden):
                hidden[number], state = network.layer(index, piece, state)
        after.append(state)
    return Reading(ModelState(tuple(after), len(ids)), None, plan)


@contextmanager
def changed_steps(change: Any) -> Iterator[None]:
    """The NumPy layers take their step sizes from `change` inside the block."""
    plain, place = numpy_ops.filtered_dt, [0]

    def steps(raw: Any, threshold: Any, limit: Any) -> Any:
        step, keep = plain(raw, threshold, limit)
        wanted = change(place[0], raw, step)
        place[0] += raw.shape[1]
        return np.ascontiguousarray(wanted, dtype=np.float32), keep

    numpy_ops.filtered_dt = steps
    try:
        yield
    finally:
        numpy_ops.filtered_dt = plain
    if not place[0]:
        raise SystemExit("soft and question need NumPy's layers: unset LONGMAMBA_KERNEL")


# (d) question-aware budgets: what answers to the question (C of the question, B of the token) is kept more easily.
def question_aware(beta: float) -> Any:
    def take(reader: Reader, exam: Exam, question: Question) -> tuple[str, bool, float | None]:
        model = reader.model
        ids = model.tokenizer.encode(exam.document)
        plan = model.plan(len(ids), ids)
        if plan is None:
            return _asked(reader, exam, question, None)
        plain = prefill(model.loaded.model, ids, plan, logits="none")
        asked = model.tokenizer.encode(model.form.ask(question.text))
        outputs = _projections(model, plain.state, asked)

        def solve(index: int, raw: np.ndarray, hidden: list[mx.array]) -> Any:
            layer, block = plan.layers[index], model.loaded.model.layers[index]
            budgets = _budgets(model, plan, index)
            _, inputs = _b_and_c(block, np.concatenate([np.array(piece)[0] for piece in hidden])[None], None)
            score = (outputs[index] @ inputs[1].T).max(axis=0)
            score = (score - score.mean()) / (score.std() + 1e-9)
            delta = delta_of(raw)
            order = np.log(np.maximum(delta, 1e-30)) + beta * score[:, None]
            keep = np.ones(raw.shape, bool)
            for unit in np.flatnonzero(layer.is_global):
                best = np.argsort(-order[:, unit])
                fits = np.searchsorted(np.cumsum(delta[best, unit]), budgets[unit])
                keep[best[max(1, int(fits)) :], unit] = False
            return lambda place, raw, step: step * keep[place : place + raw.shape[1]]

        return _asked(reader, exam, question, _by_layer(model, ids, plan, solve))

    return take


def _projections(model: Model, state: ModelState, asked: np.ndarray) -> list[np.ndarray]:
    """C of every question token in every layer, after the document."""
    network = model.loaded.model
    hidden, found = network.embed(mx.array(asked[None])), []
    for index in range(network.config.n_layer):
        conv = np.array(state.layers[index].conv)
        found.append(_b_and_c(network.layers[index], np.array(hidden), conv)[0])
        hidden, _ = network.layer(index, hidden, state.layers[index])
    return found


def _b_and_c(block: Any, hidden: np.ndarray, conv: np.ndarray | None) -> tuple[np.ndarray, tuple[None, np.ndarray]]:
    config = block._config
    _, x_b_c, _ = block._split(block._normed(hidden))
    if conv is None:
        conv = np.zeros((1, config.d_conv - 1, config.conv_dim), np.float32)
    x_b_c, _ = block._conv(x_b_c, conv)
    inner, state = config.d_inner, config.d_state
    return x_b_c[0, :, inner + state : inner + 2 * state], (None, x_b_c[0, :, inner : inner + state])


def _book(model: Model, document: Document, reading: Reading, plan: FilterPlan | None) -> ReadDocument:
    """A read document without its text: its answers come from the state alone."""
    return ReadDocument(model, None, reading, model.key(document.digest, reading.state.tokens, plan, 512), 0.0)


def _asked(reader: Reader, exam: Exam, question: Question, reading: Reading | None) -> tuple[str, bool, float | None]:
    if reading is None:
        book = replace(reader.read(exam.document), source=None)
    else:
        book = _book(reader.model, Document("document", exam.document), reading, reading.plan)
    reply = book.ask(question.text, max_tokens=exam.max_tokens)
    return reply.text, reply.found, answer_nll(book, question, question.answers[0])


# (e) the passages that have most to do with the question are read again before it is answered.
def reread(count: int) -> Any:
    books: dict[int, Any] = {}

    def take(reader: Reader, exam: Exam, question: Question) -> tuple[str, bool, float | None]:
        key = hash((reader.name, exam.document))
        if key not in books:
            books.clear()
            books[key] = reader.model.read(Document("document", exam.document))
        reply = books[key].ask(question.text, max_tokens=exam.max_tokens, reread=count)
        return reply.text, reply.found, None

    return take


def passages_alone(count: int) -> Any:
    """Nothing but those passages is read: what retrieval does without a memory of the document."""
    indexes: dict[int, PassageIndex] = {}

    def take(reader: Reader, exam: Exam, question: Question) -> tuple[str, bool, float | None]:
        key = hash(exam.document)
        if key not in indexes:
            indexes.clear()
            indexes[key] = PassageIndex(Document("document", exam.document))
        found = sorted(indexes[key].search(question.text, "", count), key=lambda passage: passage.start)
        book = reader.model.read(Document("passages", "\n\n".join(passage.text for passage in found) or "Nothing."))
        book = replace(book, source=None)
        reply = book.ask(question.text, max_tokens=exam.max_tokens)
        return reply.text, reply.found, answer_nll(book, question, question.answers[0])

    return take


def policies(model: Model, wanted: list[str]) -> list[Reader]:
    document, paper, off = model.with_filter("document"), model.with_filter("paper"), model.with_filter("off")
    every: list[Reader] = [
        Reader("paper", paper),
        Reader("off", off),
        Reader("document", document),
        *(Reader(name, model.with_filter(name)) for name in (
            "document:r=0.5", "document:r=2", "document:r=4", "document:r=8", "curve:clamp=0:r=4", "paper:b=2",
            "paper:last=128", "paper:last=512", "decimamba", "decimamba:layers=0:base=512",
            "decimamba:layers=2:base=512")),
        Policy("sampled 5 %", document, whole=sampled(0.05, 4), about="sampled .05 4"),
        Policy("sampled 16", document, whole=sampled(0.0, 16), about="sampled 16"),
        *(Policy(f"both r={r}", paper, whole=bounded(r, 0.05, 16), about=f"both {r} .05 16") for r in (1, 2, 4)),
        Policy("soft 0.1", document, whole=soft(0.1), about="soft .1"),
        Policy("soft 0.3", document, whole=soft(0.3), about="soft .3"),
        Policy("question 0.5", document, take=question_aware(0.5), about="question .5"),
        Policy("question 1", document, take=question_aware(1.0), about="question 1"),
        Policy("paper + reread 3", paper, take=reread(3), about="reread 3"),
        Policy("off + reread 3", off, take=reread(3), about="reread 3"),
        Policy("3 passages alone", off, take=passages_alone(3), about="passages alone 3"),
        Reader("surest", paper, surest=True),
    ]  # fmt: skip
    return [reader for reader in every if not wanted or reader.name in wanted]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--filler", type=Path, required=True, help="the development book")
    parser.add_argument("--times", default="16,32", help="lengths in training lengths")
    parser.add_argument("--samples", type=int, default=80)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--only", default="", help="policies, with commas")
    parser.add_argument("--log", type=Path, help="samples so far, to go on from")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = load(options.model, filter="off")
    hay = Filler([read_document(options.filler).text], lambda text: len(model.tokenizer.encode(text)))
    lengths = [int(times) * model.training_length for times in options.times.split(",")]
    documents = list(niah_documents(hay, lengths, samples=options.samples, split="dev", seed=options.seed))
    facts = {"task": "niah", "facts": 4, "split": "dev", "seed": options.seed, "filler": [options.filler.name]}
    readers = policies(model, [name.strip() for name in options.only.split(",") if name.strip()])
    samples = list(measure(documents, readers, SampleLog(options.log), facts, taken))
    table = rows(samples)
    for row in table:
        gain = "" if row.gain is None else f"{row.gain.difference:+.3f} [{row.gain.low:+.3f}, {row.gain.high:+.3f}]"
        nll = "" if row.nll is None else f"{row.nll:.3f}"
        right = f"{row.accuracy:.3f} ± {row.stderr:.3f}"
        print(f"{row.length:>7,} {row.filter:>18} {row.samples:>4} {right} {nll:>6} {gain}")
    report = {"model": options.model, **facts, "training_length": model.training_length,
              "rows": [asdict(row) for row in table]}  # fmt: skip
    kind = "policies" if max(lengths) <= 64 * model.training_length else "policies-far"
    target = options.json or RESULTS / f"{kind}-{options.model}.json"
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
