"""The five benchmarks: each gives rows for the report."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from longmamba_mlx import builtin
from longmamba_mlx.bench import random_checkpoint, subprocesses
from longmamba_mlx.bench.engines import ENGINES
from longmamba_mlx.bench.random_checkpoint import SHAPES
from longmamba_mlx.bench.rounds import OURS, Comparison, Log, interleaved, summary
from longmamba_mlx.errors import UsageError
from longmamba_mlx.paths import benchmark_folder

Rows = list[dict[str, Any]]


def peers(families: Sequence[str], lengths: Sequence[int], *, rounds: int, threads: int, decode: int,
          patience: float, log: Log, engines: Sequence[str] = tuple(ENGINES)) -> Rows:  # fmt: skip
    """Every installed engine on the same random checkpoint with the shapes of a 130m model."""
    rows: Rows = []
    for family in families:
        if family not in SHAPES:
            raise UsageError(f"There is no family {family!r}.", hint=f"One of: {', '.join(SHAPES)}.")
        shape = SHAPES[family]
        log(f"{family}, {shape.n_layer} layers, d_model {shape.d_model}, {threads} thread(s)")
        folder = random_checkpoint.make(shape, benchmark_folder() / f"{family}-130m")
        comparison = Comparison(
            shape, folder, tuple(engines), tuple(sorted(lengths)), decode, rounds, threads, patience
        )
        rows += summary(list(interleaved(comparison, log)), family)
    return rows


def decode(families: Sequence[str], *, rounds: int, threads: int, steps: int, log: Log) -> Rows:
    """Decoding by this package, beside the time of reading all weights once."""
    return peers(families, (), rounds=rounds, threads=threads, decode=steps, patience=math.inf, log=log,
                 engines=(OURS,))  # fmt: skip


def prefill(models: Sequence[str], lengths: Sequence[int], *, rounds: int, threads: int, log: Log) -> Rows:
    """Reading by length, filter off and on in turn: speed, the filter's cost, peak memory, growth. Cost and growth are
    those of the processor's time, which other work on the machine does not change much."""
    rows: Rows = []
    for model in models:
        done: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for number in range(rounds):
            for length in sorted(lengths):
                for filter in ("off", "longmamba"):
                    job = {"model": model, "filter": filter, "tokens": length, "threads": threads}
                    found = subprocesses.run("reads", job, threads=threads)
                    done.setdefault((filter, length), []).append(found)
                    log(f"round {number + 1}: {model}, filter {filter}, {length:,} tokens: "
                        f"{length / found['seconds']:,.0f} tokens/s, {found['peak_rss_mib']:.1f} MiB")  # fmt: skip
        rows += _reading_rows(model, done)
    return rows


def _reading_rows(model: str, done: dict[tuple[str, int], list[dict[str, Any]]]) -> Rows:
    rows: Rows = []
    for (filter, length), found in done.items():
        off = done["off", length]
        cost = [on["cpu_seconds"] / without["cpu_seconds"] - 1 for on, without in zip(found, off, strict=True)]
        rates = [length / one["seconds"] for one in found]
        rows.append(
            {
                "model": model,
                "engine": OURS,
                "work": "prefill",
                "filter": filter,
                "filtered": found[0]["filtered"],
                "tokens": length,
                "tokens_per_second": median(rates),
                "lowest": min(rates),
                "highest": max(rates),
                "tokens_per_cpu_second": median(length / one["cpu_seconds"] for one in found),
                "filter_cost": None if filter == "off" else median(cost),
                "peak_rss_mib": median(one["peak_rss_mib"] for one in found),
                "loaded_rss_mib": median(one["loaded_rss_mib"] for one in found),
            }
        )
    for filter in ("off", "longmamba"):
        of_filter = [row for row in rows if row["filter"] == filter]
        exponent = growth([(row["tokens"], row["tokens"] / row["tokens_per_cpu_second"]) for row in of_filter])
        for row in of_filter:
            row["time_grows_as_length_to_the"] = exponent
    return rows


def growth(points: Sequence[tuple[float, float]]) -> float | None:
    """The exponent e of seconds ~ tokens^e by least squares on logarithms; None for fewer than two lengths."""
    if len(points) < 2:
        return None
    xs, ys = zip(*((math.log(x), math.log(y)) for x, y in points), strict=True)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return float(sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread)


def scan(lengths: Sequence[int], *, rounds: int, threads: int) -> Rows:
    """One layer's scan alone, by implementation."""
    job = {"lengths": sorted(lengths), "rounds": rounds, "threads": threads}
    rows: Rows = subprocesses.run("scans", job, threads=threads)
    return rows


def reopen(models: Sequence[str], *, rounds: int, threads: int, log: Log) -> Rows:
    """A document read before: how long until its state is ready, and until the shell has an answer."""
    rows: Rows = []
    with tempfile.TemporaryDirectory() as home:
        for model in models:
            command = [sys.executable, "-m", "longmamba_mlx", "ask", "--model", model, "--json",
                       "--file", str(builtin.sample_document()), "What is the access code of Nobody?"]  # fmt: skip
            walls = [_wall(command, home, threads) for _ in range(rounds + 1)]
            inside = [subprocesses.run("reopens", {"model": model, "home": home, "threads": threads}, threads=threads)
                      for _ in range(rounds)]  # fmt: skip
            row = {"model": model, "engine": OURS, "work": "reopen", "tokens": inside[0]["tokens"],
                   "first_time_seconds": walls[0], "shell_to_answer_seconds": median(walls[1:]),
                   "load_seconds": median(one["load"] for one in inside),
                   "state_ready_seconds": median(one["state"] for one in inside),
                   "answer_seconds": median(one["answer"] for one in inside),
                   "tokens_per_second": inside[0]["tokens"] / median(walls[1:]),
                   "peak_rss_mib": max(one["peak_rss_mib"] for one in inside)}  # fmt: skip
            log(f"{model}: state ready in {row['state_ready_seconds'] * 1000:.0f} ms, answer from the shell in "
                f"{row['shell_to_answer_seconds']:.2f} s (first time {row['first_time_seconds']:.2f} s)")  # fmt: skip
            rows.append(row)
    return rows


def _wall(command: list[str], home: str, threads: int) -> float:
    environment = os.environ | {"LONGMAMBA_HOME": home, "OPENBLAS_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise subprocesses.BenchmarkError((done.stderr.strip().splitlines() or ["ask failed"])[-1])
    return time.perf_counter() - started
