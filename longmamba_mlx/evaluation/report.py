"""Aggregate samples to rows: means, standard errors, and each filter's gain over the first one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from longmamba_mlx.evaluation.samples import Cell, Sample
from longmamba_mlx.evaluation.statistics import Gain, estimate, paired_gain


@dataclass(frozen=True, slots=True)
class Row:
    """One cell with one filter. `length` in tokens of document (their mean where documents have their own); `depth`
    None: anywhere; `accuracy` the mean score, None where only the likelihood is measured, whose standard error
    `stderr` then is; `stderr` over documents, not questions; `nll` of the right answer (or the scored text), nats per
    token; `nll_whole` over a whole window; `refused` the share of answers that say the document does not contain it;
    `part` the kind of question, "" for all of the cell's."""

    task: str
    group: str
    filter: str
    length: int
    depth: float | None
    samples: int
    documents: int
    accuracy: float | None
    stderr: float
    nll: float | None
    nll_whole: float | None
    refused: float
    gain: Gain | None
    part: str = ""


def rows(samples: Iterable[Sample], *, likelihood: bool = False) -> list[Row]:
    """One row per cell and filter, in order of first occurrence; then one per part of a cell with several.

    The gain is over the first filter of a cell. `likelihood`: compare the negative log-likelihood (lower is better,
    gains are drops), without an accuracy.
    """
    grouped: dict[tuple[Cell, str], dict[str, list[Sample]]] = {}
    for sample in samples:
        for part in dict.fromkeys(("", sample.part)):
            grouped.setdefault((sample.cell, part), {}).setdefault(sample.filter, []).append(sample)
    ordered = sorted(grouped.items(), key=lambda item: bool(item[0][1]))
    return [_row(cell, part, name, found, likelihood) for (cell, part), found in ordered for name in found]


def _row(cell: Cell, part: str, name: str, found: dict[str, list[Sample]], likelihood: bool) -> Row:
    """The row of filter `name` from a cell's samples by filter."""
    samples, over = found[name], next(iter(found))
    scores = by_document(samples, likelihood)
    mean = estimate(list(scores.values()))
    gain = None if name == over else paired_gain(scores, by_document(found[over], likelihood), over)
    return Row(
        task=cell.task,
        group=cell.group,
        filter=name,
        length=cell.length or round(statistics.mean(sample.tokens for sample in samples)),
        depth=cell.depth,
        samples=len(samples),
        documents=mean.documents,
        accuracy=None if likelihood else mean.mean,
        stderr=mean.stderr,
        nll=_mean([sample.nll for sample in samples]),
        nll_whole=_mean([sample.nll_whole for sample in samples]),
        refused=float(statistics.mean(not sample.found for sample in samples)),
        gain=gain,
        part=part,
    )


def by_document(samples: Sequence[Sample], likelihood: bool = False) -> dict[str, float]:
    """Document -> the mean of its samples' scores; with `likelihood`, of the log-likelihood (higher is better)."""
    values: dict[str, list[float]] = {}
    for sample in samples:
        score = -(sample.nll or 0.0) if likelihood else sample.score
        values.setdefault(str(sample.document), []).append(score)
    return {document: statistics.mean(scores) for document, scores in values.items()}


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return statistics.mean(there) if there else None
