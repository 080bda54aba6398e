"""One small random model of each hybrid family, and folders of them that read text byte by byte."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from longmamba_mlx.models import FAMILIES, LanguageModel
from longmamba_mlx.models.config.parse import parse_config
from tests.models.samples import draw
from tests.parity.cases import all_cases

CASES = {
    "falcon_h1": "falcon_h1-norm-groups",
    "granite": "granite-dense-rope-biases",
    "granite-experts": "granite-experts",
    "bamba": "bamba",
    "nemotron_h": "nemotron_h",
    "nemotron_h-experts": "nemotron_h-experts",
    "jamba": "jamba-moe",
    "zamba2": "zamba2-1.2b",
    "plamo2": "plamo2-full-untied",
    "phi4flash": "phi4flash",
}
"""Names here, and the parity case whose configuration they have."""


def raw_config(name: str, **changes: object) -> dict[str, object]:
    """A config.json."""
    case = all_cases()[CASES[name]]
    return {"model_type": case.model_type, **case.options, **changes}


def hybrid(name: str, **changes: object) -> LanguageModel:
    """The model, plain MLX, every parameter drawn; decays so slow that most units remember hundreds of tokens."""
    config = parse_config(raw_config(name, **changes))
    model = FAMILIES[config.model_type](config)
    rng = np.random.default_rng(3)
    drawn = {path: draw(rng, path, old.shape) for path, old in tree_flatten(model.parameters())}
    for path, values in drawn.items():
        if path.endswith("A_log"):
            drawn[path] = np.log(rng.uniform(1e-3, 0.1, values.shape)).astype(np.float32)
    model.update(tree_unflatten([(path, mx.array(values)) for path, values in drawn.items()]))
    mx.eval(model.parameters())
    return model


def write_folder(folder: Path, name: str, **changes: object) -> Path:
    """A converted folder with a vocabulary of bytes, and 64 tokens as its training length."""
    from longmamba_mlx.conversion import convert

    said = {"vocab_size": 256, "longmamba": {"training_length": 64}, **changes}
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir(parents=True)
    parameters = dict(tree_flatten(hybrid(name, **said).parameters()))
    mx.save_safetensors(str(source / "model.safetensors"), parameters)
    (source / "config.json").write_text(json.dumps(raw_config(name, **said)))
    return convert(source, folder)
