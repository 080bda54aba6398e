"""Metal kernel bodies (`*.metal`, package data) and thin typed wrappers around mx.fast.metal_kernel.

Nothing is built when this is imported; a kernel object is built once, when it is first used, and MLX compiles
it for each combination of template arguments and dtypes.
"""

from __future__ import annotations

from importlib.resources import files

import mlx.core as mx

__all__ = ["is_available", "source"]


def is_available() -> bool:
    """True where MLX has a Metal back-end. (A kernel still refuses to run while the default device is the CPU.)"""
    return bool(mx.metal.is_available())


def source(name: str) -> str:
    """The text of `<name>.metal` without comments: MLX finds attribute names in them too."""
    text = files("longmamba_mlx.metal_kernels").joinpath(f"{name}.metal").read_text(encoding="utf-8")
    return "\n".join(line.split("//")[0].rstrip() for line in text.splitlines()).strip() + "\n"
