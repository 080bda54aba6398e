"""Attention that remembers the first and the latest tokens only: its definition, any cut of a text, what is stored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import StateError, UsageError
from longmamba_mlx.events import Notice
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models.attention import Attention
from longmamba_mlx.models.config.hybrid import AttentionConfig, RopeConfig
from longmamba_mlx.models.state import FIRST, ModelState
from longmamba_mlx.session.session import Session
from tests.models.hybrids import hybrid, write_folder
from tests.models.samples import random_ids

WINDOW = 9
FAMILIES = ["falcon_h1", "granite", "nemotron_h", "jamba", "zamba2", "bamba"]
CUTS = [[1] * 40, [40], [3, 20, 17], [13, 1, 1, 25], [FIRST + WINDOW, 27], [39, 1]]


def layer(window: int | None, rope: bool = True) -> Attention:
    mx.random.seed(3)
    turned = RopeConfig(1e4, 8) if rope else None
    return Attention(AttentionConfig(4, 2, 8, 0.3, rope=turned, window=window), 16, 16)


def by_definition(attention: Attention, x: np.ndarray) -> np.ndarray:
    """Scores and their softmax in float64, with -inf for what a token does not see."""
    length = x.shape[1]
    heads = [attention._heads(projection(mx.array(x)), count) for projection, count in
             ((attention.q_proj, 4), (attention.k_proj, 2), (attention.v_proj, 2))]  # fmt: skip
    queries, keys = (np.array(attention._turned(part, 0), np.float64) for part in heads[:2])
    keys, values = (np.repeat(part, 2, axis=1) for part in (keys, np.array(heads[2], np.float64)))
    own, other = np.arange(length)[:, None], np.arange(length)
    seen = (other <= own) & ((other < FIRST) | (other > own - WINDOW))
    scores = np.where(seen, queries @ keys.swapaxes(-1, -2) * 0.3, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True) @ values).swapaxes(1, 2).reshape(1, length, -1)
    return mixed @ np.array(attention.o_proj.weight, np.float64).T


@pytest.mark.parametrize("rope", [False, True])
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_equals_the_definition_however_the_text_is_cut(cut: list[int], rope: bool) -> None:
    attention, x = layer(WINDOW, rope), np.random.default_rng(0).standard_normal((1, 40, 16)).astype(np.float32)
    kept, parts, at = attention.nothing(1), [], 0
    for length in cut:
        y, kept = attention(mx.array(x[:, at : at + length]), kept)
        parts.append(np.array(y))
        at += length
        assert kept.held == kept.used()[0].shape[2] == min(at, FIRST + WINDOW)
    assert np.abs(np.concatenate(parts, axis=1) - by_definition(attention, x)).max() < 1e-5


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def windowed(name: str, window: int | None):
    """The hybrid of that name whose attention has a window, with the same weights."""
    model = hybrid(name)
    for module in model.modules():
        if isinstance(module, Attention):
            module.config = dataclasses.replace(module.config, window=window)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_a_window_that_holds_everything_changes_nothing(name: str) -> None:
    ids = random_ids(30)
    free, bounded = windowed(name, None)(ids)[0], windowed(name, 30)(ids)[0]
    assert np.array_equal(np.array(free), np.array(bounded))
    assert not np.array_equal(np.array(free), np.array(windowed(name, 8)(ids)[0]))


@pytest.mark.parametrize("name", FAMILIES)
def test_any_chunk_gives_the_same_state_of_constant_size(name: str) -> None:
    model, ids = windowed(name, WINDOW), np.array(random_ids(60))[0].astype(np.uint32)
    whole = prefill(model, ids, None, chunk=60)
    sizes = {prefill(model, ids[:length], None, chunk=7).state.nbytes for length in (20, 41, 60)}
    assert sizes == {whole.state.nbytes}
    assert model.initial_state().window == WINDOW
    for chunk in (1, 7, 32):
        pieces = prefill(model, ids, None, chunk=chunk)
        assert relative(pieces.logits, whole.logits) < 1e-4
        for part, array in whole.state.arrays().items():
            assert relative(np.array(pieces.state.arrays()[part]), np.array(array)) < 1e-4
            assert model.initial_state().shapes(60)[part] == tuple(array.shape)


def test_arrays_and_back_need_the_window() -> None:
    model, ids = windowed("granite", WINDOW), random_ids(30)
    _, state = model(ids)
    depth = model.config.n_layer
    back = ModelState.from_arrays(state.arrays(), 30, depth, WINDOW)
    first, again = model(random_ids(3, seed=9), state)[0], model(random_ids(3, seed=9), back)[0]
    assert np.array_equal(np.array(first), np.array(again))
    for window in (None, WINDOW - 1, 30):
        with pytest.raises(StateError):
            ModelState.from_arrays(state.arrays(), 30, depth, window)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "home"))
    (tmp_path / "t.txt").write_text("It was a dark night. The ring lay under the old oak. " * 8)
    return write_folder(tmp_path / "granite", "granite")


def test_a_book_read_with_a_window_is_remembered_as_that(folder: Path, tmp_path: Path) -> None:
    book = str(tmp_path / "t.txt")

    def read(window: int | None) -> tuple[list[str], bool]:
        events = list(Session(str(folder), attention_window=window).open([book]))
        told = [event.text for event in events if isinstance(event, Notice)]
        return [text for text in told if "attention" in text], events[-1].reopened

    told, reopened = read(None)
    assert len(told) == 1 and "64 B a token" in told[0] and "--attention-window" in told[0] and not reopened
    assert read(12) == ([], False)
    assert read(12) == ([], True)
    assert read(13) == ([], False)
    assert read(None) == ([], True)


def test_the_window_is_how_a_model_is_run_and_not_which_one_it_is(folder: Path) -> None:
    free, bounded = lm.load(folder), lm.load(folder, attention_window=12)
    assert free.loaded.fingerprint == bounded.loaded.fingerprint
    assert (free.attention_window, bounded.attention_window) == (None, 12)
    assert bounded.with_filter("off").attention_window == 12
    assert lm.load("demo", attention_window=12).attention_window is None
    with pytest.raises(UsageError):
        lm.load(folder, attention_window=0)


def test_a_state_file_by_hand(folder: Path, tmp_path: Path) -> None:
    book = lm.load(folder, attention_window=12).read(tmp_path / "t.txt")
    book.save(tmp_path / "t.state")
    again = lm.load(folder, attention_window=12).open(tmp_path / "t.state", tmp_path / "t.txt")
    assert again.ask("Where?", max_tokens=5).text == book.ask("Where?", max_tokens=5).text
    with pytest.raises(StateError):
        lm.load(folder).open(tmp_path / "t.state", tmp_path / "t.txt")
