"""Options that several commands share, each written once."""

from __future__ import annotations

from typing import Annotated

import typer

from longmamba_mlx.filtering import registry

File = Annotated[
    list[str] | None,
    typer.Option("--file", "-f", help="Document to read; - is standard input. May be repeated.", metavar="FILE"),
]
Encoding = Annotated[
    str,
    typer.Option(
        "--encoding",
        help="Encoding of texts, web pages and mails, overriding what they declare: windows-1252, ...",
        metavar="NAME",
    ),
]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Model folder, Hub id, demo or demo-mamba1.", metavar="MODEL")
]
ModelOrDefault = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Model folder, Hub id, demo or demo-mamba1. Default: the one chosen by `use`.",
        metavar="MODEL",
    ),
]
Filter = Annotated[
    str,
    typer.Option(
        "--filter",
        help=registry.help_text(),
        autocompletion=registry.completions,
        metavar="FILTER",
    ),
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=1, help="Maximum length of an answer, in tokens.", metavar="N")
]
Temperature = Annotated[
    float, typer.Option("--temp", min=0.0, help="Sampling temperature; 0 picks the likeliest token.", metavar="X")
]
Seed = Annotated[int, typer.Option("--seed", help="Random seed, for temperatures above 0.", metavar="N")]
Chunk = Annotated[
    int | None,
    typer.Option(
        "--chunk", min=1, help="Tokens per prefill chunk: 2048 on a GPU, else 512.", metavar="N", show_default=False
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--attention-window",
        min=1,
        help="Limit the attention layers of a hybrid to the last N tokens, which bounds its memory.",
        metavar="N",
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
NoSave = Annotated[bool, typer.Option("--no-save", help="Do not store the document.")]
Reread = Annotated[
    int, typer.Option("--reread", min=0, help="Read the N most related passages again before answering.", metavar="N")
]
AsOf = Annotated[
    str | None, typer.Option("--as-of", help='Answer as of a place: "chapter 12", "page 40", "50%".', metavar="PLACE")
]
Surest = Annotated[
    bool,
    typer.Option("--surest", help="Answer from the surest of the document's parts, each read from a fresh state."),
]
PartTokens = Annotated[
    int | None,
    typer.Option(
        "--part-tokens", help="Length of a part in tokens. Default: the shortest whose states fit.", metavar="N"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        help="Folder whose files may be read. May be repeated. Default: the current folder.",
        metavar="FOLDER",
    ),
]
