"""What mlx-lm's own classes make of the same fixtures: python -m tests.parity.compare_upstream [name ...]

Each model is loaded by mlx_lm from the folder that transformers saved. Where that fails, or is far off, for want of a
key or because of a renamed one, the config is repaired step by step, so that the arithmetic can be compared too.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np

from tests.parity import comparing
from tests.parity.cases import all_cases

_OLD_NAMES = {"linear_attention": "mamba", "full_attention": "attention"}


def repairs(config: dict[str, object]) -> Iterator[dict[str, object]]:
    """Nothing, then keys that mlx-lm needs and transformers 5 leaves out or writes otherwise, then unlike defaults."""
    yield {}
    more: dict[str, object] = {}
    kind = config["model_type"]
    if kind == "mamba2":
        more["intermediate_size"] = config["num_heads"] * config["head_dim"]
    if kind == "falcon_h1":
        more["rope_theta"] = config["rope_parameters"]["rope_theta"]
        if config.get("head_dim") is None:
            more["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    if kind == "granitemoehybrid":
        more["layer_types"] = [_OLD_NAMES.get(name, name) for name in config["layer_types"]]
        if not config.get("num_local_experts"):
            more["intermediate_size"] = config["shared_intermediate_size"]
    if more:
        yield dict(more)
    if kind == "granitemoehybrid" and config.get("position_embedding_type") is None:
        yield more | {"position_embedding_type": "nope"}


def logits(folder: Path, ids: np.ndarray, more: dict[str, object]) -> np.ndarray:
    """mlx-lm's logits (tokens, vocab) of one pass."""
    from mlx_lm.utils import load_model

    model, _ = load_model(folder, model_config=more)
    return np.array(model(mx.array(ids)[None], cache=model.make_cache())[0].astype(mx.float32))


def attempt(name: str, folder: Path, more: dict[str, object]) -> str:
    """How far mlx-lm is from the reference, or why it does not load the folder; as two cells of a table."""
    stored = comparing.fixture(name)
    try:
        found = stored.compare(logits(folder, stored.ids, more), filtered=False)
    except Exception as error:
        lines = (str(error).strip() or type(error).__name__).splitlines()
        return f"does not load: {' '.join(line.strip() for line in lines)[:80]} | -"
    return f"{found.max_abs:.1e} | {found.argmax_same:.1%}"


def rows(name: str) -> Iterator[str]:
    """The lines of one case."""
    with tempfile.TemporaryDirectory() as folder:
        path = comparing.fixture(name).write_folder(Path(folder) / name)
        for more in repairs(comparing.fixture(name).config):
            config = f"with {', '.join(more)}" if more else "as saved"
            yield f"| {name} | {config} | {attempt(name, path, more)} |"


def main(names: list[str]) -> None:
    print("| case | config.json | max abs difference | argmax same |")
    print("| --- | --- | --- | --- |")
    for name in names or [name for name in all_cases() if name in comparing.names()]:
        for row in rows(name):
            print(row, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
