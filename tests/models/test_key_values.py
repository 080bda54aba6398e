"""Keys and values: they grow, are shared, and go to arrays and back."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import StateError
from longmamba_mlx.models.state import KeyValues, LayerState, ModelState
from tests.models.hybrids import hybrid
from tests.models.samples import random_ids


def rows(start: int, length: int) -> mx.array:
    """(1, 2, length, 3), every token its own number."""
    numbers = mx.arange(start, start + length, dtype=mx.float32)[None, None, :, None]
    return mx.broadcast_to(numbers, (1, 2, length, 3))


@pytest.mark.parametrize("pieces", [[1] * 5, [255, 1, 1], [256, 256], [100, 300, 2], [600, 1]])
def test_appending_keeps_every_token_in_order(pieces: list[int]) -> None:
    kept, at = KeyValues.empty(1, 2, 3, mx.float32), 0
    for length in pieces:
        kept = kept.append(rows(at, length), -rows(at, length))
        at += length
    keys, values = kept.used()
    assert kept.tokens == at and kept.keys.shape[2] % 256 == 0 and kept.keys.shape[2] - at < 256
    assert np.array_equal(np.array(keys), np.array(rows(0, at)))
    assert np.array_equal(np.array(values), -np.array(rows(0, at)))


def test_two_continuations_of_the_same_text() -> None:
    start = KeyValues.empty(1, 2, 3, mx.float32).append(rows(0, 10), rows(0, 10))
    mx.eval(start.keys)
    one, other = start.append(rows(50, 2), rows(50, 2)), start.append(rows(70, 2), rows(70, 2))
    mx.eval(one.keys, other.keys)
    assert np.array(one.used()[0])[0, 0, 10:, 0].tolist() == [50, 51]
    assert np.array(other.used()[0])[0, 0, 10:, 0].tolist() == [70, 71]
    assert np.array(start.used()[0])[0, 0, :, 0].tolist() == list(range(10)) and start.tokens == 10


def test_the_dtype_stays() -> None:
    kept = KeyValues.empty(1, 2, 3, mx.bfloat16).append(rows(0, 4), rows(0, 4))
    assert kept.keys.dtype == kept.values.dtype == mx.bfloat16


@pytest.mark.parametrize("name", ["falcon_h1", "granite", "nemotron_h-experts", "zamba2", "phi4flash"])
def test_round_trip_of_arrays(name: str) -> None:
    model = hybrid(name)
    _, state = model(random_ids(5))
    arrays = state.arrays()
    assert {key.rpartition(".")[2] for key in arrays} == {"conv", "ssm", "keys", "values"}
    assert all(array.shape[2] == 5 for key, array in arrays.items() if key.endswith(("keys", "values")))
    back = ModelState.from_arrays(arrays, 5, model.config.n_layer)
    assert len(back.layers) == model.config.n_layer
    assert {key: tuple(array.shape) for key, array in arrays.items()} == model.initial_state().shapes(5)
    assert state.nbytes == back.nbytes == sum(array.nbytes for array in arrays.values())
    first, again = model(random_ids(3, seed=9), state)[0], model(random_ids(3, seed=9), back)[0]
    assert np.array_equal(np.array(first), np.array(again))


@pytest.mark.parametrize(
    ("change", "tokens", "n_layer"),
    [
        ({"layers.1.keys": None}, 5, 3),
        ({"layers.1.keys": mx.zeros((1, 2, 4, 3))}, 5, 3),
        ({"layers.1.values": mx.zeros((1, 2, 6, 3))}, 5, 3),
        ({"layers.1.keys": mx.zeros((5,))}, 5, 3),
        ({}, 4, 3),
        ({}, 5, None),
        ({}, 5, 1),
        ({"layers.2.keys": mx.zeros((1, 2, 5, 3))}, 5, 3),
        ({"layers.3.ssm": mx.zeros((1,))}, 5, 3),
    ],
)
def test_other_arrays_are_refused(change: dict[str, mx.array | None], tokens: int, n_layer: int | None) -> None:
    good = {"layers.0.conv": mx.zeros((1,)), "layers.0.ssm": mx.zeros((1,))}
    good |= {"layers.1.keys": mx.zeros((1, 2, 5, 3)), "layers.1.values": mx.zeros((1, 2, 5, 3))}
    good |= {"layers.2.conv": mx.zeros((1,)), "layers.2.ssm": mx.zeros((1,))}
    if n_layer is None:
        good = {key: array for key, array in good.items() if not key.startswith("layers.1")}  # a gap
    broken = {key: array for key, array in (good | change).items() if array is not None}
    with pytest.raises(StateError):
        ModelState.from_arrays(broken, tokens, n_layer)


def test_a_layer_that_remembers_nothing_needs_the_number_of_layers() -> None:
    state = ModelState((LayerState(), LayerState(mx.zeros((1,)), mx.ones((1,))), LayerState()), 2)
    assert len(ModelState.from_arrays(state.arrays(), 2, 3).layers) == 3
    with pytest.raises(StateError):
        ModelState.from_arrays(state.arrays(), 2)


@pytest.mark.parametrize("name", ["falcon_h1", "nemotron_h"])
def test_state_file(name: str, tmp_path) -> None:
    from longmamba_mlx.states.state_file import StateKey, read_state, write_state

    model = hybrid(name)
    _, state = model(random_ids(7))
    key = StateKey("d", 1, 7, "t", "m", "", "none", "off", "", 7, 512, "k", "float32")
    row = np.full((model.config.units,), -2, np.float32)
    rows = [row if model.has_scan(index) else None for index in range(model.config.n_layer)]
    write_state(tmp_path / "a.safetensors", key, state, rows, {"title": "t"})
    for like in (model.initial_state(), None):
        found = read_state(tmp_path / "a.safetensors", key=key, like=like)
        assert [found is None for found in found.thresholds] == [row is None for row in rows]
        assert len(found.state.layers) == model.config.n_layer and found.state.tokens == 7
        for part, array in state.arrays().items():
            assert np.array_equal(np.array(found.state.arrays()[part]), np.array(array))
    with pytest.raises(StateError):
        read_state(tmp_path / "a.safetensors", like=hybrid("granite").initial_state())
