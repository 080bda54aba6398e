"""The screen at usual, wide, narrow and tiny sizes, and without colours."""

from __future__ import annotations

from pathlib import Path

import pytest

from longmamba_mlx.retrieval.passages import Passage
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.commands.table import COMMANDS
from longmamba_mlx.tui.history.records import Exchange
from longmamba_mlx.tui.history.store import ConversationStore
from longmamba_mlx.tui.widgets.chat_log import ChatLog
from longmamba_mlx.tui.widgets.prompt import Prompt
from longmamba_mlx.tui.widgets.reading_bar import ReadingBar
from longmamba_mlx.tui.widgets.status_line import StatusLine
from longmamba_mlx.tui.widgets.title_bar import TitleBar
from tests.tui.fakes import FakeSession
from tests.tui.helpers import FakeClock, make_app, ready, said, screen_text, type_line, wait_until

PASSAGE = Passage(12, 0, 1, "He said that it is Ahab. " * 20, "A chapter with a rather long title", False)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
async def test_every_row_has_its_place(width: int, height: int) -> None:
    session = FakeSession(passages=(PASSAGE,))
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(width, height)) as pilot:
        chat = app.chat
        session.let(1)
        await wait_until(pilot, lambda: chat.bar.fraction == 0.25)
        regions = [chat.query_one(part).region for part in (TitleBar, ChatLog, ReadingBar, "#ask", StatusLine)]
        assert [region.height for region in regions] == [1, height - 7, 2, 3, 1]
        assert [region.y for region in regions] == [0, 1, height - 6, height - 4, height - 1]
        assert all(region.x + region.width <= width for region in regions)
        assert chat.query_one(Prompt).region.width == width - 8
        await ready(pilot, session)
        session.free()
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: session.asked and not chat.controller.busy)
        assert chat.query_one(ChatLog).region.height == height - 5 and not chat.bar.display
        assert max(len(line) for line in screen_text(pilot).split("\n")) <= width
        # What is new is at the bottom of what is seen.
        views = chat.log_view.exchanges[0].children
        assert views[-1].region.bottom <= chat.log_view.region.bottom


@pytest.mark.parametrize(("width", "height"), [(48, 16), (30, 12)])
async def test_small_terminals_keep_prompt_and_answer(width: int, height: int) -> None:
    session = FakeSession(pieces=["Ahab."])
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(width, height)) as pilot:
        session.let(1)
        await wait_until(pilot, lambda: app.chat.bar.fraction == 0.25)
        assert "Reading" in screen_text(pilot)
        await ready(pilot, session)
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: session.asked)
        session.let(1)
        await wait_until(pilot, lambda: app.chat.log_view.records[0].text)
        assert "Ahab." in screen_text(pilot)
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert "❯" in screen_text(pilot)


async def test_what_a_narrow_terminal_had_no_room_for_comes_back() -> None:
    session = FakeSession()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: session.asked)
        await pilot.resize_terminal(40, 12)
        await wait_until(pilot, lambda: "Esc stop" not in screen_text(pilot))
        await pilot.resize_terminal(120, 30)
        await wait_until(pilot, lambda: "Esc stop  F1 help  ^Q quit" in screen_text(pilot))


async def test_a_tiny_terminal_breaks_nothing() -> None:
    session = FakeSession(passages=(PASSAGE,))
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(9, 5)) as pilot:
        await ready(pilot, session)
        session.free()
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: session.asked and not app.chat.controller.busy)
        await pilot.press("f1")
        await pilot.resize_terminal(80, 24)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "He said that it is Ahab." in screen_text(pilot))
        assert app.chat.query_one(Prompt).region.width == 72


async def test_little_text_stands_at_the_top() -> None:
    app = make_app(FakeSession(), "moby.txt")
    async with app.run_test(size=(80, 24)) as pilot:
        for question in ("one?", "two?"):
            await type_line(pilot, question)
        app.chat.prompt.put("/e")
        await wait_until(pilot, lambda: "Save the conversation" in screen_text(pilot))
        assert app.chat.log_view.exchanges[0].region.y == app.chat.log_view.region.y + 1


async def test_a_long_question_grows_the_prompt_up_to_a_limit() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.prompt.put("\n".join("line" for _ in range(30)))
        await wait_until(pilot, lambda: app.chat.prompt.size.height == 8)
        assert app.chat.query_one(StatusLine).region.y == 23


async def test_memory_is_called_flat_only_where_it_was() -> None:
    app = make_app(FakeSession().free(), "moby.txt")
    async with app.run_test(size=(140, 24)) as pilot:
        await wait_until(pilot, lambda: app.chat.controller.queue.document and not app.chat.controller.busy)
        status = app.chat.status
        for sizes, flat in (
            ([10**9] * 11, False),
            ([5 * 10**8] * 3 + [10**9] * 9, True),
            ([10**8 * n for n in range(5, 20)], False),
        ):
            status.forget_memory()
            for size in sizes:
                status.memory(size)
            await pilot.pause()
            assert ("GB, constant" in screen_text(pilot)) == flat and "memory" in screen_text(pilot)


async def test_no_color_leaves_words_and_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    session = FakeSession(found=False).free()
    app = make_app(session, "moby.txt")
    assert app.no_color
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await type_line(pilot, "who?")
        await wait_until(pilot, lambda: "not found in the document" in screen_text(pilot))
        await type_line(pilot, "/x")
        assert "✗ Unknown command /x" in screen_text(pilot)


async def test_a_small_terminal_shows_what_every_dialog_is_for(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path / "talks.sqlite")
    for number in range(12):
        store.put(
            store.begin(f"Conversation {number} " + "about whales " * 9, "b", ("b",), "demo"), 0, Exchange("Who?")
        )
    app = ChatApp(lambda: FakeSession().free(), ["moby.txt"], store=store, clock=FakeClock())
    app.animation_level = "none"
    async with app.run_test(size=(40, 10)) as pilot:
        await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        app.chat.prompt.put("/")
        await wait_until(pilot, lambda: "/open FILE" in screen_text(pilot))
        assert "❯ /" in screen_text(pilot) and f"1 of {len(COMMANDS)}" in screen_text(pilot)
        app.chat.prompt.put("line\n" * 20)
        await wait_until(pilot, lambda: app.chat.query_one(StatusLine).region.y == 9)
        app.chat.prompt.put("")
        await pilot.press("f1")
        await wait_until(pilot, lambda: "New line; Shift+Enter" in said(pilot))
        await pilot.press("escape", "f4", "up")
        await wait_until(pilot, lambda: "Search in titles" in said(pilot) and "Conversation 0" in said(pilot))
        await pilot.press("ctrl+d")
        await wait_until(pilot, lambda: "Keep (n)" in said(pilot) and "Delete (y)" in said(pilot))
        await pilot.press("n", "escape")
        await type_line(pilot, "/model")
        await wait_until(pilot, lambda: "demo-mamba1" in said(pilot) and "Another: a folder" in said(pilot))
