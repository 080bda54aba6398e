"""Write a model folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import mlx.core as mx

from longmamba_mlx.conversion.report import Report
from longmamba_mlx.conversion.tensor_writer import write_tensors
from longmamba_mlx.errors import DiskError, ModelError
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.models.weight_files import INDEX
from longmamba_mlx.storage.atomic import draft_folder, sweep, write_atomic, write_text

SHARD_BYTES = 5 << 30


def refuse_occupied(target: Path) -> None:
    """Raise ModelError unless `target` is free or an empty folder."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise ModelError(f"{target} exists already.", hint="Choose another folder, or remove that one first.")


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target` to fill; it becomes `target` when the block ends without an error.

    Killed at any moment, this leaves at most such a hidden folder; the next conversion to the same target
    sweeps it. Raises DiskError when the disk does not take something.
    """
    drafts = target.parent / f".{target.name}.drafts"
    try:
        drafts.mkdir(parents=True, exist_ok=True)
        sweep(drafts, older_than=0.0)
        with draft_folder(drafts, mode=0o777) as draft:
            yield draft
            os.replace(draft, target)  # over an empty folder too
    except OSError as error:
        raise DiskError(
            f"Cannot write {target}: {error.strerror or error}", hint="Check the disk's space and permissions."
        ) from error
    finally:
        with suppress(OSError):
            drafts.rmdir()


def require_space(target: Path, size: int) -> None:
    """Raise DiskError when the disk that holds `target` has less than `size` bytes left."""
    there = target.parent.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < size:
        raise DiskError(
            f"Converting needs {format_size(size)} at {target}, and the disk has {format_size(free)} left.",
            hint="Free some space, or choose a folder on another disk.",
        )


def write_weights(folder: Path, weights: dict[str, mx.array], report: Report) -> None:
    """Write all tensors as model*.safetensors, with an index if there are several, and empty `weights`.

    They are evaluated, written and let go one by one, so that lazy ones are never in memory together. Raises DiskError.
    """
    total = sum(array.nbytes for array in weights.values())
    shards = _shards(weights)
    written = 0
    names: dict[str, str] = {}

    def advance(count: int) -> None:
        nonlocal written
        written += count
        report.progress("Writing", written, total)

    for number, shard in enumerate(shards, start=1):
        single = len(shards) == 1
        name = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # "format" is what transformers and mlx-lm look for.
        save = partial(write_tensors, weights, shard, {"format": "mlx"}, advance)
        write_atomic(folder / name, save, private=False)
        names.update(dict.fromkeys(shard, name))
    report.progress("Writing", total, total)
    if len(shards) > 1:
        write_text(
            folder / INDEX,
            json.dumps({"metadata": {"total_size": total}, "weight_map": names}, indent=2),
            private=False,
        )


def _shards(weights: dict[str, mx.array]) -> list[list[str]]:
    """Tensor names in groups of at most SHARD_BYTES (a larger tensor is alone)."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, array in weights.items():
        if size and size + array.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += array.nbytes
    return shards
