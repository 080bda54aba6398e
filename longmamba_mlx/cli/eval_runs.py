"""Bodies of `eval`: print rows as they are measured; write all of them as JSON and as a figure at the end.

Every measured question is stored at once: the same command resumes an interrupted run, and another filter, another
length or more samples are only added.
"""

from __future__ import annotations

import hashlib
import json as json_module
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from longmamba_mlx.cli.eval_table import Bar, Table
from longmamba_mlx.errors import DiskError, DocumentError, UsageError

if TYPE_CHECKING:
    from longmamba_mlx.evaluation.measure import PlannedDocument, Reader
    from longmamba_mlx.evaluation.needles import Filler
    from longmamba_mlx.evaluation.report import Row
    from longmamba_mlx.evaluation.samples import Sample
    from longmamba_mlx.session.api import Model

Content = TypeVar("Content")


@dataclass(frozen=True)
class Texts:
    """Files that documents are built from, and their encoding; "" detects it."""

    paths: list[Path] = field(default_factory=list)
    encoding: str = ""


@dataclass(frozen=True)
class Measurement:
    """What all of them share: the options of the command line."""

    model: str
    filter: str
    lengths: str
    samples: int
    seed: int
    json: Path | None
    plot: Path | None
    log: Path | None

    @cached_property
    def loaded(self) -> Model:
        from longmamba_mlx.session.api import load

        return load(self.model, filter="off")

    @property
    def tokens(self) -> list[int]:
        """The requested lengths in tokens."""
        from longmamba_mlx.evaluation.niah import parse_lengths

        return parse_lengths(self.lengths, self.loaded.training_length)

    def count(self, text: str) -> int:
        """A text's length in tokens."""
        return len(self.loaded.tokenizer.encode(text))

    def run(
        self,
        task: str,
        documents: Sequence[PlannedDocument[Content]],
        facts: Mapping[str, object],
        take: Callable[[Reader, PlannedDocument[Content], Content], list[Sample]],
        *,
        text: str,
        likelihood: bool = False,
    ) -> None:
        """Measure all documents, print each row when it is complete, and write the requested files.

        `facts` decide documents, questions and scores; `text` is what a model is measured on that never was.
        """
        from longmamba_mlx.evaluation import plots, report
        from longmamba_mlx.evaluation.measure import measure, readers_for
        from longmamba_mlx.evaluation.samples import SampleLog

        if self.plot is not None:
            plots.require_matplotlib()
        readers = readers_for(self.loaded, self.filter.split(","), text)
        table = Table(self.loaded.training_length, likelihood)
        with Bar(len(documents) * len(readers)) as bar:
            samples: list[Sample] = []
            for sample in measure(documents, readers, SampleLog(self._log(task)), facts, take, on_document=bar.show):
                if samples and sample.cell != samples[-1].cell:
                    table.print(samples[-1].cell, samples, bar)
                samples.append(sample)
            if samples:
                table.print(samples[-1].cell, samples, bar)
        rows = report.rows(samples, likelihood=likelihood)
        if self.json is not None:
            _write(self.json, json_module.dumps(self._report(task, facts, readers, rows), indent=1) + "\n")
        if self.plot is not None:
            plots.draw(
                [row for row in rows if not row.part],
                self.plot,
                title=f"{self.model}: {task}",
                training_length=self.loaded.training_length,
            )

    def _log(self, task: str) -> Path:
        from longmamba_mlx.paths import evaluation_folder, private_folder

        if self.log is not None:
            return self.log
        if self.json is not None:
            return self.json.with_suffix(".samples.jsonl")
        return private_folder(evaluation_folder()) / f"{task}.jsonl"

    def _report(
        self, task: str, facts: Mapping[str, object], readers: Sequence[Reader], rows: Sequence[Row]
    ) -> dict[str, Any]:
        return {
            "model": self.model,
            "task": task,
            "training_length": self.loaded.training_length,
            "filters": {reader.name: reader.model.policy.canonical() for reader in readers},
            **{key: value for key, value in facts.items() if key != "task"},
            "rows": [_plain(asdict(row)) for row in rows],
        }


def measure_niah(run: Measurement, *, depths: str, facts: int, split: str, filler: Texts, absent: bool) -> None:
    """Needles, anywhere or on a grid of depths."""
    from longmamba_mlx.evaluation.measure import run_exam
    from longmamba_mlx.evaluation.niah import niah_documents, parse_depths

    _check_split(split)
    places = parse_depths(depths)
    facts = facts or (1 if places else 4)
    texts, names = _texts(filler)
    documents = niah_documents(
        _filler(run, texts), run.tokens, samples=run.samples, facts=facts, depths=places, split=split, absent=absent,
        seed=run.seed,
    )  # fmt: skip
    task = "niah-absent" if absent else "niah"
    known = {"task": task, "facts": facts, "split": split, "seed": run.seed, "filler": names, "digest": _digest(texts)}
    run.run(task, list(documents), known, run_exam, text="\n".join(texts))


def measure_attributes(
    run: Measurement, attributes: str, *, depths: str, facts: int, split: str, filler: Texts, absent: bool
) -> None:
    """Facts of many kinds, in several wordings, among similar sentences."""
    from longmamba_mlx.evaluation.attribute_exam import CHOICES, attribute_documents
    from longmamba_mlx.evaluation.measure import run_exam

    _check_split(split)
    if attributes not in CHOICES:
        raise UsageError(f"Unknown attributes {attributes!r}.", hint=f"One of: {', '.join(CHOICES)}.")
    if depths:
        raise UsageError("--attributes hides facts anywhere.", hint="Leave out --depths.")
    texts, names = _texts(filler)
    facts = facts or 4
    documents = attribute_documents(
        _filler(run, texts), run.tokens, samples=run.samples, facts=facts, attributes=attributes, split=split,
        absent=absent, seed=run.seed,
    )  # fmt: skip
    task = "attributes-absent" if absent else "attributes"
    known = {"task": task, "attributes": attributes, "facts": facts, "split": split, "seed": run.seed,
             "filler": names, "digest": _digest(texts)}  # fmt: skip
    run.run(task, list(documents), known, run_exam, text="\n".join(texts))


def measure_passkey(run: Measurement, *, depths: str) -> None:
    """The pass key, anywhere or on a grid of depths."""
    from longmamba_mlx.evaluation.measure import run_exam
    from longmamba_mlx.evaluation.niah import parse_depths, passkey_documents

    documents = passkey_documents(
        run.count, run.tokens, samples=run.samples, depths=parse_depths(depths), seed=run.seed
    )
    run.run("passkey", list(documents), {"task": "passkey", "seed": run.seed}, run_exam, text=_texts(Texts())[0][0])


def measure_perplexity(run: Measurement, *, texts: Texts) -> None:
    """Windows of books."""
    from longmamba_mlx.evaluation.perplexity import perplexity_documents, take_window

    if "surest" in _words(run.filter):
        raise UsageError("The surest part answers questions; perplexity asks none.", hint="Leave `surest` out.")
    read, names = _texts(replace(texts, paths=_files(texts.paths)))
    books = {name: run.loaded.tokenizer.encode(text) for name, text in zip(names, read, strict=True)}
    documents, short = perplexity_documents(books, run.tokens, samples=run.samples)
    if short:
        print(f"Note: {len(short)} of {len(books)} texts are too short for the longest window.", file=sys.stderr)
    known = {"task": "ppl", "texts": [name for name in names if name not in short], "digest": _digest(read),
             "windows": run.samples, "longest": max(run.tokens)}  # fmt: skip
    run.run("ppl", documents, known, take_window, text=max(read, key=len), likelihood=True)


def measure_ruler(run: Measurement, *, tasks: str, filler: Texts, data: Path | None) -> None:
    """RULER's tasks."""
    from longmamba_mlx.evaluation.measure import run_exam
    from longmamba_mlx.evaluation.ruler import QA_FILES, materials_from, ruler_documents, tasks_for

    chosen = tasks_for(_words(tasks), data)
    left_out = [f"{name} ({file})" for name, file in QA_FILES.items() if name not in chosen and not tasks]
    if left_out:
        print(f"Note: without its file in --data: {', '.join(left_out)}.", file=sys.stderr)
    texts, names = _texts(filler)
    materials = materials_from(texts, data, chosen)
    documents = ruler_documents(materials, run.count, run.tokens, chosen, samples=run.samples, seed=run.seed)
    known = {"task": "ruler", "seed": run.seed, "filler": names, "digest": _digest(texts)}
    run.run("ruler", list(documents), known, run_exam, text="\n".join(texts))


def measure_longbench(run: Measurement, *, tasks: str, data: Path | None, extended: bool, offline: bool) -> None:
    """LongBench's tasks."""
    from longmamba_mlx.evaluation.longbench import data_folder, longbench_documents
    from longmamba_mlx.evaluation.measure import run_exam
    from longmamba_mlx.paths import evaluation_folder

    folder = data_folder(data, evaluation_folder() / "LongBench", offline=offline)
    documents = list(longbench_documents(folder, _words(tasks), extended=extended, samples=run.samples or None))
    task = "longbench-e" if extended else "longbench"
    run.run(task, documents, {"task": task}, run_exam, text=documents[0].make().document)


def _check_split(split: str) -> None:
    if split not in ("dev", "test", "train"):
        raise UsageError(f"Unknown split {split!r}.", hint="One of: dev, test, train.")


def _plain(value: Any) -> Any:
    """NaN has no place in JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _texts(given: Texts) -> tuple[list[str], list[str]]:
    """Texts and their names; the sample document without paths."""
    from longmamba_mlx.builtin import sample_document
    from longmamba_mlx.documents import read_document

    names = [path.name for path in given.paths] or ["built-in sample"]
    paths = given.paths or [sample_document()]
    return [read_document(path, encoding=given.encoding).text for path in paths], names


def _files(paths: list[Path]) -> list[Path]:
    """The texts, including those in folders. Raises DocumentError if there are none."""
    found = [file for path in paths for file in (sorted(path.glob("*.txt")) if path.is_dir() else [path])]
    if not found:
        raise DocumentError("There are no .txt files.", hint="PG-19's test books, one .txt each: --text FOLDER")
    return found


def _filler(run: Measurement, texts: list[str]) -> Filler:
    from longmamba_mlx.evaluation.needles import Filler

    return Filler(texts, run.count)


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    from longmamba_mlx.storage.atomic import write_text

    try:
        write_text(path, text, private=False)
    except DiskError:
        sys.stdout.write(text)
        raise
