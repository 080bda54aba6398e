"""The built-in demonstration models and the sample document they are shown with."""

from __future__ import annotations

from pathlib import Path

BUILT_IN = ("demo", "demo-mamba1")
_FOLDER = Path(__file__).resolve().parent


def sample_document() -> Path:
    """The document that `longmamba-mlx demo` reads."""
    return _FOLDER / "sample.txt"


def built_in_model(name: str) -> Path:
    """The model folder of a name in BUILT_IN."""
    return _FOLDER / name
