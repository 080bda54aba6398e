"""The built-in demonstration models and the sample document they are shown with."""

from __future__ import annotations

import json
from pathlib import Path

BUILT_IN = ("demo", "demo-mamba1")
_FOLDER = Path(__file__).resolve().parent


def sample_document() -> Path:
    """The document that `longmamba-mlx demo` reads."""
    return _FOLDER / "sample.txt"


def built_in_model(name: str) -> Path:
    """The model folder of a name in BUILT_IN."""
    return _FOLDER / name


def known_questions(name: str) -> tuple[str, ...]:
    """The questions that a built-in model can answer, each with {name} in place of a name."""
    config = json.loads((built_in_model(name) / "config.json").read_text(encoding="utf-8"))
    return tuple(config["longmamba"]["known_questions"])


def described(name: str) -> str:
    """What a built-in model is, in a few words."""
    return f"a demonstration that knows {len(known_questions(name))} forms of question"
