"""A compiled decode step: the same numbers as layer by layer, built once, and never for weights of before."""

from __future__ import annotations

import gc
import shutil
import weakref

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from longmamba_mlx.inference.decode import generate
from longmamba_mlx.models import FAMILIES, LanguageModel, ModelState
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.decode_step import CompiledStep, decode_step
from longmamba_mlx.models.linear import BatchedLinear, use_batched_linears
from longmamba_mlx.models.loading import make_ready
from longmamba_mlx.models.scaled import scaled
from longmamba_mlx.ops import backend
from tests.models.hybrids import CASES, hybrid
from tests.models.samples import CONFIGS, random_ids, random_model
from tests.models.test_mamba3 import CONFIG as MAMBA3

pytestmark = pytest.mark.skipif(
    mx.default_device().type == mx.cpu and shutil.which("g++") is None, reason="MLX compiles with g++ on a CPU"
)


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain MLX, compiled, as on a GPU."""
    monkeypatch.setattr(backend, "name", lambda: "mlx")
    monkeypatch.setattr(backend, "compiles_decoding", lambda: True)


def model_of(name: str) -> LanguageModel:
    if name == "mamba3":
        mx.random.seed(0)
        model = FAMILIES["mamba3"](parse_config(MAMBA3))
    else:
        model = random_model(name) if name in CONFIGS else hybrid(name)
    make_ready(model)
    return model


def after_a_prompt(model: LanguageModel, length: int = 9) -> ModelState:
    state = model(random_ids(length), model.initial_state())[1]
    state.evaluate()
    return state


def same_bits(one: mx.array, other: mx.array) -> bool:
    return one.dtype == other.dtype and np.array_equal(
        np.array(one.astype(mx.float32)), np.array(other.astype(mx.float32))
    )


# MLX compiles each new graph with g++ here, which takes seconds: every family once, in the dtype with most conversions.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, mx.bfloat16) for name in ("mamba", "falcon", "mamba2-groups", *CASES, "mamba3")]
    + [(name, mx.float32) for name in ("mamba-biased", "mamba2-before", "granite-experts")],
    ids=str,
)
def test_equals_the_step_layer_by_layer(name: str, dtype: mx.Dtype) -> None:
    model = model_of(name)
    model.update(tree_map(lambda array: array.astype(dtype), model.parameters()))
    make_ready(model)
    step, expected, state = CompiledStep(model), after_a_prompt(model), after_a_prompt(model)
    for token in (3, 14, 15, 9, 26):
        ids = mx.array([[token]])
        logits, state = step(ids, state)
        hidden, expected = model(ids, expected)
        assert same_bits(logits, model.head(hidden))
        assert state.tokens == expected.tokens
        for (key, mine), theirs in zip(state.arrays().items(), expected.arrays().values(), strict=True):
            assert same_bits(mine, theirs), key


@pytest.mark.parametrize(("name", "again"), [("mamba", 0), ("mamba2", 0), ("granite", 1), ("falcon_h1", 3)])
def test_only_layers_with_attention_are_built_again(name: str, again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name)
    attention = sum(layer.attention is not None for layer in model.initial_state().layers)
    assert attention == again or name not in CONFIGS
    built, run = [], type(model).layer

    def counted(self: LanguageModel, index: int, *given: object) -> object:
        built.append(index)
        return run(self, index, *given)

    monkeypatch.setattr(type(model), "layer", counted)
    state, step = model.initial_state(), decode_step(model)
    for token in range(6):
        _, state = step(mx.array([[token]]), state)
        state.evaluate()
    assert len(built) == model.config.n_layer + 5 * attention


def test_a_model_keeps_its_step_until_a_weight_is_replaced() -> None:
    model = model_of("mamba2")
    step, ids = decode_step(model), mx.array([[5]])
    before = step(ids, model.initial_state())[0]
    assert decode_step(model) is step
    head = model.embeddings
    head.weight = head.weight * 2
    assert decode_step(model) is not step
    after = decode_step(model)(ids, model.initial_state())[0]
    hidden, _ = model(ids, model.initial_state())
    assert same_bits(after, model.head(hidden)) and not same_bits(after, before)


def test_a_step_is_built_again_for_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("mamba")
    step = decode_step(model)
    monkeypatch.setattr(backend, "name", lambda: "reference")
    assert decode_step(model) is not step


def test_a_scaled_copy_has_a_step_of_its_own() -> None:
    """The copy shares weights with the model, and private attributes too, but decays otherwise."""
    model = model_of("mamba2")
    state, ids = after_a_prompt(model), mx.array([[5]])
    decode_step(model)(ids, state)
    factors = [(np.float32(0.5) * np.ones(model.config.units, np.float32), 1.0)] * model.config.n_layer
    copy = scaled(model, factors)
    hidden, expected = copy(ids, state)
    logits, after = decode_step(copy)(ids, state)
    assert same_bits(logits, copy.head(hidden))
    for mine, theirs in zip(after.arrays().values(), expected.arrays().values(), strict=True):
        assert same_bits(mine, theirs)


def test_the_step_does_not_keep_its_model_alive() -> None:
    model = model_of("mamba")
    decode_step(model)(mx.array([[1]]), model.initial_state())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(("name", "temperature"), [("mamba2", 0.0), ("zamba2", 0.8)])
def test_answers_are_the_same(name: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name)
    prompt = np.array([1, 2, 3], np.uint32)
    answers = []
    for compiled in (True, False):
        monkeypatch.setattr(backend, "compiles_decoding", lambda compiled=compiled: compiled)
        ids = generate(model, model.initial_state(), prompt, max_tokens=12, temperature=temperature, seed=7)
        answers.append(list(ids))
    assert answers[0] == answers[1] and len(answers[0]) == 12


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
def test_batched_linears_give_the_bits_of_plain_ones(dtype: mx.Dtype, batch: int) -> None:
    model = random_model("mamba-biased")
    model.update(tree_map(lambda array: array.astype(dtype), model.parameters()))
    names = [name for name, _ in tree_flatten(model.parameters())]
    ids = random_ids(7, batch)
    expected = model(ids)[0]
    use_batched_linears(model)
    linears = [module for module in model.modules() if isinstance(module, BatchedLinear)]
    assert linears and [name for name, _ in tree_flatten(model.parameters())] == names
    assert same_bits(model(ids)[0], expected)
    for module in linears:  # a view of before must not be used
        module.weight = module.weight * 0
    assert not same_bits(model(ids)[0], expected)
