"""Metal kernels where there is no Metal: the emulator stands in for mx.fast.metal_kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from longmamba_mlx import metal_kernels
from longmamba_mlx.metal_kernels import chunked_ssd
from longmamba_mlx.metal_kernels import conv as conv_kernel
from longmamba_mlx.metal_kernels import dt_b_c_norm as parts_kernel
from longmamba_mlx.metal_kernels import gated_norm as norm_kernel
from longmamba_mlx.metal_kernels import mamba3 as mamba3_kernel
from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from longmamba_mlx.ops import metal_check
from tests.emulator import emulator, host, nvidia


def forget_kernels() -> None:
    """Kernel objects are made once: those of the emulator must not outlive a test, nor real ones enter it."""
    for module in (scan_kernel, chunked_ssd, conv_kernel, norm_kernel, parts_kernel):
        module._kernel.cache_clear()
    mamba3_kernel._steps_kernel.cache_clear()
    mamba3_kernel._scan_kernel.cache_clear()
    metal_check.reset()


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[emulator.Options]:
    """Kernels run in the emulator, and this machine counts as one with an Apple GPU.

    LONGMAMBA_EMULATOR=required fails where the emulator cannot run; =nvidia runs the kernels on an NVIDIA GPU instead.
    """
    wanted = os.environ.get("LONGMAMBA_EMULATOR")
    runner = nvidia if wanted == "nvidia" else host
    why = runner.missing()
    if why and wanted:
        pytest.fail(why)
    if why:
        pytest.skip(why)
    monkeypatch.setattr(metal_kernels, "is_available", lambda: True)
    forget_kernels()
    with emulator.emulated(make_run=nvidia.NvidiaRun if runner is nvidia else host.HostRun) as options:
        yield options
    forget_kernels()
