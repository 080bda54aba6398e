"""A model named by its Hub id, fetched in the chat from a server on this machine: shown, stopped, taken up again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from longmamba_mlx.registry.local_models import installed_folder
from longmamba_mlx.session.session import Session
from longmamba_mlx.tui.app import ChatApp
from longmamba_mlx.tui.screens.confirm import ConfirmScreen
from tests.conversion.hub_server import Hub, serving_model
from tests.tui.helpers import make_app, said, type_line, wait_until

NAME = "someone/tiny"
WEIGHTS = "model-00001-of-00002.safetensors"


@pytest.fixture
def hub(tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_model(NAME, tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def app(tmp_path: Path) -> ChatApp:
    book = tmp_path / "book.txt"
    book.write_text("The access code of Zorvath is 48213. " * 5)
    return make_app(Session(), str(book))  # type: ignore[arg-type]


async def ask_for(pilot: Pilot[Any], app: ChatApp, name: str) -> None:
    """/model, and agree to the download."""
    await type_line(pilot, f"/model {name}")
    await wait_until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
    await pilot.press("y")


async def test_a_model_is_fetched_after_the_first_try_was_stopped(hub: Hub, app: ChatApp) -> None:
    hub.faults[WEIGHTS] = ["hold"]
    async with app.run_test(size=(100, 40)) as pilot:
        await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        await ask_for(pilot, app, NAME)
        await wait_until(pilot, lambda: "Getting" in said(pilot) and f"kB · {NAME}" in said(pilot))
        began = time.monotonic()
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Stopped: the model is still demo." in said(pilot))
        assert time.monotonic() - began < 2, "the server said nothing more, and Esc waited for it"
        assert "Trying again resumes it." in said(pilot) and "✗" not in said(pilot)
        assert not installed_folder(NAME).exists() and app.chat.controller.model == "demo"
        hub.released.set()
        await ask_for(pilot, app, NAME)
        await wait_until(pilot, lambda: app.chat.controller.model == NAME and not app.chat.controller.busy)
        assert installed_folder(NAME).is_dir() and "✗" not in said(pilot)
        assert "Read book.txt" in said(pilot)
        app.chat.controller.leave()
        app.engine.join(10)


async def test_a_hub_that_is_not_there_is_said_and_the_model_stays(
    hub: Hub, app: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    async with app.run_test(size=(100, 40)) as pilot:
        await wait_until(pilot, lambda: app.chat.panel.book and not app.chat.controller.busy)
        await ask_for(pilot, app, NAME)
        await wait_until(pilot, lambda: "the Hub was not reached" in said(pilot))
        await wait_until(pilot, lambda: not app.chat.controller.busy)
        assert app.chat.controller.model == "demo"
        await type_line(pilot, "What is the access code of Zorvath?")
        await wait_until(pilot, lambda: "48213" in said(pilot) and not app.chat.controller.busy)
        app.chat.controller.leave()
        app.engine.join(10)
