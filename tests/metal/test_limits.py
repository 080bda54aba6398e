"""What only a real machine would refuse, or run slowly: threadgroups, launches, rolled loops, 32-bit offsets.

Every rule is shown to notice the fault that it is for.
"""

from __future__ import annotations

import re
from functools import partial
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.metal_kernels import chunked_ssd, source
from longmamba_mlx.metal_kernels import mamba3 as mamba3_kernel
from longmamba_mlx.metal_kernels import scan as scan_launches
from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from longmamba_mlx.ops import metal
from longmamba_mlx.ops.inputs import ScanInputs
from tests.emulator.emulator import EmulatorError, Options
from tests.emulator.fixtures import forget_kernels
from tests.emulator.host import last_threadgroup_only
from tests.ops.cases import selective_case, ssd_case
from tests.ops.mamba3_cases import mamba3_case

SOURCES = ("sequential_scan", "chunked_ssd", "conv", "gated_norm", "dt_b_c_norm", "mamba3_steps", "mamba3_scan")
_LOCAL_ARRAY = re.compile(r"^\s*(?:float|int|uint|metal::simdgroup_matrix<float, 8, 8>) (\w+)\[", re.MULTILINE)
_LOOP = re.compile(r"^( *)for \(int (\w+) = .*\{$")


def rolled_loops(body: str) -> list[str]:
    """Loops that index an array in registers with their counter and are not unrolled: such an array lies in memory."""
    lines, arrays, found = body.splitlines(), set(_LOCAL_ARRAY.findall(body)), []
    for at, line in enumerate(lines):
        loop = _LOOP.match(line)
        if loop is None:
            continue
        indent, counter = loop.groups()
        end = next(i for i in range(at, len(lines)) if lines[i] == indent + "}")
        indexed = re.findall(rf"\b(\w+(?:\(\))?)\[[^\]]*\b{counter}\b", "\n".join(lines[at:end]))
        if (arrays | {"thread_elements()"}) & set(indexed) and lines[at - 1].strip() != "MLX_MTL_PRAGMA_UNROLL":
            found.append(line.strip())
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_arrays_stay_in_registers(name: str) -> None:
    body = source(name)
    assert rolled_loops(body) == []
    pragmas = body.count("MLX_MTL_PRAGMA_UNROLL")
    assert len(rolled_loops(body.replace("MLX_MTL_PRAGMA_UNROLL", ""))) == pragmas  # none is there in vain


def test_threads_and_tokens_of_a_launch(emulated: Options) -> None:
    """At most 256 threads a threadgroup, which every Apple GPU takes; a launch well below the watchdog's seconds."""
    assert scan_launches.MAX_TOKENS <= 32768 and mamba3_kernel.MAX_TOKENS <= 32768
    assert emulated.largest_group == 0
    run_everything()
    assert 0 < emulated.largest_group <= 256


def run_everything() -> None:
    metal.selective_scan(ScanInputs(**selective_case(1, 3, 200, 16)))
    metal.ssd_scan(ScanInputs(**ssd_case(1, 65, 2, 128, 1, 64)))
    metal.mamba3_scan(mamba3_case(1, 9, heads=1, width=64, groups=1, size=128, angles=32))
    wide = mx.ones((1, 2, 4096))
    metal.gated_rms_norm(wide, wide, wide[0, 0], groups=1, eps=1e-5)
    metal.causal_conv1d(wide, mx.ones((4096, 4)))
    metal.dt_b_c_norms(wide[:, :, :2100], (2000, 50, 50), eps=1e-5)


def far_scan(kernel: str, emulated: Options) -> float:
    """The largest difference between a scan of inputs whose last tokens lie past 2^31 elements and of the same beside
    each other."""
    if kernel == "mamba3":
        return far_mamba3_scan(emulated)
    cases = {
        "mamba1": (metal.selective_scan, selective_case(1, 4, 5, 16)),
        "mamba2": (metal.ssd_scan, ssd_case(1, 4, 2, 4, 1, 16)),
        "chunked": (metal.ssd_scan, ssd_case(1, 64, 2, 8, 1, 64)),
    }
    run, case = cases[kernel]
    near = run(ScanInputs(**case))
    emulated.far = True
    far = run(ScanInputs(**case))
    emulated.far = False
    return max(mx.abs(a - b).max().item() for a, b in zip(near, far, strict=True))


def far_mamba3_scan(emulated: Options) -> float:
    inputs = mamba3_case(1, 4, mimo=True)
    near = metal.mamba3_scan(inputs)
    emulated.far = True
    far = metal.mamba3_scan(inputs)
    emulated.far = False
    pairs = zip((near[0], *near[1].arrays()), (far[0], *far[1].arrays()), strict=True)
    return max(mx.abs(a.astype(mx.float32) - b.astype(mx.float32)).max().item() for a, b in pairs)


@pytest.mark.parametrize("kernel", ["mamba1", "mamba2", "chunked", "mamba3"])
def test_inputs_far_apart(kernel: str, emulated: Options) -> None:
    assert far_scan(kernel, emulated) == 0.0


@pytest.mark.parametrize(
    ("kernel", "old", "new"),
    [
        *(("mamba1", f"int64_t {name}_at =", f"int {name}_at =") for name in ("x", "dt", "z", "b", "c")),
        (
            "mamba3",
            "inputs[j * W + w] = static_cast<float>(x[x_base + t *",
            "inputs[j * W + w] = static_cast<float>(x[x_base + int(t) * int",
        ),
        ("chunked", "const int64_t c_start", "const int c_start"),
        ("chunked", "b_base + t * B_strides[1]", "int(b_base + t * B_strides[1])"),
    ],
)
def test_short_offsets_of_inputs_are_noticed(
    kernel: str, old: str, new: str, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"chunked": chunked_ssd, "mamba3": mamba3_kernel}.get(kernel, scan_kernel)
    replace(monkeypatch, module, old, new)
    with pytest.raises((EmulatorError, AssertionError)):
        assert far_scan(kernel, emulated) == 0.0


def replace(monkeypatch: pytest.MonkeyPatch, module: ModuleType, old: str, new: str) -> None:
    real = module.source
    assert any(old in real(name) for name in SOURCES)
    monkeypatch.setattr(module, "source", lambda name: real(name).replace(old, new))
    forget_kernels()


def last_head(kernel: str, emulated: Options) -> float:
    """Of 2^34 outputs the last ones are those of the same head alone. Only the last threadgroup runs."""
    emulated.twice = False
    launch = {"sequential": partial(scan_kernel.sequential_scan, lanes=1), "chunked": chunked_ssd.chunked_ssd}[kernel]
    batch, heads, rows, states = 2048, 2048, 64, 16 if kernel == "sequential" else 64
    x = mx.random.normal((1, 64, 1, rows), key=mx.random.key(1))
    dt, B = x[:, :, :, :1], x[:, :, :, :states]

    def coefficients(vector: mx.array) -> scan_kernel.Coefficients:
        return scan_kernel.Coefficients(-vector[:, None], vector, 0 * vector, None, (0.0, np.inf), True)

    small = launch(x, dt, None, B, B, mx.zeros((1, 1, rows, states)), coefficients(mx.ones((1,))))
    with last_threadgroup_only():
        y, state, _ = launch(
            mx.broadcast_to(x, (batch, 64, heads, rows)),
            mx.broadcast_to(dt, (batch, 64, heads, 1)),
            None,
            mx.broadcast_to(B, (batch, 64, 1, states)),
            mx.broadcast_to(B, (batch, 64, 1, states)),
            mx.broadcast_to(mx.array(0.0), (batch, heads, rows, states)),
            coefficients(mx.broadcast_to(mx.array(1.0), (heads,))),
        )
    size = rows * states
    last_token = mx.abs(y[-rows:] - small[0][0, -1, 0]).max().item()
    return max(last_token, mx.abs(state[-size:] - small[1].reshape(-1)).max().item())


@pytest.mark.parametrize("kernel", ["sequential", "chunked"])
def test_outputs_past_the_32nd_bit(kernel: str, emulated: Options) -> None:
    assert last_head(kernel, emulated) == 0.0


@pytest.mark.parametrize(
    ("kernel", "old", "new"),
    [
        (
            "sequential",
            "int64_t y_at = ((batch * int64_t(length) + begin)",
            "int y_at = ((batch * length + int(begin))",
        ),
        (
            "sequential",
            "((int64_t(batch) * heads + head) * rows + row) * N",
            "((batch * heads + head) * rows + row) * N",
        ),
        ("chunked", "int64_t y_at = ((batch * int64_t(length) + t)", "int y_at = ((batch * length + int(t))"),
        ("chunked", "((int64_t(batch) * heads + head) * rows + top", "((batch * heads + head) * rows + top"),
    ],
)
def test_short_offsets_of_outputs_are_noticed(
    kernel: str, old: str, new: str, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch, scan_kernel if kernel == "sequential" else chunked_ssd, old, new)
    with pytest.raises((EmulatorError, AssertionError)):
        assert last_head(kernel, emulated) == 0.0


@pytest.mark.parametrize(
    "module", [scan_kernel, chunked_ssd, mamba3_kernel], ids=lambda module: module.__name__.split(".")[-1]
)
def test_barriers_that_order_nothing_are_noticed(
    module: ModuleType, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(monkeypatch, module, "mem_flags::mem_threadgroup", "mem_flags::mem_none")
    with pytest.raises(EmulatorError):
        run_everything()
