"""What MLX itself writes for our kernels: it takes them, and nothing in them trips it or a compiler. Needs no g++."""

from __future__ import annotations

import re
from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_map

from longmamba_mlx.metal_kernels import sequential_scan as scan_kernel
from longmamba_mlx.metal_kernels import source
from longmamba_mlx.models.loading import make_ready
from longmamba_mlx.models.state import LayerState
from longmamba_mlx.ops import metal, metal_check
from tests.emulator.emulator import MAX_BUFFERS
from tests.emulator.fixtures import forget_kernels
from tests.emulator.launches import all_launches, conv_launch, scan_launch, text_of
from tests.emulator.texts import signature
from tests.models import samples
from tests.parity import comparing

LAUNCHES = dict(all_launches())
VIEWS = {"Broadcast", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unflatten", "View"}


@pytest.fixture(autouse=True)
def own_kernels() -> Iterator[None]:
    forget_kernels()
    yield
    forget_kernels()


@pytest.mark.parametrize("title", LAUNCHES)
def test_mlx_takes_them(title: str) -> None:
    text = text_of(LAUNCHES[title])
    assert text.count("{") == text.count("}")
    parts = signature(text)
    names = [argument.name for argument in parts.arguments]
    # Room for two more strided inputs, but in Mamba-3's scan, which needs all that Metal has.
    assert len(names) == len(set(names)) and len(names) <= MAX_BUFFERS - 4 * ("mamba3 scan" not in title)
    needed = {"conv": "length", "norm": "size", "parts": "second"}.get(title.split()[0], "sizes")
    assert needed in names  # templates would be compiled for each
    assert {"thread_position_in_grid", "threads_per_grid"} <= {name for _, name in parts.attributes}


def test_small_arrays_lie_in_another_address_space() -> None:
    spaces = {
        rows: {
            argument.name: argument.space
            for argument in signature(text_of(scan_launch("float32", 1, rows, 16, False))).arguments
        }
        for rows in (7, 8)
    }
    assert spaces[7]["D"] == "constant" and spaces[8]["D"] == "device"


def test_a_length_compiles_nothing_new() -> None:
    launch, arrays = scan_launch("float32", 1, 40, 16, False)
    longer = [
        mx.zeros((2, 1000, *array.shape[2:])) if array.ndim == 4 and array.shape[1] == 3 else array for array in arrays
    ]
    longer[4] = mx.zeros((2, 1, 40, 16))
    assert text_of((launch, arrays)) == text_of((launch, tuple(longer)))


@pytest.mark.parametrize(
    "name",
    ["sequential_scan", "chunked_ssd", "conv", "gated_norm", "dt_b_c_norm", "mamba3_steps", "mamba3_scan"],
)
def test_sources_avoid_what_compilers_or_mlx_trip_over(name: str) -> None:
    body = source(name)
    assert "//" not in body
    for word in ("_shape", "_ndim", "double", "std::", "expm1", "return", "device ", "constant ", "atomic"):
        assert word not in body
    # Outside the two spelled-out namespaces the math mode would decide.
    text = body + source("softplus") + source("turns")
    for function in ("exp", "exp2", "log", "sqrt", "rsqrt"):
        assert len(re.findall(rf"\b{function}\(", text)) == text.count(f"metal::precise::{function}(")


def test_conv_reads_every_input_through_its_strides() -> None:
    names = [argument.name for argument in signature(text_of(conv_launch("float32", 40, 4))).arguments]
    assert [f"{name}_strides" in names for name in ("x", "weight", "bias", "initial")] == [True] * 4


@pytest.mark.parametrize("states", [1, 3, 8, 16, 64, 128, 256, 1024])
@pytest.mark.parametrize(("heads", "rows"), [(1, 1), (1, 63), (1, 1536), (1, 8192), (24, 64), (80, 64), (3, 128)])
def test_layout(heads: int, rows: int, states: int) -> None:
    plan = scan_kernel.layout(1, heads, rows, states)
    assert states % plan.lanes == 0 and plan.lanes in (1, 2, 4, 8, 16)
    assert plan.group % 32 == 0 and plan.group <= 256
    assert plan.width % plan.group == 0 and 0 <= plan.width - rows * plan.lanes < plan.group
    assert plan.staged % 4 == 0 and 4 <= plan.staged <= 32
    assert 2 * 4 * plan.staged * states <= 32 << 10


def test_layout_spreads_small_layers_and_only_those() -> None:
    assert scan_kernel.layout(1, 1, 5120, 16).lanes == 1
    assert scan_kernel.layout(1, 1, 256, 16).lanes == 16
    assert scan_kernel.layout(1, 80, 64, 128).lanes == 8  # at most 16 states a thread


def test_states_too_wide_for_the_kernel_are_left_to_plain_mlx() -> None:
    assert metal.fits(256) and not metal.fits(1025)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Makes MLX's norms and linears leave nothing in a graph but views, and lists what they are on a GPU: one launch,
    and one for each argument converted. (On a CPU MLX writes them as several steps.)"""
    launches: list[str] = []

    def count(name: str, *given: mx.array | None) -> None:
        types = [array.dtype for array in given if array is not None]
        widest = mx.float32 if mx.float32 in types else types[0]
        launches.extend([name, *(f"{name} converts" for dtype in types if dtype != widest)])

    def norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
        count("norm", x, weight)
        return x

    def linear(self: nn.Linear, x: mx.array) -> mx.array:
        count("linear", x, self.weight, self.get("bias"))
        return mx.broadcast_to(x[..., :1], (*x.shape[:-1], len(self.weight)))

    monkeypatch.setattr(mx.fast, "rms_norm", norm)
    monkeypatch.setattr(nn.Linear, "__call__", linear)
    return launches


LAUNCHES_A_LAYER = {  # of a decode step in float32, in bfloat16; prefill also adds up what was kept
    "mamba": (8, 11),
    "mamba-biased": (8, 11),
    "falcon": (9, 11),
    "mamba2": (7, 9),
    "mamba2-groups": (7, 9),
    "mamba2-before": (7, 9),
}


@pytest.mark.parametrize("length", [1, 64, 5000])
@pytest.mark.parametrize("name", LAUNCHES_A_LAYER)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_launches_a_layer(name: str, dtype: mx.Dtype, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in MLX's own graph of one layer of a loaded model, views left out. At most 12 is what is asked for."""
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    monkeypatch.setattr(metal_check, "usable", lambda required: True)
    model = samples.random_model(name)
    model.update(tree_map(lambda array: array.astype(dtype), model.parameters()))
    make_ready(model)
    mx.eval(model.layers[0].scan.A())  # once for all calls
    before = model.initial_state().layers[0]
    threshold = mx.zeros((model.config.units,)) if length > 1 else None
    mx.eval(threshold)
    nodes: list[dict] = []

    def layer(hidden: mx.array, conv: mx.array, ssm: mx.array) -> list[mx.array]:
        result = model.layer(0, hidden, LayerState(conv=conv, ssm=ssm), threshold, return_kept=length > 1)
        return [result[0], result[1].conv, result[1].ssm, *result[2:]]

    launches = counted(monkeypatch)
    mx.export_function(nodes.append, layer, mx.zeros((1, length, model.config.d_model)), before.conv, before.ssm)
    launches += [node["name"] for node in nodes if node["type"] == "primitive" and node["name"] not in VIEWS]
    assert launches.count("CustomKernel") == 2 + (name == "falcon" or name.startswith("mamba2"))
    assert len(launches) == LAUNCHES_A_LAYER[name][dtype == mx.bfloat16] + (length > 1), " ".join(launches)
    assert len(launches) <= 12


MAMBA3_LAUNCHES_A_LAYER = {  # of a decode step in float32, in bfloat16, without the MLP that some layers have beside it
    "mamba3-siso": (8, 10),
    "mamba3-siso-norm-groups-mlp": (9, 11),
    "mamba3-mimo": (8, 10),
    "mamba3-mimo-norm-groups": (12, 14),  # its gate and its sum over the ranks are plain MLX
}


@pytest.mark.parametrize("length", [1, 64, 5000])
@pytest.mark.parametrize("name", MAMBA3_LAUNCHES_A_LAYER)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_launches_a_layer_of_mamba3(name: str, dtype: mx.Dtype, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    monkeypatch.setattr(metal_check, "usable", lambda required: True)
    model = comparing.model.__wrapped__(name)  # one of its own, since it is changed
    model.update(tree_map(lambda array: array.astype(dtype), model.parameters()))
    make_ready(model)
    block = model.layers[0]
    block.pop("mlp", None)
    start = model.initial_state().layers[0]
    threshold = mx.zeros((model.config.units,)) if length > 1 else None
    mx.eval(threshold)
    nodes: list[dict] = []

    def layer(hidden: mx.array, *state: mx.array) -> list[mx.array]:
        before = LayerState(ssm=state[0], angle=state[1], last_k=state[2], last_v=state[3])
        hidden, after, *kept = model.layer(0, hidden, before, threshold, return_kept=length > 1)
        return [hidden, after.ssm, after.angle, after.last_k, after.last_v, *kept]

    launches = counted(monkeypatch)
    given = (start.ssm, start.angle, start.last_k, start.last_v)
    mx.export_function(nodes.append, layer, mx.zeros((1, length, model.config.d_model)), *given)
    launches += [node["name"] for node in nodes if node["type"] == "primitive" and node["name"] not in VIEWS]
    assert launches.count("CustomKernel") == 2 + ("norm" in name)
    assert len(launches) == MAMBA3_LAUNCHES_A_LAYER[name][dtype == mx.bfloat16] + (length > 1), " ".join(launches)
