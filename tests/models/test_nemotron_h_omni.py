"""The language model inside a Nemotron-H that also sees and hears."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.loading import load_model
from tests.parity import comparing
from tests.parity.comparing import Fixture


def wrapped(name: str, key: str = "text_config") -> Fixture:
    """A fixture's Nemotron-H as the language model of a larger one."""
    stored = comparing.fixture(name)
    config = {"model_type": "nemotron_h_omni", key: stored.config, "vision_config": {"model_type": "radio"}}
    weights = {f"language_model.{tensor}": array for tensor, array in stored.weights.items()}
    weights |= {"vision_model.patch.weight": np.ones((3, 3), np.float32), "mlp1.0.weight": np.ones(3, np.float32)}
    return dataclasses.replace(stored, about=stored.about | {"config": json.dumps(config)}, weights=weights)


@pytest.mark.parametrize("name", ["nemotron_h", "nemotron_h-experts"])
@pytest.mark.parametrize("key", ["text_config", "llm_config"])
def test_its_text_part_gives_the_reference_logits(name: str, key: str, tmp_path: Path) -> None:
    model = load_model(wrapped(name, key).write_folder(tmp_path / "omni")).model
    ids = mx.array(comparing.fixture(name).ids[:100])[None]
    parity = comparing.fixture(name).compare(np.array(model.head(model(ids)[0])[0]), filtered=False)
    assert parity.exact, f"{parity.max_abs:.2e} off"


def test_a_conversion_writes_a_plain_nemotron_h(tmp_path: Path) -> None:
    source = wrapped("nemotron_h").write_folder(tmp_path / "omni")
    folder = lm.convert(source, tmp_path / "mlx")
    table = json.loads((folder / "config.json").read_text())
    assert table["model_type"] == "nemotron_h" and "vision_config" not in table
    ids = mx.array(comparing.fixture("nemotron_h").ids[:100])[None]
    model = load_model(folder).model
    assert comparing.fixture("nemotron_h").compare(np.array(model.head(model(ids)[0])[0]), filtered=False).exact


def test_errors_name_the_inner_key() -> None:
    config = comparing.fixture("nemotron_h").config
    with pytest.raises(ConfigError, match=r"'text_config\.hidden_size'"):
        parse_config({"model_type": "nemotron_h_omni", "text_config": config | {"hidden_size": 0}})
    with pytest.raises(ConfigError, match=r"'text_config\.hidden_size' is missing"):
        parse_config({"model_type": "nemotron_h_omni"})
