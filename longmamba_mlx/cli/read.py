"""`read`: read and remember, alone or with several ranks, as one document or each file by itself."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from longmamba_mlx.cli.ask import say_which, sources
from longmamba_mlx.cli.interrupts import Stoppable, stopping
from longmamba_mlx.cli.progress import ReadingBar, summary
from longmamba_mlx.errors import DiskError, DocumentError, UsageError
from longmamba_mlx.events import Event, ReadDone
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.session.each import open_each
from longmamba_mlx.session.ranks.options import RankOptions
from longmamba_mlx.session.session import Session


@dataclass(frozen=True, slots=True)
class Crew:
    """How many ranks read, and on which machines; 1: this process alone."""

    ranks: int = 1
    hostfile: Path | None = None

    @property
    def is_alone(self) -> bool:
        return self.ranks == 1 and self.hostfile is None


def read_and_remember(options: RankOptions, files: Sequence[str], crew: Crew, *, model: str | None, json: bool) -> None:
    """Read and remember; print what was stored. Leaves with the exit code of DiskError when anything was not."""
    if crew.is_alone:
        session = Session(options.model, filter=options.filter, chunk=options.chunk, offline=options.offline,
                          hold_text=False, attention_window=options.attention_window,
                          encoding=options.encoding)  # fmt: skip
        names = sources(list(files))
        done = _read(session, open_each(names, session.open) if options.each else session.open(names), model, json)
    else:
        done = _read_by_ranks(options, files, crew, model, json)
    if not done:
        raise DocumentError("Nothing there can be read.", hint="Name files that hold text.")
    if any(each.stored is None for each in done):
        sys.exit(DiskError.exit_code)


def _read_by_ranks(
    options: RankOptions, files: Sequence[str], crew: Crew, model: str | None, json: bool
) -> list[ReadDone]:
    from longmamba_mlx.session.ranks import hosts
    from longmamba_mlx.session.ranks.launch import Ranks

    names = sources(list(files))
    if "-" in names:
        raise UsageError("Several ranks cannot share standard input.", hint="Name the document: --file F")
    found = hosts.on_this_machine(crew.ranks) if crew.hostfile is None else hosts.from_file(crew.hostfile)
    if crew.ranks not in (1, len(found)):
        raise UsageError(f"--ranks is {crew.ranks}, but the hostfile lists {len(found)} hosts.", hint="Leave it out.")
    ranks = Ranks(options, found)
    done = _read(ranks, ranks.open(names), model, json, ranks=ranks.size)
    if ranks.sent:
        print(f"Note: {ranks.size} ranks have sent each other {format_size(ranks.sent)}.", file=sys.stderr)
    return done


def _read(work: Stoppable, events: Iterable[Event], model: str | None, json: bool, **more: object) -> list[ReadDone]:
    """Show a reading as it goes, print every document that is ready, and return them."""
    done: list[ReadDone] = []
    with stopping(work), ReadingBar() as bar:
        for event in events:
            bar.show(event)
            if isinstance(event, ReadDone):
                bar.close()
                if not done:
                    say_which(model)
                done.append(event)
                _print(event, json, more)
    return done


def _print(done: ReadDone, json: bool, more: dict[str, object]) -> None:
    if json:
        print(json_module.dumps({**asdict(done), **more}, ensure_ascii=False), flush=True)
        return
    print(summary(done))
    print(f"Remembered as {done.stored[:12]}." if done.stored else "Not remembered.", flush=True)
