"""What the commands ask of the session, and how their answers are shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot

from longmamba_mlx.errors import ModelError, UsageError
from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.session.session import Session
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.commands import arguments
from longmamba_mlx.tui.commands.table import COMMANDS, HEADINGS
from longmamba_mlx.tui.history.records import Stage
from longmamba_mlx.tui.screens.confirm import ConfirmScreen
from longmamba_mlx.tui.screens.model_choices import model_choices
from longmamba_mlx.tui.screens.models import ModelsScreen
from longmamba_mlx.tui.widgets.answer import AnswerView
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.suggestions import Suggestions
from longmamba_mlx.tui.widgets.text_pane import TextPane
from longmamba_mlx.tui.worker import overview
from tests.tui.fakes import BOOK, FakeSession
from tests.tui.helpers import make_app, ready, said, screen_text, type_line, wait_until, widget_text

PASSAGE = Passage(1, 0, 9, "CHAPTER 1", "CHAPTER 1", False, "CHAPTER 1")


@asynccontextmanager
async def chatting(
    session: FakeSession, size: tuple[int, int] = (100, 40)
) -> AsyncIterator[tuple[ChatApp, Pilot[int]]]:
    """An app with its document read, and answers that come by themselves."""
    app = make_app(session, "/books/moby.txt")
    async with app.run_test(size=size) as pilot:
        await ready(pilot, session)
        session.free()
        yield app, pilot


async def idle(pilot: Pilot[int], app: ChatApp, count: int = 1) -> None:
    await wait_until(pilot, lambda: len(app.chat.log_view.records) >= count and not app.chat.controller.busy)


@pytest.mark.parametrize(
    ("line", "question", "way", "shown"),
    [
        ("/as-of chapter 12: Who is he?", "Who is he?", {"as_of": "chapter 12"}, "as of chapter 12"),
        ("/as-of 50% Who?", "Who?", {"as_of": "50%"}, "as of 50%"),
        ("/keep And why?", "And why?", {"keep": True}, "follow-up"),
        ("/reread Who?", "Who?", {"reread": 3}, "3 passages read again"),
        ("/reread 1 Who?", "Who?", {"reread": 1}, "1 passage read again"),
        ("/surest Who is he?", "Who is he?", {"surest": True}, "asked of every part"),
        (" /usr is what?", "/usr is what?", {}, "/usr is what?"),
    ],
)
async def test_ways_to_ask(line: str, question: str, way: dict[str, object], shown: str) -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, line)
        await idle(pilot, app)
        assert session.asked == [question] and session.ways == [way] and shown in said(pilot)


async def test_keep_alone_holds_for_every_question_until_it_is_said_again() -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "/keep")
        await wait_until(pilot, lambda: "every question is a follow-up" in screen_text(pilot))
        for line in ("One?", "/reread 2 Two?", "/keep"):
            await type_line(pilot, line)
        await wait_until(pilot, lambda: "every question is a follow-up" not in screen_text(pilot))
        await type_line(pilot, "Three?")
        await idle(pilot, app, 3)
        assert session.ways == [{"keep": True}, {"keep": True, "reread": 2}, {}]
        await type_line(pilot, "/reset")
        await wait_until(pilot, lambda: session.done == ["reset"] and "The next follow-up starts" in said(pilot))


@pytest.mark.parametrize(("width", "beside"), [(140, True), (80, False)])
async def test_compare_shows_both_answers_side_by_side_or_one_under_the_other(width: int, beside: bool) -> None:
    session = FakeSession(passages=(PASSAGE,))
    async with chatting(session, size=(width, 40)) as (app, pilot):
        await type_line(pilot, "/compare Who?")
        await idle(pilot, app)
        text = said(pilot)
        assert "filter off" in text and "filter longmamba" in text and text.count("It is Ahab.") == 2
        left, right = (view.region for view in app.chat.query(AnswerView))
        assert (left.y == right.y and left.right <= right.x) == beside
        assert (left.x == right.x and left.bottom <= right.y) == (not beside)
        await type_line(pilot, "/compare")
        await idle(pilot, app, 2)
        assert session.asked == ["Who?", "Who?"]
        passage = app.chat.query(PassageView).first()
        assert widget_text(passage).split("\n") == ["¶ 1 · CHAPTER 1"]
        passage.focus()
        await pilot.press("space")
        await wait_until(pilot, lambda: passage.size.height == 2)
        (record, _) = app.chat.log_view.records
        assert [(reply.name, reply.text) for reply in record.replies] == [
            ("off", "It is Ahab."),
            ("longmamba", "It is Ahab."),
        ]


async def test_where_there_is_nothing_to_compare_one_line_says_why(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("The access code of Zorvath is 48213. " * 60)
    app = make_app(Session(filter="off", save=False), str(book))  # type: ignore[arg-type]
    async with app.run_test(size=(100, 40)) as pilot:
        await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        await type_line(pilot, "/compare What is the access code of Zorvath?")
        await wait_until(
            pilot, lambda: "There is nothing to compare: book.txt was read without a filter." in said(pilot)
        )
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert "/filter longmamba reads it with one." in said(pilot) and len(app.chat.query(AnswerView)) == 1
        assert "48213" not in said(pilot) and "filter off\n" not in screen_text(pilot)
        app.chat.controller.leave()
        app.engine.join(10)


async def test_a_comparison_that_is_stopped_keeps_what_there_is() -> None:
    session = FakeSession()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(140, 40)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "/compare Who?")
        session.let(1)
        await wait_until(pilot, lambda: app.chat.log_view.records[0].text == "It ")
        await pilot.press("escape")
        await idle(pilot, app)
        assert "stopped · 0.1 s" in said(pilot) and len(app.chat.log_view.records[0].replies) == 1


async def test_a_shelf_of_books_is_listed_and_switched_without_reading() -> None:
    session = FakeSession()
    async with chatting(session, size=(140, 40)) as (app, pilot):
        session.title, session.text = "alice.txt", "Down the rabbit hole. " * 30
        await type_line(pilot, "/open alice.txt")
        await wait_until(pilot, lambda: len(app.chat.panel.books) == 2 and not app.chat.controller.busy)
        assert "2 of 2 · alice.txt" in said(pilot) and "Down the rabbit hole" in widget_text(
            app.chat.query_one(TextPane)
        )
        await type_line(pilot, "/books")
        await wait_until(pilot, lambda: "1 moby.txt · 4,000 tokens" in said(pilot))
        assert "2 alice.txt · 4,000 tokens · open" in said(pilot)
        await type_line(pilot, "/books 1")
        await wait_until(pilot, lambda: "1 of 2 · moby.txt" in said(pilot) and "Ask about moby.txt" in said(pilot))
        assert len(session.opened) == 2 and "CHAPTER 1" in widget_text(app.chat.query_one(TextPane))
        assert app.chat.paths == ("/books/moby.txt",)
        await type_line(pilot, "/books 7")
        await wait_until(pilot, lambda: "✗ There is no book 7" in said(pilot))


async def test_add_reads_the_open_document_and_another_as_one() -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "/add /books/alice.txt")
        await wait_until(pilot, lambda: len(session.opened) == 2 and not app.chat.controller.busy)
        assert session.opened[1] == ("/books/moby.txt", "/books/alice.txt")
        await type_line(pilot, "/add /books/moby.txt")
        await wait_until(pilot, lambda: "✗ That is part of the open document already" in said(pilot))


async def test_add_while_a_book_is_read_adds_to_that_book_and_is_seen_waiting() -> None:
    session = FakeSession()
    app = make_app(session, "/books/moby.txt")
    async with app.run_test(size=(100, 40)) as pilot:
        await wait_until(pilot, lambda: session.opened)
        await type_line(pilot, "/add /books/alice.txt")
        await type_line(pilot, "/clear")
        await pilot.press("x")
        assert "queued · moby.txt, alice.txt will be read after what runs now" in said(pilot)
        session.free()
        await wait_until(pilot, lambda: len(session.opened) == 2 and not app.chat.controller.busy)
        assert session.opened[1] == ("/books/moby.txt", "/books/alice.txt") and "queued" not in said(pilot)


async def test_add_behind_a_waiting_switch_adds_to_the_book_that_will_be_open() -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        session.title, session.text = "alice.txt", "Down the rabbit hole. " * 30
        await type_line(pilot, "/open /books/alice.txt")
        await wait_until(pilot, lambda: len(app.chat.panel.books) == 2 and not app.chat.controller.busy)
        session.hold()
        for line in ("Who is she?", "/books 1", "/add /books/emma.txt"):
            await type_line(pilot, line)
        session.free()
        await wait_until(pilot, lambda: len(session.opened) == 3 and not app.chat.controller.busy)
        assert session.opened[2] == ("/books/moby.txt", "/books/emma.txt")


async def test_two_books_of_one_name_keep_their_own_files_also_with_another_model() -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        session.text = "Another text of that name. " * 30
        await type_line(pilot, "/open /other/moby.txt")
        await wait_until(pilot, lambda: len(app.chat.panel.books) == 2 and not app.chat.controller.busy)
        await type_line(pilot, "/model demo-mamba1")
        await wait_until(pilot, lambda: session.done == ["demo-mamba1 longmamba"] and not app.chat.controller.busy)
        for number, file in ((1, "/books/moby.txt"), (2, "/other/moby.txt")):
            await type_line(pilot, f"/books {number}")
            await wait_until(pilot, lambda n=number: f"{n} of 2" in said(pilot) and not app.chat.controller.busy)
            assert app.chat.paths == (file,)


async def test_forget_asks_first() -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        for answer, done in (("escape", []), ("y", ["forget"])):
            await type_line(pilot, "/forget")
            await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert "Delete the saved state of moby.txt?" in said(pilot)
            await pilot.press(answer)
            await wait_until(pilot, lambda: app.screen is app.chat and not app.chat.controller.busy)
            assert session.done == done
        await wait_until(pilot, lambda: "of moby.txt is deleted; it stays open here" in said(pilot))


async def test_another_model_or_filter_reads_the_book_again() -> None:
    session = FakeSession()
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "/filter off")
        await wait_until(pilot, lambda: session.done == ["demo off"] and not app.chat.controller.busy)
        await type_line(pilot, "/model owner/mamba")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Download owner/mamba and convert it? (its size is shown" in said(pilot) and "Not now (n)" in said(pilot)
        await pilot.press("y")
        await wait_until(pilot, lambda: session.done[1:] == ["owner/mamba off"] and not app.chat.controller.busy)
        await type_line(pilot, "/model")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        assert "demo-mamba1" in said(pilot)
        names = [choice.name for choice in model_choices()]
        await pilot.press(*["down"] * names.index("demo-mamba1"), "enter")
        await wait_until(pilot, lambda: session.done[2:] == ["demo-mamba1 off"] and not app.chat.controller.busy)
        session.open_error = ModelError("There is no model 'x'.", hint="Give a folder.")
        await type_line(pilot, "/model x")
        await wait_until(pilot, lambda: "✗ There is no model 'x'. Give a folder." in said(pilot))
        await type_line(pilot, "Still there?")
        await idle(pilot, app)


async def test_a_download_shows_how_far_it_is_and_can_be_stopped() -> None:
    session = FakeSession(download=4)
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "/model ./folder")
        session.let(3)
        await wait_until(pilot, lambda: "2.0 GB of 4.0 GB · ./folder weights" in said(pilot))
        assert "Getting" in said(pilot) and "50%" in said(pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Stopped: the model is still demo" in said(pilot))
        assert session.done == [] and app.chat.controller.model == "demo"
        session.free()
        await type_line(pilot, "Still there?")
        await idle(pilot, app)


async def test_json_holds_the_talk_with_its_places(tmp_path: Path) -> None:
    session = FakeSession(passages=(PASSAGE,))
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "/as-of page 3: Who?")
        await idle(pilot, app)
        await type_line(pilot, f"/export {tmp_path / 'talk.json'}")
        await wait_until(pilot, lambda: (tmp_path / "talk.json").exists())
        await type_line(pilot, "/copy all")
        await wait_until(pilot, lambda: "## Who?" in app.clipboard)
        assert "*as of page 3*" in app.clipboard
    data = json.loads((tmp_path / "talk.json").read_text())
    (exchange,) = data["exchanges"]
    assert data["document"] == "moby.txt" and exchange["question"] == "Who?" and exchange["how"]["as_of"] == "page 3"
    assert exchange["answers"][0]["answer"]["passages"][0]["place"] == "CHAPTER 1"


async def test_a_command_without_what_it_needs_says_what() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(100, 40)) as pilot:
        for command in COMMANDS:
            if command.needs_argument:
                await type_line(pilot, f"/{command.name}")
                await wait_until(pilot, lambda name=command.name: f"✗ /{name} needs" in said(pilot))


async def test_before_a_document_commands_say_what_is_missing() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(100, 40)) as pilot:
        lines = ["/add x", "/forget", "/compare", "/books", "/filter off", "/text", "/map", "/copy"]
        for count, line in enumerate(lines, start=1):
            await type_line(pilot, line)
            await wait_until(pilot, lambda wanted=count: len(app.chat.query("ErrorNote")) == wanted)
        assert app.is_running


@pytest.mark.parametrize("argument", ["Who is he?", "chapter 12:", ": who?", "", "chapter 12"])
def test_a_place_and_a_question_are_both_needed(argument: str) -> None:
    with pytest.raises(UsageError, match="needs a place and a question"):
        arguments.split_place(argument)


@pytest.mark.parametrize("argument", ["", "0 who?", "21 who?"])
def test_how_many_passages_has_its_limits(argument: str) -> None:
    with pytest.raises(UsageError, match="/reread needs a question"):
        arguments.split_count(argument)


def test_every_command_is_there_once_and_says_what_it_does() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names) and all(command.summary and HEADINGS[command.group] for command in COMMANDS)
    wanted = (
        "open add books forget model filter compare as-of keep reread surest reset stop text find map copy export "
        "sessions"
    )
    assert set(wanted.split()) <= set(names)


async def test_an_empty_conversation_offers_questions_until_one_is_asked() -> None:
    session = FakeSession(text=BOOK + "\n\n“Yes,” said Ahab. “No,” said Ahab. “So,” said Ahab.")
    async with chatting(session) as (app, pilot):
        await wait_until(pilot, lambda: "Try asking" in said(pilot))
        text = said(pilot)
        assert "Who is Ahab?" in text and "What happens in chapter 3?" in text and "/overview" in text
        await pilot.press("tab", "down", "enter")
        await wait_until(pilot, lambda: session.asked == ["What happens in chapter 3?"])
        await idle(pilot, app)
        assert "Try asking" not in said(pilot) and not app.chat.query("#welcome")
        session.text = "Another book."  # in a conversation that has begun nothing is offered
        await type_line(pilot, "/open other.txt")
        await wait_until(pilot, lambda: len(session.opened) == 2 and not app.chat.controller.busy)
        assert not app.chat.query(Suggestions)


async def test_an_overview_is_asked_of_a_model_that_can_give_it() -> None:
    session = FakeSession(passages=(PASSAGE,), found=False)
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "/overview")
        await wait_until(pilot, lambda: session.asked == [overview.QUESTION])
        await idle(pilot, app)
        assert "It is Ahab." in said(pilot) and not app.chat.query(PassageView)
        assert "not found" not in said(pilot)


async def test_a_demonstration_shows_the_table_of_contents_instead() -> None:
    session = FakeSession(known_questions=("What is the file number of {name}?",))
    async with chatting(session) as (app, pilot):
        await type_line(pilot, "/overview")
        await wait_until(pilot, lambda: "12 chapters were found" in said(pilot))
        assert session.asked == [] and "the demonstration model cannot give an overview" in said(pilot)
        (record,) = app.chat.log_view.records
        assert record.stage is Stage.DONE and "CHAPTER 12" in record.text
