"""How large the scan kernel's errors grow: over many tokens, and with the worst exponentials that Metal allows."""

from __future__ import annotations

import pytest

from tests.emulator.emulator import Options
from tests.metal.test_scan_kernel import both, check, small
from tests.ops.cases import selective_case, ssd_case

pytestmark = pytest.mark.usefixtures("emulated")


@both
@pytest.mark.parametrize("adversarial", [1, 2])
def test_with_the_worst_exponentials_that_metal_allows(name: str, adversarial: int, emulated: Options) -> None:
    emulated.adversarial = adversarial
    check(name, small(name, 65), tolerance=1e-5)


@pytest.mark.parametrize("adversarial", [0, 1])
@pytest.mark.parametrize(("name", "reverse"), [("mamba1", False), ("mamba1", True), ("mamba2", False)])
def test_sixteen_thousand_tokens(name: str, reverse: bool, adversarial: int, emulated: Options) -> None:
    emulated.adversarial, emulated.twice = adversarial, False
    case = selective_case(1, 16384, 2, 16) if name == "mamba1" else ssd_case(1, 16384, 1, 2, 1, 16)
    check(name, case | {"reverse": reverse}, tolerance=1e-6 if not adversarial else 4e-6)
