"""Which implementation runs, and that mistakes are named before anything runs."""

from __future__ import annotations

import inspect
import math

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx import ops
from longmamba_mlx.errors import NoMLXError, UsageError
from longmamba_mlx.ops import backend, checks, metal, metal_check, plain_mlx, reference
from longmamba_mlx.ops.cpu import bridge
from longmamba_mlx.ops.inputs import ScanInputs
from tests.ops.cases import selective_case, ssd_case

needs_no_metal = pytest.mark.skipif(mx.metal.is_available(), reason="this machine has Metal")


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("reference", "reference"), ("cpu", "cpu"), ("numpy", "cpu"), ("compiled", "cpu"), ("metal", "metal")],
)
def test_the_environment_variable_chooses(monkeypatch: pytest.MonkeyPatch, kernel: str, expected: str) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
    assert ops.implementation() == expected
    assert ops.numpy_backed() == (expected == "cpu")


@pytest.mark.parametrize("kernel", ["fastest", "MLX", " "])
def test_an_invalid_choice_is_named_with_the_valid_ones(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
    for call in (ops.implementation, backend.current, lambda: backend.cpu_ops(64)):
        with pytest.raises(UsageError, match=f"Invalid LONGMAMBA_KERNEL '{kernel}'") as caught:
            call()
        assert caught.value.hint == "Use one of: auto, reference, metal, chunked, sequential, cpu, numpy, compiled"


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGMAMBA_KERNEL", raising=False)
    automatic = ops.implementation()
    monkeypatch.setenv("LONGMAMBA_KERNEL", "")
    assert ops.implementation() == automatic


@pytest.mark.parametrize(
    ("available", "agrees", "states", "expected"),
    [
        (True, True, 16, metal),
        (True, True, metal.scan_kernel.MAX_STATES + 1, plain_mlx),
        (True, False, 16, plain_mlx),
        (False, True, 16, plain_mlx),
    ],
)
def test_metal_runs_where_it_is_usable_and_the_state_fits(
    monkeypatch: pytest.MonkeyPatch, available: bool, agrees: bool, states: int, expected: object
) -> None:
    monkeypatch.delenv("LONGMAMBA_KERNEL", raising=False)
    monkeypatch.setattr(backend, "name", lambda: "metal")
    monkeypatch.setattr(metal_check.metal_kernels, "is_available", lambda: available)
    monkeypatch.setattr(metal_check, "_works", lambda: True)
    monkeypatch.setattr(metal_check, "_refusals", [] if agrees else ["they differ"])
    assert backend.current(states) is expected


@pytest.mark.parametrize("op", [ops.selective_scan, ops.ssd_scan])
def test_the_public_signature_is_that_of_the_inputs(op) -> None:
    names = list(inspect.signature(op).parameters)
    assert names == list(ScanInputs._fields)
    assert names[:5] == ["x", "dt", "A", "B", "C"] and names[-3:] == ["time_step_limit", "reverse", "return_kept"]
    assert op.__doc__ and "(b, l" in op.__doc__
    with pytest.raises(TypeError, match="unexpected"):
        op(**selective_case(1, 3), limit=(0.0, 1.0))


@pytest.mark.parametrize(
    "values", [np.zeros(4, np.float32), np.zeros(5), np.zeros((1, 5), np.float32), np.array([0, 0, np.nan, 0, 0], "f4")]
)
def test_thresholds_are_looked_at_before_a_reading(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected \(5,\) float32, no NaN"):
        checks.threshold_array(values, 5)
    right = checks.threshold_array(np.array([-math.inf, 0, 1, 2, 3], np.float32), 5)
    assert right is not None and right.dtype == mx.float32 and right.tolist() == [-math.inf, 0, 1, 2, 3]
    assert checks.threshold_array(None, 5) is None


def test_the_name_of_before_still_works() -> None:
    assert ops.part_norms is ops.dt_b_c_norms


@pytest.mark.parametrize(
    ("platform", "device", "expected"),
    [
        ("linux", mx.cpu, "cpu"),
        ("darwin", mx.cpu, "mlx"),
        ("linux", mx.gpu, "mlx"),
        ("darwin", mx.gpu, "metal"),
    ],
)
def test_auto(monkeypatch: pytest.MonkeyPatch, platform: str, device, expected: str) -> None:
    monkeypatch.delenv("LONGMAMBA_KERNEL", raising=False)
    monkeypatch.setattr(backend.sys, "platform", platform)
    monkeypatch.setattr(backend.mx, "default_device", lambda: mx.Device(device))
    monkeypatch.setattr(backend.mx.metal, "is_available", lambda: expected == "metal")
    assert ops.implementation() == expected


def test_the_chosen_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(reference, "selective_scan", lambda *a: called.append("reference"))
    monkeypatch.setattr(bridge.CPU, "selective_scan", lambda *a: called.append("cpu"))
    for wish in ("reference", "cpu"):
        monkeypatch.setenv("LONGMAMBA_KERNEL", wish)
        ops.selective_scan(**selective_case(1, 3))
    assert called == ["reference", "cpu"]


@needs_no_metal
def test_metal_by_name_is_an_error_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "metal")
    with pytest.raises(NoMLXError, match="Metal"):
        ops.selective_scan(**selective_case(1, 3))


def test_broken_metal_falls_back_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise RuntimeError("program source did not compile\nand more")

    monkeypatch.setattr(metal_check.metal_kernels, "is_available", lambda: True)
    monkeypatch.setattr(metal_check, "_difference_from_reference", broken)
    metal_check.reset()
    try:
        with pytest.warns(UserWarning, match="did not compile") as warned:
            assert not metal_check.usable(required=False)
            assert not metal_check.usable(required=False)
        assert len(warned) == 1
        with pytest.raises(NoMLXError):
            metal_check.usable(required=True)
    finally:
        metal_check.reset()


@pytest.mark.parametrize("name", ["dt", "A", "B", "C", "D", "z", "dt_bias", "threshold", "initial_state"])
@pytest.mark.parametrize("public", ["selective_scan", "ssd_scan"])
def test_wrong_shapes_and_dtypes_are_named(public: str, name: str) -> None:
    case = selective_case(2, 6) if public == "selective_scan" else ssd_case(2, 6)
    for wrong in (mx.zeros((7, 7)), case[name].astype(mx.int32), [1.0]):
        with pytest.raises(ValueError, match=rf"{public}: ({name}|[BC]) "):
            getattr(ops, public)(**case | {name: wrong})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": mx.array([0.0, math.nan, 0, 0, 0])}, "threshold holds NaN"),
        ({"threshold": mx.zeros((5,), dtype=mx.bfloat16)}, "threshold has dtype"),
        ({"initial_state": mx.zeros((1, 5, 4), dtype=mx.float16)}, "initial_state has dtype"),
        ({"x": mx.zeros((5, 5))}, "x has shape"),
        ({"x": mx.zeros((1, 0, 5)), "dt": mx.zeros((1, 0, 5))}, "z has shape"),
        ({"time_step_limit": (0.1, 0.1)}, "time_step_limit"),
        ({"time_step_limit": (math.nan, 1.0)}, "time_step_limit"),
        ({"time_step_limit": (-1.0, 1.0)}, "time_step_limit"),
    ],
)
def test_impossible_values_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ops.selective_scan(**selective_case(1, 3) | change)


def test_no_tokens_and_bad_groups_are_named() -> None:
    case = selective_case(1, 3)
    empty = {key: case[key][:, :0] for key in ("x", "dt", "B", "C", "z")}
    with pytest.raises(ValueError, match="no token"):
        ops.selective_scan(**case | empty)
    with pytest.raises(ValueError, match="3 groups"):
        ops.ssd_scan(**ssd_case(1, 3) | {"B": mx.zeros((1, 3, 3, 4)), "C": mx.zeros((1, 3, 3, 4))})
    with pytest.raises(ValueError, match="weight"):
        ops.causal_conv1d(mx.zeros((1, 3, 4)), mx.zeros((5, 4)))
    with pytest.raises(ValueError, match="holds nothing"):
        ops.selective_scan(**{key: value[:0] if value.ndim == 3 else value for key, value in case.items()})
    y, weight = mx.zeros((1, 3, 6)), mx.zeros((6,))
    for wrong, name in (
        ((y, y[:, :2], weight, 1), "z"),
        ((y, y, weight[:5], 1), "weight"),
        ((y, y, weight, 4), "groups"),
    ):
        with pytest.raises(ValueError, match=f"gated_rms_norm: .*{name}"):
            ops.gated_rms_norm(*wrong[:3], groups=wrong[3], eps=1e-5)


def test_reference_can_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    case = ssd_case(1, 4)

    def loss(x: mx.array) -> mx.array:
        return ops.ssd_scan(**case | {"x": x})[0].sum()

    assert mx.grad(loss)(case["x"]).shape == case["x"].shape
