"""The command lines of README and docs/, run as they stand there.

What is not run is named below with its reason; `test_documentation` still holds its commands and options to exist.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from longmamba_mlx.builtin import sample_document
from tests.examples.pages import PAGES, ROOT, inline_commands, name_of, shell_lines
from tests.tui.pseudo_terminal import Terminal

NOT_RUN = {
    "installs packages": r"^pip install [^&]*$|^llm install|^claude mcp",
    "needs the network": r"(use|--model|--hf-path) [\w.-]+/[\w.-]+",
    "is the test run itself": r"\bpytest\b",
    "is run by the workflow": r"^(ruff|mypy|mkdocs)\b|^python -m build|^python docs/reference/make.py$",
    "takes hours": r"^python benchmarks/|^python -m tests\.|bench peers --json",
    "needs other machines": r"--hostfile",
    "needs published data": r"eval (ruler|longbench)",
}
SLOW = r"^longmamba-mlx (eval|bench) |selftest$"
IN_TERMINAL = r"^longmamba-mlx( chat.*| book\.txt)?$|\| longmamba-mlx chat$"
SERVER = r"^longmamba-mlx serve"
SHORT = 12_000  # characters of a book: long enough to be filtered, read at once
QUESTION = '"What is the access code of Varnok?"'
STANDS_FOR = {  # in the commands of tables and sentences, and of evaluation.md
    r"--model [MD]\b": "--model model",
    r"--(file|text) F\b": r"--\1 book.txt",
    r"--filter F\b": "--filter curve",
    r"--plot F\.png": "--plot F.png",
    r"--text BOOKS": "--text BOOKS",
    r'"QUESTION"|"…"': QUESTION,
    r" \[[^]]*\]": "",
}


@dataclass(frozen=True)
class Shell:
    """A folder with the files that the pages speak of, and a private home."""

    folder: Path
    environment: dict[str, str]

    def run(self, line: str, seconds: float = 280) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def chat(self, line: str) -> None:
        """Run a line that opens the chat, and leave it."""
        terminal = Terminal(["bash", "-c", f"cd {self.folder} && {line}"], environment=self.environment)
        try:
            terminal.wait_for("remembered in" if "book.txt" in line else "document", 200)
            terminal.type("\x11")
            assert terminal.end() in (0, 75), terminal.text[-500:]  # 75: the index was still being written
        finally:
            terminal.close()

    def serve(self, line: str) -> None:
        """Run a line that serves, at any port that is free, until it says so."""
        command = ["bash", "-c", f"exec {line} --port 0"]
        with subprocess.Popen(command, cwd=self.folder, env=self.environment, stderr=subprocess.PIPE) as server:
            assert server.stderr is not None
            assert b"/v1" in server.stderr.readline()
            server.send_signal(signal.SIGINT)
            assert server.wait(60) in (0, 130)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in {"longmamba-mlx": "-m longmamba_mlx", "llm": "-m llm", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    plugin = tmp_path / "plugin" / "longmamba_plugin-1.dist-info"  # as an installed package has it
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: longmamba-plugin\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text("[llm]\nlongmamba = longmamba_mlx.interfaces.llm_plugin\n")
    folder = tmp_path / "folder"
    (tmp_path / "Documents").mkdir()
    (folder / "BOOKS").mkdir(parents=True)
    text = sample_document().read_text(encoding="utf-8")
    for name in ("book.txt", "alice.txt"):
        (folder / name).write_text(text[:SHORT], encoding="utf-8")
    (folder / "BOOKS" / "long.txt").write_text(text * 5, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "documents" / "samples" / "libreoffice.pdf", folder / "contract.pdf")
    shutil.copytree(sample_document().parent / "demo", folder / "model")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "LLM_USER_PATH": str(tmp_path / "llm"),
        "LONGMAMBA_HOME": str(tmp_path / "home"),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{plugin.parent}",
    }
    return Shell(folder, environment)


def why_not(line: str) -> str:
    """Why a line is not run; "" for one that is."""
    return next((reason for reason, pattern in NOT_RUN.items() if re.search(pattern, line)), "")


def concrete(line: str) -> str:
    """A line with files, models and questions in the place of what stands for them."""
    line = re.sub(r"^pip install [^&]+ && ", "", line)
    for pattern, said in STANDS_FOR.items():
        line = re.sub(pattern, said, line)
    return line


def wanted(*, slow: bool) -> list[tuple[str, tuple[str, ...]]]:
    """Every page with its lines that are run, each line once: on the first page that has it."""
    seen: set[str] = set()
    found = []
    for page in PAGES:
        lines = [concrete(line) for line in shell_lines(page) if not why_not(concrete(line))]
        new = [line for line in lines if line not in seen and bool(re.search(SLOW, line)) is slow]
        seen |= set(lines)
        if new:
            found.append((name_of(page), tuple(new)))
    return found


def run_all(shell: Shell, lines: tuple[str, ...], seconds: float = 280) -> None:
    for line in lines:
        if line.startswith("llm "):
            pytest.importorskip("llm")
        if re.search(IN_TERMINAL, line):
            shell.chat(line)
        elif re.search(SERVER, line):
            pytest.importorskip("starlette")
            shell.serve(line)
        else:
            done = shell.run(line, seconds)
            assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("page", "lines"), wanted(slow=False))
def test_the_commands_of_a_page_run(shell: Shell, page: str, lines: tuple[str, ...]) -> None:
    if page.endswith("interfaces.md"):
        assert shell.run("longmamba-mlx read --file alice.txt").returncode == 0  # "a remembered document"
    run_all(shell, lines)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(("page", "lines"), wanted(slow=True))
def test_the_long_commands_of_a_page_run(shell: Shell, page: str, lines: tuple[str, ...]) -> None:
    run_all(shell, lines, 3600)


def sentences() -> list[str]:
    """The commands of tables and sentences that stand for themselves, and that no block has."""
    blocks = {concrete(line) for page in PAGES for line in shell_lines(page)}
    lines = {concrete(line) for page in PAGES for line in inline_commands(page)}
    return sorted(line for line in lines - blocks if not why_not(line) and not re.search(r"[|…]| [A-Z]+\b", line))


def test_the_commands_of_sentences_run(shell: Shell) -> None:
    lines = [line for line in sentences() if not re.search(f"{SLOW}|^longmamba-mlx eval$", line)]
    assert {"longmamba-mlx doctor", "longmamba-mlx read --file book.txt"} <= set(lines)
    run_all(shell, tuple(lines))


def test_every_reason_is_still_needed() -> None:
    lines = [concrete(line) for page in PAGES for line in shell_lines(page)]
    for reason, pattern in NOT_RUN.items():
        assert any(re.search(pattern, line) for line in lines), reason
