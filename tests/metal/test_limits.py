"""What only a real machine would refuse, or run slowly: threadgroups, launches, rolled loops, 32-bit offsets.

Every rule is shown to notice the fault that it is for.
"""

from __future__ import annotations

import re

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.metal_kernels import scan as scan_kernel
from longmamba_mlx.metal_kernels import source
from tests.emulator.emulator import EmulatorError, Options
from tests.emulator.fixtures import forget_kernels
from tests.emulator.host import last_threadgroup_only

SOURCES = ("scan", "conv", "gated_norm", "dt_b_c_norm")
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
        indexed = re.findall(rf"\b(\w+)\[[^\]]*\b{counter}\b", "\n".join(lines[at:end]))
        if arrays & set(indexed) and lines[at - 1].strip() != "MLX_MTL_PRAGMA_UNROLL":
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
    assert scan_kernel.MAX_TOKENS <= 32768
    assert emulated.largest_group == 0
    run_everything()
    assert 0 < emulated.largest_group <= 256


def run_everything() -> None:
    from longmamba_mlx.ops import metal
    from tests.ops.cases import selective_case, ssd_case

    metal.selective_scan(**selective_case(1, 3, 200, 16))
    metal.ssd_scan(**ssd_case(1, 3, 2, 128, 1, 64))
    wide = mx.ones((1, 2, 4096))
    metal.gated_rms_norm(wide, wide, wide[0, 0], groups=1, eps=1e-5)
    metal.causal_conv1d(wide, mx.ones((4096, 4)))
    metal.part_norms(wide[:, :, :2100], (2000, 50, 50), eps=1e-5)


def far_scan(per_head: bool) -> float:
    """The largest difference between a scan of inputs whose tokens lie 2^30 elements apart and of the same beside each
    other; four tokens, so that offsets pass 2^31."""
    from longmamba_mlx.ops import metal
    from tests.emulator.emulator import options
    from tests.ops.cases import selective_case, ssd_case

    case = ssd_case(1, 4, 2, 4, 1, 16) if per_head else selective_case(1, 4, 5, 16)
    run = metal.ssd_scan if per_head else metal.selective_scan
    near = run(**case)
    options.far = True
    far = run(**case)
    options.far = False
    return max(mx.abs(a - b).max().item() for a, b in zip(near, far, strict=True))


@pytest.mark.parametrize("per_head", [False, True])
def test_inputs_far_apart(per_head: bool, emulated: Options) -> None:
    assert far_scan(per_head) == 0.0


@pytest.mark.parametrize("name", ["x", "dt", "z", "b", "c"])
def test_short_offsets_of_inputs_are_noticed(name: str, emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_in_scan(monkeypatch, f"int64_t {name}_at =", f"int {name}_at =")
    with pytest.raises((EmulatorError, AssertionError)):
        assert far_scan(per_head=False) == 0.0


def replace_in_scan(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    real = scan_kernel.source
    assert old in real("scan")
    monkeypatch.setattr(scan_kernel, "source", lambda name: real(name).replace(old, new))
    forget_kernels()


def last_head(emulated: Options) -> float:
    """Of 2^34 outputs the last ones are those of the same head alone. Only the last threadgroup runs."""
    emulated.twice = False
    x = mx.random.normal((1, 64, 1, 64), key=mx.random.key(1))
    dt, b_in = x[:, :, :, :1], x[:, :, :, :16]
    fixed = scan_kernel.Coefficients(-mx.ones((1, 1)), mx.ones((1,)), mx.zeros((1,)), None, (0.0, np.inf), True)
    small = scan_kernel.scan(x, dt, None, b_in, b_in, mx.zeros((1, 1, 64, 16)), fixed, lanes=1)
    batch, heads = 2048, 2048
    vector = mx.broadcast_to(mx.array(1.0), (heads,))
    many = scan_kernel.Coefficients(-vector[:, None], vector, 0 * vector, None, (0.0, np.inf), True)
    with last_threadgroup_only():
        y, state, _ = scan_kernel.scan(
            mx.broadcast_to(x, (batch, 64, heads, 64)),
            mx.broadcast_to(dt, (batch, 64, heads, 1)),
            None,
            mx.broadcast_to(b_in, (batch, 64, 1, 16)),
            mx.broadcast_to(b_in, (batch, 64, 1, 16)),
            mx.broadcast_to(mx.array(0.0), (batch, heads, 64, 16)),
            many,
            lanes=1,
        )
    last_token = mx.abs(y[-64:] - small[0][0, -1, 0]).max().item()
    whole_state = state.reshape(-1)[-1024:] - small[1].reshape(-1)
    return max(last_token, mx.abs(whole_state).max().item())


def test_outputs_past_the_32nd_bit(emulated: Options) -> None:
    assert last_head(emulated) == 0.0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("int64_t y_at = ((batch * int64_t(length) + begin)", "int y_at = ((batch * length + int(begin))"),
        ("((int64_t(batch) * heads + head) * rows + row) * N", "((batch * heads + head) * rows + row) * N"),
    ],
)
def test_short_offsets_of_outputs_are_noticed(
    old: str, new: str, emulated: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_in_scan(monkeypatch, old, new)
    with pytest.raises((EmulatorError, AssertionError)):
        assert last_head(emulated) == 0.0


def test_barriers_that_order_nothing_are_noticed(emulated: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_in_scan(monkeypatch, "mem_flags::mem_threadgroup", "mem_flags::mem_none")
    with pytest.raises(EmulatorError):
        run_everything()
