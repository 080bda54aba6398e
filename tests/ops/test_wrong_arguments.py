"""Whatever is wrong with an argument, a ValueError names op and argument before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longmamba_mlx import ops
from longmamba_mlx.ops import backend
from tests.ops.cases import selective_case, ssd_case

ARRAYS = {
    "selective_scan": ("x", "dt", "A", "B", "C"),
    "ssd_scan": ("x", "dt", "A", "B", "C"),
    "causal_conv1d": ("x", "weight"),
    "gated_rms_norm": ("y", "z", "weight"),
    "dt_b_c_norms": ("x",),
}
OPTIONAL = {
    "selective_scan": ("D", "z", "dt_bias", "threshold", "initial_state"),
    "ssd_scan": ("D", "z", "dt_bias", "threshold", "initial_state"),
    "causal_conv1d": ("bias", "initial"),
}
# Axes that no other argument holds to a size.
FREE = {("causal_conv1d", "x"): (1,), ("dt_b_c_norms", "x"): (0, 1)}
# Only these may be of another kind than float32: float16 and bfloat16 are taken everywhere else.
FLOAT32 = ("threshold", "initial_state")


def right(op: str) -> dict[str, Any]:
    """Arguments that the op takes, all different in size."""
    if op == "selective_scan":
        return selective_case(2, 3, 5, 4)
    if op == "ssd_scan":
        return ssd_case(2, 3, 4, 6, 2, 5)
    if op == "causal_conv1d":
        return {
            "x": mx.ones((2, 5, 3)),
            "weight": mx.ones((3, 4)),
            "bias": mx.ones((3,)),
            "initial": mx.ones((2, 3, 3)),
        }
    if op == "gated_rms_norm":
        return {"y": mx.ones((2, 3, 8)), "z": mx.ones((2, 3, 8)), "weight": mx.ones((8,)), "groups": 2, "eps": 1e-5}
    weights = (mx.ones((3,)), mx.ones((2,)), mx.ones((2,)))
    return {"x": mx.ones((2, 3, 7)), "sizes": (3, 2, 2), "eps": 1e-5, "weights": weights}


@st.composite
def misshapen(draw: st.DrawFn, array: mx.array, free: tuple[int, ...]) -> mx.array:
    """The array with another shape, not only along `free` axes."""
    shape = list(array.shape)
    axis = draw(st.integers(0, len(shape) - 1))
    kind = draw(st.sampled_from(["longer", "shorter", "empty", "one more axis", "one axis less", "turned"]))
    if kind == "one more axis":
        shape.insert(axis, 1)
    elif kind == "one axis less":
        shape[axis : axis + 2] = [math.prod(shape[axis : axis + 2])] if axis + 1 < len(shape) else []
    elif kind == "turned" and len(set(shape)) == len(shape) > 1:
        shape = shape[1:] + shape[:1]
    else:
        axis = len(shape) - 1 if axis in free else axis
        shape[axis] = {"shorter": shape[axis] - 1, "empty": 0}.get(kind, shape[axis] + draw(st.integers(1, 3)))
    return mx.ones(shape, dtype=array.dtype)


@st.composite
def wrong_arrays(draw: st.DrawFn, op: str) -> dict[str, Any]:
    case = right(op)
    name = draw(st.sampled_from(ARRAYS[op] + OPTIONAL.get(op, ())))
    array = case[name]
    kinds = ["shape", "dtype", "no array"] + ["none"] * (name in ARRAYS[op]) + ["16 bit"] * (name in FLOAT32)
    kind = draw(st.sampled_from(kinds + ["NaN"] * (name == "threshold")))
    if kind == "shape":
        case[name] = draw(misshapen(array, FREE.get((op, name), ())))
    elif kind == "dtype":
        case[name] = array.astype(draw(st.sampled_from([mx.int32, mx.uint8, mx.bool_, mx.complex64])))
    elif kind == "16 bit":
        case[name] = array.astype(draw(st.sampled_from([mx.float16, mx.bfloat16])))
    elif kind == "NaN":
        values = np.array(array)
        values[draw(st.integers(0, values.size - 1))] = math.nan
        case[name] = mx.array(values)
    else:
        others = st.sampled_from([np.array(array), array.tolist(), 1.0, "x", object()])
        case[name] = None if kind == "none" else draw(others)
    return case


WRONG_VALUES = (
    ("selective_scan", "time_step_limit", (None, 1.0, "ab", (), (0.1,), (0, 1, 2), (1, 1), (2, 1), (-1, 1),
                                           (0, math.nan), (math.nan, 1), (None, None))),
    ("ssd_scan", "time_step_limit", (None, (0.0, 0.0), (-0.1, 1.0), ("a", "b"))),
    ("gated_rms_norm", "groups", (0, -1, 3, 9, 1.5, None)),
    ("gated_rms_norm", "eps", (-1e-5, math.nan, math.inf, None)),
    ("dt_b_c_norms", "eps", (-1e-5, math.nan, math.inf, None)),
    ("dt_b_c_norms", "sizes", ((7,), (3, 2, 1), (3, 2, 3), (0, 5, 2), (-1, 4, 4), (3.0, 2, 2))),
    ("dt_b_c_norms", "weights", ((mx.ones((3,)),) * 3, (mx.ones((3,)),), ([1.0], [1.0], [1.0]))),
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No implementation may be reached."""

    def reached(*_: object) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(backend, "current", reached)
    yield


@pytest.mark.parametrize("op", ARRAYS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wrong_arrays_are_named(op: str, data: st.DataObject) -> None:
    case = data.draw(wrong_arrays(op))
    with pytest.raises(ValueError, match=rf"^{op}: .*\b({'|'.join(ARRAYS[op] + OPTIONAL.get(op, ()))}|sizes)\b"):
        getattr(ops, op)(**case)


@pytest.mark.parametrize(
    ("op", "name", "value"), [(op, name, value) for op, name, all_ in WRONG_VALUES for value in all_]
)
def test_wrong_values_are_named(op: str, name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{op}: .*{name.rstrip('s')}"):
        getattr(ops, op)(**right(op) | {name: value})


@pytest.mark.parametrize("op", ARRAYS)
def test_what_is_right_runs(op: str) -> None:
    with pytest.raises(AssertionError, match="it ran"):
        getattr(ops, op)(**right(op))
