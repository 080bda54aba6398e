"""The commands `convert`, `models` and `use`: get models, list them, choose one."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from longmamba_mlx.cli import options as o
from longmamba_mlx.documents import one_line
from longmamba_mlx.ground.hub_id import is_hub_id

Dtype = Annotated[
    str | None, typer.Option("--dtype", help="float32, float16 or bfloat16. Default: unchanged.", metavar="DTYPE")
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.", metavar="REVISION")
]
Vocabulary = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="tokenizer.json, folder, Hub id or bytes, for a source without a tokenizer.",
        metavar="TOKENIZER",
    ),
]
Quantise = Annotated[bool, typer.Option("--quantize", "-q", help="Quantise the weights.")]
Bits = Annotated[
    int | None, typer.Option("--q-bits", help="Bits per weight: 2, 3, 4, 5, 6 or 8. Default: 4.", metavar="N")
]
GroupSize = Annotated[
    int | None, typer.Option("--q-group-size", help="Group size: 32, 64 or 128. Default: 64.", metavar="N")
]
Mode = Annotated[str, typer.Option("--q-mode", help="Format: affine, mxfp4, mxfp8 or nvfp4.", metavar="MODE")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before downloading.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (convert, models, use):
        app.command()(command)


def convert(
    hf_path: Annotated[str, typer.Option("--hf-path", help="Hub id or folder of the checkpoint.", metavar="PATH")],
    mlx_path: Annotated[Path, typer.Option("--mlx-path", help="Folder to write.", metavar="FOLDER")],
    dtype: Dtype = None,
    revision: Revision = None,
    tokenizer: Vocabulary = None,
    quantize: Quantise = False,
    q_bits: Bits = None,
    q_group_size: GroupSize = None,
    q_mode: Mode = "affine",
    offline: o.Offline = False,
) -> None:
    """Convert a Mamba checkpoint to an MLX model folder. No code in it is run."""
    from longmamba_mlx.cli.conversion_progress import TerminalReport
    from longmamba_mlx.conversion import convert as run

    _require_quantise(quantize, q_bits, q_group_size, q_mode)
    with TerminalReport() as report:
        run(hf_path, mlx_path, dtype, revision=revision, offline=offline, tokenizer=tokenizer, quantize=quantize,
            q_bits=q_bits, q_group_size=q_group_size, q_mode=q_mode, report=report)  # fmt: skip
    typer.echo(mlx_path)


def models(json: o.Json = False) -> None:
    """List models and whether they fit this machine. Shows recommended, installed and known ones."""
    from longmamba_mlx.cli.model_rows import model_rows
    from longmamba_mlx.cli.model_table import print_models

    rows = model_rows()
    if json:
        print(json_module.dumps(rows, ensure_ascii=False))
    else:
        print_models(rows)


def use(
    model: Annotated[str, typer.Argument(help="Hub id, model folder, or demo for the built-in model.")],
    dtype: Dtype = None,
    revision: Revision = None,
    tokenizer: Vocabulary = None,
    quantize: Quantise = False,
    q_bits: Bits = None,
    q_group_size: GroupSize = None,
    q_mode: Mode = "affine",
    yes: Yes = False,
    offline: o.Offline = False,
) -> None:
    """Make a model the default of chat, ask and read. It is downloaded and converted first if necessary."""
    from longmamba_mlx.cli.fetch_model import fetch
    from longmamba_mlx.conversion.recipe import format_for
    from longmamba_mlx.models.quantisation import Quantisation
    from longmamba_mlx.registry import resolve
    from longmamba_mlx.registry.local_models import find_local, installed_folder

    _require_quantise(quantize, q_bits, q_group_size, q_mode)
    if not is_hub_id(model) or Path(model).expanduser().is_dir():
        _use_local(model)
        return
    changed = quantize or dtype is not None or tokenizer is not None or revision is not None
    folder = None if changed else find_local(model)
    variant = Quantisation(format_for(q_bits, q_group_size, q_mode)).name if quantize else ""
    if folder is None and (target := installed_folder(model, variant)).is_dir():
        folder = target
    if folder is None:
        folder = fetch(model, target, yes=yes, offline=offline, revision=revision, dtype=dtype, tokenizer=tokenizer,
                       quantize=quantize, q_bits=q_bits, q_group_size=q_group_size, q_mode=q_mode)  # fmt: skip
    resolve.set_user_default(model if find_local(model) == folder else str(folder))
    shown = one_line(f"{model}{f' ({variant})' if variant else ''}, in {folder}", 500)
    print(f"chat, ask and read now use {shown}")


def _require_quantise(quantize: bool, bits: int | None, group_size: int | None, mode: str) -> None:
    from longmamba_mlx.errors import UsageError

    if not quantize and (bits is not None or group_size is not None or mode != "affine"):
        raise UsageError("--q-bits, --q-group-size and --q-mode need -q.", hint="Add -q, or leave them out.")


def _use_local(model: str) -> None:
    from longmamba_mlx import builtin
    from longmamba_mlx.errors import ModelError
    from longmamba_mlx.models.config.parse import parse_config
    from longmamba_mlx.registry import resolve
    from longmamba_mlx.storage.json_config import read_json

    folder = resolve.resolve(model)
    if not (folder / "config.json").is_file():
        raise ModelError(f"No config.json in {folder}.", hint="Is this a model folder?")
    parse_config(read_json(folder / "config.json"))
    built_in = model in builtin.BUILT_IN
    name = model if built_in else str(folder.absolute())
    resolve.set_user_default(None if name == resolve.DEFAULT else name)
    print(f"chat, ask and read now use {'the built-in model ' if built_in else ''}{one_line(name, 500)}")
