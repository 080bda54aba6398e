"""No test touches the user's folders or the network."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from longmamba_mlx.session.api import Model

ROOT = Path(__file__).resolve().parents[1]
# Programs that tests start import this checkout too, wherever they run.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
# And keep its bytecode: compiling it anew takes each of some hundred programs a tenth of a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background by a shell: programs that tests interrupt would inherit that they ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Every core has a worker: threads of a BLAS would only wait for each other. Read when NumPy is first imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores: tests often wait for programs and clocks."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with its folder: `pytest -m tui`. (Of tests/metal with `kernels`: `metal` needs an Apple GPU.)
    Tests marked `long` come first, so that no worker is left with one at the end."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        item.add_marker("kernels" if folder == "metal" else folder)
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield folders that do not exist yet. `mktemp` looks at all its folders for each new one: 3 ms with 3,500."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def private_home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh LONGMAMBA_HOME for every test."""
    folder = next(homes)
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("LONGMAMBA_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine's own sockets fails the test that makes it."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def demo() -> Model:
    """The built-in Mamba-2 model, loaded once."""
    from longmamba_mlx.session.api import load

    return load("demo")


@pytest.fixture(scope="session")
def story() -> str:
    """About 2,500 tokens of text with a fact in its middle, past the training length."""
    from longmamba_mlx.builtin import sample_document

    text = sample_document().read_text(encoding="utf-8")
    plain = " ".join(line for line in text.splitlines() if line and "access code" not in line)
    middle = plain.index(". ", 3000) + 2
    return f"{plain[:middle]}The access code of Zorvath is 48213. {plain[middle:7000]}"
