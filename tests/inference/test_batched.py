"""Several states asked at once say what each says alone, in every family and with attention's keys and values."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import NumericError
from longmamba_mlx.inference.batched import ask_all, write_all
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.batches import joined
from longmamba_mlx.models.state import ModelState
from tests.models.hybrids import CASES, hybrid
from tests.models.test_decode_step import model_of

PROMPT = np.array([3, 1, 4, 1, 5], np.uint32)


def read(model: LanguageModel, seed: int) -> ModelState:
    ids = np.random.default_rng(seed).integers(0, model.config.vocab_size, (1, 30))
    state = model(mx.array(ids))[1]
    state.evaluate()
    return state


@pytest.mark.parametrize("name", [*CASES, "mamba", "mamba2", "mamba3"])
def test_states_asked_together_answer_as_each_does_alone(name: str) -> None:
    model = model_of(name)
    states = [read(model, seed) for seed in range(4)]
    together = ask_all(model, joined(states), 4, PROMPT)
    written = write_all(model, together, [3, 0, 2], max_tokens=6)
    for row, ids in zip([3, 0, 2], written, strict=True):
        alone = ask_all(model, states[row], 1, PROMPT)
        np.testing.assert_allclose(together.entropy[row], alone.entropy[0], rtol=2e-3, atol=1e-4)
        assert len(ids) == 6
        assert ids[0] == int(mx.argmax(alone.logits[0])) and write_all(model, alone, [0], max_tokens=6) == [ids]


def test_an_attention_window_stays_with_the_batch() -> None:
    model = hybrid("zamba2")
    state = model(mx.array([[1, 2, 3]]))[1]
    assert joined([state, state]).window == state.window and joined([state] * 3).tokens == 3


def test_answers_end_each_for_itself() -> None:
    model = hybrid("bamba")
    states = [read(model, seed) for seed in range(5)]
    asked = ask_all(model, joined(states), 5, PROMPT)
    whole = write_all(model, asked, range(5), max_tokens=8)
    stop = whole[1][3]
    cut = write_all(model, asked, range(5), max_tokens=8, stop_ids={stop})
    assert cut == [ids[: ids.index(stop)] if stop in ids else ids for ids in whole]
    assert write_all(model, asked, range(5), max_tokens=8, is_over=lambda ids: len(ids) == 2) == [
        ids[:2] for ids in whole
    ]


def test_what_is_no_number_is_an_error() -> None:
    model = hybrid("bamba")
    broken = ModelState(tuple(read(model, 1).layers), 30)
    broken = joined([broken, broken])
    layers = [layer.ssm for layer in broken.layers if layer.ssm is not None]
    layers[0][:] = mx.nan
    with pytest.raises(NumericError):
        ask_all(model, broken, 2, PROMPT)
