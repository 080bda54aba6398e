"""The chat in a real terminal: keys arrive, nothing of the document steers it, it is given back as it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from longmamba_mlx.tui.history.store import ConversationStore
from longmamba_mlx.tui.terminal import clipboard, tty
from tests.tui.pseudo_terminal import LIMIT_SECONDS, Terminal

CHILD = Path(__file__).with_name("pty_child.py")


@pytest.fixture
def start() -> Iterator[type[Terminal]]:
    started: list[Terminal] = []

    class Started(Terminal):
        def __init__(self, mode: str, document: bytes | None = None, command: list[str] | None = None) -> None:
            super().__init__(command or [sys.executable, str(CHILD), mode], document=document)
            started.append(self)

    yield Started
    for each in started:
        each.close()


def given_back(terminal: Terminal) -> bool:
    """The normal screen, a visible cursor, no mouse reports, and the line settings of before."""
    for sequence in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l"):
        opposite = sequence[:-1] + (b"l" if sequence.endswith(b"h") else b"h")
        if terminal.raw.rfind(sequence) < terminal.raw.rfind(opposite):
            return False
    return termios.tcgetattr(terminal.slave) == terminal.before


def test_a_question_is_answered_and_the_terminal_given_back(start: type[Terminal]) -> None:
    chat = start("plain")
    chat.wait_for("Ask about book.txt")
    chat.type("who?\r")
    chat.wait_for("Ahab.")
    chat.wait_for("0.1 s")
    chat.type("\x11")
    assert chat.end() == 0
    assert "left with 0, asked ['who?']" in chat.text
    assert given_back(chat)
    assert "PWNED" in chat.text  # as text
    assert set(re.findall(rb"\x1b\](\d+)", chat.raw)) <= {b"22"}  # the pointer's shape, from Textual
    for steering in (b"\x1b[5;5HPWNED", "\x9b".encode(), b"\x1b_", b"\x1bP"):
        assert steering not in chat.raw


def test_what_is_typed_before_anything_is_seen_is_in_the_prompt(start: type[Terminal]) -> None:
    chat = start("plain")
    chat.type("wh")
    chat.wait_for("Read book.txt")
    chat.type("o?\r")
    chat.wait_for("Ahab.")
    chat.type("\x11")
    assert chat.end() == 0 and "asked ['who?']" in chat.text


def test_keys_arrive_after_the_document_came_through_standard_input(start: type[Terminal]) -> None:
    chat = start("piped", b"From a pipe\n")
    chat.wait_for("Ask about From a pipe")
    chat.type("who?\r")
    chat.wait_for("Ahab.")
    chat.type("/quit\r")
    assert chat.end() == 0 and "asked ['who?']" in chat.text and given_back(chat)


@pytest.mark.parametrize(("leave", "code"), [("ctrl+c twice", 0), ("SIGTERM", 75), ("SIGINT", 130)])
def test_leaving_in_the_middle_of_a_reading_keeps_it(start: type[Terminal], leave: str, code: int) -> None:
    chat = start("reading")
    chat.wait_for("Reading")
    if code:
        os.kill(chat.process.pid, getattr(signal, leave))
    else:
        chat.type("\x03")
        chat.wait_for("Stopped reading book.txt")
        chat.type("\x03")
        chat.type("\x03")
    assert chat.end() == code
    assert "saved True" in chat.text and given_back(chat)
    told = "Stopped in the middle of the reading. The same command reads it again."
    assert (told in chat.text) == bool(code)


def test_an_interrupt_while_idle_leaves_with_its_code(start: type[Terminal]) -> None:
    chat = start("plain")
    chat.wait_for("remembered in")  # the reading is over
    chat.forget()
    os.kill(chat.process.pid, signal.SIGINT)
    assert chat.end() == 130 and given_back(chat) and "Stopped" not in chat.text


def test_ctrl_z_suspends_and_fg_brings_the_chat_back(start: type[Terminal]) -> None:
    chat = start("plain")
    chat.wait_for("Ask about book.txt")
    chat.type("\x1a")
    deadline = time.monotonic() + LIMIT_SECONDS
    while psutil.Process(chat.process.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "it was not suspended"
        chat.read(0.1)
    while chat.read(0.1):
        pass
    assert given_back(chat)
    chat.forget()
    os.kill(chat.process.pid, signal.SIGCONT)
    chat.wait_for("Ask about book.txt")
    chat.type("who?\r")
    chat.wait_for("Ahab.")
    chat.type("\x11")
    assert chat.end() == 0 and "asked ['who?']" in chat.text


@pytest.mark.parametrize("mode", ["plain", "reading"])
def test_a_closed_window_ends_the_program(start: type[Terminal], mode: str) -> None:
    chat = start(mode)
    chat.wait_for("Ask about book.txt" if mode == "plain" else "Reading")
    chat.hang_up()
    assert chat.process.wait(10) != 0


def test_another_size_is_drawn_anew(start: type[Terminal]) -> None:
    chat = start("plain")
    chat.wait_for("Ask about book.txt")
    chat.forget()
    chat.resize(140, 40)
    os.kill(chat.process.pid, signal.SIGWINCH)
    chat.wait_for("Line 12 of chapter 1")  # the text has room beside the talk now
    assert b"\x1b[40;" in chat.raw
    chat.type("\x11")
    assert chat.end() == 0 and given_back(chat)


def test_after_a_fault_of_the_program_the_terminal_is_given_back(start: type[Terminal]) -> None:
    chat = start("crash")
    chat.wait_for("Ask about book.txt")
    chat.type("who?\r")
    assert chat.end() == 1
    assert "a fault of the program" in chat.text
    assert b"\x1b[?1049l" in chat.raw and b"\x1b[?25h" in chat.raw
    assert termios.tcgetattr(chat.slave) == chat.before


def test_the_whole_story_with_the_built_in_model(start: type[Terminal], private_home: Path, tmp_path: Path) -> None:
    """Open, read, ask, jump to a passage, compare, quit, reopen, go on: the real program in a real terminal."""
    sample = (CHILD.parents[2] / "longmamba_mlx" / "builtin" / "sample.txt").read_text(encoding="utf-8")
    book = tmp_path / "watch.txt"
    book.write_text(sample, encoding="utf-8")
    command = [sys.executable, "-m", "longmamba_mlx", "chat", "--file", str(book)]
    chat = start("", command=command)
    chat.wait_for("Ask about watch.txt")
    chat.type("What is the access code of Harrowgate?\r")
    chat.wait_for("17649")
    chat.wait_for("✓ quote")
    chat.forget()
    chat.type("\t")  # to the passage: Enter shows it in the text, which lies over the talk here
    chat.type_until("\r", "CHAPTER II. THE ROUNDS                ")
    chat.forget()
    chat.type_until("\x1b", "related passages")
    time.sleep(0.5)  # in a terminal Esc and a key right after it are Alt and that key
    chat.forget()
    chat.type("/compare What is the access code of Harrowgate?\r")
    chat.wait_for("17649")
    wait_for_talk(private_home, 2)
    chat.type("/quit\r")
    assert chat.end() == 0 and given_back(chat)
    again = start("", command=command)
    again.wait_for("Reopened watch.txt")
    again.wait_for("You asked 2 questions about this before")
    again.type("\x12")
    again.wait_for("17649")
    again.forget()
    again.type("What is the access code of Quillan?\r")
    again.wait_for("72954")
    wait_for_talk(private_home, 3)
    again.type("\x11")
    assert again.end() == 0 and given_back(again)
    store = ConversationStore(private_home / "talks.sqlite")
    (talk,) = store.conversations()
    said = [[(reply.name, reply.text.strip()) for reply in each.replies] for each in store.load(talk.id)]
    assert [len(each) for each in said] == [1, 2, 1]
    assert said[0] == [("", "17649")] and said[2] == [("", "72954")]
    assert said[1][0][0] == "off" and said[1][1][0] not in ("", "off") and said[1][1][1] == "17649"


def wait_for_talk(home: Path, exchanges: int) -> None:
    """Until so many exchanges are in the file."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while sum(talk.exchanges for talk in ConversationStore(home / "talks.sqlite").conversations()) < exchanges:
        assert time.monotonic() < deadline, "the talk was not kept"
        time.sleep(0.1)


def test_a_copy_is_certain_only_where_a_program_took_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert clipboard.copy_text("words").said("Answer").startswith("Answer sent to the terminal (OSC 52)")
    program = tmp_path / "tmux"
    program.write_text(f'#!/bin/sh\n[ "$*" = "load-buffer -w -" ] && cat > {tmp_path}/buffer\n')
    program.chmod(0o700)
    monkeypatch.setenv("TMUX", "/tmp/tmux-1/default,1,0")
    assert clipboard.copy_text("words") == clipboard.Copied(True, " in tmux: its prefix key and ] pastes")
    assert (tmp_path / "buffer").read_text() == "words"
    program.write_text("#!/bin/sh\nexit 1\n")
    assert not clipboard.copy_text("words").certain


def test_without_a_terminal_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty, "_is_terminal", lambda descriptor: descriptor != 1)
    assert tty.why_no_chat() == "standard output is not a terminal"
    monkeypatch.setattr(tty, "_is_terminal", lambda descriptor: True)
    monkeypatch.setenv("TERM", "dumb")
    assert "TERM" in str(tty.why_no_chat())
    monkeypatch.setenv("TERM", "xterm-256color")
    assert tty.why_no_chat() is None and tty.reattach_keyboard()


def test_a_process_without_any_terminal_gets_no_keyboard() -> None:
    code = "from longmamba_mlx.tui.terminal.tty import reattach_keyboard; print(reattach_keyboard())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=CHILD.parents[2],
        start_new_session=True,
        check=True,
    )
    assert done.stdout == "False\n"


def test_the_chat_starts_without_mlx_and_importing_it_is_free() -> None:
    code = (
        "import sys, longmamba_mlx.tui; assert 'textual' not in sys.modules;"
        "from longmamba_mlx.cli import chat; import longmamba_mlx.tui.app; "
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'torch', 'huggingface_hub', 'numpy', 'markdown_it', 'pygments',"
        "'typer', 'pydantic', 'longmamba_mlx.documents.reader', 'longmamba_mlx.retrieval.passages',"
        "'longmamba_mlx.registry.known_models',"
        "'longmamba_mlx.tui.screens.help'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=CHILD.parents[2], check=True
    )
    assert done.stdout == "[]\n"
