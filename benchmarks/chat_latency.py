"""How long one waits for the terminal chat, from a key to the cells it changes, on a real pseudo-terminal.

    python benchmarks/chat_latency.py [--json FILE] [--only keys,pages,stream,scroll,start,…] [--quick]

`start`, `opening` and `stop_reading` run the program as it is, with the built-in model; the others run it on a session
without a model, whose speed would be measured instead. A key counts as answered when what it changes has been written
to the terminal.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import string
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from longmamba_mlx.bench.machine import machine
from longmamba_mlx.builtin import sample_document
from longmamba_mlx.tui.history.records import Exchange, Reply, Stage
from longmamba_mlx.tui.history.store import ConversationStore
from tests.tui.pseudo_terminal import ESCAPE, Terminal

CHILD = Path(__file__).with_name("chat_child.py")
SIZES = ((80, 24), (160, 50))
LINES = 10_000
BOOK_BYTES = 5_000_000
RATE = 300
PATIENCE = 60.0
BESIDE = 110  # columns from which the text stands beside the talk
PAGE_UP, PAGE_DOWN, END, ESC, LEAVE = "\x1b[5~", "\x1b[6~", "\x1b[F", "\x1b", "\x11"
CTRL_R, CTRL_U, F2 = "\x12", "\x15", "\x1bOQ"
WORD = re.compile(r"w(\d{5})")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: milliseconds unless `what` says something else. `limit`: what was promised, None for nothing."""

    what: str
    where: str
    median: float
    p95: float
    worst: float
    samples: int
    limit: float | None = None


def row(what: str, where: str, seconds: list[float], limit: float | None = None) -> Row:
    """Median, 95th percentile and worst of some waits, in milliseconds."""
    waits = sorted(1000 * wait for wait in seconds)
    p95 = waits[min(round(0.95 * len(waits)), len(waits) - 1)]
    return Row(what, where, round(statistics.median(waits), 1), round(p95, 1), round(waits[-1], 1), len(waits), limit)


@dataclass(frozen=True, slots=True)
class Bench:
    """A home of its own for the program, with its books and a long talk; `scale`: of the samples."""

    home: Path
    scale: float

    @property
    def book(self) -> Path:
        """A text that is at once read."""
        return self.home / "book.txt"

    @property
    def large(self) -> Path:
        """A text of 5 MB."""
        return self.home / "large.txt"

    @property
    def notes(self) -> Path:
        return self.home / "notes.json"

    def count(self, samples: int) -> int:
        return max(round(samples * self.scale), 3)

    def prepare(self) -> None:
        """Write the books, and a talk of 10,000 lines about the small one."""
        text = sample_document().read_text("utf-8")
        self.book.write_text(text[:20_000], "utf-8")
        self.large.write_text((text * (BOOK_BYTES // len(text) + 1))[:BOOK_BYTES], "utf-8")
        store = ConversationStore(self.home / "talks.sqlite")
        talk = store.begin("A long talk", self.book.name, [str(self.book)], "demo")
        answer = "\n\n".join(f"Paragraph {number} of an answer, with *some* words." for number in range(20))
        for position in range(LINES // 40):
            exchange = Exchange(f"Question {position}?", stage=Stage.DONE, replies=[Reply("", answer)])
            store.put(talk, position, exchange)

    @contextmanager
    def chat(self, size: tuple[int, int], *, book: Path, rate: float = RATE, count: int = 1) -> Iterator[Terminal]:
        """The chat on a session without a model, with its book read."""
        command = [sys.executable, str(CHILD), str(book), str(rate), str(count), str(self.notes)]
        with self.started(command, size) as chat:
            chat.wait_for(f"Ask about {book.name}", PATIENCE)
            chat.forget(0.5)
            yield chat

    @contextmanager
    def program(
        self, *arguments: str, size: tuple[int, int] = SIZES[0], home: Path | None = None
    ) -> Iterator[Terminal]:
        """The program as it is."""
        with self.started([sys.executable, "-m", "longmamba_mlx", "chat", *arguments], size, home) as chat:
            yield chat

    @contextmanager
    def started(self, command: list[str], size: tuple[int, int], home: Path | None = None) -> Iterator[Terminal]:
        environment = {
            "LONGMAMBA_HOME": str(home or self.home),
            "TEXTUAL_ANIMATIONS": "full",
            # Compiled when it was first started, as an installed program is.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self.home / "bytecode"),
        }
        chat = Terminal(command, size=size, environment=environment)
        try:
            yield chat
        finally:
            chat.close()


# Typing.


def keys(bench: Bench) -> Iterator[Row]:
    """Letters into the prompt: with nothing said, in a talk of 10,000 lines, and while an answer comes into it."""
    for size in SIZES:
        where = f"{size[0]}×{size[1]}"
        with bench.chat(size, book=bench.book, count=100_000) as chat:
            yield row("key, new talk", where, typed(chat, bench.count(100)), 50)
            chat.type(CTRL_R)
            chat.wait_for("Going on with")
            chat.forget(0.5)
            yield row(f"key, talk of {LINES:,} lines", where, typed(chat, bench.count(100)), 50)
            chat.type("count?\r")
            chat.wait_for("w00300", PATIENCE)
            yield row(f"key, the same while {RATE} tokens/s come", where, typed(chat, bench.count(100)), 50)


def typed(chat: Terminal, samples: int) -> list[float]:
    """Type letters one by one, as a person does; how long each took to stand in the prompt."""
    chance = random.Random(7)
    waits, line = [], ""
    for _ in range(samples):
        time_out(chat, chance.uniform(0.05, 0.15))
        chat.raw = b""
        line += chance.choice(string.ascii_uppercase)
        pressed = chat.type(line[-1])
        waits.append(chat.wait_for(line) - pressed)
        if len(line) == 12:
            chat.type(CTRL_U)
            line = ""
    chat.type(CTRL_U)
    return waits


def time_out(chat: Terminal, seconds: float) -> None:
    """Let time pass, and read what is written meanwhile: a program whose terminal is full waits."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        chat.read(left)


# Paging.


def pages(bench: Bench) -> Iterator[Row]:
    """Page Up in a talk of 10,000 lines, through what has to be brought back."""
    for size in SIZES:
        with bench.chat(size, book=bench.book) as chat:
            chat.type(CTRL_R)
            chat.wait_for("Going on with")
            yield row(f"Page Up, talk of {LINES:,} lines", f"{size[0]}×{size[1]}", paged(chat, bench.count(40)), 50)


def scroll(bench: Bench) -> Iterator[Row]:
    """The text pane on a book of 5 MB: single pages, a held key, the end."""
    for size in SIZES:
        where = f"{size[0]}×{size[1]}"
        with bench.chat(size, book=bench.large) as chat:
            chat.type(F2)
            time_out(chat, 2.0)  # the rows of the whole book are found meanwhile
            if size[0] >= BESIDE:
                chat.type(F2)  # there the text was on the screen already, and is gone now
                time_out(chat, 2.0)
            yield row("Page Down, book of 5 MB", where, paged(chat, bench.count(40), PAGE_DOWN), 50)
            chat.forget(0.5)
            yield from held(chat, where, PAGE_DOWN, bench.count(90))
            chat.forget(0.5)
            pressed = chat.type(END)
            yield row("End, book of 5 MB", where, [chat.wait_for("end") - pressed])


def paged(chat: Terminal, samples: int, key: str = PAGE_UP) -> list[float]:
    """Press a page key when all is still; how long until something on the screen changes."""
    waits = []
    for _ in range(samples):
        chat.forget(0.4)
        pressed = chat.type(key)
        if chat.read(5.0):
            waits.append(chat.reads[-1][0] - pressed)
    return waits


def held(chat: Terminal, where: str, key: str, presses: int) -> Iterator[Row]:
    """A key that is held, 30 times a second: gaps between frames, and how long it goes on after the key is let go."""
    begun = time.monotonic()
    for number in range(presses):
        time_out(chat, begun + number / 30 - time.monotonic())
        chat.type(key)
    released = time.monotonic()
    while chat.read(0.3):
        pass
    times = [when for when, _ in chat.reads]
    gaps = [later - earlier for earlier, later in pairwise(times) if later - earlier > 0.002]
    yield row("gap between frames, Page Down held", where, gaps, 100)
    yield row("after it is let go, until all is still", where, [max(times[-1] - released, 0.0)])


# Streaming.


def stream(bench: Bench) -> Iterator[Row]:
    """Words offered at a rate: how long after it was offered each stands on the screen."""
    count = RATE * bench.count(10)
    for size in SIZES:
        with bench.chat(size, book=bench.book, count=count) as chat:
            chat.type("count?\r")
            seen = watched(chat, count)
            chat.forget(0.3)
            chat.type(LEAVE)
            chat.end()
        notes = json.loads(bench.notes.read_text("utf-8"))
        offered = notes["offered"]
        waits = [seen[number] - offered[number] for number in sorted(seen)]
        where = f"{size[0]}×{size[1]}"
        last = offered[-1] - offered[0] - (count - 1) / RATE
        yield row(f"token on the screen, {RATE}/s offered", where, waits, 100)
        yield row("the model's wait for the screen, longest", where, [notes["late"]], 100)
        yield row("the model behind its own pace at the end", where, [max(last, 0.0)], 100)


def watched(chat: Terminal, count: int) -> dict[int, float]:
    """When each word was first written to the terminal."""
    seen: dict[int, float] = {}
    rest = ""
    while count - 1 not in seen:
        if not chat.read(PATIENCE):
            raise TimeoutError(f"only {len(seen)} of {count} words came")
        when, data = chat.reads.pop()
        rest = ESCAPE.sub("", rest[-200:] + data.decode(errors="replace"))
        for match in WORD.finditer(rest):
            seen.setdefault(int(match[1]), when)
        chat.raw = b""
    return seen


# The program as it is.


def start(bench: Bench) -> Iterator[Row]:
    """A new process until the prompt is on the screen, and until a book that was read before can be asked."""

    def prompt(*arguments: str) -> float:
        with bench.program(*arguments) as chat:
            return chat.wait_for("❯", PATIENCE) - chat.started

    def reopened() -> float:
        with bench.program("--file", str(bench.book)) as chat:
            return chat.wait_for("Reopened", PATIENCE) - chat.started

    with bench.program("--file", str(bench.book)) as chat:
        chat.wait_for("Ask about", PATIENCE)
    samples = bench.count(10)
    yield row("start, until the prompt is there", "80×24", [prompt() for _ in range(samples)], 500)
    with_file = [prompt("--file", str(bench.book)) for _ in range(samples)]
    yield row("the same with a book", "80×24", with_file, 500)
    yield row("start, until a book read before is open", "80×24", [reopened() for _ in range(samples)])


def opening(bench: Bench) -> Iterator[Row]:
    """Letters from the first frame on, while the model is loaded and a book of 5 MB is counted and read."""
    with bench.program("--file", str(bench.large)) as chat:
        chat.wait_for("❯", PATIENCE)
        yield row("key, while a book is opened", "80×24", typed(chat, bench.count(60)), 50)


def stop_reading(bench: Bench) -> Iterator[Row]:
    """Esc while the built-in model reads 5 MB."""
    with bench.program("--file", str(bench.large)) as chat:
        yield row("Esc in a reading, until it has stopped", "80×24", list(stopped_readings(chat, bench.count(20))), 300)


def stop_answer(bench: Bench) -> Iterator[Row]:
    """Esc while an answer comes."""
    with bench.chat(SIZES[0], book=bench.book, count=100_000) as chat:
        yield row("Esc in an answer, until it has stopped", "80×24", list(stopped_answers(chat, bench.count(20))), 300)


def stopped_readings(chat: Terminal, samples: int) -> Iterator[float]:
    chance = random.Random(7)
    for _ in range(samples):
        chat.wait_for("left", PATIENCE)
        time_out(chat, chance.uniform(0.5, 1.0))
        yield esc(chat, "Stopped reading")
        chat.type("/open\r")


def stopped_answers(chat: Terminal, samples: int) -> Iterator[float]:
    chance = random.Random(7)
    for _ in range(samples):
        chat.type("count?\r")
        chat.wait_for("w00030")
        time_out(chat, chance.uniform(0.2, 0.6))
        yield esc(chat, "stopped ·")


def esc(chat: Terminal, wanted: str) -> float:
    chat.raw = b""
    pressed = chat.type(ESC)
    came = chat.wait_for(wanted)
    chat.forget(0.3)
    return came - pressed


MEASURES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "keys": keys,
    "pages": pages,
    "stream": stream,
    "scroll": scroll,
    "start": start,
    "opening": opening,
    "stop_reading": stop_reading,
    "stop_answer": stop_answer,
}


def show(row: Row) -> None:
    verdict = "" if row.limit is None else f"  {'within' if row.p95 <= row.limit else 'MISSES'} {row.limit:g}"
    print(
        f"{row.what:<46}{row.where:>8}{row.median:>9.1f}{row.p95:>9.1f}{row.worst:>9.1f}{row.samples:>6}{verdict}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default=",".join(MEASURES))
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    arguments = parser.parse_args()
    print(f"{'milliseconds':<54}{'median':>9}{'95 %':>9}{'worst':>9}{'n':>6}")
    rows = []
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(Path(home), 0.1 if arguments.quick else 1.0)
        bench.prepare()
        for name in arguments.only.split(","):
            for each in MEASURES[name](bench):
                show(each)
                rows.append(asdict(each))
    if arguments.json:
        document = {"machine": machine(), "unit": "milliseconds", "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
