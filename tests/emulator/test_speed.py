"""How fast the emulator is: `pytest -m slow -s` here. Every launch runs twice, with all checks."""

from __future__ import annotations

import time

import pytest

from longmamba_mlx.ops import metal
from longmamba_mlx.ops.inputs import ScanInputs
from tests.metal.test_scan_kernel import with_lanes
from tests.ops.cases import selective_case

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("emulated")]


@pytest.mark.parametrize("lanes", [1, 8, 16])
def test_token_channels_a_second(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mamba-1 with 16 states: one lane a channel is how a layer of real size runs."""
    with_lanes(monkeypatch, lanes)
    case = ScanInputs(**selective_case(1, 256, 512, 16))
    metal.selective_scan(case)  # builds it
    seconds = []
    for _ in range(10):
        before = time.process_time()
        metal.selective_scan(case)
        seconds.append(time.process_time() - before)
    speed = 512 * 256 / min(seconds) / 1e6
    print(f"\n{lanes} lanes: {speed:.1f} million token-channels a second on one core, each run twice")
    assert speed > {1: 2.0, 8: 0.5, 16: 0.25}[lanes]
