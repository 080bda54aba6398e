"""The limits of the machine: matrix products alone, and reading the weights once.

Run as a process like the engines, in the same rounds: a limit measured at another time is another machine's.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median
from typing import Any

import numpy as np

from longmamba_mlx.bench.worker import pin
from longmamba_mlx.ops.backend import cpu_ops

_ROWS = 512


def main(job: dict[str, Any]) -> dict[str, float]:
    """job: threads, matrices [[out, in], ...] of a layer, layers, bytes (of all weights), seconds for each product.

    -> prefill: tokens/s if a model were its matrix products alone (512 tokens at once, float32, NumPy's BLAS);
    decode: tokens/s if a step were reading all weights once, at the speed of the fastest product with a vector here.
    """
    pin(job["threads"])
    rng = np.random.default_rng(0)
    # As many matrices as the model has: each comes from memory, as in the model, and not from a cache.
    shapes = job["matrices"] * job["layers"]
    matrices = [rng.standard_normal((out, width), dtype=np.float32) for out, width in shapes]
    inputs = [rng.standard_normal((_ROWS, width), dtype=np.float32) for _, width in shapes]
    lasting = job["seconds"]
    seconds = _typical(lambda: [np.matmul(x, matrix.T) for x, matrix in zip(inputs, matrices, strict=True)], lasting)
    # Far larger than any cache, so that memory is what is measured.
    large = rng.standard_normal((1 << 16, 1 << 10), dtype=np.float32)
    vector = rng.standard_normal(1 << 10, dtype=np.float32)
    ours = cpu_ops(large.shape[1]).linear
    products = (np.vecdot, np.matmul, lambda matrix, x: ours(x[None], matrix))
    reading = min(_typical(lambda product=product: product(large, vector), lasting) for product in products)
    return {
        "prefill": _ROWS / seconds,
        "decode": large.nbytes / reading / job["bytes"],
        "bytes_per_second": large.nbytes / reading,
    }


def _typical(work: Any, lasting: float) -> float:
    """Seconds of the median run within about `lasting` seconds, at least three runs."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < lasting:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
