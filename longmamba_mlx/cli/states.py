"""`states`: list, delete, share and limit the stored documents."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longmamba_mlx.cli import options as o
from longmamba_mlx.ground.sizes import format_size

if TYPE_CHECKING:
    from longmamba_mlx.states.store import StateEntry, StateStore

states = typer.Typer(no_args_is_help=True, help="List, delete, share and limit the stored documents.")

Key = Annotated[str, typer.Argument(help="A key from `states ls`, or its first digits.")]


@states.command("ls")
def list_states(json: o.Json = False) -> None:
    """List the stored documents, newest first, and their total size."""
    from longmamba_mlx.states.size_limit import limit_of

    store = _store()
    entries = store.list()
    if json:
        print(json_module.dumps([_as_dict(entry) for entry in entries], ensure_ascii=False))
        return
    for entry in entries:
        print(_line(entry))
    if entries:
        total = format_size(sum(entry.nbytes for entry in entries))
        print(f"{len(entries)} remembered, {total} of at most {format_size(limit_of(store))}", file=sys.stderr)
    else:
        print("Nothing is remembered yet.", file=sys.stderr)
    if bad := store.bad():
        print(f"{len(bad)} set aside as broken: longmamba-mlx states rm --bad", file=sys.stderr)


@states.command("show")
def show_state(key: Key, json: o.Json = False) -> None:
    """Show a stored document and everything it depends on."""
    from longmamba_mlx.documents import one_line

    entry = _as_dict(_store().show(key))
    if json:
        print(json_module.dumps(entry, ensure_ascii=False))
        return
    for name, value in entry.items():
        for inner, item in value.items() if isinstance(value, dict) else ((name, value),):
            print(f"{inner:>16}  {one_line(str(item), 300)}")


@states.command("rm")
def remove_state(
    key: Annotated[str | None, typer.Argument(help="A key from `states ls`, or its first digits.")] = None,
    bad: Annotated[bool, typer.Option("--bad", help="Delete the files that were set aside as broken.")] = False,
) -> None:
    """Delete a stored document. The file it was read from stays."""
    from longmamba_mlx.errors import UsageError

    if (key is None) != bad:
        raise UsageError("Give one key, or --bad.", hint="`longmamba-mlx states ls` lists the keys.")
    if key is not None:
        print(f"Forgotten: {_line(_store().remove(key))}")
    else:
        print(f"Deleted: {_store().remove_bad()} broken files")


@states.command("export")
def export(key: Key, file: Annotated[Path, typer.Argument(help="The file to write.")]) -> None:
    """Write a stored document to a file to share. The file does not contain the text, which is needed to open it."""
    from longmamba_mlx.states.transfer import export_state

    print(f"Exported to {file}: {_line(export_state(_store(), key, file))}")


@states.command("import")
def import_(file: Annotated[Path, typer.Argument(help="A file that `states export` wrote.")]) -> None:
    """Import a document that was read elsewhere. Its file is checked first."""
    from longmamba_mlx.states.transfer import import_state

    print(f"Remembered: {_line(import_state(_store(), file))}")


@states.command("limit")
def limit(size: Annotated[str | None, typer.Argument(help="The new limit: 500MB, 8GB.")] = None) -> None:
    """Show or set how much may be stored. Beyond it the least recently used document is deleted, with a note."""
    from longmamba_mlx.states.size_limit import limit_of, over_limit, parse_size, set_limit, title_of

    store = _store()
    if size is not None:
        set_limit(store, parse_size(size))
    print(format_size(limit_of(store)))
    for entry, _ in over_limit(store):
        what = f"{title_of(entry)} ({format_size(entry.nbytes)})"
        print(f"Note: over the limit; to be deleted when the next document is stored: {what}", file=sys.stderr)


def _store() -> StateStore:
    from longmamba_mlx.paths import state_folder
    from longmamba_mlx.states.store import StateStore

    return StateStore(state_folder())


def _line(entry: StateEntry) -> str:
    from longmamba_mlx.documents import one_line

    if entry.info is None or entry.key is None:
        return f"{entry.digest[:12]}  {format_size(entry.nbytes):>10}  unusable: {one_line(entry.problem)}"
    when = datetime.fromtimestamp(entry.modified).strftime("%Y-%m-%d %H:%M")
    model, kind, title = (one_line(str(entry.info.get(name, "")), 60) for name in ("model", "filter", "title"))
    size = f"{format_size(entry.nbytes):>10}  {when}  {entry.key.tokens:>9,} tokens"
    part = f"  ({entry.done / max(entry.key.tokens, 1):.0%} read)" if entry.unfinished else ""
    return f"{entry.digest[:12]}  {size}  {model}  {kind}  {title}{part}"


def _as_dict(entry: StateEntry) -> dict[str, Any]:
    return {
        "key": entry.digest,
        "path": str(entry.path),
        "bytes": entry.nbytes,
        "tokens_read": entry.done,
        "unfinished": entry.unfinished,
        "info": entry.info,
        "depends_on": None if entry.key is None else asdict(entry.key),
        "problem": entry.problem,
    }
