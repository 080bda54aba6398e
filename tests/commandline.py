"""The command line run inside the test's own process: what it printed where, and its exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import pytest

from longmamba_mlx.cli import main


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Result]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: str, stdin: str | None = None) -> Result:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
            sys.exit(0)
        out, err = capfd.readouterr()
        code = caught.value.code
        return Result(code if isinstance(code, int) else int(code is not None), out, err)

    return call
