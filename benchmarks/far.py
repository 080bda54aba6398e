"""Very long documents: `python benchmarks/far.py passkey` and `python benchmarks/far.py kept BOOK`.

`passkey`: one fact in documents of 64 million tokens of the pass key's noise, asked of the surest part (`ask
--surest`). The noise repeats itself, so nearly all parts are the same tokens, with the same state and the same answer:
one of them is read and asked, which gives what reading and asking all would.

`kept`: what the filters let
into the heads that remember, in a document with a book's own sentences and numbers, by length.

The longer ones are kept in build/far and not measured again. How the state alone does far out is measured by
`measure_results.py` (`farther-demo`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import Document, read_document
from longmamba_mlx.evaluation.names import common_words, draw_names
from longmamba_mlx.evaluation.needles import Filler, Needle, hide
from longmamba_mlx.inference.batched import ask_all
from longmamba_mlx.inference.filtered import filtered_model
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models.batches import joined
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.ops.checks import threshold_array
from longmamba_mlx.session.api import Model, load
from longmamba_mlx.session.parts import STORED, Layout, layout_of
from longmamba_mlx.session.refusals import refusals_of
from longmamba_mlx.session.surest import Parts

ROOT = Path(__file__).resolve().parents[1]
RESULTS, WORK = ROOT / "docs" / "results", ROOT / "build" / "far"
NOISE = " The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
DEPTHS = (0.5, 0.0, 0.25, 0.75, 0.99)
CHUNK = 512
HALVES = [CHUNK << power for power in range(6, 20)]  # tokens after which `kept` notes what was kept so far


def with_fact(noise: NDArray[np.uint32], needle: Needle, encode: Callable[[str], Any]) -> NDArray[np.uint32]:
    """The ids of noise with a fact after a whole sentence of it at the needle's depth; as many as before."""
    fact, period = encode(f" {needle.sentence}"), len(encode(NOISE))
    at = round(needle.depth * len(noise)) // period * period
    return np.concatenate([noise[:at], fact, noise[at:]])[: len(noise)]


def passkey(model: Model, options: argparse.Namespace) -> None:
    """One fact in `--tokens` tokens of noise, at five depths, in parts of the training length and of the usual size."""
    encode = model.tokenizer.encode
    period = encode(NOISE)
    if not np.array_equal(encode(NOISE * 9), np.tile(period, 9)):
        raise SystemExit("in this model's tokens the noise does not repeat itself")
    noise = np.tile(period, -(-options.tokens // len(period)))[: options.tokens]
    rng = random.Random(options.seed)
    names = draw_names(rng, "test", len(DEPTHS), common_words([NOISE], 100))
    needles = [Needle(name, f"{rng.randrange(100_000):05d}", depth) for name, depth in zip(names, DEPTHS, strict=True)]
    initial = model.loaded.model.initial_state().nbytes
    usual = layout_of(options.tokens, model.training_length, initial, STORED)
    short = layout_of(options.tokens, model.training_length, 0, 1, most=options.tokens)
    rows = [by_surest(model, with_fact(noise, needle, encode), needle, layout)
            for layout in dict.fromkeys((short, usual)) for needle in needles]  # fmt: skip
    report = {"model": options.model, "weights": model.loaded.fingerprint, "filter": model.policy.canonical(),
              "tokens": options.tokens, "seed": options.seed, "rows": rows}  # fmt: skip
    write(RESULTS / f"passkey-{options.model}.json", report)


def by_surest(model: Model, ids: NDArray[np.uint32], needle: Needle, layout: Layout) -> dict[str, Any]:
    """The answer of the surest part. Parts with the same tokens have the same state and answer: each is read once."""
    parts = Parts(model, Document("noise", "-"), len(ids))
    parts.layout = layout
    spans = map(layout.span, range(layout.count))
    distinct = {hashlib.sha256(ids[start:end]).digest(): n for n, (start, end) in reversed([*enumerate(spans)])}
    numbers, states = sorted(distinct.values()), []
    for start, end in map(layout.span, numbers):
        states.append(prefill(model.loaded.model, ids[start:end], model.plan(end - start), logits="none").state)
    state = joined(states)
    asked = ask_all(model.loaded.model, state, len(numbers), model.tokenizer.encode(model.form.ask(needle.question)))
    choice = parts._better(None, numbers, state, asked, refusals_of(model))
    start, end = layout.span(choice.number)
    answer = said(model, choice.state, needle.question)
    row = {"size": layout.size, "parts": layout.count, "distinct": len(numbers), "depth": needle.depth,
           "code": needle.code, "answer": answer, "right": answer == needle.code, "part": choice.number + 1,
           "probability": round(choice.probability, 4), "state_bytes": states[0].nbytes}  # fmt: skip
    print(row, flush=True)
    return row


def said(model: Model, state: ModelState, question: str) -> str:
    """The answer from a state."""
    from longmamba_mlx.session.answer import Reply

    reply = Reply(model, 12)
    for _ in reply.stream(state, model.tokenizer.encode(model.form.ask(question)), 0.0, 0, None):
        pass
    return reply.text


def kept(model: Model, options: argparse.Namespace) -> None:
    """Tokens that the heads with thresholds keep, and how many are digits of facts and others, by filter."""
    encode = model.tokenizer.encode
    filler = Filler([read_document(options.book).text], lambda text: len(encode(text)))
    stack = hide(filler, options.tokens, 4, random.Random(f"{options.seed} kept"), split="dev")
    ids = encode(stack.text)
    digits, facts = marked(model, ids, [needle.code for needle in stack.needles], stack.text)
    file = WORK / f"kept-{options.tokens}-{model.loaded.fingerprint[:8]}.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for name in options.filters.split(","):
        if any(row["filter"] == name for row in rows):
            continue
        reader = model.with_filter(name)
        plan = reader.plan(len(ids), ids)
        if plan is not None and plan.needs_document:
            plan = prefill(model.loaded.model, ids, plan, logits="none").plan
        for row in counted(reader, ids, plan, digits, facts):
            rows.append({"filter": name, **row})
            print(rows[-1], flush=True)
        write(file, rows)
    report = {"model": options.model, "weights": model.loaded.fingerprint, "tokens": len(ids), "seed": options.seed,
              "split": "dev", "filler": [options.book.name], "rows": rows}  # fmt: skip
    write(RESULTS / f"kept-{options.model}.json", report)


def marked(
    model: Model, ids: NDArray[np.uint32], codes: list[str], text: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which tokens have a digit, and which of those belong to a fact's code; (S,) bool each."""
    pieces = [model.tokenizer.decode([token]) for token in range(model.loaded.config.vocab_size)]
    has = np.array([bool(re.search(r"\d", piece)) for piece in pieces])
    digits, facts = has[ids], np.zeros(len(ids), bool)
    for code in codes:
        before = len(model.tokenizer.encode(text[: text.index(f"is {code}.")]))
        near = np.flatnonzero(digits[before : before + 12])[: len(code)]
        facts[before + near] = True
    return digits, facts


def counted(
    reader: Model, ids: NDArray[np.uint32], plan: Any, digits: NDArray[np.bool_], facts: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """For each head with a threshold: how many tokens it keeps, and of which kind, by the end and by each half."""
    network, config = filtered_model(reader.loaded.model, plan), reader.loaded.config
    thresholds = {index: row for index in range(config.n_layer) if (row := plan.thresholds(index)) is not None}
    heads = [(index, int(head)) for index, row in thresholds.items() for head in np.flatnonzero(np.isfinite(row))]
    totals = {head: np.zeros(3, int) for head in heads}
    rows, state = [], network.initial_state()
    for start in range(0, len(ids), CHUNK):
        piece = slice(start, start + CHUNK)
        hidden, after = network.embed(mx.array(ids[None, piece])), []
        for index in range(config.n_layer):
            limit = None
            if index in thresholds:
                raw = np.array(network.raw_step(index, hidden, state.layers[index])[0])[0]
                limit = threshold_array(thresholds[index], config.units)
                for layer, head in heads:
                    if layer == index:
                        keeps = raw[:, head] > thresholds[index][head]
                        own, other = facts[piece], digits[piece] & ~facts[piece]
                        totals[layer, head] += [keeps.sum(), (keeps & own).sum(), (keeps & other).sum()]
            hidden, layer_state = network.layer(index, hidden, state.layers[index], limit)
            after.append(layer_state)
        state = ModelState(tuple(after), state.tokens + hidden.shape[1])
        state.evaluate()
        if state.tokens == len(ids) or state.tokens in HALVES:
            rows += [
                {"tokens": state.tokens, "layer": layer, "head": head, "kept": int(all_), "facts": int(own),
                 "digits": int(other)} for (layer, head), (all_, own, other) in totals.items()
            ]  # fmt: skip
    return rows


def write(path: Path, report: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("passkey", "kept"))
    parser.add_argument("book", type=Path, nargs="?", help="for kept: the development book")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=64_000_000)
    parser.add_argument("--filters", default="paper,document", help="for kept, with commas")
    parser.add_argument("--seed", type=int, default=61)
    options = parser.parse_args()
    if options.part == "kept" and options.book is None:
        parser.error("kept needs a book")
    (passkey if options.part == "passkey" else kept)(load(options.model), options)


if __name__ == "__main__":
    main()
