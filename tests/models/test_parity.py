"""The same random weights in mlx-lm's own classes (where those are right: n_groups 1, eps 1e-5)."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from longmamba_mlx.conversion.dialects import normalised_config
from longmamba_mlx.models import FAMILIES
from tests.models import samples


@pytest.mark.parametrize("name", ["mamba", "falcon", "mamba2"])
def test_logits_equal_mlx_lm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lm.models import mamba, mamba2

    config = dataclasses.replace(samples.CONFIGS[name], norm_eps=1e-5, tie_embeddings=name == "mamba")
    monkeypatch.setitem(samples.CONFIGS, "now", config)
    ours = samples.random_model("now")
    module = mamba2 if name == "mamba2" else mamba
    table = normalised_config(config, {}) | {"time_step_limit": list(config.time_step_limit)}
    theirs = module.Model(module.ModelArgs.from_dict(table))
    theirs.load_weights(tree_flatten(ours.parameters()))
    ids = samples.random_ids(24)
    expected = np.array(theirs(ids, cache=theirs.make_cache()).astype(mx.float32))
    hidden, _ = ours(ids)
    assert isinstance(ours, FAMILIES[config.model_type])
    assert np.abs(np.array(ours.head(hidden)) - expected).max() < 1e-4 * np.abs(expected).max()
