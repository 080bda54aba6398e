"""The parts without a screen: words, history, commands, the order of work, transcripts."""

from __future__ import annotations

import math
import re
from inspect import signature
from pathlib import Path

import pytest

from longmamba_mlx.documents import Document
from longmamba_mlx.errors import DiskError, UsageError
from longmamba_mlx.events import Answer, Piece, ReadDone, ReadProgress
from longmamba_mlx.ground.sizes import format_duration
from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.commands import arguments, table
from longmamba_mlx.tui.history.prompt_history import PromptHistory
from longmamba_mlx.tui.history.records import Exchange, Reply, Stage
from longmamba_mlx.tui.history.transcript import to_markdown, write_new
from longmamba_mlx.tui.rendering import formatting
from longmamba_mlx.tui.screens import help
from longmamba_mlx.tui.worker.engine import Ended, merge
from longmamba_mlx.tui.worker.examples import example_questions
from longmamba_mlx.tui.worker.job_queue import JobQueue, Task
from longmamba_mlx.tui.worker.jobs import Ask, Open
from longmamba_mlx.tui.worker.overview import table_of_contents
from longmamba_mlx.tui.worker.snapshot import Book
from tests.tui.fakes import BOOK, FakeSession
from tests.tui.helpers import make_app

DONE = ReadDone("book", 10, 1.0, 5, False, None, "longmamba")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (59.4, "59 s"),
        (59.9, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3780, "1 h 3 min"),
        (math.inf, "?"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(5214.3, "5,214 tok/s"), (3.14, "3.1 tok/s"), (-1, "? tok/s")])
def test_rates(rate: float, text: str) -> None:
    assert formatting.rate(rate) == text


@pytest.mark.parametrize(("tokens", "seconds", "text"), [(5, 0.1, "50 tok/s"), (1, 30.0, ""), (0, 0.2, ""), (9, 0, "")])
def test_an_answer_of_a_token_or_none_has_no_speed(tokens: int, seconds: float, text: str) -> None:
    assert formatting.rate_of(tokens, seconds) == text


def test_parameters() -> None:
    assert [formatting.parameters(n) for n in (900, 1_340_000, 1_340_000_000)] == [
        "900 parameters",
        "1.3 M parameters",
        "1.3 B parameters",
    ]


@pytest.mark.parametrize("width", range(1, 40))
def test_fit_never_exceeds_the_width_and_drops_the_last_first(width: int) -> None:
    line = formatting.truncate_join(["first part", "", "second", "third"], width)
    assert len(line) <= width
    assert line.rstrip("…").startswith("first part"[: width - 1].rstrip())
    assert ("third" in line) <= ("second" in line)


def test_history_walks_back_and_forth_and_keeps_the_draft() -> None:
    history = PromptHistory()
    assert history.older("draft") is None and history.newer() is None
    for text in ("one", "two", "two"):
        history.add(text)
    assert [history.older("draft"), history.older("two"), history.older("one")] == ["two", "one", None]
    assert [history.newer(), history.newer(), history.newer()] == ["two", "draft", None]


def test_commands_parse_and_complete() -> None:
    command, argument = table.parse("/open  my book.txt ")
    assert (command.name, argument) == ("open", "my book.txt")
    assert [found.name for found in table.matching("/c")] == ["compare", "copy", "clear"]
    assert [found.name for found in table.matching("/open x")] == ["open"]
    assert table.matching("/conv") == table.matching("/conversations x") == table.matching("/sessions")
    assert table.parse("/conversations whale")[0].name == "sessions"


def test_every_command_has_its_method() -> None:
    commands = make_app(FakeSession()).chat.commands
    for command in table.COMMANDS:
        method = getattr(getattr(commands, command.group), command.method)
        assert len(signature(method).parameters) == bool(command.argument), command.usage
    assert table.matching("open") == table.matching("/x") == table.matching("/o\n") == ()
    with pytest.raises(UsageError, match=r"Unknown command /opne"):
        table.parse("/opne book.txt")


def test_paths_with_blanks_are_one_path_when_they_exist(tmp_path: Path) -> None:
    book = tmp_path / "a book.txt"
    here = Path.cwd()
    assert arguments.split_paths(f"'{book}' other.txt") == (str(book), str(here / "other.txt"))
    assert arguments.split_paths("it's one.txt") == (str(here / "it's one.txt"),)
    book.touch()
    assert arguments.split_paths(str(book)) == (str(book),)
    for name in (f"{tmp_path}/x/../a book.txt", f"{tmp_path}/./a book.txt"):
        assert arguments.split_paths(name) == (str(book),)  # one file, one name: its talk is found by it


def desk_with(*jobs: Open | Ask) -> JobQueue[str]:
    desk: JobQueue[str] = JobQueue()
    for job in jobs:
        desk.add(Task(job, job.question if isinstance(job, Ask) else None))
    return desk


def test_questions_wait_for_a_document_and_keep_their_order() -> None:
    desk = desk_with(Ask("a"), Open(("book",)), Ask("b"))
    task = desk.start_next()
    assert task and task.job == Open(("book",)) and desk.reading and desk.start_next() is None
    desk.read_done(DONE)
    assert desk.finish() == (task, [])
    asked = []
    while task := desk.start_next():
        asked.append(task.view)
        desk.finish()
    assert asked == ["a", "b"]


def test_questions_for_a_book_that_was_not_read_are_never_asked_of_another() -> None:
    desk = desk_with(Open(("first",)))
    desk.start_next()
    desk.read_done(DONE)
    desk.finish()
    desk.add(Task(Open(("second",))))
    desk.add(Task(Ask("q"), "q"))
    desk.start_next()
    assert desk.finish()[1] == ["q"]
    assert desk.document is DONE and not desk.waiting


def test_questions_stay_when_the_first_reading_is_stopped() -> None:
    desk = desk_with(Open(("book",)), Ask("a"), Ask("b"))
    desk.start_next()
    assert desk.finish()[1] == []
    assert desk.start_next() is None and desk.last_paths == ("book",)
    assert (desk.withdraw(), desk.withdraw(), desk.withdraw()) == ("b", "a", None)


def test_a_frame_merges_pieces_and_keeps_the_last_progress() -> None:
    first, second = ReadProgress(1, 4, 1.0, 1.0, 1), ReadProgress(2, 4, 1.0, 1.0, 1)
    merged = merge([first, second, DONE, Piece("a"), Piece("b"), Ended(False), Piece("c")])
    assert merged == [second, DONE, Piece("ab"), Ended(False), Piece("c")]


def test_transcripts_hold_everything_and_no_control_characters() -> None:
    passage = Passage(7, 0, 1, "two\nlines\x1b]0;x\x07", "Chapter \x9b1", True)
    answer = Answer("q", "It is.", True, (passage,), 2, 0.1, "stop")
    said = Reply("", "It is\x1b[2J.", "stopped", answer)
    talk = [Exchange("Who?\nAnd why?", stage=Stage.DONE, replies=[said]), Exchange("q2")]
    text = to_markdown("bo\x1bok", talk)
    assert text == (
        "# book\n\n## Who? And why?\n\nIt is[2J.\n\n*stopped*\n\nRelated passages:\n\n"
        "> **¶ 7, Chapter 1** ✓ quote\n>\n> two\n> lines]0;x\n\n## q2\n\n(no answer)\n"
    )


def test_a_file_is_written_whole_and_never_over_another(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    write_new(path, "text")
    assert path.read_text() == "text" and list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="exists already"):
        write_new(path, "other")
    with pytest.raises(DiskError):
        write_new(tmp_path / "none" / "notes.md", "text")
    assert path.read_text() == "text"


def test_the_documentation_lists_every_command_and_key() -> None:
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "reference" / "chat-commands.md").read_text(encoding="utf-8")
    for command in table.COMMANDS:
        assert f"| `{command.usage}` | {command.summary} | {command.key} |" in page
    for key, what in help.KEYS:
        assert f"| {key} | {what} |" in page


def test_the_pictures_of_the_documentation_are_there() -> None:
    page = (Path(__file__).parents[2] / "docs" / "chat.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((screenshots/[^)]+)\)", page)
    assert pictures and all((Path(__file__).parents[2] / "docs" / picture).exists() for picture in pictures)


def test_every_line_of_the_command_list_fits_80_columns() -> None:
    width = max(len(command.usage) for command in table.COMMANDS) + 2
    assert max(width + len(command.summary) for command in table.COMMANDS) <= 74


SPEECH = "“Well,” said Mr. Darcy. “No,” Elizabeth replied. Elizabeth said so. " * 4


@pytest.mark.parametrize(
    ("text", "chapters", "known", "questions"),
    [
        (SPEECH, ["Chapter I. One", "Chapter II"], (), ("Who is Elizabeth?", "What does Mr. Darcy want?",
                                                      "What happens in chapter II?")),
        ("It was Strake. " + SPEECH, [], ("What is the file number of {name}?",), ("Who is Elizabeth?",
                                                                                 "What does Mr. Darcy want?")),
        ("The file\nnumber of Zorvath is 4.", ["LETTER 2"], ("What is the file number of {name}?",),
         ("What is the file number of Zorvath?", "What happens in letter 2?")),
        ("nothing here", ["The Whale"], (), ()),
    ],
)  # fmt: skip
def test_example_questions_come_from_the_text(
    text: str, chapters: list[str], known: tuple[str, ...], questions: tuple[str, ...]
) -> None:
    assert example_questions(text, chapters, known) == questions


def test_the_table_of_contents_names_what_was_found() -> None:
    book = Book("b", 1234, Document("b", BOOK), BOOK)
    text = table_of_contents(book)
    assert text.startswith("1,234 tokens, about ") and "12 chapters were found" in text
    assert "- CHAPTER 1 (0%)" in text and text.count("\n- ") == 12
    plain = Book("b", 5, Document("b", "Just a few words."), "Just a few words.")
    assert "No chapters or pages were found in it. It begins: “Just a few…”" in table_of_contents(plain)
