"""All commands in one table. Each body is thin: options in, a session or one function, text out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longmamba_mlx.catalogue import DEFAULT
from longmamba_mlx.cli import options as o

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Read long documents with a Mamba model on this machine, once, and ask them questions.",
)
states = typer.Typer(no_args_is_help=True, help="What is remembered of documents read before.")
evaluation = typer.Typer(no_args_is_help=True, help="Measure what a model remembers of long documents.")
app.add_typer(states, name="states")
app.add_typer(evaluation, name="eval")

COMMANDS = ("ask", "calibrate", "chat", "convert", "demo", "doctor", "eval", "read", "selftest", "states")


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
    """Read long documents with a Mamba model on this machine, once, and ask them questions."""


@app.command()
def chat(
    file: o.File = None,
    model: o.ModelOrDefault = None,
    filter: o.Filter = "longmamba",
    max_tokens: o.MaxTokens = 256,
    temp: o.Temperature = 0.0,
    seed: o.Seed = 0,
    chunk: o.Chunk = 512,
    offline: o.Offline = False,
    no_save: o.NoSave = False,
) -> None:
    """Chat about documents in the terminal. `longmamba-mlx book.txt` does the same."""
    from longmamba_mlx.cli.chatting import chat_about

    raise typer.Exit(
        chat_about(file or [], model or DEFAULT, filter=filter, max_tokens=max_tokens, temperature=temp, seed=seed,
                   chunk=chunk, offline=offline, save=not no_save)
    )  # fmt: skip


@app.command()
def ask(
    question: Annotated[str | None, typer.Argument(help="The question; quotes around it keep it whole.")] = None,
    file: o.File = None,
    questions: Annotated[Path | None, typer.Option("--questions", help="A file with one question per line.")] = None,
    model: o.ModelOrDefault = None,
    filter: o.Filter = "longmamba",
    max_tokens: o.MaxTokens = 64,
    temp: o.Temperature = 0.0,
    seed: o.Seed = 0,
    chunk: o.Chunk = 512,
    offline: o.Offline = False,
    no_save: o.NoSave = False,
    json: o.Json = False,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print whole answers.")] = False,
    fail_if_not_found: Annotated[
        bool, typer.Option("--fail-if-not-found", help="Exit with 3 when nothing is found.")
    ] = False,
) -> None:
    """Ask about documents: the answer on standard output, everything else on standard error."""
    from longmamba_mlx.cli.asking import ask_about
    from longmamba_mlx.session import Session

    session = Session(model or DEFAULT, filter=filter, max_tokens=max_tokens, temperature=temp, seed=seed, chunk=chunk,
                      offline=offline, save=not no_save)  # fmt: skip
    found = ask_about(session, file or [], question, questions, model=model, json=json, stream=not no_stream)
    if fail_if_not_found and not found:
        raise typer.Exit(3)


@app.command()
def read(
    file: o.File = None,
    model: o.ModelOrDefault = None,
    filter: o.Filter = "longmamba",
    chunk: o.Chunk = 512,
    offline: o.Offline = False,
    json: o.Json = False,
) -> None:
    """Read documents and remember them, so that chat and ask open them at once."""
    from longmamba_mlx.cli.asking import read_only
    from longmamba_mlx.session import Session

    session = Session(model or DEFAULT, filter=filter, chunk=chunk, offline=offline)
    read_only(session, file or [], model=model, json=json)


@app.command()
def demo(
    model: o.Model = "demo",
    json: o.Json = False,
) -> None:
    """Read the sample document with a built-in model, filter off and on, and print what each remembers."""
    from longmamba_mlx.cli.demonstration import demonstrate

    demonstrate(model, json=json)


@app.command()
def convert(
    hf_path: Annotated[str, typer.Option("--hf-path", help="Hub id or folder of the checkpoint.")],
    mlx_path: Annotated[Path, typer.Option("--mlx-path", help="Folder to write.")],
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, float16 or bfloat16; as it is by default.")
    ] = None,
    offline: o.Offline = False,
) -> None:
    """Convert a Mamba checkpoint to an MLX model folder."""
    from longmamba_mlx.convert import convert as run

    typer.echo(run(hf_path, mlx_path, dtype, offline=offline))


@app.command()
def calibrate(
    model: o.Model,
    text: Annotated[
        Path | None, typer.Option("--text", help="Text to measure on; the sample document by default.")
    ] = None,
    windows: Annotated[int, typer.Option("--windows", min=1, help="Windows of training length.")] = 16,
) -> None:
    """Measure a model's step sizes and store them beside it, for the filter."""
    from longmamba_mlx.cli.managing import calibrate_model

    calibrate_model(model, text, windows)


@states.command("ls")
def states_list(json: o.Json = False) -> None:
    """List what is remembered."""
    from longmamba_mlx.cli.managing import list_states

    list_states(json=json)


@states.command("show")
def states_show(key: str, json: o.Json = False) -> None:
    """Show one remembered document; KEY may be the first letters of its key."""
    from longmamba_mlx.cli.managing import show_state

    show_state(key, json=json)


@states.command("rm")
def states_remove(key: str) -> None:
    """Forget one remembered document."""
    from longmamba_mlx.cli.managing import remove_state

    remove_state(key)


@app.command()
def selftest(json: o.Json = False) -> None:
    """Run the kernels on this machine and compare them with float64; exits with 1 where they differ."""
    from longmamba_mlx.selftest import print_cases

    raise typer.Exit(0 if print_cases(json=json) else 1)


@app.command()
def doctor(json: o.Json = False) -> None:
    """What this machine, its MLX and this installation look like."""
    from longmamba_mlx.cli.managing import examine

    examine(json=json)


@evaluation.command()
def niah(
    model: o.Model = "demo",
    lengths: Annotated[
        str,
        typer.Option(
            "--lengths", help="Document lengths in tokens, e.g. 512,2048,8192; 16x means 16 training lengths."
        ),
    ] = "1x,4x,16x",
    filter: Annotated[str, typer.Option("--filter", help="Filters to compare, with commas.")] = "off,longmamba",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Questions per length and filter.")] = 40,
    facts: Annotated[int, typer.Option("--facts", min=1, help="Facts per document.")] = 4,
    split: Annotated[str, typer.Option("--split", help="test, or dev while choosing anything.")] = "test",
    filler: Annotated[
        list[Path] | None,
        typer.Option("--filler", help="Texts to hide the facts in; the sample document by default."),
    ] = None,
    absent: Annotated[
        bool, typer.Option("--absent", help="Ask for names that are not there; a refusal is right.")
    ] = False,
    seed: o.Seed = 0,
    json: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file.")] = None,
) -> None:
    """Needles in a haystack: facts hidden in a long text, asked for one by one."""
    from longmamba_mlx.cli.measuring import measure_niah

    measure_niah(model, lengths, filter.split(","), samples=samples, facts=facts, split=split, filler=filler or [],
                 absent=absent, seed=seed, json=json)  # fmt: skip
