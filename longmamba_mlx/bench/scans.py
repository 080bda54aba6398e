"""The scans alone: this machine's implementation, the plain reference, and mlx-lm's for Mamba-2."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from longmamba_mlx.bench.worker import pin

_SECONDS = 2.0


def main(job: dict[str, Any]) -> list[dict[str, Any]]:
    """job: threads, lengths, rounds -> rows for the shapes of one layer of a 130m model, filter on.

    The implementations take turns within a round.
    """
    pin(job["threads"])
    rows = []
    for length in job["lengths"]:
        for family, works in (("mamba", _mamba(length)), ("mamba2", _mamba2(length))):
            times: dict[str, list[float]] = {name: [] for name in works}
            for _ in range(job["rounds"]):
                for name, work in works.items():
                    times[name].append(_seconds(work))
            ours = times["longmamba-mlx"]
            for name, seconds in times.items():
                ratios = [theirs / own for theirs, own in zip(seconds, ours, strict=True)]
                rows.append({"family": family, "engine": name, "work": "scan", "tokens": length,
                             "tokens_per_second": length / median(seconds), "ours_times_faster": median(ratios),
                             "ratios": ratios, "peak_rss_mib": None})  # fmt: skip
    return rows


def _seconds(work: Callable[[], None]) -> float:
    """The median time of a run, over at most two seconds."""
    work()
    times: list[float] = []
    while not times or (sum(times) < _SECONDS and len(times) < 20):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def _mamba(length: int) -> dict[str, Callable[[], None]]:
    import mlx.core as mx

    from longmamba_mlx import ops

    d, n = 1536, 16
    rng = np.random.default_rng(0)
    x, z = (mx.array(rng.standard_normal((1, length, d), dtype=np.float32)) for _ in range(2))
    raw = mx.array(rng.uniform(-7, -2, (1, length, d)).astype(np.float32))
    rates = -mx.broadcast_to(mx.arange(1, n + 1, dtype=mx.float32), (d, n))
    b, c = (mx.array(rng.standard_normal((1, length, n), dtype=np.float32)) for _ in range(2))
    threshold = mx.full((d,), -5.5)

    def scan() -> None:
        mx.eval(*ops.selective_scan(x, raw, rates, b, c, D=mx.ones(d), z=z, threshold=threshold))

    return _both(scan)


def _mamba2(length: int) -> dict[str, Callable[[], None]]:
    import mlx.core as mx
    from mlx_lm.models.ssm import ssm_attn

    from longmamba_mlx import ops

    h, p, n = 24, 64, 128
    rng = np.random.default_rng(0)
    x = mx.array(rng.standard_normal((1, length, h, p), dtype=np.float32))
    raw = mx.array(rng.uniform(-7, -2, (1, length, h)).astype(np.float32))
    a_log = mx.log(mx.arange(1, h + 1, dtype=mx.float32))
    b, c = (mx.array(rng.standard_normal((1, length, 1, n), dtype=np.float32)) for _ in range(2))
    threshold, ones = mx.full((h,), -5.5), mx.ones(h)

    def scan() -> None:
        mx.eval(*ops.ssd_scan(x, raw, -mx.exp(a_log), b, c, D=ones, threshold=threshold))

    def peer() -> None:
        mx.eval(*ssm_attn(x, a_log, b, c, ones, raw, mx.zeros(h), time_step_limit=(0.0, float("inf"))))

    return {**_both(scan), "mlx-lm": peer}


def _both(scan: Callable[[], None]) -> dict[str, Callable[[], None]]:
    def reference() -> None:
        os.environ["LONGMAMBA_KERNEL"] = "reference"
        try:
            scan()
        finally:
            del os.environ["LONGMAMBA_KERNEL"]

    return {"longmamba-mlx": scan, "longmamba-mlx reference": reference}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
