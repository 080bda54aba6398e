"""`ask`, `read` and `states` in all their ways: pipes, talks, places, interruptions, what stays on the disk."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commandline import Run, run

__all__ = ["run"]  # the fixture

QUESTION = "What is the access code of Zorvath?"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path, story: str) -> str:
    path = tmp_path / "story.txt"
    path.write_text(f"CHAPTER 1\n\n{story[:2000]}\n\nCHAPTER 2\n\n{story[2000:]}", encoding="utf-8")
    return str(path)


def test_questions_come_from_a_pipe(run: Run, file: str) -> None:
    result = run("ask", "--file", file, "-", stdin=f"{QUESTION}\n\n{QUESTION}\n")
    assert (result.code, result.out) == (0, "48213\n48213\n")
    assert run("ask", "-", stdin="x").code == 2
    assert run("ask", "--file", "-", "-", stdin="x").code == 2
    assert run("ask", "--file", file, "-", stdin=" \n").code == 2


def test_a_place_and_passages_read_again(run: Run, file: str) -> None:
    before = run("ask", "--file", file, "--as-of", "chapter 1", QUESTION)
    assert before.code == 0 and before.out == "The document does not say.\n"
    assert "not found" not in before.err, "once is enough"
    assert run("ask", "--file", file, "--as-of", "100%", QUESTION).out == "48213\n"
    assert run("ask", "--file", file, "--reread", "2", QUESTION).out == "48213\n"
    unknown = run("ask", "--file", file, "--as-of", "chapter 77", QUESTION)
    assert unknown.code == 2 and "chapter 77" in unknown.err and "Hint" in unknown.err


def test_the_surest_part_answers_and_is_named(run: Run, file: str) -> None:
    result = run("ask", "--file", file, "--surest", QUESTION)
    assert (result.code, result.out) == (0, "48213\n")
    assert re.search(
        r"Note: \d+ parts of 512 tokens are read, each from a fresh state: [\d.]+ MB of states", result.err
    )
    assert re.search(r"Note: from part \d of \d, CHAPTER 2\.", result.err)
    again = run("ask", "--file", file, "--surest", "--json", QUESTION)
    row = json.loads(again.out)
    assert "are read" not in again.err and row["part"]["place"] == "CHAPTER 2" and row["part"]["count"] > 1
    assert json.loads(run("ask", "--file", file, "--json", QUESTION).out)["part"] is None
    both = run("ask", "--file", file, "--surest", "--reread", "2", QUESTION)
    assert both.code == 2 and "exclude each other" in both.err and "Hint" in both.err


def test_a_talk_is_kept_on_request(run: Run, file: str, tmp_path: Path) -> None:
    questions = tmp_path / "questions"
    questions.write_text(f"{QUESTION}\n{QUESTION}\n", encoding="utf-8")
    result = run("ask", "--file", file, "--questions", str(questions), "--keep", "--json")
    assert [json.loads(line)["answer"] for line in result.out.splitlines()] == ["48213", "48213"]


def test_a_demonstration_model_is_not_asked_ordinary_questions(run: Run, file: str) -> None:
    """One line says so, the text search's passages follow, and one real model with the command that fetches it."""
    result = run("ask", "--file", file, "Who is Zorvath?")
    assert result.code == 0 and result.out.startswith("From a text search (related passages, not an answer):\n")
    assert "Zorvath" in result.out and "only answers questions such as" in result.err
    assert re.search(r"a real model that fits this machine \(\d.* to download\): longmamba-mlx use \S+/\S+", result.err)
    assert "not found" not in result.err and "does not say" not in result.out + result.err
    row = json.loads(run("ask", "--file", file, "--json", "Who is Zorvath?").out)
    assert (row["answer"], row["found"], row["reason"]) == (None, None, "demo")
    assert any("Zorvath" in passage["text"] for passage in row["passages"])
    assert run("ask", "--file", file, "--fail-if-not-found", "Who is Zorvath?").code == 3


def test_what_the_document_tells_later_is_not_known_yet(run: Run, file: str) -> None:
    result = run("ask", "--file", file, "--as-of", "20%", QUESTION)
    assert "Note: not known yet at 20%" in result.err
    assert json.loads(run("ask", "--file", file, "--as-of", "20%", "--json", QUESTION).out)["reason"] == "not_yet"


ANIMAL = "What is the serial number of Animal?"


def test_an_answer_from_nowhere_is_told(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model says something about a thing that the document has no word of."""
    says(monkeypatch, " Kangaroo")
    path = tmp_path / "plain.txt"
    path.write_text("It was a dark night, and little else is known of it. " * 8, encoding="utf-8")
    result = run("ask", "--file", str(path), "--fail-if-not-found", ANIMAL)
    assert (result.code, result.out) == (3, "Kangaroo\n") and "not found in the document: its text" in result.err
    assert json.loads(run("ask", "--file", str(path), "--json", ANIMAL).out)["found"] is False


def says(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the built-in model answer this, and then end."""
    from longmamba_mlx.session import answer
    from longmamba_mlx.session.api import load

    ids = load("demo").tokenizer.encode(text).tolist()
    monkeypatch.setattr(answer, "generate", lambda *_, max_tokens, **__: iter(ids[:max_tokens]))


def test_a_number_that_the_document_does_not_have_is_told(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "Note: not word for word in the text: 48214."
    for text, missing in ((" 48213", []), (" 48214", ["48214"])):
        says(monkeypatch, text)
        result = run("ask", "--file", file, QUESTION)
        assert result.out == f"{text.strip()}\n" and (told in result.err) == bool(missing)
        answer = json.loads(run("ask", "--file", file, "--json", QUESTION).out)
        assert answer["not_in_text"] == missing and answer["passages"][0]["quoted"] == (not missing)
    cut = run("ask", "--file", file, "--max-tokens", "3", QUESTION)
    assert cut.out == "482\n" and "word for word" not in cut.err, "the number may go on"


def test_control_c_while_answering_prints_what_is_there(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.inference import decode
    from longmamba_mlx.session import answer

    def interrupted(*arguments: object, **options: object) -> Iterator[int]:
        for number, token in enumerate(decode.generate(*arguments, **options)):  # type: ignore[arg-type]
            yield token
            if number == 1:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(answer, "generate", interrupted)
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    result = run("ask", "--file", file, QUESTION)
    assert result.code == 130 and result.out in ("48\n", "4\n", "482\n") and "Traceback" not in result.err
    assert signal.getsignal(signal.SIGINT) is before
    row = json.loads(run("ask", "--file", file, "--json", QUESTION).out)
    assert row["finish_reason"] == "stopped"


READ = """
    import os, signal, sys
    from longmamba_mlx.states import checkpoints
    checkpoints.EVERY_TOKENS = 10**9
    from longmamba_mlx.inference.progress import Clock
    advance, calls = Clock.advance, []
    def stop(self, tokens):
        calls.append(tokens)
        if len(calls) == 5:
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        return advance(self, tokens)
    Clock.advance = stop
    from longmamba_mlx.cli import main
    main(["read", "--file", sys.argv[1], "--chunk", "128"])
"""


@pytest.mark.parametrize("name", ("SIGINT", "SIGTERM"))
def test_a_signal_while_reading_leaves_a_checkpoint(run: Run, file: str, name: str) -> None:
    import textwrap

    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(READ), file, name], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 75 and child.stdout == ""
    assert [line for line in child.stderr.splitlines() if "Note" not in line] == [
        "The reading was stopped. The same command resumes at token 640."
    ]
    listed = run("states", "ls")
    assert "% read)" in listed.out
    assert json.loads(run("states", "ls", "--json").out)[0]["unfinished"] is True
    again = run("read", "--file", file, "--chunk", "128")
    assert again.code == 0 and "Resuming at token 640" in again.err and "Read story.txt" in again.out
    assert "read)" not in run("states", "ls").out


def test_what_cannot_be_remembered_is_no_success(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.errors import DiskError
    from longmamba_mlx.states import checkpoints, store

    def full(*_: object, **__: object) -> None:
        raise DiskError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_state", full)
        result = run("read", "--file", file)
        assert result.code == 74 and "Not remembered" in result.out and "The disk is full" in result.err
        asked = run("ask", "--file", file, QUESTION)
        assert (asked.code, asked.out) == (0, "48213\n")
    monkeypatch.setattr(checkpoints, "CLOSEST_PLACES", 512)
    monkeypatch.setattr(checkpoints, "write_state", full)
    result = run("read", "--file", file)
    assert result.code == 0 and "not the places inside it" in result.err


def test_states_are_given_away_and_taken_in(run: Run, file: str, tmp_path: Path) -> None:
    key = json.loads(run("read", "--file", file, "--json").out)["stored"]
    away = str(tmp_path / "book.state")
    assert "Exported" in run("states", "export", key[:8], away).out
    assert run("states", "export", key[:8], away).code == 2, "nothing is overwritten"
    assert run("states", "rm", key).code == 0 and not json.loads(run("states", "ls", "--json").out)
    assert "Remembered" in run("states", "import", away).out
    assert "Reopened" in run("read", "--file", file).out
    data = bytearray(Path(away).read_bytes())
    data[-9] ^= 1
    Path(away).write_bytes(bytes(data))
    broken = run("states", "import", away)
    assert broken.code == 1 and "has changed" in broken.err
    assert run("states", "import", str(tmp_path / "none")).code == 66


def test_a_broken_state_is_read_again_and_swept(run: Run, file: str, private_home: Path) -> None:
    run("read", "--file", file)
    path = next(path for path in (private_home / "states").rglob("*.safetensors") if "places" not in path.parent.name)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    result = run("ask", "--file", file, QUESTION)
    assert result.out == "48213\n" and result.err.count("cannot be used") == 1
    assert "set aside as broken" in run("states", "ls").err
    assert "1 broken" in run("states", "rm", "--bad").out
    assert "set aside" not in run("states", "ls").err
    for wrong in (["states", "rm"], ["states", "rm", "ab", "--bad"]):
        assert run(*wrong).code == 2


def test_over_the_limit_the_oldest_goes_after_saying_so(run: Run, file: str, tmp_path: Path) -> None:
    assert "8.0 GB" in run("states", "limit").out
    other = tmp_path / "other.txt"
    other.write_text("Another book. " * 600, encoding="utf-8")
    first = json.loads(run("read", "--file", file, "--json").out)["stored"]
    lowered = run("states", "limit", "100 kB")
    assert lowered.code == 0 and "to be deleted when the next document is stored: story.txt" in lowered.err
    assert run("states", "limit", "300 kB").code == 0
    result = run("read", "--file", str(other), "--json")
    assert "forgetting story.txt" in result.err and "over the limit of" in result.err
    keys = [entry["key"] for entry in json.loads(run("states", "ls", "--json").out)]
    assert keys == [json.loads(result.out)["stored"]] and first not in keys
    for wrong in ("much", "-5GB", "nan", "1e99"):
        assert run("states", "limit", "--", wrong).code == 2


def test_a_reading_is_remembered_where_passages_cannot_be_listed(
    run: Run, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longmamba_mlx.errors import LongMambaError, StoppedError
    from longmamba_mlx.retrieval import passage_index

    def fail(error: LongMambaError) -> None:
        def raising(*_: object) -> None:
            raise error

        monkeypatch.setattr(passage_index, "_fill", raising)

    fail(StoppedError("Stopped while the passages were listed.", hint="The same command lists them again."))
    assert run("read", "--file", file).code == 75
    fail(LongMambaError("Related passages need SQLite's FTS5."))
    result = run("read", "--file", file, "--filter", "off", "--json")
    assert result.code == 0 and json.loads(result.out)["stored"] and "need SQLite's FTS5" in result.err
    assert json.loads(run("read", "--file", file, "--json").out)["reopened"]


def test_a_large_file_is_not_held(run: Run, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx import documents
    from longmamba_mlx.documents import streamed_text
    from longmamba_mlx.paths import state_folder
    from longmamba_mlx.retrieval import passage_index

    held = json.loads(run("ask", "--file", file, "--json", QUESTION).out)
    monkeypatch.setattr(streamed_text, "LARGE", 1000)
    monkeypatch.setattr(documents, "read_documents", lambda *_: pytest.fail("this reads the whole text"))
    again = run("ask", "--file", file, "--json", QUESTION)
    row = json.loads(again.out)
    assert row["reopened"] and row["state"] == held["state"] and row["answer"] == "48213"
    assert row["passages"] == held["passages"] and row["passages"][0]["quoted"]
    fresh = run("ask", "--file", file, "--json", "--no-save", "--filter", "off", "--as-of", "60%", QUESTION)
    assert fresh.code == 0 and json.loads(fresh.out)["passages"]
    run("states", "rm", held["state"])
    assert not list(state_folder().rglob("*.sqlite")), "what tells of the text goes with the state"
    assert json.loads(run("read", "--file", file, "--json").out)["stored"] == held["state"]
    monkeypatch.setattr(passage_index, "_fill", lambda *_: pytest.fail("the passages are listed again"))
    assert json.loads(run("ask", "--file", file, "--json", QUESTION).out)["passages"] == held["passages"]
