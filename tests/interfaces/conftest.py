"""Real clients and real processes on loopback, with the built-in model; nothing else of the network."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from longmamba_mlx.builtin import known_questions
from longmamba_mlx.tokenization.prompt_format import PromptForm

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What is the access code of Zorvath?"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the fixture of all tests: connections to loopback are allowed too."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        local = isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1")
        if self.family != socket.AF_UNIX and not local:
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def folder(tmp_path: Path, story: str) -> Path:
    """A folder that may be read, with a story in it, a link out of it, and a secret beside it."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "story.txt").write_text(story, encoding="utf-8")
    (tmp_path / "secret.txt").write_text("The access code of Secret is 99999.", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


@pytest.fixture
def environment(private_home: Path) -> dict[str, str]:
    """Of a process that runs this checkout, with a home of its own."""
    return os.environ | {"PYTHONPATH": str(ROOT), "LONGMAMBA_HOME": str(private_home), "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def program() -> list[str]:
    """The command that starts this program."""
    return [sys.executable, "-m", "longmamba_mlx"]


def long_text(tokens: int) -> str:
    """A text of at least that many tokens, in which no two paragraphs are the same."""
    sentence = "On day {n} of the voyage the wind came from the west, and nobody on board saw land or another ship. "
    return "\n\n".join(sentence.format(n=number) * 3 for number in range(tokens // 60))


@pytest.fixture(scope="session")
def unknown() -> tuple[str, str]:
    """A question that the built-in model does not know, and the one that it names instead."""
    question = "Who is Zorvath?"
    return question, PromptForm(known=known_questions("demo")).example(question)
