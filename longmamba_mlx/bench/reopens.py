"""Reopening a remembered document, timed inside one process."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from longmamba_mlx.bench.worker import MIB, pin
from longmamba_mlx.system import peak_bytes


def main(job: dict[str, Any]) -> dict[str, Any]:
    """job: model, home (a folder where the sample document is remembered), threads -> seconds of each part."""
    pin(job["threads"])
    os.environ["LONGMAMBA_HOME"] = job["home"]
    from longmamba_mlx import builtin
    from longmamba_mlx.events import Loaded, ReadDone
    from longmamba_mlx.session.session import Session

    started = time.perf_counter()
    session, at, tokens = Session(job["model"]), {}, 0
    for event in session.open([str(builtin.sample_document())]):
        at[type(event)] = time.perf_counter()
        if isinstance(event, ReadDone):
            tokens = event.tokens
            if not event.reopened:
                raise RuntimeError("the document was read again")
    opened = time.perf_counter()
    for _ in session.ask("What is the access code of Nobody?"):
        pass
    return {
        "load": at[Loaded] - started,
        "state": opened - at[Loaded],
        "answer": time.perf_counter() - opened,
        "tokens": tokens,
        "peak_rss_mib": peak_bytes() / MIB,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
