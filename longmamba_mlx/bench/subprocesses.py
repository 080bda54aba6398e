"""Start measuring processes and read their answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from longmamba_mlx.errors import LongMambaError

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


class BenchmarkError(LongMambaError):
    """A measuring process failed."""


def run(module: str, job: dict[str, Any], *, threads: int, seconds: float = 3600) -> Any:
    """Run `python -m longmamba_mlx.bench.<module> JOB` -> its JSON. Raises BenchmarkError."""
    environment = os.environ | {name: str(threads) for name in _THREADS} | {"TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-m", f"longmamba_mlx.bench.{module}", json.dumps(job)]
    what = f"{job.get('engine', module)} ({job.get('work', module)})"
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{what} took more than {seconds:.0f} s", hint="Give shorter --lengths.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BenchmarkError(f"{what} failed: {last[:200]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
