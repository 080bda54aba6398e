"""The targets of `fuzz` take sound inputs, a few changed ones, and whatever made them fail once."""

from __future__ import annotations

import random

import pytest

from tests.security.fuzz_targets import CRASHES, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_changes_of_them(name: str) -> None:
    seeds, dice = list(TARGETS[name].seeds()), random.Random(name)
    assert seeds
    for seed in seeds:
        TARGETS[name].run(seed)
    for _ in range(20):
        changed = bytearray(min(seeds, key=len))
        for _ in range(dice.choice((1, 4, 16))):
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        TARGETS[name].run(bytes(changed[: dice.choice((len(changed), dice.randrange(len(changed))))]))


@pytest.mark.parametrize("case", sorted(CRASHES.glob("*/*")), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_once_failed(case) -> None:
    TARGETS[case.parent.name].run(case.read_bytes())
