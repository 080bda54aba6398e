"""`demo`: the sample document read with the filter off and on, its questions asked, a table printed."""

from __future__ import annotations

import json as json_module
import re
import sys
import time
from dataclasses import dataclass
from typing import cast

from longmamba_mlx.cli.progress import follow
from longmamba_mlx.events import Answer, Answered, ReadDone
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.session.no_answer import real_model
from longmamba_mlx.session.session import Session

FILTERS = ("off", "longmamba")
STRANGER = "Ravensholt"  # nobody of that name in the sample


@dataclass(frozen=True, slots=True)
class Side:
    """One reading and its answers."""

    done: ReadDone
    answers: tuple[Answer, ...]
    memory: int


def demonstrate(model: str, *, json: bool) -> None:
    """Read, ask, compare; nothing is downloaded and nothing is remembered."""
    from longmamba_mlx.builtin import BUILT_IN, described, known_questions, sample_document
    from longmamba_mlx.documents import read_document
    from longmamba_mlx.system import peak_bytes

    started = time.monotonic()
    document = read_document(sample_document())
    questions: list[tuple[str, str | None]] = [
        *_questions(document.text, known_questions(model) if model in BUILT_IN else ()),
        (f"What is the access code of {STRANGER}?", None),
    ]
    sides = {}
    for name in FILTERS:
        session = Session(model, filter=name, save=False)
        done = follow(session.open(document))
        answers = tuple(_ask(session, question) for question, _ in questions)
        sides[name] = Side(done, answers, peak_bytes())
    if json:
        print(json_module.dumps(_as_json(model, questions, sides, started), ensure_ascii=False))
        return
    words = len(document.text.split())
    tokens = sides["off"].done.tokens
    print(f"{document.title}: {words:,} words, {tokens:,} tokens, read by the built-in model {model!r},")
    print(f"which was trained on {_trained(model)} tokens at a time.\n")
    _table(questions, sides)
    for name, side in sides.items():
        speed = f"{side.done.tokens / side.done.seconds:,.0f} tokens/s on this machine"
        how = "opened from an earlier reading" if side.done.reopened else speed
        print(f"filter {name:>9}: {how}, state {format_size(side.done.state_bytes)}, "
              f"memory {format_size(side.memory)}")  # fmt: skip
    if model in BUILT_IN:
        print(_NEXT.format(model=model, described=described(model), command=real_model().command))


_NEXT = """
The built-in model {model} is {described}. With a real model:
  {command}
  longmamba-mlx chat --file book.txt
"""


def _questions(text: str, known: tuple[str, ...]) -> list[tuple[str, str]]:
    """The questions about the facts of a text that a model of these known questions (none: any) may be asked, and
    their answers."""
    from longmamba_mlx.evaluation.attributes import ATTRIBUTES

    found = []
    for attribute in ATTRIBUTES:
        for fact, question in zip(attribute.facts, attribute.questions, strict=False):  # of the same wording
            if known and question not in known:
                continue
            pattern = re.escape(fact).replace(r"\{name\}", "([^.]+?)").replace(r"\{value\}", "([^.]+?)")
            for match in re.finditer(pattern, text):
                found.append((match.start(), question.format(name=match[1]), match[2]))
    return [(question, value) for _, question, value in sorted(found)]


def _ask(session: Session, question: str) -> Answer:
    *_, last = session.ask(question)
    return cast("Answered", last).answer


def _right(answer: Answer, code: str | None) -> bool:
    return answer.text == code if code is not None else not answer.found


def _table(questions: list[tuple[str, str | None]], sides: dict[str, Side]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, highlight=False)
    for title in ("question", "in the text", *(f"filter {name}" for name in sides)):
        table.add_column(title)
    for index, (question, code) in enumerate(questions):
        cells = []
        for side in sides.values():
            answer = side.answers[index]
            mark = "right" if _right(answer, code) else "wrong"
            cells.append(f"{answer.text or '(nothing)'}  {mark}")
        table.add_row(question, code or "(not there)", *cells)
    codes = [code for _, code in questions]
    totals = [sum(map(_right, side.answers, codes)) for side in sides.values()]
    table.add_row("", "", *(f"{total} of {len(codes)} right" for total in totals))
    Console(width=None if sys.stdout.isatty() else 140).print(table, markup=False)
    print()


def _trained(model: str) -> int:
    from longmamba_mlx.models.config.parse import parse_config, read_json
    from longmamba_mlx.registry.resolve import resolve

    return parse_config(read_json(resolve(model) / "config.json")).training_length


def _as_json(
    model: str, questions: list[tuple[str, str | None]], sides: dict[str, Side], started: float
) -> dict[str, object]:
    return {
        "model": model,
        "tokens": sides["off"].done.tokens,
        "seconds": round(time.monotonic() - started, 2),
        "sides": {
            name: {
                "tokens_per_second": round(side.done.tokens / side.done.seconds, 1),
                "state_bytes": side.done.state_bytes,
                "peak_memory": side.memory,
                "answers": [
                    {
                        "question": question,
                        "expected": code,
                        "answer": answer.text,
                        "right": _right(answer, code),
                    }
                    for answer, (question, code) in zip(side.answers, questions, strict=True)
                ],
            }
            for name, side in sides.items()
        },
    }
