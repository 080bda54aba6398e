"""The command line as a user meets it: what goes to which stream, and which exit code comes back."""

from __future__ import annotations

import inspect
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from longmamba_mlx.cli import chat, with_default_command
from longmamba_mlx.cli.quick_chat import only_files
from longmamba_mlx.registry import resolve
from longmamba_mlx.tui.terminal import tty
from tests.commandline import Run, run

__all__ = ["run"]  # the fixture

QUESTION = "What is the access code of Zorvath?"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path, story: str) -> Path:
    path = tmp_path / "story.txt"
    path.write_text(story, encoding="utf-8")
    return path


def test_ask_prints_the_answer_alone_on_stdout(run, file: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("ask", "--file", str(file), QUESTION)
    assert (result.code, result.out) == (0, "48213\n")
    assert "tokens/s" in result.err and "filter paper" in result.err and "built-in" in result.err
    assert "built-in" not in run("ask", "--model", "demo", "--file", str(file), QUESTION).err


def test_ask_many_questions_from_one_reading_as_json(run, file: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    questions = tmp_path / "questions.txt"
    questions.write_text(f"{QUESTION}\n\n{QUESTION}\n", encoding="utf-8")
    result = run("ask", "--file", str(file), "--questions", str(questions), "--json", "--filter", "curve")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert result.code == 0 and len(rows) == 2
    for row in rows:
        assert row["question"] == QUESTION and row["answer"] == "48213" and row["found"] is True
        assert row["filter"] == "curve" and row["model"] == "demo" and row["finish_reason"] == "stop"
        assert row["tokens_read"] > 512 and row["seconds"] >= 0 and len(row["state"]) == 64
        assert row["passages"][0]["quoted"]


def test_ask_reads_standard_input(run, story: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    for arguments in (("ask", QUESTION), ("ask", "--file", "-", QUESTION)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(story.encode())))
        assert run(*arguments, "--no-save").out == "48213\n"


def test_not_found_can_be_an_exit_code(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "plain.txt"
    path.write_text("It was a dark night, and nothing else is known of it. " * 8, encoding="utf-8")
    result = run("ask", "--file", str(path), "--fail-if-not-found", QUESTION)
    assert (result.code, result.out) == (3, "The document does not say.\n")


def test_read_then_list_show_and_forget(run, file: Path) -> None:  # type: ignore[no-untyped-def]
    stored = json.loads(run("read", "--file", str(file), "--json").out)
    assert stored["tokens"] > 512 and not stored["reopened"]
    assert "Reopened" in run("read", "--file", str(file)).out
    listed = json.loads(run("states", "ls", "--json").out)
    assert [entry["key"] for entry in listed] == [stored["stored"]]
    assert "story.txt" in run("states", "show", stored["stored"][:8]).out
    assert "Forgotten" in run("states", "rm", stored["stored"][:8]).out
    assert json.loads(run("states", "ls", "--json").out) == []


def make_bad_documents(folder: Path) -> dict[str, int]:
    (folder / "empty.txt").write_bytes(b"")
    (folder / "blank.txt").write_text(" \n\t \n")
    (folder / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    (folder / "noise.txt").write_bytes(bytes(range(256)) * 40)
    (folder / "folder").mkdir()
    return {
        "missing.txt": 66,
        "empty.txt": 65,
        "blank.txt": 65,
        "picture.txt": 65,
        "noise.txt": 65,
        "folder": 66,
    }


def test_bad_documents_get_one_line_a_hint_and_their_code(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name, code in make_bad_documents(tmp_path).items():
        result = run("ask", "--file", str(tmp_path / name), QUESTION)
        lines = result.err.strip().splitlines()
        assert (result.code, result.out) == (code, ""), name
        assert len(lines) == 2 and lines[0].startswith("Error: ") and lines[1].startswith("Hint: "), lines


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["ask", "--model", "nothing-here", QUESTION], 66),
        (["ask", "--filter", "sharp", QUESTION], 2),
        (["ask", "--chunk", "0", QUESTION], 2),
        (["ask"], 2),
        (["ask", ""], 2),
        (["ask", "--questions", "nowhere.txt"], 66),
        (["ask", "--bogus"], 2),
        (["states", "rm", "abcdef"], 2),
        (["calibrate", "--model", "demo"], 2),
        (["eval", "niah", "--lengths", "many"], 2),
        (["convert", "--hf-path", "nowhere", "--mlx-path", "out"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_wrong_use_is_one_line(
    run, file: Path, arguments: list[str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    extra = ["--file", str(file)] if arguments[0] == "ask" else []
    result = run(*arguments, *extra)
    assert result.code == code and result.out == "" and "Traceback" not in result.err and result.err


def test_control_characters_never_come_out(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bad\x1b[31mname.txt"
    path.write_text("Words \x1b]0;title\x07 and \x1b[2J more. The access code of Zorvath is 48213.", encoding="utf-8")
    result = run("ask", "--file", str(path), QUESTION)
    assert result.code == 0 and "\x1b" not in result.out + result.err and "\x07" not in result.out + result.err
    missing = run("ask", "--file", str(tmp_path / "no\x1b[31m.txt"), QUESTION)
    assert missing.code == 66 and "\x1b" not in missing.err


def test_what_a_models_folder_says_never_controls_the_terminal(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder, document = tmp_path / "m\x1b[31mine", tmp_path / "plain.txt"
    document.write_text("Words. " * 90, encoding="utf-8")
    shutil.copytree(resolve.resolve("demo"), folder)
    (folder / "longmamba.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    for key in ("known_questions", "not_found", "stop"):
        config["longmamba"][key] = ["\x1b]52;c;eA==\x07\x9b31m\u202e Who is {name}?"]
    (folder / "config.json").write_text(json.dumps(config))
    for words in (
        ["ask", "--model", str(folder), "--file", str(document), "What else?"],
        ["ask", "--json", "--model", str(folder), "--file", str(document), "What else?"],
        ["calibrate", "--model", str(folder)], ["models"], ["models", "--json"],
    ):  # fmt: skip
        result = run(*words)
        assert result.code == 0, result.err
        assert not set(result.out + result.err) & set("\x1b\x07\x9b\u202e"), words
    refused = run("use", str(folder))
    assert refused.code == 2 and "\x1b" not in refused.err and run("models").code == 0


def test_default_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty, "_is_terminal", lambda descriptor: False)
    assert with_default_command(["book.txt", "--no-save"]) == ["chat", "--file", "book.txt", "--no-save"]
    assert with_default_command(["ask", "x"]) == ["ask", "x"]
    assert with_default_command(["--help"]) == ["--help"] and with_default_command([]) == []
    monkeypatch.setattr(tty, "_is_terminal", lambda descriptor: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert with_default_command([]) == ["chat"]
    assert with_default_command(["nonsense"]) == ["nonsense"]


@pytest.mark.parametrize(
    ("words", "files"),
    [
        ("chat", []),
        ("chat --file a.txt -f b.txt --file=c.txt --file -", ["a.txt", "b.txt", "c.txt", "-"]),
        ("chat --file a.txt --model x", None),
        ("chat --help", None),
        ("chat a.txt", None),
        ("chat --file", None),
        ("chat --file=", None),
        ("chat --file --model", None),
        ("chat -f=a.txt", None),
        ("chat -fa.txt", None),
        ("ask --file a.txt", None),
        ("", None),
    ],
)
def test_the_usual_start_is_understood_without_the_library(words: str, files: list[str] | None) -> None:
    assert only_files(words.split()) == files


def test_what_is_not_said_is_the_same_with_the_library_and_without(
    run: Run, monkeypatch: pytest.MonkeyPatch, private_home: Path
) -> None:
    started: list[dict[str, object]] = []
    signature = inspect.signature(chat.chat_about)

    def chat_about(*arguments: object, **settings: object) -> int:
        bound = signature.bind(*arguments, **settings)
        bound.apply_defaults()
        started.append(bound.arguments)
        return 7

    monkeypatch.setattr(chat, "chat_about", chat_about)
    assert run("chat", "--file", "a.txt").code == 7
    assert run("chat", "--file", "a.txt", "--temp", "0").code == 7
    assert started[0] == started[1] and (started[0]["files"], started[0]["model"]) == (["a.txt"], "demo")
    resolve.set_user_default("owner/name")  # not here: the command that fetches it
    assert run("a.txt").code != 7 and len(started) == 2


def outside(*arguments: str, home: Path, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"LONGMAMBA_HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "longmamba_mlx", *arguments], env=environment, input=data,
                          capture_output=True, timeout=120)  # fmt: skip


def test_chat_without_a_terminal_names_ask(tmp_path: Path) -> None:
    result = outside("chat", "--file", "book.txt", home=tmp_path, data=b"")
    assert result.returncode == 2 and b"ask --file" in result.stderr and result.stdout == b""


def test_every_command_has_help_and_none_is_forgotten(run) -> None:  # type: ignore[no-untyped-def]
    from longmamba_mlx.cli import COMMANDS
    from longmamba_mlx.cli.app import app

    named = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    assert named | {group.name for group in app.registered_groups} == set(COMMANDS)
    for command in COMMANDS:
        result = run(command, "--help")
        assert result.code == 0 and len(result.out.splitlines()) > 4


def test_version(run) -> None:  # type: ignore[no-untyped-def]
    from longmamba_mlx import __version__

    assert run("--version").out.strip() == __version__


def test_demo_shows_both_sides(run) -> None:  # type: ignore[no-untyped-def]
    report = json.loads(run("demo", "--json").out)
    sides = {name: sum(answer["right"] for answer in side["answers"]) for name, side in report["sides"].items()}
    questions = len(report["sides"]["off"]["answers"])
    assert report["tokens"] > 16 * 512 and questions == 12
    assert sides["longmamba"] >= questions - 1 and sides["longmamba"] - sides["off"] >= 2
