"""Invariants of filtered reading on the built-in models that no other file holds: one way of running equals another."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.inference.decode import generate
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models.state import ModelState
from longmamba_mlx.session.api import Model, load


@pytest.fixture(scope="module", params=["demo", "demo-mamba1"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(request.param, filter="paper")


@pytest.fixture(scope="module")
def limits(model: Model) -> list[mx.array | None]:
    """Thresholds of a document sixteen times the training length."""
    plan = model.plan(16 * model.training_length)
    assert plan is not None
    return [None if values is None else mx.array(values) for values in map(plan.thresholds, range(len(plan.layers)))]


def states(state: ModelState) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in state.arrays().items()}


def test_a_batch_is_each_of_its_rows_alone(model: Model, limits: list[mx.array | None], story: str) -> None:
    ids = model.tokenizer.encode(story)
    rows = np.stack([ids[:300], ids[700:1000], ids[40:340]])
    network = model.loaded.model
    hidden, together = network(mx.array(rows), None, limits)
    for number, row in enumerate(rows):
        alone, state = network(mx.array(row[None]), None, limits)
        np.testing.assert_allclose(np.array(hidden[number]), np.array(alone[0]), rtol=1e-4, atol=1e-4)
        for name, array in states(state).items():
            np.testing.assert_allclose(states(together)[name][number], array[0], rtol=1e-4, atol=1e-4)


def test_a_chunked_scan_is_token_after_token(model: Model, limits: list[mx.array | None], story: str) -> None:
    ids, network = model.tokenizer.encode(story)[:160], model.loaded.model
    hidden, whole = network(mx.array(ids[None]), None, limits)
    state = network.initial_state()
    for token in ids:
        last, state = network(mx.array([[int(token)]]), state, limits)
    np.testing.assert_allclose(np.array(hidden[:, -1:]), np.array(last), rtol=1e-3, atol=1e-3)
    for name, array in states(whole).items():
        np.testing.assert_allclose(states(state)[name], array, rtol=1e-3, atol=1e-3)


def test_answers_are_unfiltered_steps_from_the_filtered_state(model: Model, story: str) -> None:
    ids, network = model.tokenizer.encode(story)[:1400], model.loaded.model
    before = prefill(network, ids, model.plan(len(ids), ids)).state
    prompt = model.tokenizer.encode(model.form.ask("What is the access code of Zorvath?"))
    kept = states(before)
    written = list(generate(network, before, prompt, max_tokens=5))
    state, expected = before, []
    hidden, state = network(mx.array(prompt[None]), state, None)
    for _ in range(5):
        expected.append(int(np.array(network.head(hidden[:, -1:])[0, 0]).argmax()))
        hidden, state = network(mx.array([[expected[-1]]]), state, None)
    assert written == expected
    for name, array in states(before).items():  # asking changes nothing
        np.testing.assert_array_equal(array, kept[name])


def test_saving_and_opening_changes_no_answer(demo: Model, story: str, tmp_path: Path) -> None:
    from longmamba_mlx.documents import Document

    book = demo.read(Document("story", story))
    path = tmp_path / "book.state"
    book.save(path)
    again = demo.open(path)
    for name, array in states(book.state).items():
        np.testing.assert_array_equal(states(again.state)[name], array)
    question = "What is the access code of Zorvath?"
    assert again.ask(question).text == book.ask(question).text
