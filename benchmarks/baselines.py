"""All registered policies on the same documents: `python benchmarks/baselines.py --filler treasure-island.txt`.

Each baseline is measured with its default and with what was best for it on other documents of the development split
(sweeps, and for scaled A a search over one factor for each layer, as Mamba Modulation has; kept in
docs/results/tuned-MODEL.json until the weights change). The published methods that scale A or dt change the whole
model, so these are measured a second time with the question and the answer on the scaled model too ("throughout").
Goes on from its log where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from policies import RESULTS, Policy, policies, taken

from longmamba_mlx.documents import Document, read_document
from longmamba_mlx.evaluation.measure import Exam, Question, Reader, answer_nll, measure, readers_for
from longmamba_mlx.evaluation.needles import Filler
from longmamba_mlx.evaluation.niah import niah_documents
from longmamba_mlx.evaluation.report import Row, rows
from longmamba_mlx.evaluation.samples import SampleLog
from longmamba_mlx.inference.filtered import filtered_model
from longmamba_mlx.session.api import Model, ReadDocument, load

TUNING_SEED, TUNING_SAMPLES, SEED = 5, 24, 33
SWEEPS = {
    "scaled-dt": (":factor=0.125", ":factor=0.25", ":factor=0.5", ":factor=0.8", ":factor=1.25"),
    "scaled-a": (":factors=0.25", ":factors=0.5", ":factors=2", ":factors=4"),
    "clipped-a": (":low=0:high=90", ":low=0:high=75", ":low=10:high=100", ":low=25:high=75"),
}
OTHERS = ("paper", "off", "last", "curve", "document", "decimamba")
RETRIEVAL = ("3 passages alone", "surest")  # those of policies.py: passages found by words, and OPRM
STEPS = (0.25, 0.5, 2.0, 4.0)
THROUGHOUT = ", throughout"


def throughout() -> Any:
    """Reads and answers with the scaled model."""
    books: dict[int, ReadDocument] = {}

    def take(reader: Reader, exam: Exam, question: Question) -> tuple[str, bool, float | None]:
        key = hash((reader.name, exam.document))
        if key not in books:
            books.clear()
            model = reader.model
            plan = model.plan(len(model.tokenizer.encode(exam.document)))
            loaded = replace(model.loaded, model=filtered_model(model.loaded.model, plan))
            scaled = Model(loaded, model.tokenizer, "off", model.form)
            books[key] = replace(scaled.read(Document("document", exam.document)), source=None)
        reply = books[key].ask(question.text, max_tokens=exam.max_tokens)
        return reply.text, reply.found, answer_nll(books[key], question, question.answers[0])

    return take


def reader(model: Model, name: str) -> Reader:
    """A filter by name, "…, throughout" for its questions and answers too."""
    if name in RETRIEVAL:
        return policies(model, [name])[0]
    plain = name.removesuffix(THROUGHOUT)
    if plain == name:
        return readers_for(model, [name], "")[0]
    return Policy(name, model.with_filter(plain), take=throughout(), about="throughout")


def measured(model: Model, names: list[str], options: argparse.Namespace, seed: int, samples: int) -> list[Row]:
    """The rows of these filters, also printed."""
    hay = Filler([read_document(options.filler).text], lambda text: len(model.tokenizer.encode(text)))
    lengths = [int(times) * model.training_length for times in options.times.split(",")]
    documents = list(niah_documents(hay, lengths, samples=samples, split="dev", seed=seed))
    facts = {"task": "niah", "facts": 4, "split": "dev", "seed": seed, "filler": [options.filler.name]}
    readers = [reader(model, name) for name in names]
    table = rows(list(measure(documents, readers, SampleLog(options.log), facts, taken)))
    for row in table:
        nll = "" if row.nll is None else f"{row.nll:.3f}"
        print(f"{row.length:>7,} {row.filter:>40} {row.accuracy:.3f} ± {row.stderr or 0:.3f} {nll}", flush=True)
    return table


def tuned(model: Model, options: argparse.Namespace) -> list[str]:
    """The baselines with the options that are best for these weights."""
    file, weights = RESULTS / f"tuned-{options.model}.json", model.loaded.fingerprint
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if known.get("weights") != weights:
        known = {"weights": weights, "seed": TUNING_SEED, "samples": TUNING_SAMPLES, "best": tune(model, options)}
        file.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    return list(known["best"])


def tune(model: Model, options: argparse.Namespace) -> list[str]:
    """The best of each sweep, and a greedy search over the layers' factors on A, by the answers' likelihood."""

    def loss(name: str) -> float:
        found = measured(model, [name], options, TUNING_SEED, TUNING_SAMPLES)
        return sum(row.nll or 0.0 for row in found) / len(found)

    found = [min((f"{name}{choice}" for choice in choices), key=loss) for name, choices in SWEEPS.items()]
    factors = [1.0] * model.loaded.config.n_layer
    best = loss("off")
    for layer in range(len(factors)):
        for step in STEPS:
            trial = [step if index == layer else factor for index, factor in enumerate(factors)]
            value = loss(by_layer(trial))
            if value < best:
                best, chosen = value, trial
                factors = chosen
    return list(dict.fromkeys([*found, by_layer(factors)]))


def by_layer(factors: list[float]) -> str:
    return f"scaled-a:factors={'+'.join(f'{factor:g}' for factor in factors)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--filler", type=Path, required=True, help="the development book")
    parser.add_argument("--times", default="8,32", help="lengths in training lengths")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--log", type=Path, help="samples so far, to go on from")
    options = parser.parse_args()
    model = load(options.model, filter="off")
    scaled = [*SWEEPS, *tuned(model, options)]
    names = [*OTHERS, *scaled, *(f"{name}{THROUGHOUT}" for name in scaled), *RETRIEVAL]
    table = measured(model, names, options, SEED, options.samples)
    report = {"model": options.model, "task": "niah", "facts": 4, "split": "dev", "seed": SEED,
              "filler": [options.filler.name], "training_length": model.training_length,
              "rows": [asdict(row) for row in table]}  # fmt: skip
    target = RESULTS / f"baselines-{options.model}.json"
    target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
