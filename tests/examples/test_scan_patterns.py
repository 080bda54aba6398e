"""The scan patterns of other Mamba systems, against loops in float64."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import mlx.core as mx
import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example(name: str) -> ModuleType:
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def loop(x: np.ndarray, dt: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """One sequence, token after token: x, dt (l, d); a (d, n); b, c (l, n); d (d,)."""
    state, out = np.zeros(a.shape), []
    for t in range(len(x)):
        step = np.log1p(np.exp(dt[t]))[:, None]
        state = np.exp(step * a) * state + step * b[t][None] * x[t][:, None]
        out.append(state @ c[t] + d * x[t])
    return np.array(out)


def as64(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32), np.float64)


def by_loop(direction: object, x: np.ndarray) -> np.ndarray:
    """A `Direction` module's output for x (l, d), the backward one by turning the sequence round."""
    dt = x @ as64(direction.to_dt.weight).T + as64(direction.to_dt.bias)  # type: ignore[attr-defined]
    b, c = np.split(x @ as64(direction.to_bc.weight).T, 2, axis=1)  # type: ignore[attr-defined]
    a, d = -np.exp(as64(direction.A_log)), as64(direction.D)  # type: ignore[attr-defined]
    turn = slice(None, None, -1) if direction.reverse else slice(None)  # type: ignore[attr-defined]
    return loop(x[turn], dt[turn], a, b[turn], c[turn], d)[turn]


@pytest.mark.parametrize("length", [1, 7, 200])
def test_bidirectional(length: int) -> None:
    mx.random.seed(1)
    layer = example("bidirectional").BidirectionalLayer(6, 4)
    series = mx.random.normal((2, length, 6))
    found = np.array(layer(series))
    for row in range(2):
        x = as64(series)[row]
        keep = 1 / (1 + np.exp(-(x @ as64(layer.gate.weight).T + as64(layer.gate.bias))))
        both = by_loop(layer.forward_scan, x) + by_loop(layer.backward_scan, x)
        np.testing.assert_allclose(found[row], keep * both + (1 - keep) * x, rtol=1e-4, atol=1e-4)


def test_cross_scan_in_four_directions() -> None:
    mx.random.seed(2)
    height, width, channels, states = 5, 9, 3, 4
    image = mx.random.normal((2, height, width, channels))
    dt = mx.random.normal((4, 2, height, width, channels)) - 1
    rates = -mx.exp(mx.random.normal((4, channels, states)))
    b_in, c_out = (mx.random.normal((4, 2, height, width, states)) for _ in range(2))
    skip = mx.random.normal((4, channels))
    found = np.array(example("cross_scan").cross_scan(image, dt, rates, b_in, c_out, skip))
    rows = [(y, x) for y in range(height) for x in range(width)]
    columns = [(y, x) for x in range(width) for y in range(height)]
    expected = np.zeros(found.shape)
    for direction, order in enumerate((rows, rows[::-1], columns, columns[::-1])):
        ys, xs = np.array(order).T
        for batch in range(2):
            expected[batch, ys, xs] += loop(
                as64(image)[batch, ys, xs], as64(dt)[direction, batch, ys, xs], as64(rates)[direction],
                as64(b_in)[direction, batch, ys, xs], as64(c_out)[direction, batch, ys, xs], as64(skip)[direction],
            )  # fmt: skip
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_nested_scans() -> None:
    mx.random.seed(3)
    example("bidirectional")
    layer = example("nested_scan").NestedLayer(words=3, word_width=4, patch_width=5, states=2)
    words, patches = mx.random.normal((2, 7, 3, 4)), mx.random.normal((2, 7, 5))
    found_words, found_patches = (np.array(part) for part in layer(words, patches))
    for batch in range(2):
        inner = np.array([by_loop(layer.inner, patch) + patch for patch in as64(words)[batch]])
        np.testing.assert_allclose(found_words[batch], inner, rtol=1e-4, atol=1e-4)
        lifted = as64(patches)[batch] + inner.reshape(7, -1) @ as64(layer.lift.weight).T + as64(layer.lift.bias)
        np.testing.assert_allclose(found_patches[batch], lifted + by_loop(layer.outer, lifted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["bidirectional", "cross_scan", "nested_scan"])
def test_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    example("bidirectional")
    example(name).main()
    out = capsys.readouterr().out
    assert out.strip() and " 0 of" not in out
