"""ModelState: flattening, sizes, finiteness."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import StateError
from longmamba_mlx.models import LayerState, ModelState
from tests.models.samples import random_ids, random_model


def test_round_trip_of_arrays() -> None:
    _, state = random_model("mamba2")(random_ids(5))
    state.evaluate()
    arrays = state.arrays()
    assert list(arrays)[:3] == ["layers.0.conv", "layers.0.ssm", "layers.1.conv"]
    back = ModelState.from_arrays(arrays, state.tokens)
    assert back.tokens == 5 and len(back.layers) == 3
    assert all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(
        back.arrays().values(), arrays.values(), strict=True
    ))  # fmt: skip
    assert state.nbytes == sum(array.nbytes for array in arrays.values())


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["layers.0.conv"],
        ["layers.1.conv", "layers.1.ssm"],
        ["layers.0.conv", "layers.0.ssm", "x"],
        ["a", "b"],
    ],
)
def test_other_names_are_refused(names: list[str]) -> None:
    with pytest.raises(StateError):
        ModelState.from_arrays({name: mx.zeros((1,)) for name in names}, 1)


def test_more_than_ten_layers_keep_their_order() -> None:
    layers = tuple(LayerState(conv=mx.full((1,), i), ssm=mx.full((1,), -i)) for i in range(12))
    back = ModelState.from_arrays(dict(reversed(ModelState(layers, 3).arrays().items())), 3)
    assert [layer.conv.item() for layer in back.layers] == list(range(12))


def test_finiteness_looks_everywhere() -> None:
    state = random_model("mamba").initial_state()
    assert state.is_finite()
    arrays = state.arrays()
    for bad in (np.nan, np.inf):
        arrays["layers.2.ssm"] = mx.full(arrays["layers.2.ssm"].shape, bad)
        assert not ModelState.from_arrays(arrays, 0).is_finite()


def test_size_does_not_grow_with_what_was_read() -> None:
    model = random_model("mamba")
    sizes = {model(random_ids(length))[1].nbytes for length in (1, 10, 200)}
    assert len(sizes) == 1
