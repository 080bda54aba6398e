"""Model folders as mlx-lm itself writes them, from checkpoints as transformers saved them."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map

from tests.conversion.checkpoints import tiny_tokenizer
from tests.parity import comparing

_OLD_NAMES = {"linear_attention": "mamba", "full_attention": "attention"}


def mlx_lm_folder(
    source: Path, target: Path, *, bits: int | None = None, dtype: mx.Dtype | None = None, group_size: int = 32
) -> Path:
    """What `mlx_lm.convert` makes of the checkpoint in `source`, quantised where `bits` are given."""
    from mlx_lm.utils import load_config, load_model, quantize_model, save_config, save_model

    model, config = load_model(source, lazy=True)
    if dtype is not None:
        model.update(tree_map(lambda array: array.astype(dtype), model.parameters()))
    if bits is not None:
        with redirect_stdout(io.StringIO()):  # it prints
            model, config = quantize_model(model, load_config(source), group_size, bits)
    target.mkdir(parents=True)
    save_model(target, model, donate_model=False)
    save_config(config, target / "config.json")
    (target / "tokenizer.json").write_text(tiny_tokenizer())
    (target / "README.md").write_text("---\nlibrary_name: mlx\n---\n")
    return target


def fixture_folder(
    name: str, folder: Path, *, bits: int | None = None, dtype: mx.Dtype | None = None, **changes: object
) -> Path:
    """A parity fixture's checkpoint, as mlx-lm converts it. `changes` of its config.json."""
    source = comparing.fixture(name).write_folder(folder / "hf")
    table = json.loads((source / "config.json").read_text())
    if table["model_type"] == "granitemoehybrid":  # mlx-lm knows the names of transformers 4 only
        changes["position_embedding_type"] = "nope"  # null means rope to it
        changes["layer_types"] = [_OLD_NAMES.get(kind, kind) for kind in table["layer_types"]]
    (source / "config.json").write_text(json.dumps(table | changes))
    return mlx_lm_folder(source, folder / "mlx", bits=bits, dtype=dtype)


def lm_studio(home: Path, name: str, folder: Path, *, older: bool = False) -> Path:
    """The folder moved to where LM Studio keeps models."""
    place = home / ".cache" / "lm-studio" / "models" if older else home / ".lmstudio" / "models"
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    return folder.rename(place / name)


def hub_cache(cache: Path, name: str, folder: Path, commit: str = "f" * 40) -> Path:
    """The folder's files as the Hub's client keeps them: blobs named by digest, a snapshot of links, a ref."""
    import hashlib

    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    for part in (repository / "blobs", repository / "refs", snapshot):
        part.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        large = path.suffix == ".safetensors"
        digest = hashlib.sha256(data).hexdigest() if large else hashlib.sha1(data).hexdigest()
        (repository / "blobs" / digest).write_bytes(data)
        (snapshot / path.name).symlink_to(Path("../../blobs") / digest)
    (repository / "refs" / "main").write_text(commit)
    return snapshot
