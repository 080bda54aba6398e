"""LongBench and LongBench-E (arXiv 2308.14508): the published JSONL, prompts, answer lengths and scores.

The document is the prompt up to and including its context; the rest is the question. Long prompts are not truncated: a
recurrent model has no maximum length. LongBench-E reports results by the published lengths (in words).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longmamba_mlx.errors import DocumentError, UsageError
from longmamba_mlx.evaluation import metrics
from longmamba_mlx.evaluation.longbench_prompts import LONGEST, PROMPTS
from longmamba_mlx.evaluation.measure import Exam, PlannedDocument, Question
from longmamba_mlx.evaluation.samples import Cell
from longmamba_mlx.paths import private_folder

HUB_DATASET = "THUDM/LongBench"
_FILES = f"data.zip of the Hub data set {HUB_DATASET}, unpacked: one NAME.jsonl (NAME_e.jsonl for LongBench-E) a task"

_FIRST_LINE = frozenset(("trec", "triviaqa", "samsum", "lsht"))
_PLAIN: Mapping[str, Callable[[str, str], float]] = {
    **dict.fromkeys(("gov_report", "qmsum", "multi_news", "samsum"), metrics.rouge_l),
    **dict.fromkeys(("dureader", "vcsum"), metrics.rouge_l_chinese),
    **dict.fromkeys(("passage_count", "passage_retrieval_en", "passage_retrieval_zh"), metrics.number_score),
    **dict.fromkeys(("lcc", "repobench-p"), metrics.code_score),
    "multifieldqa_zh": metrics.token_f1_chinese,
}
ENGLISH_E = (
    "qasper multifieldqa_en hotpotqa 2wikimqa gov_report multi_news trec triviaqa samsum passage_count "
    "passage_retrieval_en lcc repobench-p"
).split()
NAMES = tuple(PROMPTS)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the published files."""

    context: str
    input: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]
    length: int


def longbench_documents(
    folder: Path, names: Sequence[str], *, extended: bool, samples: int | None = None
) -> Iterator[PlannedDocument[Exam]]:
    """All documents of the requested tasks (of LongBench-E if `extended`), or the first `samples` of each.

    Raises UsageError for an unknown task, DocumentError for a missing or invalid file.
    """
    known = ENGLISH_E if extended else NAMES
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"Unknown LongBench task {unknown[0]!r}.", hint=f"Of: {', '.join(known)}.")
    there = list(names) or [name for name in known if _path(folder, name, extended).exists()]
    if not there:
        raise DocumentError(f"No LongBench files in {folder}.", hint=f"--data FOLDER with {_FILES}.")
    for name in there:
        for number, item in enumerate(_items(_path(folder, name, extended), samples)):
            group = _length_group(item.length) if extended else ""
            yield PlannedDocument(Cell(name, 0, None, group), number, 1, _maker(name, item))


def _maker(name: str, item: Item) -> Callable[[], Exam]:
    def make() -> Exam:
        document, question = split_prompt(name, item.context, item.input)
        return Exam(
            document, (Question(question, item.answers),), _scorer(name, item.classes), LONGEST[name], likelihood=False
        )

    return make


def split_prompt(name: str, context: str, question: str) -> tuple[str, str]:
    """The published prompt, cut after its context."""
    before, after = PROMPTS[name].split("{context}")
    return before + context, after.replace("{input}", question)


def _scorer(name: str, classes: Sequence[str]) -> Callable[[str, Sequence[str]], float]:
    def score(answer: str, references: Sequence[str]) -> float:
        if name in _FIRST_LINE:
            answer = answer.lstrip("\n").split("\n")[0]
        if name in ("trec", "lsht"):
            return max((metrics.class_score(answer, reference, classes) for reference in references), default=0.0)
        one = _PLAIN.get(name, metrics.token_f1)
        return max((one(answer, reference) for reference in references), default=0.0)

    return score


def _length_group(words: int) -> str:
    return "0-4k" if words < 4000 else "4-8k" if words < 8000 else "8k+"


def _path(folder: Path, name: str, extended: bool) -> Path:
    file = f"{name}_e.jsonl" if extended else f"{name}.jsonl"
    return folder / "data" / file if (folder / "data" / file).exists() else folder / file


def _items(path: Path, samples: int | None) -> Iterator[Item]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DocumentError(f"Cannot read {path}: {error.strerror}.", hint=f"--data FOLDER with {_FILES}.") from None
    for number, line in enumerate(lines[:samples], 1):
        try:
            yield _item(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise DocumentError(f"{path.name}, line {number} is not in its published form ({error})") from None


def _item(values: Mapping[str, Any]) -> Item:
    answers, classes = values["answers"], values.get("all_classes") or ()
    if not all(isinstance(values[key], str) for key in ("context", "input")) or not isinstance(answers, list):
        raise TypeError("context, input or answers")
    return Item(values["context"], values["input"], tuple(answers), tuple(classes), int(values.get("length", 0)))


def data_folder(given: Path | None, target: Path, *, offline: bool) -> Path:
    """The folder with the published files: the one given, else `target`, into which the Hub's data.zip is unpacked.

    Raises DocumentError, naming the files to get, when there is none and the Hub cannot be reached.
    """
    if given is not None:
        return given
    if not any(target.glob("**/*.jsonl")):
        _download(target, offline)
    return target


def _download(target: Path, offline: bool) -> None:
    hint = f"--data FOLDER with {_FILES}."
    if offline:
        raise DocumentError("LongBench is not on this machine.", hint=hint)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        archive = hf_hub_download(HUB_DATASET, "data.zip", repo_type="dataset")
        with zipfile.ZipFile(archive) as file:
            for entry in file.infolist():
                name = Path(entry.filename).name  # never a path out of the target folder
                if name.endswith(".jsonl"):
                    private_folder(target)
                    (target / name).write_bytes(file.read(entry))
    except (OSError, ValueError, HfHubHTTPError, zipfile.BadZipFile):
        raise DocumentError("LongBench could not be fetched from the Hub.", hint=hint) from None
