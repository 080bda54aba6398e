"""Talks in the chat: kept as they are held, found again, gone on with; the first screen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.history.records import Exchange, Reply, Stage
from longmamba_mlx.tui.history.store import ConversationStore
from longmamba_mlx.tui.screens.confirm import ConfirmScreen
from longmamba_mlx.tui.screens.conversations import ConversationsScreen
from longmamba_mlx.tui.widgets.chat_log import ENOUGH
from longmamba_mlx.tui.widgets.passage import PassageView
from longmamba_mlx.tui.widgets.start_menu import StartMenu
from longmamba_mlx.tui.widgets.text_pane import TextPane
from tests.tui.fakes import BOOK, FakeSession
from tests.tui.helpers import FakeClock, said, screen_text, type_line, wait_until, widget_text


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    return ConversationStore(tmp_path / "talks.sqlite")


@pytest.fixture
def book(tmp_path: Path) -> str:
    path = tmp_path / "moby.txt"
    path.write_text(BOOK)
    return str(path)


@asynccontextmanager
async def chat(
    store: ConversationStore, *paths: str, session: FakeSession | None = None, size: tuple[int, int] = (100, 40)
) -> AsyncIterator[tuple[ChatApp, Pilot[int], FakeSession]]:
    """A chat that keeps its talks, its document read."""
    session = (session or FakeSession()).free()
    app = ChatApp(lambda: session, paths, store=store, clock=FakeClock())
    app.animation_level = "none"
    async with app.run_test(size=size) as pilot:
        if paths:
            await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        else:
            await wait_until(pilot, lambda: app.chat.query(StartMenu))
        yield app, pilot, session


async def asked(pilot: Pilot[int], app: ChatApp, question: str) -> None:
    count = len(app.chat.log_view.records)
    await type_line(pilot, question)
    await wait_until(
        pilot, lambda: len(app.chat.log_view.records) > count and not app.chat.controller.busy, f"{question} answered"
    )


async def test_the_story_quit_and_go_on(store: ConversationStore, book: str) -> None:
    start = BOOK.index("Line 5 of chapter 3")
    passage = Passage(9, start, start + 19, BOOK[start : start + 19], "", False)
    session = FakeSession(passages=(passage,))
    async with chat(store, book, session=session) as (app, pilot, _):
        for question in ("Who hunts?", "And why?"):
            await asked(pilot, app, question)
    async with chat(store, book, session=FakeSession(reopened=True)) as (app, pilot, session):
        assert "You asked 2 questions about this before: Ctrl+R resumes" in said(pilot)
        await pilot.press("up", "up")
        assert app.chat.prompt.text == "Who hunts?"
        app.chat.prompt.put("")
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: len(app.chat.log_view.exchanges) == 2)
        assert "Resuming “Who hunts?”" in said(pilot) and "It is Ahab." in said(pilot)
        assert session.opened == [(book,)]  # it is open already
        await pilot.click(PassageView)
        await wait_until(pilot, lambda: "Line 5 of chapter 3" in widget_text(app.chat.query_one(TextPane)))
        await pilot.press("escape")
        await asked(pilot, app, "What else?")
    (talk,) = store.conversations()
    assert talk.exchanges == 3 and [each.question for each in store.load(talk.id)][-1] == "What else?"
    assert talk.document == "moby.txt" and talk.paths == (book,) and talk.model == "demo"


async def test_questions_that_still_waited_are_kept_and_come_back(store: ConversationStore, book: str) -> None:
    session = FakeSession()
    app = ChatApp(lambda: session, [book], store=store, clock=FakeClock())
    async with app.run_test(size=(100, 40)) as pilot:
        await wait_until(pilot, lambda: app.chat.controller.queue.reading)
        for question in ("first?", "second?"):
            await type_line(pilot, question)
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: not app.is_running)
    (talk,) = store.conversations()
    assert talk.paths == (book,) and talk.document == "moby.txt" and session.asked == []
    assert [each.question for each in store.load(talk.id)] == ["first?", "second?"]
    async with chat(store, book) as (app, pilot, _):
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: len(app.chat.log_view.records) == 2)
        assert screen_text(pilot).count("not asked: the chat was left before") == 2
        await pilot.press("up")
        assert app.chat.prompt.text == "second?"


async def test_the_first_screen_goes_on_with_a_talk_and_reopens_its_document(
    store: ConversationStore, book: str
) -> None:
    async with chat(store, book) as (app, pilot, _):
        await asked(pilot, app, "Who hunts?")
    async with chat(store) as (app, pilot, session):
        assert "Who hunts? 1 question · just now · moby.txt" in said(pilot)
        assert "Read the sample document" in screen_text(pilot)
        await pilot.press("enter")
        await wait_until(pilot, lambda: session.opened == [(book,)] and not app.chat.controller.busy)
        assert "It is Ahab." in said(pilot) and not app.chat.query(StartMenu)


async def test_going_on_while_an_answer_comes_is_refused_in_one_line(store: ConversationStore, book: str) -> None:
    store.put(store.begin("Whales", "moby.txt", (book,), "demo"), 0, Exchange("Who?", stage=Stage.DONE))
    async with chat(store, book) as (app, pilot, session):
        session._free.clear()
        await type_line(pilot, "Who hunts?")
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: "✗ An answer is coming Esc stops it." in said(pilot))
        session.free()
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert "It is Ahab." in said(pilot) and app.is_running


async def test_where_there_is_no_talk_to_go_on_with_that_is_said(
    store: ConversationStore, book: str, tmp_path: Path
) -> None:
    async with chat(store, book) as (app, pilot, _):
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: "No conversation about moby.txt is kept · F4 lists all" in said(pilot))
    app = ChatApp(lambda: FakeSession().free(), [book], store=None, clock=FakeClock())
    app.animation_level = "none"
    async with app.run_test(size=(100, 40)) as pilot:
        await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: "Conversations are not kept: the chat was started" in said(pilot))


async def test_going_on_while_the_document_is_read_does_not_read_it_twice(store: ConversationStore, book: str) -> None:
    store.put(store.begin("Whales", "moby.txt", (book,), "demo"), 0, Exchange("Who?", stage=Stage.DONE))
    session = FakeSession()
    app = ChatApp(lambda: session, [book], store=store, clock=FakeClock())
    app.animation_level = "none"
    async with app.run_test(size=(100, 40)) as pilot:
        await wait_until(pilot, lambda: app.chat.controller.busy and "Ctrl+R resumes" in said(pilot))
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: "Resuming “Whales”" in said(pilot))
        await type_line(pilot, "And?")
        session.free()
        await wait_until(pilot, lambda: session.asked == ["And?"] and not app.chat.controller.busy)
        # Leaving in the middle of an answer keeps what came of it.
        session._free.clear()
        await type_line(pilot, "Last?")
        session.let(1)
        await wait_until(pilot, lambda: app.chat.log_view.records[-1].text == "It ")
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: not app.is_running)
    assert len(session.opened) == 1
    (talk,) = store.conversations()
    assert [(each.question, each.text) for each in store.load(talk.id)][1:] == [
        ("And?", "It is Ahab."),
        ("Last?", "It "),
    ]


async def test_typing_and_pasting_on_the_first_screen_go_into_the_prompt(store: ConversationStore) -> None:
    async with chat(store) as (app, pilot, _):
        assert isinstance(app.focused, StartMenu)
        await pilot.press("w", "h", "o")
        assert app.chat.prompt.text == "who" and app.focused is app.chat.prompt
        app.chat.query_one(StartMenu).focus()
        app.chat.query_one(StartMenu).post_message(events.Paste(" is\x1b[2J"))
        await wait_until(pilot, lambda: app.chat.prompt.text == "who is")


async def test_what_is_typed_faster_than_the_screen_is_asked_and_chooses_nothing(
    store: ConversationStore, book: str
) -> None:
    store.put(store.begin("Whales", "moby.txt", (book,), "demo"), 0, Exchange("Who?", stage=Stage.DONE))
    async with chat(store) as (app, pilot, session):
        menu = app.chat.query_one(StartMenu)
        for key, character in (("w", "w"), ("h", "h"), ("o", "o"), ("enter", "\r")):
            menu.post_message(events.Key(key, character))
        await wait_until(pilot, lambda: [record.question for record in app.chat.log_view.records] == ["who"])
        assert session.opened == []


async def test_the_first_screen_reads_the_sample(store: ConversationStore) -> None:
    async with chat(store) as (app, pilot, session):
        await wait_until(pilot, lambda: isinstance(app.focused, StartMenu))
        await pilot.press("enter")
        await wait_until(pilot, lambda: session.opened and not app.chat.controller.busy)
        assert session.opened[0][0].endswith("sample.txt") and Path(session.opened[0][0]).exists()


async def test_sessions_are_searched_renamed_and_deleted_only_when_confirmed(
    store: ConversationStore, book: str
) -> None:
    for title in ("Whales", "Tea"):
        talk = store.begin(title, "moby.txt", (book,), "demo")
        store.put(talk, 0, Exchange(f"About {title}?", stage=Stage.DONE))
    async with chat(store, book) as (app, pilot, _):
        await pilot.press("f4")
        await wait_until(pilot, lambda: isinstance(app.screen, ConversationsScreen) and "Whales" in screen_text(pilot))
        options = app.screen.query_one(OptionList)
        await pilot.press(*"whal")
        await wait_until(pilot, lambda: options.option_count == 1)
        await pilot.press("ctrl+n")
        assert app.screen.query_one(Input).value == "Whales" and "New title" in screen_text(pilot)
        await pilot.press(*" [/", "enter")
        await wait_until(pilot, lambda: "Whales [/" in screen_text(pilot))
        await pilot.press("ctrl+d")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "Delete “Whales [/” with 1 question?" in said(pilot)
        await pilot.press("enter")  # the button that keeps it
        await wait_until(pilot, lambda: isinstance(app.screen, ConversationsScreen))
        assert len(store.conversations()) == 2
        await pilot.press("ctrl+d")
        await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await wait_until(pilot, lambda: len(store.conversations()) == 1)
        await wait_until(pilot, lambda: "Nothing was found" in screen_text(pilot))
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is app.chat)


async def test_sessions_take_words_and_go_on_with_the_chosen_one(store: ConversationStore, book: str) -> None:
    talk = store.begin("Whales", "moby.txt", (book,), "demo")
    store.put(talk, 0, Exchange("Who?", stage=Stage.DONE, replies=[Reply("", "Ahab himself.")]))
    store.put(store.begin("Tea", "alice.txt", ("/gone.txt",), "demo"), 0, Exchange("Tea?", stage=Stage.DONE))
    async with chat(store, book) as (app, pilot, session):
        await type_line(pilot, "/sessions himself")
        await wait_until(pilot, lambda: isinstance(app.screen, ConversationsScreen) and "Whales" in screen_text(pilot))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Ahab himself." in said(pilot))
        await type_line(pilot, "/rename Great whales")
        await wait_until(pilot, lambda: [each.title for each in store.conversations("great")] == ["Great whales"])
        await type_line(pilot, "/sessions tea")
        await wait_until(pilot, lambda: isinstance(app.screen, ConversationsScreen) and "Tea" in screen_text(pilot))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "✗ Its document no longer exists" in said(pilot))
        assert len(session.opened) == 1


async def test_a_new_talk_is_another_one_and_colours_are_kept(store: ConversationStore, book: str) -> None:
    async with chat(store, book) as (app, pilot, _):
        await asked(pilot, app, "One?")
        await type_line(pilot, "/new")
        await wait_until(pilot, lambda: not app.chat.log_view.records)
        await asked(pilot, app, "Two?")
        await type_line(pilot, "/themes mamba-light")
        await wait_until(pilot, lambda: app.theme == "mamba-light")
    assert sorted(talk.title for talk in store.conversations()) == ["One?", "Two?"]
    async with chat(store, book) as (app, pilot, _):
        assert app.theme == "mamba-light"


async def test_a_file_that_cannot_be_used_is_told_once_and_costs_nothing_else(tmp_path: Path, book: str) -> None:
    (tmp_path / "talks.sqlite").write_bytes(b"no database" * 500)
    async with chat(ConversationStore(tmp_path / "talks.sqlite"), book, size=(140, 40)) as (app, pilot, _):
        for question in ("One?", "Two?"):
            await asked(pilot, app, question)
        assert screen_text(pilot).count("cannot be used") == 1 and said(pilot).count("It is Ahab.") == 2


async def test_of_a_long_talk_only_the_end_is_widgets_and_the_rest_comes_back(
    store: ConversationStore, book: str
) -> None:
    talk = store.begin("Long", "moby.txt", (book,), "demo")
    answer = "\n\n".join(f"Paragraph {number}." for number in range(10))
    count = 30
    for number in range(count):
        said_before = Exchange(f"Question {number}?", stage=Stage.DONE, replies=[Reply("", answer)], files=(book,))
        store.put(talk, number, said_before)
    async with chat(store, book) as (app, pilot, _):
        await pilot.press("ctrl+r")
        log = app.chat.log_view
        await wait_until(pilot, lambda: len(log.records) == count and f"Question {count - 1}?" in said(pilot))
        mounted = len(log.exchanges)
        assert mounted <= ENOUGH // 6 + 1  # an exchange without passages is six widgets
        for _ in range(12):
            await pilot.press("pageup")
        await wait_until(pilot, lambda: len(log.exchanges) > mounted)
        first = log.exchanges[0].exchange.question
        assert first == f"Question {count - len(log.exchanges)}?"
        for number in range(3):
            await asked(pilot, app, f"New {number}?")
        assert len(log.exchanges) < 2 * mounted + 4 and len(log.records) == count + 3
        await type_line(pilot, f"/export {Path(book).parent / 'all.md'}")
        await wait_until(pilot, lambda: (Path(book).parent / "all.md").exists())
        assert (Path(book).parent / "all.md").read_text().count("\n## ") == count + 3


async def test_added_files_come_back_with_the_conversation(store: ConversationStore, book: str, tmp_path: Path) -> None:
    second = tmp_path / "second file.txt"
    second.write_text("Another text, about tea.")
    passage = Passage(1, 0, 9, "CHAPTER 1", "CHAPTER 1", False, "CHAPTER 1")
    session = FakeSession(passages=(passage,))
    async with chat(store, book, session=session) as (app, pilot, _):
        await asked(pilot, app, "One?")
        session.text = BOOK + "\n\nAnother text, about tea."
        await type_line(pilot, f"/add {second}")
        await wait_until(pilot, lambda: app.chat.controller.queue.paths == (book, str(second)))
        await asked(pilot, app, "Two?")
        await type_line(pilot, f"/export {tmp_path / 'out.md'}")
        await wait_until(pilot, lambda: (tmp_path / "out.md").exists())
    headings = [line for line in (tmp_path / "out.md").read_text().split("\n") if line.startswith("#")]
    assert headings == ["# moby.txt", "## moby.txt", "### One?", "## moby.txt, second file.txt", "### Two?"]
    (kept,) = store.conversations()
    assert kept.paths == (book, str(second))
    assert [each.files for each in store.load(kept.id)] == [(book,), (book, str(second))]
    async with chat(store, book, session=FakeSession()) as (app, pilot, session):
        assert "about this and second file.txt before" in said(pilot)
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: session.opened[-1:] == [(book, str(second))] and not app.chat.controller.busy)
        # The second answer was found in a text that this stand-in does not have: the files are named.
        app.chat.log_view.exchanges[1].query_one(PassageView).action_choose()
        await wait_until(pilot, lambda: "moby.txt, second file.txt is not open" in said(pilot))


async def test_a_document_that_changed_on_disk_is_offered_to_be_read_again(store: ConversationStore, book: str) -> None:
    async with chat(store, book) as (app, pilot, session):
        await asked(pilot, app, "One?")
        assert app.chat.controller.changed_files() == []
        Path(book).write_text(BOOK + "More.")
        await app.chat.controller.watch_files()
        await wait_until(pilot, lambda: "moby.txt changed on disk" in said(pilot))
        for key, opened, question in (("n", 1, "Two?"), ("y", 2, "Three?")):
            await type_line(pilot, question)
            await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert "moby.txt has changed on disk" in said(pilot) and question not in session.asked
            await pilot.press(key)
            await wait_until(pilot, lambda asked=question: asked in session.asked and not app.chat.controller.busy)
            assert len(session.opened) == opened and session.asked[-1] == question
            assert app.chat.controller.changed_files() == []
            Path(book).write_text(BOOK + "Still more." * opened)
        Path(book).unlink()  # nothing to read again
        assert app.chat.controller.changed_files() == []


async def test_a_long_folder_is_read_only_with_consent(store: ConversationStore, tmp_path: Path) -> None:
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "a.txt").write_text(BOOK)
    session, clock = FakeSession(chunks=400, chunk_tokens=10_000), FakeClock()
    app = ChatApp(lambda: session, [str(tmp_path / "books")], store=store, clock=clock)
    app.animation_level = "none"
    async with app.run_test(size=(100, 40)) as pilot:
        for key in ("n", "y"):
            session.let(2)
            await wait_until(pilot, lambda: app.chat.bar.fraction > 0)
            assert not isinstance(app.screen, ConfirmScreen)  # its speed is not known yet
            clock.now += 2
            session.let(2)
            await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert "books: 4,000,000 tokens, about 13 min. Read all of it?" in said(pilot)
            await pilot.press(key)
            if key == "n":
                await wait_until(pilot, lambda: "books was not read" in said(pilot))
                assert not app.chat.controller.busy
                session.hold()
                await type_line(pilot, "/open")
        session.free()
        await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        assert len(session.opened) == 3
