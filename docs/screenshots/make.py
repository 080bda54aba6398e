"""Pictures of the chat for the README: real runs of the built-in model on the sample document.

    python docs/screenshots/make.py [FOLDER]

writes one SVG per picture, beside this file unless a folder is named. Nothing is downloaded.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from textual.pilot import Pilot  # noqa: E402

from longmamba_mlx.builtin import sample_document  # noqa: E402
from longmamba_mlx.session.session import Session  # noqa: E402
from longmamba_mlx.tui.app import ChatApp  # noqa: E402
from longmamba_mlx.tui.history.store import ConversationStore  # noqa: E402
from longmamba_mlx.tui.widgets.passage import PassageView  # noqa: E402

SIZE = (116, 34)
LIMIT_SECONDS = 120.0
QUESTION = "What is the access code of {}?"


async def until(pilot: Pilot[int], condition: Callable[[], object]) -> None:
    """Let the chat run until `condition` holds."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the chat did not get there")
        await pilot.pause(0.02)
    await pilot.pause(0.1)


async def enter(pilot: Pilot[int], app: ChatApp, line: str) -> None:
    app.chat.prompt.focus()
    app.chat.prompt.put(line)
    await pilot.press("enter")


async def tell(folder: Path, home: Path) -> None:
    """The story of one session; a picture wherever it is worth looking at."""
    book = home / "the-night-watch.txt"
    book.write_bytes(sample_document().read_bytes())
    app = ChatApp(lambda: Session("demo"), [str(book)], store=ConversationStore(home / "talks.sqlite"))
    app.animation_level = "none"

    def picture(name: str) -> None:
        (folder / f"{name}.svg").write_text(lighter(app.export_screenshot(title="longmamba-mlx chat")), "utf-8")

    def idle() -> bool:
        return not app.chat.controller.busy

    async with app.run_test(size=SIZE) as pilot:
        app.chat.prompt.cursor_blink = False
        await enter(pilot, app, QUESTION.format("Harrowgate"))
        while app.chat.bar.fraction < 0.3:  # a short document is read quickly: do not wait for anything else
            await asyncio.sleep(0.005)
        picture("reading")
        await until(pilot, lambda: app.chat.query(PassageView) and idle())
        app.chat.query(PassageView).first().focus()
        await pilot.press("enter")
        await pilot.pause(0.3)
        app.chat.prompt.focus()
        await until(pilot, idle)
        picture("passage")
        await enter(pilot, app, "/clear")
        await until(pilot, lambda: not app.chat.log_view.records)
        await enter(pilot, app, "/compare " + QUESTION.format("Selwyn Tarn"))
        await until(pilot, lambda: len(app.chat.log_view.records) == 1 and idle())
        picture("compare")
        app.theme = "mamba-light"
        await enter(pilot, app, "/find lantern")
        await pilot.pause(0.5)
        picture("find-light")


def lighter(svg: str) -> str:
    """Without the fonts that would be fetched from elsewhere, and without what the eye does not see."""
    for wasted in (
        r"@font-face\s*\{[^}]*\}",
        r"(?<=[\"#.])terminal-\d+-",
        r' clip-path="url\(#line-\d+\)"',
        r'<clipPath id="line-\d+">.*?</clipPath>',
        r"<text[^>]*>\s*</text>",
        r' shape-rendering="crispEdges"',
        r"^\s+",
    ):
        svg = re.sub(wasted, "", svg, flags=re.S | re.M)
    svg = svg.replace("<style>", "<style>rect { shape-rendering: crispEdges }")
    return svg.replace("Fira Code,", "Menlo, Consolas, DejaVu Sans Mono,").replace("&#160;", "\u00a0")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        os.environ["LONGMAMBA_HOME"] = home
        asyncio.run(tell(folder, Path(home)))
    for path in sorted(folder.glob("*.svg")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
