"""RULER (arXiv 2404.06654): eleven synthetic tasks generated as published, and question answering from local files.

`length` counts the tokens of document, question and answer together; the largest document that fits is found by
halving. Two sources cannot be had here: essays are replaced by the filler texts, and the published word lists by this
package's own, which the commonest words of the filler join where more are needed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.evaluation.measure import Exam, PlannedDocument, Question
from longmamba_mlx.evaluation.names import common_words
from longmamba_mlx.evaluation.ruler_tasks import TASKS, Draft, Draw, Materials, QuestionSet
from longmamba_mlx.evaluation.samples import Cell

QA_FILES = {"qa_1": "squad.json", "qa_2": "hotpotqa.json"}
_QA_SOURCES = "SQuAD 2.0's dev-v2.0.json as squad.json, HotpotQA's hotpot_dev_distractor_v1.json as hotpotqa.json"


def materials_from(texts: Sequence[str], folder: Path | None, tasks: Sequence[str]) -> Materials:
    """Running text and, for the question-answering tasks among `tasks`, the published JSON files in `folder`.

    Raises DocumentError where one is missing or has another form.
    """
    running = tuple(" ".join(texts).split())
    questions = {name: _question_set(name, folder) for name in tasks if name in QA_FILES}
    return Materials(running, tuple(common_words(list(texts), 20_000)), questions)


def tasks_for(names: Sequence[str], folder: Path | None) -> tuple[str, ...]:
    """The requested tasks, in order; by default all whose files exist. Raises UsageError for an unknown one."""
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise UsageError(f"Unknown RULER task {unknown[0]!r}.", hint=f"Of: {', '.join(TASKS)}.")
    return tuple(names) or tuple(
        name for name in TASKS if name not in QA_FILES or (folder is not None and (folder / QA_FILES[name]).exists())
    )


def ruler_documents(
    materials: Materials,
    count: Callable[[str], int],
    lengths: Sequence[int],
    tasks: Sequence[str],
    *,
    samples: int,
    seed: int = 0,
) -> Iterator[PlannedDocument[Exam]]:
    """`samples` documents with one question each per task and length. `count` returns a text's length in tokens."""
    fitted = lru_cache(maxsize=None)(lambda name, length: _fitting_size(materials, count, name, length, seed))
    for length in lengths:
        for name in tasks:
            for number in range(samples):
                yield PlannedDocument(
                    Cell(name, length), number, 1, _maker(materials, count, name, length, number, seed, fitted)
                )


def _maker(
    materials: Materials,
    count: Callable[[str], int],
    name: str,
    length: int,
    number: int,
    seed: int,
    fitted: Callable[[str, int], int],
) -> Callable[[], Exam]:
    task = TASKS[name]

    def make() -> Exam:
        size, step = fitted(name, length), task.step_at(length)
        while True:
            draft = _draft(materials, name, size, length, number, seed)
            if size <= step or _tokens(draft, count) + task.max_tokens <= length:
                break
            size = max(step, size - step)
        return Exam(
            draft.document, (Question(draft.question, draft.answers, begun=draft.begun),), task.score, task.max_tokens
        )

    return make


def _draft(materials: Materials, name: str, size: int, length: int, number: int, seed: int) -> Draft:
    rng = random.Random(f"{seed} {name} {length} {number}")  # noqa: S311
    return TASKS[name].build(materials, size, Draw(number, length, rng))


def _tokens(draft: Draft, count: Callable[[str], int]) -> int:
    return count(draft.document) + count(draft.question + draft.begun)


def _fitting_size(materials: Materials, count: Callable[[str], int], name: str, length: int, seed: int) -> int:
    """The largest size whose document, question and answer stay within `length`; the smallest where none does.

    Raises UsageError where even a document of the smallest size is twice too long.
    """
    task = TASKS[name]
    room, step = length - task.max_tokens, task.step_at(length)

    def tokens(size: int) -> int:
        return _tokens(_draft(materials, name, size, length, 0, seed), count)

    least = tokens(step)
    if least > 2 * room:
        raise UsageError(f"The RULER task {name} does not fit into {length} tokens.", hint="Greater --lengths.")
    low, high = step, 2 * step
    while high < room and tokens(high) <= room:  # every unit of size has a token at least
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if tokens(middle) <= room else (low, middle)
    return low


def _question_set(name: str, folder: Path | None) -> QuestionSet:
    path = (folder or Path()) / QA_FILES[name]
    if folder is None or not path.exists():
        raise DocumentError(f"RULER's {name} needs {QA_FILES[name]}.", hint=f"--data FOLDER with {_QA_SOURCES}.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        read = _squad if name == "qa_1" else _hotpot
        found = read(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DocumentError(f"{path.name} is not in its published form ({error})", hint=_QA_SOURCES) from None
    if not found.items:
        raise DocumentError(f"{path.name} holds no questions.")
    return found


def _squad(data: Any) -> QuestionSet:
    articles = [[paragraph["context"] for paragraph in article["paragraphs"]] for article in data["data"]]
    passages = sorted({passage for article in articles for passage in article})
    place = {passage: index for index, passage in enumerate(passages)}
    items = []
    for article, contexts in zip(data["data"], articles, strict=True):
        for paragraph in article["paragraphs"]:
            own = place[paragraph["context"]]
            related = tuple(dict.fromkeys(place[text] for text in contexts if place[text] != own))
            for item in paragraph["qas"]:
                if not item.get("is_impossible", False):
                    answers = tuple(answer["text"] for answer in item["answers"])
                    items.append((item["question"], answers, (own,), related))
    return QuestionSet(tuple(passages), tuple(items))


def _hotpot(data: Any) -> QuestionSet:
    def passage(title: str, sentences: list[str]) -> str:
        return f"{title}\n{''.join(sentences)}"

    passages = sorted({passage(title, sentences) for item in data for title, sentences in item["context"]})
    place = {text: index for index, text in enumerate(passages)}
    items = tuple(
        (item["question"], (item["answer"],), tuple(place[passage(*pair)] for pair in item["context"]), ())
        for item in data
    )
    return QuestionSet(tuple(passages), items)
