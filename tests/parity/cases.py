"""What the parity fixtures cover: small random models of every family, one case for each option that changes the maths.

A case is only a transformers configuration. `make_fixtures.py` draws its weights, runs transformers (torch) on it
and stores both; the tests then run without torch. Every module `cases_*.py` here holds a list `CASES`.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path

PREFILL = 300
DECODE = 64


@dataclass(frozen=True, slots=True)
class Case:
    """One small model.

    `name` is its fixture's file name; `options` go to transformers' config class of `model_type`; logits are stored
    at every `stride`-th position (1: all), for large vocabularies; `note` says where the reference disagrees with
    itself or with the checkpoints' own code.
    """

    name: str
    model_type: str
    options: dict[str, object] = field(default_factory=dict)
    stride: int = 1
    note: str = ""


def all_cases() -> dict[str, Case]:
    """Every case by name."""
    cases: dict[str, Case] = {}
    for path in sorted(Path(__file__).parent.glob("cases_*.py")):
        for case in importlib.import_module(f"tests.parity.{path.stem}").CASES:
            if case.name in cases:
                raise ValueError(f"two cases are called {case.name}")
            cases[case.name] = case
    return cases
