"""One reading of a given length in a process of its own, for the speed, the filter's cost and the peak memory."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

from longmamba_mlx.bench.worker import MIB, pin
from longmamba_mlx.system import peak_bytes


def main(job: dict[str, Any]) -> dict[str, Any]:
    """job: model, filter, tokens, threads -> seconds, cpu_seconds, tokens, peak_rss_mib, loaded_rss_mib,
    filtered."""
    pin(job["threads"])
    from longmamba_mlx import builtin
    from longmamba_mlx.documents import read_document
    from longmamba_mlx.inference.prefill import prefill
    from longmamba_mlx.session.api import load

    model = load(job["model"], filter=job["filter"])
    once = model.tokenizer.encode(read_document(builtin.sample_document()).text)
    ids = np.resize(once, job["tokens"])
    prefill(model.network, ids[:1024], None, logits="none")
    plan, loaded = model.plan(len(ids), ids), peak_bytes()
    started, cpu_started = time.perf_counter(), time.process_time()
    prefill(model.network, ids, plan, logits="last")
    return {
        "tokens": len(ids),
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "peak_rss_mib": peak_bytes() / MIB,
        "loaded_rss_mib": loaded / MIB,
        "filtered": plan is not None,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
