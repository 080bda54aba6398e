"""Checkpoints as transformers saves them, through the conversion and the public API; and the folder in mlx-lm."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.models.loading import load_model
from tests.parity import comparing

# What mlx-lm 0.32 itself computes otherwise: it norms the whole width where there are groups, lets experts of unchosen
# groups compete with a score of 0, routes Jamba's tokens by a softmax over the chosen experts alone, and knows neither
# PLaMo-2's windows nor that its step sizes have no limits.
WRONG_THERE = {
    "falcon_h1-norm-groups", "granite-experts-rope-groups", "nemotron_h-experts", "mamba2-groups4-untied",
    "mamba2-codestral", "mamba2-biases", "jamba-moe", "jamba-moe-period3", "jamba-moe-period4",
    "mamba-eps-untied-biases", "mamba-no-conv-bias", "plamo2", "plamo2-full-untied",
}  # fmt: skip
MISSING_THERE = ("bamba", "llamba", "mamba2attn", "mamba3", "phi4flash", "zamba")


def tokenizer(folder: Path, tokens: int) -> Path:
    """A tokenizer.json of one letter to a token."""
    from tokenizers import Tokenizer, models

    backend = Tokenizer(models.WordLevel({chr(0x4E00 + index): index for index in range(tokens)}, unk_token="一"))
    backend.save(str(folder / "letters.json"))
    return folder / "letters.json"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder that a conversion makes of a fixture's checkpoint, made once."""
    top = tmp_path_factory.mktemp("converted")

    @functools.cache
    def make(name: str) -> Path:
        stored = comparing.fixture(name)
        source = stored.write_folder(top / "source" / name)
        letters = tokenizer(source, int(str(stored.config["vocab_size"])))
        return lm.convert(source, top / name, tokenizer=letters)

    return make


@pytest.mark.parametrize("name", comparing.names())
def test_converted_logits_equal_the_reference(name: str, converted: Callable[[str], Path]) -> None:
    stored = comparing.fixture(name)
    model = lm.load(converted(name), filter="off")
    parity = stored.compare(model.logits(stored.ids, chunk=128), filtered=False)
    assert parity.exact, f"{parity.max_abs:.2e} off, {parity.argmax_same:.1%} of argmaxes the same"


@pytest.mark.parametrize(
    "name", [n for n in comparing.names() if n not in WRONG_THERE and not n.startswith(MISSING_THERE)]
)
def test_mlx_lm_reads_the_converted_folder(name: str, converted: Callable[[str], Path]) -> None:
    from mlx_lm.utils import load_model

    stored = comparing.fixture(name)
    model, _ = load_model(converted(name))
    ids = mx.array(stored.ids[:100])[None]
    parity = stored.compare(np.array(model(ids, cache=model.make_cache()).astype(mx.float32)[0]), filtered=False)
    assert parity.exact, f"{parity.max_abs:.2e} off, {parity.argmax_same:.1%} of argmaxes the same"


def test_falcon_h1_factors_are_in_the_weights(converted: Callable[[str], Path]) -> None:
    table = json.loads((converted("falcon_h1-factors-tied") / "config.json").read_text())
    source = comparing.fixture("falcon_h1-factors-tied").config
    left = float(str(source["lm_head_multiplier"])) / float(str(source["embedding_multiplier"]))
    assert table["key_multiplier"] == table["embedding_multiplier"] == 1.0 and set(table["ssm_multipliers"]) == {1.0}
    assert table["lm_head_multiplier"] == pytest.approx(left)


@pytest.mark.parametrize("name", ["falcon_h1-factors-tied"])
def test_folders_that_mlx_lm_converted_are_read_right(name: str, tmp_path: Path) -> None:
    """mlx-lm multiplies the factors into the weights, but for the keys': such folders are on the Hub."""
    from mlx_lm.models.falcon_h1 import Model, ModelArgs

    stored = comparing.fixture(name)
    config = {**stored.config, "rope_theta": 1e11, "head_dim": 8}
    theirs = Model(ModelArgs.from_dict(config))
    weights = theirs.sanitize({key: mx.array(array) for key, array in stored.weights.items()})
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = mx.array(stored.ids[:100])[None]
    theirs.load_weights(list(weights.items()))
    assert not stored.compare(np.array(theirs(ids))[0], filtered=False).exact, "mlx-lm has learnt of the keys' factor"
    for folder in (tmp_path, lm.convert(tmp_path, tmp_path / "again")):
        model = load_model(folder).model
        parity = stored.compare(np.array(model.head(model(ids)[0])[0]), filtered=False)
        assert parity.exact, f"{parity.max_abs:.2e} off"
