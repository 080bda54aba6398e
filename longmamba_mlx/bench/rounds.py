"""Run engines in turn, round by round; report medians, spread and ratios."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from longmamba_mlx.bench import subprocesses
from longmamba_mlx.bench.engines import missing
from longmamba_mlx.bench.random_checkpoint import Shape
from longmamba_mlx.bench.worker import KEPT_LOGITS

OURS = "longmamba-mlx"
LIMIT = "limit of this machine"
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One checkpoint, the engines to run it, and how.

    `patience`: seconds that one length may take. `limit_seconds`: how long each of the products runs that show the
    limits of the machine.
    """

    shape: Shape
    folder: Path
    engines: tuple[str, ...]
    lengths: tuple[int, ...]
    decode: int = 32
    rounds: int = 3
    threads: int = 1
    patience: float = 200.0
    limit_seconds: float = 2.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure of one round."""

    engine: str
    work: str
    tokens: int
    round: int
    tokens_per_second: float
    peak_rss_mib: float = 0.0
    error: float = 0.0  # of the logits against ours, relative to the largest


def interleaved(comparison: Comparison, log: Log) -> Iterator[Measured]:
    """Run all engines in turn, `rounds` times. Missing engines and skipped lengths are reported to `log`."""
    engines = []
    for engine in comparison.engines:
        reason = missing(engine)
        if reason:
            log(f"{engine} is left out: {reason}")
        else:
            engines.append(engine)
    for number in range(comparison.rounds):
        yield from _limits(comparison, number)
        ours: dict[tuple[str, int], dict[str, Any]] = {}
        for engine in engines:
            try:
                rows = subprocesses.run("worker", _job(comparison, engine), threads=comparison.threads)
            except subprocesses.BenchmarkError as error:
                log(str(error))
                continue
            if engine == OURS:
                ours = {(row["work"], row["tokens"]): row for row in rows}
            if not number:
                _tell_left_out(engine, comparison.lengths, rows, log)
            for row in rows:
                rate = row["tokens"] / row["seconds"]
                apart = _difference(row, ours.get((row["work"], row["tokens"])))
                measured = Measured(engine, row["work"], row["tokens"], number, rate, row["peak_rss_mib"], apart)
                log(f"round {number + 1}: {engine} {row['work']} {row['tokens']:,} tokens: {rate:,.1f} tokens/s")
                yield measured


def _limits(comparison: Comparison, number: int) -> Iterator[Measured]:
    shape = comparison.shape
    weights = shape.n_layer * sum(out * width for out, width in shape.matrices) + shape.vocab_size * shape.d_model
    job = {
        "matrices": shape.matrices,
        "layers": shape.n_layer,
        "bytes": 4 * weights,
        "threads": comparison.threads,
        "seconds": comparison.limit_seconds,
    }
    found = subprocesses.run("limits", job, threads=comparison.threads)
    for length in comparison.lengths:
        yield Measured(LIMIT, "prefill", length, number, found["prefill"])
    if comparison.decode:
        yield Measured(LIMIT, "decode", comparison.decode, number, found["decode"])


def _job(comparison: Comparison, engine: str) -> dict[str, Any]:
    return {
        "engine": engine,
        "folder": str(comparison.folder),
        "vocabulary": comparison.shape.vocab_size,
        "threads": comparison.threads,
        "lengths": comparison.lengths,
        "decode": comparison.decode,
        "patience": comparison.patience,
    }


def _tell_left_out(engine: str, lengths: Sequence[int], rows: list[dict[str, Any]], log: Log) -> None:
    done = [row for row in rows if row["work"] == "prefill"]
    for length in lengths[len(done) :]:
        seconds = done[-1]["seconds"] / done[-1]["tokens"] * length
        log(f"{engine} is not run at {length:,} tokens: it would take about {seconds:,.0f} s")


def _difference(row: dict[str, Any], ours: dict[str, Any] | None) -> float:
    if ours is None:
        return 0.0
    here, there = (np.array(each["logits"][:KEPT_LOGITS]) for each in (row, ours))
    return float(np.abs(here - there).max() / ours["largest"])


def summary(measured: Sequence[Measured], family: str) -> list[dict[str, Any]]:
    """Rows for people and JSON: the median over rounds, its spread, and ours / theirs within each round."""
    groups: dict[tuple[str, str, int], list[Measured]] = defaultdict(list)
    for one in measured:
        groups[one.engine, one.work, one.tokens].append(one)
    rows = []
    for (engine, work, tokens), group in groups.items():
        rates = [one.tokens_per_second for one in group]
        ours = {one.round: one.tokens_per_second for one in groups.get((OURS, work, tokens), [])}
        ratios = [ours[one.round] / one.tokens_per_second for one in group if one.round in ours]
        rows.append(
            {
                "family": family,
                "engine": engine,
                "work": work,
                "tokens": tokens,
                "tokens_per_second": median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "rounds": len(group),
                "ours_times_faster": median(ratios) if ratios else None,
                "ratios": ratios,
                "peak_rss_mib": max(one.peak_rss_mib for one in group) or None,
                "largest_logit_difference": max(one.error for one in group),
            }
        )
    return sorted(rows, key=lambda row: (row["work"] != "prefill", row["tokens"]))
