"""One measurement in a process of its own: `python -m longmamba_mlx.bench.worker JOB`, JOB and answer in JSON.

The process is new, so its peak memory is this job's alone, and one engine's threads, allocator or caches cannot
help or hurt another's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from longmamba_mlx.bench.engines import ENGINES, Engine
from longmamba_mlx.system import peak_bytes

MIB = 1 << 20
DECODE_AFTER = 64  # tokens before decoding begins
KEPT_LOGITS = 64  # how many logits are returned, for the comparison between engines


def main(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a job: engine, folder, vocabulary, threads, lengths (ascending), decode (steps), patience.

    A length that would take more than `patience` seconds at the rate of the one before is left out.
    """
    pin(job["threads"])
    engine = ENGINES[job["engine"]](Path(job["folder"]), job["threads"])
    vocabulary = job["vocabulary"]
    engine.prefill(_ids(0, 32, vocabulary))  # warm: first-time work is nobody's speed
    rows: list[dict[str, Any]] = []
    for length in job["lengths"]:
        if rows and rows[-1]["seconds"] / rows[-1]["tokens"] * length > job["patience"]:
            break
        ids = _ids(length, length, vocabulary)
        started = time.perf_counter()
        logits = engine.prefill(ids)
        rows.append(_row("prefill", length, time.perf_counter() - started, logits))
    if job["decode"]:
        rows.append(_decode(engine, job["decode"], vocabulary))
    return rows


def _decode(engine: Engine, steps: int, vocabulary: int) -> dict[str, Any]:
    engine.prefill(_ids(1, DECODE_AFTER, vocabulary))
    tokens = _ids(2, steps + 4, vocabulary)
    for token in tokens[:4]:
        engine.step(int(token))
    started = time.perf_counter()
    for token in tokens[4:]:
        logits = engine.step(int(token))
    return _row("decode", steps, time.perf_counter() - started, logits)


def _ids(seed: int, count: int, vocabulary: int) -> Any:
    return np.random.default_rng(seed).integers(0, vocabulary, count).astype(np.uint32)


def _row(work: str, tokens: int, seconds: float, logits: Any) -> dict[str, Any]:
    return {
        "work": work,
        "tokens": tokens,
        "seconds": seconds,
        "peak_rss_mib": peak_bytes() / MIB,
        "logits": [float(value) for value in logits[:KEPT_LOGITS]],
        "largest": float(np.abs(logits).max()),
    }


def pin(threads: int) -> None:
    """Stay on the first cores, where the system knows how."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
