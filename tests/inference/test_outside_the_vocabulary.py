"""Ids outside the vocabulary are refused wherever ids enter a model: MLX would read on behind its embeddings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longmamba_mlx.errors import ModelError
from longmamba_mlx.evaluation.measure import continuation_nll
from longmamba_mlx.evaluation.perplexity import token_nll
from longmamba_mlx.filtering import collect
from longmamba_mlx.inference.batched import ask_all
from longmamba_mlx.inference.decode import CHUNK, advance, generate
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.registry.resolve import resolve
from longmamba_mlx.session.api import Model, load
from tests.models.samples import random_model

VOCABULARY = 37
Work = Callable[[LanguageModel, np.ndarray], object]
WORK: dict[str, Work] = {
    "read": lambda model, ids: prefill(model, ids, None, logits="none"),
    "answer": lambda model, ids: next(generate(model, model.initial_state(), ids)),
    "catch up": lambda model, ids: advance(model, model.initial_state(), ids),
    "ask several": lambda model, ids: ask_all(model, model.initial_state(2), 2, ids),
    "calibrate": lambda model, ids: collect(model, ids[None], clamps=()),
}


@pytest.mark.parametrize("place", [0, CHUNK + 3])
@pytest.mark.parametrize("what", WORK)
def test_the_first_id_outside_is_refused_and_the_last_inside_is_read(what: str, place: int) -> None:
    model, ids = random_model("mamba2"), np.full(CHUNK + 5, VOCABULARY - 1, np.uint32)
    WORK[what](model, ids)
    ids[place] = VOCABULARY
    with pytest.raises(ModelError, match="Token 37 is outside the model's vocabulary of 37"):
        WORK[what](model, ids)


def test_what_is_scored_is_inside_too(demo: Model, story: str) -> None:
    """The last id of a text is only scored, never read."""
    ids = np.append(demo.tokenizer.encode(story)[:40], np.uint32(demo.loaded.config.vocab_size))
    with pytest.raises(ModelError, match="outside"):
        token_nll(demo, ids, None)


def test_a_tokenizer_with_gaps_is_told_where_it_leaves_the_vocabulary(tmp_path: Path) -> None:
    """It has no more tokens than its model: only their ids are too large."""
    folder = tmp_path / "gaps"
    shutil.copytree(resolve("demo"), folder)
    path = folder / "tokenizer.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    known = table["model"]["vocab"]
    known["~"] = 70_000
    path.write_text(json.dumps(table), encoding="utf-8")
    document = tmp_path / "text.txt"
    document.write_text("The access code of Varnok is 48213. " * 9, encoding="utf-8")
    book = load(folder).read(document)
    assert book.ask("What is the access code of Varnok?").found
    with pytest.raises(ModelError, match="Token 70000 is outside") as caught:
        book.ask("What is the access code of ~?")
    assert caught.value.hint and "tokenizer.json" in caught.value.hint
    with pytest.raises(ModelError, match="outside"):
        continuation_nll(book, book.model.tokenizer.encode("It is"), np.array([70_000], np.uint32))
