"""`convert`, `models` and `use`: getting models, seeing which there are, choosing one."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from longmamba_mlx.cli import options as o
from longmamba_mlx.hub_id import is_hub_id
from longmamba_mlx.sizes import format_size

if TYPE_CHECKING:
    from longmamba_mlx.registry.known_models import Checkpoint

Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, float16 or bfloat16; as it is by default.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")]
Vocabulary = Annotated[
    str | None, typer.Option("--tokenizer", help="tokenizer.json, folder, Hub id or bytes, where the source has none.")
]
Quantise = Annotated[bool, typer.Option("--quantize", "-q", help="Store the weights in few bits.")]
Bits = Annotated[int | None, typer.Option("--q-bits", help="2, 3, 4, 5, 6 or 8; 4 by default.")]
GroupSize = Annotated[int | None, typer.Option("--q-group-size", help="32, 64 or 128; 64 by default.")]
Mode = Annotated[str, typer.Option("--q-mode", help="affine, mxfp4, mxfp8 or nvfp4.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before downloading.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (convert, models, use):
        app.command()(command)


def convert(
    hf_path: Annotated[str, typer.Option("--hf-path", help="Hub id or folder of the checkpoint.")],
    mlx_path: Annotated[Path, typer.Option("--mlx-path", help="Folder to write.")],
    dtype: Dtype = None,
    revision: Revision = None,
    tokenizer: Vocabulary = None,
    quantize: Quantise = False,
    q_bits: Bits = None,
    q_group_size: GroupSize = None,
    q_mode: Mode = "affine",
    offline: o.Offline = False,
) -> None:
    """Convert a Mamba checkpoint to an MLX model folder; nothing in it is run."""
    from longmamba_mlx.cli.conversion_progress import TerminalReport
    from longmamba_mlx.conversion import convert as run

    _require_quantise(quantize, q_bits, q_group_size, q_mode)
    with TerminalReport() as report:
        run(hf_path, mlx_path, dtype, revision=revision, offline=offline, tokenizer=tokenizer, quantize=quantize,
            q_bits=q_bits, q_group_size=q_group_size, q_mode=q_mode, report=report)  # fmt: skip
    typer.echo(mlx_path)


def models(json: o.Json = False) -> None:
    """List known checkpoints: family, size, licence, context, whether they fit this machine's memory."""
    from longmamba_mlx.registry.known_models import CHECKPOINTS

    known = [_facts(checkpoint) for checkpoint in CHECKPOINTS]
    others = _other_models({str(row["model"]) for row in known})
    if json:
        print(json_module.dumps([*others, *known], ensure_ascii=False))
        return
    _print_table([*others, *known])


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
    """Make a model the default of chat, ask and read; one from the Hub is downloaded and converted first."""
    from longmamba_mlx.cli.fetch_model import fetch
    from longmamba_mlx.conversion.recipe import format_for
    from longmamba_mlx.models.quantisation import Quantisation
    from longmamba_mlx.registry import resolve

    _require_quantise(quantize, q_bits, q_group_size, q_mode)
    if not is_hub_id(model) or Path(model).expanduser().is_dir():
        _use_local(model)
        return
    variant = Quantisation(format_for(q_bits, q_group_size, q_mode)).name if quantize else ""
    target = resolve.installed_folder(model, variant)
    if not target.is_dir():
        fetch(model, target, yes=yes, offline=offline, revision=revision, dtype=dtype, tokenizer=tokenizer,
              quantize=quantize, q_bits=q_bits, q_group_size=q_group_size, q_mode=q_mode)  # fmt: skip
    resolve.set_user_default(str(target) if variant else model)
    print(f"chat, ask and read now use {model}{f' ({variant})' if variant else ''}, in {target}")


def _require_quantise(quantize: bool, bits: int | None, group_size: int | None, mode: str) -> None:
    from longmamba_mlx.errors import UsageError

    if not quantize and (bits is not None or group_size is not None or mode != "affine"):
        raise UsageError("--q-bits, --q-group-size and --q-mode need -q.", hint="Add -q, or leave them out.")


def _use_local(model: str) -> None:
    from longmamba_mlx import builtin
    from longmamba_mlx.errors import ModelError
    from longmamba_mlx.models.config.parse import parse_config, read_json
    from longmamba_mlx.registry import resolve

    folder = resolve.resolve(model)
    if not (folder / "config.json").is_file():
        raise ModelError(f"no config.json in {folder}", hint="is this a model folder?")
    parse_config(read_json(folder / "config.json"))
    built_in = model in builtin.BUILT_IN
    name = model if built_in else str(folder.resolve())
    resolve.set_user_default(None if name == resolve.DEFAULT else name)
    print(f"chat, ask and read now use {'the built-in model ' if built_in else ''}{name}")


def _facts(checkpoint: Checkpoint) -> dict[str, object]:
    """One row of the table, in the order in which it is shown."""
    from longmamba_mlx.registry import resolve

    folder = resolve.installed_folder(checkpoint.repository)
    variants = [path for path in resolve.installed() if path == folder or path.name.startswith(f"{folder.name}--")]
    default = resolve.user_default()
    return {
        "model": checkpoint.repository,
        "family": checkpoint.family,
        "parameters": int(checkpoint.parameters * 1e9),
        "download_bytes": checkpoint.download_bytes,
        "context": checkpoint.context,
        "licence": checkpoint.licence,
        "chat": checkpoint.chat,
        "fits": checkpoint.fit(),
        "installed": [str(path) for path in variants],
        "default": default == checkpoint.repository or default in [str(path) for path in variants],
    }


def _other_models(known: set[str]) -> list[dict[str, object]]:
    """The built-in models, what was installed beyond the table, and a default that is a folder."""
    from longmamba_mlx import builtin
    from longmamba_mlx.registry import resolve

    default = resolve.user_default() or resolve.DEFAULT
    taken = {name.replace("/", "--") for name in known}
    folders = {path for path in (*resolve.installed(), Path(default)) if path.is_dir() and not _belongs(path, taken)}
    rows: list[dict[str, object]] = []
    for name, folder in [(name, resolve.resolve(name)) for name in builtin.BUILT_IN] + [
        (path.name.replace("--", "/", 1), path) for path in sorted(folders)
    ]:
        rows.append(
            {
                "model": name,
                "family": _family(folder),
                "download_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
                "fits": "yes",
                "installed": [str(folder)],
                "default": default in (name, str(folder)),
            }
        )
    return rows


def _belongs(folder: Path, taken: set[str]) -> bool:
    """Whether a folder holds a model of the table, or a quantised one of those."""
    return "--".join(folder.name.split("--")[:2]) in taken


def _family(folder: Path) -> str | None:
    from longmamba_mlx.errors import ModelError
    from longmamba_mlx.models.config.parse import parse_config, read_json

    try:
        return parse_config(read_json(folder / "config.json")).model_type
    except ModelError:
        return None


def _print_table(rows: list[dict[str, object]]) -> None:
    """All columns, or on a narrow terminal those that matter most; names are never cut."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    wide = console.width >= _WIDE
    table = Table(box=None, pad_edge=False, highlight=False)
    shown = [title for title in _COLUMNS if wide or title not in ("family", "licence", "for chat")]
    for title in shown:
        table.add_column(title, justify="right" if title in ("weights", "size", "context") else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_COLUMNS[title](row) for title in shown))
    console.print(table, markup=False)
    print(_LEGEND)


def _name(row: dict[str, object]) -> str:
    from longmamba_mlx.documents import one_line

    return one_line(str(row["model"]), 60)


def _size(row: dict[str, object]) -> str:
    return format_size(cast("int", row["download_bytes"]))


def _weights(row: dict[str, object]) -> str:
    count = row.get("parameters")
    if not isinstance(count, int):
        return ""
    return f"{count / 1e9:g}B" if count >= 1e9 else f"{count / 1e6:g}M"


def _context(row: dict[str, object]) -> str:
    tokens = row.get("context")
    return f"{tokens // 1024}k" if isinstance(tokens, int) else ""


def _chat(row: dict[str, object]) -> str:
    return ("yes" if row["chat"] else "no") if "chat" in row else ""


_WIDE = 130
_COLUMNS: dict[str, Callable[[dict[str, object]], str]] = {
    "": lambda row: "*" if row["default"] else "",
    "model": _name,
    "family": lambda row: str(row["family"] or "?"),
    "weights": _weights,
    "size": _size,
    "context": _context,
    "licence": lambda row: str(row.get("licence") or ""),
    "for chat": _chat,
    "fits": lambda row: str(row["fits"]),
    "here": lambda row: "yes" if row["installed"] else "",
}
_LEGEND = """
* marks the default; "fits" is about this machine's memory. Sizes of models that
are not here are computed; licence and context are what their publishers tell,
empty where unchecked. longmamba-mlx use MODEL downloads one (-q: in 4 bit) and
makes it the default."""
