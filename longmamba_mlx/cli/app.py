"""All commands in one table. Each body is thin: options in, a session or one function, text out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longmamba_mlx.cli import models
from longmamba_mlx.cli import options as o
from longmamba_mlx.cli.bench import bench
from longmamba_mlx.cli.defaults import CHAT_TOKENS, FILTER, SEED, TEMPERATURE
from longmamba_mlx.cli.eval import evaluation
from longmamba_mlx.cli.fetch_model import chosen
from longmamba_mlx.cli.plain_help import plain_help
from longmamba_mlx.cli.states import states
from longmamba_mlx.registry.resolve import DEFAULT

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Read a long document once, with a Mamba model on this machine, and ask it questions.",
)
app.add_typer(states, name="states")
app.add_typer(evaluation, name="eval")
app.add_typer(bench, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        from longmamba_mlx import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Read a long document once, with a Mamba model on this machine, and ask it questions."""


@app.command()
def chat(
    file: o.File = None,
    encoding: o.Encoding = "",
    model: o.ModelOrDefault = None,
    filter: o.Filter = FILTER,
    max_tokens: o.MaxTokens = CHAT_TOKENS,
    temp: o.Temperature = TEMPERATURE,
    seed: o.Seed = SEED,
    chunk: o.Chunk = None,
    attention_window: o.Window = None,
    offline: o.Offline = False,
    no_save: o.NoSave = False,
) -> None:
    """Chat about documents in the terminal. `longmamba-mlx book.txt` does the same."""
    from longmamba_mlx.cli.chat import chat_about

    model = chosen(model, offline=offline)
    raise typer.Exit(
        chat_about(file or [], model or DEFAULT, filter=filter, max_tokens=max_tokens, temperature=temp, seed=seed,
                   chunk=chunk, offline=offline, save=not no_save, attention_window=attention_window,
                   encoding=encoding)
    )  # fmt: skip


@app.command()
def ask(
    question: Annotated[
        str | None, typer.Argument(help="The question, in quotes; - reads questions from standard input.")
    ] = None,
    file: o.File = None,
    encoding: o.Encoding = "",
    questions: Annotated[
        Path | None, typer.Option("--questions", help="File with one question per line.", metavar="FILE")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Ask each question as a follow-up to the one before.")] = False,
    reread: o.Reread = 0,
    as_of: o.AsOf = None,
    surest: o.Surest = False,
    part_tokens: o.PartTokens = None,
    model: o.ModelOrDefault = None,
    filter: o.Filter = FILTER,
    max_tokens: o.MaxTokens = 64,
    temp: o.Temperature = TEMPERATURE,
    seed: o.Seed = SEED,
    chunk: o.Chunk = None,
    attention_window: o.Window = None,
    offline: o.Offline = False,
    no_save: o.NoSave = False,
    json: o.Json = False,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the answer when it is complete.")] = False,
    fail_if_not_found: Annotated[
        bool, typer.Option("--fail-if-not-found", help="Exit with code 3 when nothing is found.")
    ] = False,
) -> None:
    """Answer questions about documents. Answers go to standard output, everything else to standard error."""
    from longmamba_mlx.cli.ask import Way, ask_about, wanted_questions
    from longmamba_mlx.session.session import Session

    model = chosen(model, offline=offline)
    session = Session(model or DEFAULT, filter=filter, max_tokens=max_tokens, temperature=temp, seed=seed, chunk=chunk,
                      offline=offline, save=not no_save, hold_text=False,
                      attention_window=attention_window, encoding=encoding)  # fmt: skip
    way = Way(keep=keep, reread=reread, as_of=as_of, surest=surest, part_tokens=part_tokens, json=json,
              stream=not no_stream)  # fmt: skip
    found = ask_about(session, file or [], wanted_questions(question, questions, file or []), way, model=model)
    if fail_if_not_found and not found:
        raise typer.Exit(3)


@app.command()
def read(
    file: o.File = None,
    encoding: o.Encoding = "",
    each: Annotated[bool, typer.Option("--each", help="Store every file as a separate document.")] = False,
    ranks: Annotated[
        int,
        typer.Option("--ranks", min=1, max=64, help="Number of processes that read together.", metavar="N"),
    ] = 1,
    hostfile: Annotated[
        Path | None,
        typer.Option("--hostfile", help="Hostfile of mlx.launch: the Macs that read together.", metavar="FILE"),
    ] = None,
    model: o.ModelOrDefault = None,
    filter: o.Filter = FILTER,
    chunk: o.Chunk = None,
    attention_window: o.Window = None,
    offline: o.Offline = False,
    json: o.Json = False,
) -> None:
    """Read documents and store them. `chat` and `ask` then open them at once."""
    from longmamba_mlx.cli.read import Crew, read_and_remember
    from longmamba_mlx.session.ranks.options import RankOptions

    model = chosen(model, offline=offline)
    options = RankOptions((), model or DEFAULT, filter, chunk, attention_window, offline, encoding, each)
    read_and_remember(options, file or [], Crew(ranks, hostfile), model=model, json=json)


@app.command(hidden=True)
def rank(options: Annotated[str, typer.Argument()]) -> None:
    """One of the processes that `read --ranks` starts."""
    from longmamba_mlx import __version__
    from longmamba_mlx.session.ranks.process import run_rank

    raise typer.Exit(run_rank(options, __version__))


@app.command()
def demo(
    model: o.Model = "demo",
    json: o.Json = False,
) -> None:
    """Compare answers with the filter off and on. A built-in model reads the sample document."""
    from longmamba_mlx.cli.demo import demonstrate

    demonstrate(model, json=json)


models.register(app)


@app.command()
def calibrate(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Model folder or Hub id. The built-in models are calibrated; --report prints theirs.",
            metavar="MODEL",
        ),
    ],
    text: Annotated[
        Path | None, typer.Option("--text", help="Text to measure on; the sample document by default.", metavar="FILE")
    ] = None,
    encoding: o.Encoding = "",
    windows: Annotated[
        int, typer.Option("--windows", min=1, help="Number of windows, each of training length.", metavar="N")
    ] = 16,
    report: Annotated[
        bool, typer.Option("--report", help="Print the calibration; measure it first if there is none.")
    ] = False,
    filter: o.Filter = FILTER,
    json: o.Json = False,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the report into this PNG.", metavar="FILE")] = None,
) -> None:
    """Measure a model's step sizes for the filter. They are stored beside the model."""
    if report or plot is not None or json:
        from longmamba_mlx.cli.calibrate import report_calibration

        report_calibration(model, text, windows, encoding=encoding, filter=filter, json=json, plot=plot)
        return
    from longmamba_mlx.cli.doctor import calibrate_model

    calibrate_model(model, text, windows, encoding=encoding)


@app.command()
def mcp(
    allow: o.Allow = None,
    model: o.ModelOrDefault = None,
    filter: o.Filter = FILTER,
    chunk: o.Chunk = None,
    attention_window: o.Window = None,
    offline: o.Offline = False,
) -> None:
    """Serve stored documents to MCP clients. Claude, Cursor and LM Studio start it and use its standard streams."""
    from longmamba_mlx import __version__
    from longmamba_mlx.cli.library import library_of
    from longmamba_mlx.cli.mcp import serve_mcp

    library = library_of(allow, model, filter=filter, chunk=chunk, attention_window=attention_window,
                         offline=offline)  # fmt: skip
    serve_mcp(library, __version__)


@app.command()
def serve(
    host: Annotated[
        str,
        typer.Option("--host", help="Address to listen on; any other than 127.0.0.1 needs --api-key.", metavar="HOST"),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port; 0 for any free one.", metavar="N")
    ] = 8321,
    api_key: Annotated[
        str,
        typer.Option("--api-key", envvar="LONGMAMBA_API_KEY", help="API key that clients must send.", metavar="KEY"),
    ] = "",
    allow: o.Allow = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", help="Origin whose web pages may call the server. May be repeated.", metavar="ORIGIN"),
    ] = None,
    queue: Annotated[
        int,
        typer.Option("--queue", min=1, help="Maximum number of waiting requests; more get status 429.", metavar="N"),
    ] = 64,
    max_tokens: o.MaxTokens = 256,
    model: o.ModelOrDefault = None,
    filter: o.Filter = FILTER,
    chunk: o.Chunk = None,
    attention_window: o.Window = None,
    offline: o.Offline = False,
) -> None:
    """Serve stored documents over HTTP to clients of the OpenAI API."""
    from longmamba_mlx import __version__
    from longmamba_mlx.cli.library import library_of
    from longmamba_mlx.cli.serve import serve_http

    library = library_of(allow, model, filter=filter, chunk=chunk, attention_window=attention_window,
                         offline=offline)  # fmt: skip
    serve_http(library, __version__, host=host, port=port, key=api_key, cors=cors or [], queue=queue,
               max_tokens=max_tokens)  # fmt: skip


@app.command()
def selftest(json: o.Json = False) -> None:
    """Compare the kernels on this machine with float64. Exits with 1 where they differ."""
    from longmamba_mlx.ops.selftest import print_cases

    raise typer.Exit(0 if print_cases(json=json) else 1)


@app.command()
def doctor(json: o.Json = False) -> None:
    """Check this machine, its MLX and this installation."""
    from longmamba_mlx.cli.doctor import examine

    examine(json=json)


plain_help(app)
