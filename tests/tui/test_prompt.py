"""The prompt's keys, the commands' hints, the help and the menu."""

from __future__ import annotations

from textual import events
from textual.screen import Screen

from longmamba_mlx.tui.commands.table import COMMANDS
from longmamba_mlx.tui.screens.help import HelpScreen
from tests.tui.fakes import FakeSession
from tests.tui.helpers import make_app, screen_text, type_line, wait_until


async def test_enter_asks_and_ctrl_j_begins_a_new_line() -> None:
    session = FakeSession().free()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press(*"who", "ctrl+j", *"why", "?")
        assert app.chat.prompt.text == "who\nwhy?" and app.chat.prompt.size.height == 2
        await pilot.press("enter")
        await wait_until(pilot, lambda: session.asked == ["who\nwhy?"])
        assert app.chat.prompt.text == "" and app.chat.prompt.size.height == 1
        await pilot.press("enter", "space", "enter")
        assert len(app.chat.log_view.exchanges) == 1


async def test_up_and_down_walk_the_history_and_keep_the_draft() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(80, 24)) as pilot:
        for text in ("first?", "second\nline?"):
            await type_line(pilot, text)
        prompt = app.chat.prompt
        await pilot.press(*"dra", "up")
        assert prompt.text == "second\nline?"
        await pilot.press("up")  # within the two lines
        assert prompt.text == "second\nline?" and prompt.cursor_location[0] == 0
        await pilot.press("up")
        assert prompt.text == "first?"
        await pilot.press("down", "down")
        assert prompt.text == "dra"
        await pilot.press("f", "t")
        assert prompt.text == "draft"


async def test_a_paste_of_many_lines_does_not_ask_and_is_sanitised() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(80, 24)) as pilot:
        app.chat.prompt.post_message(events.Paste("one\r\ntwo\rthree\x1b[2J‮"))
        await wait_until(pilot, lambda: app.chat.prompt.text == "one\ntwo\nthree")
        assert app.chat.log_view.exchanges == []


async def test_commands_are_hinted_completed_and_refused() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("/")
        text = screen_text(pilot)
        assert all(command.summary in text for command in COMMANDS[:7])
        assert f"1 of {len(COMMANDS)}" in text and text.count("\n") == 23
        await wait_until(pilot, lambda: app.focused is app.chat.prompt)
        await pilot.press("up")  # around the beginning
        await wait_until(pilot, lambda: f"{len(COMMANDS)} of {len(COMMANDS)}" in screen_text(pilot))
        text = screen_text(pilot)
        assert all(command.summary in text for command in COMMANDS[-7:])
        await pilot.press("down", "down", "tab")
        assert app.chat.prompt.text == f"/{COMMANDS[1].name} "
        app.chat.prompt.put("")
        await pilot.press("/", "e", "x", "tab")
        assert app.chat.prompt.text == "/export "
        await type_line(pilot, "/nonsense [/")
        text = screen_text(pilot)
        assert "✗ Unknown command /nonsense" in text and "Save the conversation" not in text
        await type_line(pilot, "/open")
        assert "✗ /open needs a file" in screen_text(pilot)
        await type_line(pilot, " /usr is a path?")
        assert [record.question for record in app.chat.log_view.records] == ["/usr is a path?"]


async def test_help_lists_every_command_and_closes() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(100, 90)) as pilot:
        for opening in ("f1", "/help"):
            if opening == "f1":
                await pilot.press("f1")
            else:
                await type_line(pilot, opening)
            await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))
            text = screen_text(pilot)
            assert all(command.usage in text and command.summary in text for command in COMMANDS)
            await pilot.press("escape")
            await wait_until(pilot, lambda: app.screen is app.chat)


async def test_the_menu_runs_commands_and_writes_those_that_need_a_file_into_the_prompt() -> None:
    app = make_app(FakeSession())
    async with app.run_test(size=(100, 40)) as pilot:
        listed = {command.title: command for command in app.get_system_commands(Screen[object]())}
        assert set(listed) == {command.usage for command in COMMANDS} | {"Theme"}
        await listed["/open FILE…"].callback()
        assert app.chat.prompt.text == "/open "
        await listed["/help"].callback()
        await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))
