"""What MLX itself writes for our kernels: it takes them, and nothing in them trips it or a compiler. Needs no g++."""

from __future__ import annotations

import re
from collections.abc import Iterator

import mlx.core as mx
import pytest

from longmamba_mlx.metal_kernels import scan as scan_kernel
from longmamba_mlx.metal_kernels import source
from longmamba_mlx.ops import metal
from tests.metal.conftest import forget_kernels
from tests.metal.launches import all_launches, conv_launch, scan_launch, text_of
from tests.metal.texts import signature
from tests.models import samples

LAUNCHES = dict(all_launches())
VIEWS = {"Broadcast", "ExpandDims", "Flatten", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unflatten"}


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
    assert len(names) == len(set(names))
    scalars = {argument.name for argument in parts.arguments if not argument.pointer}
    assert ("size" if title.startswith("norm") else "length") in scalars  # templates would be compiled for each
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


@pytest.mark.parametrize("name", ["scan", "conv", "norm"])
def test_sources_avoid_what_compilers_or_mlx_trip_over(name: str) -> None:
    body = source(name)
    assert "//" not in body
    for word in ("_shape", "_ndim", "double", "std::", "expm1", "return", "device ", "constant ", "atomic"):
        assert word not in body
    # Outside the two spelled-out namespaces the math mode would decide.
    text = body + source("softplus")
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


@pytest.mark.parametrize("length", [1, 64, 5000])
@pytest.mark.parametrize(
    ("name", "limit"), [("mamba", 10), ("falcon", 13), ("mamba2", 9), ("mamba2-groups", 9), ("mamba2-before", 9)]
)
def test_launches_a_layer(name: str, limit: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from MLX's graph of one layer. A rms_norm counts as one: on a CPU MLX writes it as several."""
    from longmamba_mlx.models.state import LayerState

    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    monkeypatch.setattr(metal, "usable", lambda required: True)
    model = samples.random_model(name)
    before = model.initial_state().layers[0]
    threshold = mx.zeros((model.config.units,)) if length > 1 else None
    nodes, norms = [], []

    def norm(x: mx.array, *rest: object) -> mx.array:
        norms.append(rest)
        return x

    def layer(hidden: mx.array, conv: mx.array, ssm: mx.array) -> list[mx.array]:
        out, after = model.layer(0, hidden, LayerState(conv=conv, ssm=ssm), threshold)
        return [out, after.conv, after.ssm]

    monkeypatch.setattr(mx.fast, "rms_norm", norm)
    mx.export_function(nodes.append, layer, mx.zeros((1, length, model.config.d_model)), before.conv, before.ssm)
    launched = [node["name"] for node in nodes if node["type"] == "primitive" and node["name"] not in VIEWS]
    assert launched.count("CustomKernel") == 2 + name.startswith("mamba2")
    assert len(launched) + len(norms) <= limit, (launched, len(norms))
