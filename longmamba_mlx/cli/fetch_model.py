"""Get the model that a command names: its size is shown and agreed to before anything is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

from longmamba_mlx.errors import ModelError
from longmamba_mlx.ground.hub_id import is_hub_id
from longmamba_mlx.ground.sizes import format_size


def chosen(model: str | None, *, offline: bool) -> str | None:
    """The model to use: the named one, else the default set by `use`, else None for the built-in one.

    A Hub model that is not on this machine is fetched first. Raises what `fetch` does.
    """
    from longmamba_mlx.registry import resolve
    from longmamba_mlx.registry.local_models import installed_folder

    name = model or resolve.user_default()
    if name is None or resolve.is_here(name):
        return name
    if is_hub_id(name):
        fetch(name, installed_folder(name), offline=offline)
    elif model is None:
        raise ModelError(f"The default model {name} is gone.", hint="Choose another one: longmamba-mlx use MODEL")
    return name


def fetch(
    model: str,
    target: Path,
    *,
    yes: bool = False,
    offline: bool = False,
    revision: str | None = None,
    dtype: str | None = None,
    tokenizer: str | None = None,
    quantize: bool = False,
    q_bits: int | None = None,
    q_group_size: int | None = None,
    q_mode: str = "affine",
) -> Path:
    """Download a model, and convert it into `target` unless it is in MLX format; the folder that then holds it.

    A person at a terminal is asked first (unless `yes`). Raises ModelError, DiskError.
    """
    from longmamba_mlx.cli.conversion_progress import TerminalReport
    from longmamba_mlx.conversion.checkpoint import Request
    from longmamba_mlx.conversion.hub.cache import is_offline
    from longmamba_mlx.conversion.obtain import obtain
    from longmamba_mlx.conversion.recipe import format_for

    form = format_for(q_bits, q_group_size, q_mode) if quantize else None
    if not is_offline(offline):
        _agree(model, revision, yes=yes, quantize=quantize)
    with TerminalReport() as report:
        return obtain(Request(model, dtype, revision, offline, tokenizer, form, report), target)


def _agree(model: str, revision: str | None, *, yes: bool, quantize: bool) -> None:
    """Show the size and let a person at a terminal agree. Raises typer's Abort where they do not."""
    from longmamba_mlx.conversion.hub.download import plan_download
    from longmamba_mlx.registry.known_models import usable_bytes

    plan = plan_download(model, revision=revision)
    if plan.size > usable_bytes() and not quantize:
        advice = f"Get it in 4 bit: longmamba-mlx use {model} -q"
        print(
            f"Note: {format_size(plan.size)} is more than this machine's memory holds well. {advice}", file=sys.stderr
        )
    if sys.stdin.isatty() and sys.stderr.isatty() and not yes:
        import typer

        typer.confirm(f"Download {format_size(plan.size)} ({len(plan.files)} files of {model})?", abort=True, err=True)
