"""`calibrate` and `doctor`."""

from __future__ import annotations

import json as json_module
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from longmamba_mlx.documents import one_line, read_document
from longmamba_mlx.errors import UsageError
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.paths import state_folder
from longmamba_mlx.states.store import StateStore


def calibrate_model(model: str, text: Path | None, windows: int, *, encoding: str = "") -> None:
    """Measure a model and say how much of it is global."""
    from longmamba_mlx.builtin import BUILT_IN
    from longmamba_mlx.session.api import calibrate, calibration_file, load

    if model in BUILT_IN:
        raise UsageError(
            f"{model} is built in and calibrated already.",
            hint="--report prints its calibration; or name a model folder.",
        )
    loaded = load(model)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\rMeasuring {done} of {total}", end="" if done < total else "\n", file=sys.stderr)

    calibration = calibrate(
        loaded,
        None if text is None else read_document(text, encoding=encoding).text,
        windows=windows,
        on_progress=progress,
    )
    plan = loaded.plan(64 * calibration.training_length)
    shares = "nothing" if plan is None else ", ".join(f"{share:.0%}" for share in plan.global_shares)
    print(f"Stored {one_line(str(calibration_file(loaded)), 500)}: {calibration.windows} windows of "
          f"{calibration.training_length} tokens; global units by layer: {shares}")  # fmt: skip


def examine(*, json: bool) -> None:
    """The facts to put in a bug report; no paths of the user's documents."""
    import mlx.core as mx

    from longmamba_mlx.inference import gpu_memory
    from longmamba_mlx.ops import implementation

    limits = gpu_memory.limits()
    facts = {
        "machine": f"{platform.machine()} {platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("longmamba-mlx", "mlx", "mlx-lm", "numpy", "textual")},
        "metal": mx.metal.is_available(),
        "device": str(mx.default_device()),
        "kernels": implementation(),
        "wired limit": "none without a GPU" if limits is None else f"{format_size(limits.wired)} while a model works",
        "cache limit": "none without a GPU" if limits is None else f"{format_size(limits.cache)} while a model works",
        "remembered": len(StateStore(state_folder()).list()),
    }
    if json:
        print(json_module.dumps(facts))
    else:
        print("\n".join(f"{name:>14}  {value}" for name, value in facts.items()))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
