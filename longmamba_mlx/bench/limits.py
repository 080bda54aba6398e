"""What the machine itself allows: matrix products alone, and reading the weights once.

Run as a process like the engines, in the same rounds: a limit measured at another time is another machine's.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from longmamba_mlx.bench.worker import pin

_ROWS = 512
_SECONDS = 1.0


def main(job: dict[str, Any]) -> dict[str, float]:
    """job: threads, matrices [[out, in], ...] of a layer, layers, bytes (of all weights).

    -> prefill: tokens/s if a model were its matrix products alone (512 tokens at once, float32, NumPy's BLAS);
    decode: tokens/s if a step were reading all weights once, at the speed of a matrix-vector product.
    """
    pin(job["threads"])
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((out, width), dtype=np.float32) for out, width in job["matrices"]]
    inputs = [rng.standard_normal((_ROWS, width), dtype=np.float32) for _, width in job["matrices"]]
    seconds = _best(lambda: [np.matmul(x, matrix.T) for x, matrix in zip(inputs, matrices, strict=True)])
    # Far larger than any cache, so that memory is what is measured.
    large = rng.standard_normal((1 << 16, 1 << 10), dtype=np.float32)
    vector = rng.standard_normal(1 << 10, dtype=np.float32)
    reading = _best(lambda: np.matmul(large, vector))
    return {
        "prefill": _ROWS / (seconds * job["layers"]),
        "decode": large.nbytes / reading / job["bytes"],
        "bytes_per_second": large.nbytes / reading,
    }


def _best(work: Any) -> float:
    """Seconds of the fastest run within about a second: a limit is what the machine can do undisturbed."""
    work()
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
