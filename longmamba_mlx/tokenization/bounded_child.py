"""Run untrusted parts of a model folder (templates, patterns) in a child process with limited time and memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable

_PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def run(module: str, task: object, *, seconds: float) -> object:
    """Start `python -m module`, write `task` to it as JSON and return the JSON it answers with.

    Raises subprocess.SubprocessError where the child fails or takes more than `seconds` by the clock, OSError where
    it cannot be started, ValueError or RecursionError where its answer is not JSON.
    """
    paths = os.pathsep.join(path for path in map(os.path.abspath, sys.path) if path)
    done = subprocess.run(
        [sys.executable, "-P", "-m", module],
        input=json.dumps(task),
        capture_output=True,
        encoding="utf-8",
        timeout=seconds,
        check=True,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"PYTHONPATH": paths},
        start_new_session=True,  # Ctrl-C is for the parent
    )
    answer: object = json.loads(done.stdout)
    return answer


def serve(answer: Callable[[dict[str, object]], object], *, seconds: int, memory: int) -> None:
    """In the child: limit this process to `seconds` of CPU and `memory` bytes, then answer the task on stdin."""
    _limit(resource.RLIMIT_CPU, seconds)
    if sys.platform != "darwin":  # no effect there: time is the only limit
        _limit(resource.RLIMIT_AS, memory)
    json.dump(answer(json.load(sys.stdin)), sys.stdout)


def _limit(what: int, most: int) -> None:
    """Set a limit for good, at most the present one."""
    hard = resource.getrlimit(what)[1]
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (value, value))
