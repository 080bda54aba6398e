"""`bench`: speed and memory on this machine, beside the peers that are installed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from longmamba_mlx.errors import UsageError

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure speed and memory on this machine. Other engines are measured too where they are installed.",
)

Rounds = Annotated[int, typer.Option("--rounds", min=1, help="Rounds; engines take turns within each.", metavar="N")]
Threads = Annotated[
    int, typer.Option("--threads", min=1, help="Threads, pinned to as many cores where possible.", metavar="N")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write machine, versions and rows to this file.", metavar="FILE")
]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw speed by length into this PNG.", metavar="FILE")]
Families = Annotated[str, typer.Option("--families", help="mamba, mamba2 or both, with a comma.", metavar="FAMILIES")]
Models = Annotated[str, typer.Option("--model", "-m", help="Models, with commas.", metavar="MODEL")]
BOTH, BUILT_IN = "mamba,mamba2", "demo,demo-mamba1"


@bench.command()
def peers(
    families: Families = BOTH,
    lengths: Annotated[
        str, typer.Option("--lengths", help="Prompt lengths in tokens.", metavar="LENGTHS")
    ] = "512,2048,8192",
    engines: Annotated[
        str, typer.Option("--engines", help="Engines, separated by commas.", metavar="ENGINES")
    ] = "longmamba-mlx,mlx-lm,transformers,llama.cpp",
    decode: Annotated[int, typer.Option("--decode", min=0, help="Tokens to decode; 0 for none.", metavar="N")] = 32,
    patience: Annotated[
        float, typer.Option("--patience", help="Skip what would take longer than this many seconds.", metavar="X")
    ] = 200.0,
    rounds: Rounds = 3,
    threads: Threads = 1,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Prefill and decode, compared with other engines. All run the same random 130m checkpoints, in turn."""
    from longmamba_mlx.bench import suites

    _check_plot(plot)
    rows = suites.peers(_names(families), _lengths(lengths), rounds=rounds, threads=threads, decode=decode,
                       patience=patience, log=_log, engines=_known_engines(engines))  # fmt: skip
    _finish(rows, json, plot, rounds=rounds, threads=threads)


@bench.command()
def prefill(
    model: Models = BUILT_IN,
    lengths: Annotated[
        str, typer.Option("--lengths", help="Lengths in tokens.", metavar="LENGTHS")
    ] = "4096,65536,262144",
    rounds: Rounds = 3,
    threads: Threads = 1,
    json: JsonFile = None,
    plot: PlotFile = None,
) -> None:
    """Prefill by length: speed, memory and the cost of the filter."""
    from longmamba_mlx.bench import suites

    _check_plot(plot)
    rows = suites.prefill(_names(model), _lengths(lengths), rounds=rounds, threads=threads, log=_log)
    _finish(rows, json, plot, rounds=rounds, threads=threads)


@bench.command()
def decode(
    families: Families = BOTH,
    tokens: Annotated[int, typer.Option("--tokens", min=8, help="Tokens to decode.", metavar="N")] = 64,
    rounds: Rounds = 3,
    threads: Threads = 1,
    json: JsonFile = None,
) -> None:
    """Decoding speed, compared with one read of all weights."""
    from longmamba_mlx.bench import suites

    rows = suites.decode(_names(families), rounds=rounds, threads=threads, steps=tokens, log=_log)
    _finish(rows, json, None, rounds=rounds, threads=threads)


@bench.command()
def scan(
    lengths: Annotated[str, typer.Option("--lengths", help="Lengths in tokens.", metavar="LENGTHS")] = "512",
    rounds: Rounds = 3,
    threads: Threads = 1,
    json: JsonFile = None,
) -> None:
    """The scans alone, in the shapes of a layer of a 130m model."""
    from longmamba_mlx.bench import suites

    rows = suites.scan(_lengths(lengths), rounds=rounds, threads=threads)
    _finish(rows, json, None, rounds=rounds, threads=threads)


@bench.command()
def reopen(model: Models = BUILT_IN, rounds: Rounds = 3, threads: Threads = 1, json: JsonFile = None) -> None:
    """Reopening a stored document. Measures the time until its state is ready, and from the shell to an answer."""
    from longmamba_mlx.bench import suites

    rows = suites.reopen(_names(model), rounds=rounds, threads=threads, log=_log)
    _finish(rows, json, None, rounds=rounds, threads=threads)


def _finish(rows: Sequence[dict[str, Any]], json: Path | None, plot: Path | None, **settings: object) -> None:
    from longmamba_mlx.bench import report

    print(report.table(rows))
    if json is not None:
        report.write_json(json, report.report(rows, settings))
    if plot is not None:
        report.plot(rows, plot)


def _check_plot(plot: Path | None) -> None:
    """Before anything is measured: a figure that cannot be drawn must not cost half an hour first."""
    if plot is not None:
        from longmamba_mlx.evaluation.plots import require_matplotlib

        require_matplotlib()


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _known_engines(text: str) -> list[str]:
    from longmamba_mlx.bench.engines import ENGINES

    names = _names(text)
    for name in names:
        if name not in ENGINES:
            raise UsageError(f"There is no engine {name!r}.", hint=f"One of: {', '.join(ENGINES)}.")
    return names


def _lengths(text: str) -> list[int]:
    try:
        lengths = [int(part) for part in _names(text)]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1:
        raise UsageError(f"Invalid --lengths {text!r}.", hint="Give token counts with commas: 512,2048")
    return lengths
