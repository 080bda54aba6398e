"""What Linux can check of the Metal kernel: that MLX takes it, and the exact text it would compile."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import pytest

from longmamba_mlx.metal_kernels import selective_scan as kernel
from longmamba_mlx.metal_kernels import source
from tests.ops.cases import DTYPES


def generated_text(function: Callable, *arrays: mx.array) -> str:
    """In an export MLX builds a kernel's text without Metal, and prints it from C++, to descriptor 1."""
    libc = ctypes.CDLL(None)
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "text", "w+") as text:
        libc.fflush(None)
        saved = os.dup(1)
        os.dup2(text.fileno(), 1)
        try:
            mx.export_function(str(Path(folder) / "f"), function, *arrays)
        finally:
            libc.fflush(None)
            os.dup2(saved, 1)
            os.close(saved)
        text.seek(0)
        return text.read()


def scan_text(channels: int, states: int, dtype: str = "float32", **options) -> str:
    low = DTYPES[dtype]
    options = {"reverse": False, "return_kept": True} | options
    gate = options.pop("gate", True)

    def launch(x, dt, A, B, C, state):
        vector = mx.zeros((channels,))
        return list(
            kernel.selective_scan(
                x,
                dt,
                x if gate else None,
                A,
                B,
                C,
                vector,
                vector,
                vector,
                state,
                mx.zeros((2,)),
                verbose=True,
                **options,
            )
        )

    return generated_text(
        launch,
        mx.zeros((1, 3, channels), dtype=low),
        mx.zeros((1, 3, channels)),
        mx.zeros((channels, states)),
        mx.zeros((1, 3, states), dtype=low),
        mx.zeros((1, 3, states), dtype=low),
        mx.zeros((1, channels, states)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "states"), [(2, 2), (7, 16), (64, 16), (5, 64)])
def test_mlx_accepts_it(channels: int, states: int, dtype: str) -> None:
    text = scan_text(channels, states, dtype)
    assert "template <typename T, int N, int S, int TB, bool HAS_Z, bool REVERSE, bool KEPT>" in text
    assert text.count("{") == text.count("}")
    space = "constant" if channels < 8 else "device"
    assert f"const {space} float* D [[" in text
    assert "const constant int32_t& length [[" in text  # a scalar: no compilation for each length
    for attribute in ("thread_position_in_grid", "thread_index_in_simdgroup", "threads_per_grid"):
        assert f"[[{attribute}]]" in text


@pytest.mark.parametrize(
    "options", [{"gate": False}, {"reverse": True}, {"return_kept": False}, {"lanes": 4}]
)
def test_variants(options: dict) -> None:
    scan_text(8, 16, **options)


def test_source_avoids_what_compilers_or_mlx_trip_over() -> None:
    body = source("selective_scan")
    assert "//" not in body
    for word in ("_shape", "_strides", "_ndim", "double", "std::", "expm1", "return", "device ", "constant "):
        assert word not in body
    # Outside the two spelled-out namespaces the math mode would decide.
    for function in ("exp", "exp2", "log"):
        text = body + source("softplus")
        assert text.count(f"{function}(") == text.count(f"metal::precise::{function}(")


@pytest.mark.parametrize("states", [1, 3, 16, 64, 128, 2048])
@pytest.mark.parametrize("channels", [1, 63, 1536, 8192])
def test_layout(channels: int, states: int) -> None:
    plan = kernel.layout(1, channels, states)
    assert states % plan.lanes == 0 and plan.lanes <= 16
    assert plan.width % 64 == 0 and 0 <= plan.width - channels * plan.lanes < 64
    assert 2 * 4 * plan.staged * states <= 32 << 10
    assert plan.staged >= 1


def test_large_layers_use_one_lane() -> None:
    assert kernel.layout(1, 5120, 16).lanes == 1
    assert kernel.layout(1, 256, 16).lanes == 16
