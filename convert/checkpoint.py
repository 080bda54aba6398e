"""The conversion itself: read and check a checkpoint, rename, cast, write a folder that appears whole."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from longmamba_mlx.config import ModelConfig, parse_config, read_json
from longmamba_mlx.convert import hub
from longmamba_mlx.convert.dialects import normalised_config
from longmamba_mlx.convert.names import rename, stays_float32
from longmamba_mlx.errors import ConfigError, DiskError, ModelError
from longmamba_mlx.models import FAMILIES
from longmamba_mlx.safeio import write_atomic
from longmamba_mlx.weights import INDEX, check_weights, read_weights, weight_files

_DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}
_COPIED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_SHARD_BYTES = 5 << 30


def convert_checkpoint(
    hf_path: str | Path, mlx_path: str | Path, dtype: str | None, *, revision: str | None, offline: bool
) -> Path:
    """See `longmamba_mlx.convert.convert`."""
    if dtype is not None and dtype not in _DTYPES:
        raise ModelError(f"unknown dtype '{dtype}'", hint=f"use one of: {', '.join(_DTYPES)}")
    target = Path(mlx_path).expanduser()
    _refuse_occupied(target)
    source = _source_folder(hf_path, revision=revision, offline=offline)
    if not (source / "config.json").is_file():
        raise ModelError(f"no config.json in {source}", hint="is this a model folder?")
    raw = read_json(source / "config.json")
    weights = rename(read_weights(weight_files(source)))
    config = _with_head(parse_config(raw), raw, weights)
    model = FAMILIES[config.model_type](config)
    weights = model.sanitize(weights)
    check_weights(dict(tree_flatten(model.parameters())), weights)
    weights = {name: _cast(name, array, dtype) for name, array in weights.items()}
    _write_folder(target, source, _config_text(normalised_config(config, raw)), weights)
    return target


def _config_text(table: Mapping[str, object]) -> str:
    try:
        return json.dumps(table, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:  # all other keys were checked one by one
        raise ConfigError("config key 'longmamba' holds infinity", hint="give a finite number") from error


def _refuse_occupied(target: Path) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise ModelError(f"{target} exists already", hint="choose another folder, or remove that one first")


def _source_folder(hf_path: str | Path, *, revision: str | None, offline: bool) -> Path:
    folder = Path(hf_path).expanduser()
    if folder.is_dir():
        return folder
    if hub.is_hub_id(str(hf_path)):
        return hub.download(str(hf_path), revision=revision, offline=offline)
    raise ModelError(f"no folder {hf_path}", hint="give a folder, or a Hub id such as state-spaces/mamba-130m-hf")


def _with_head(config: ModelConfig, raw: Mapping[str, object], weights: Mapping[str, mx.array]) -> ModelConfig:
    """Where a config does not say whether the head is tied to the embedding, the tensors do."""
    if "tie_word_embeddings" in raw or "tie_embeddings" in raw:
        return config
    tied = config.tie_embeddings or "lm_head.weight" not in weights
    return dataclasses.replace(config, tie_embeddings=tied)


def _cast(name: str, array: mx.array, dtype: str | None) -> mx.array:
    if not mx.issubdtype(array.dtype, mx.floating):
        raise ModelError(f"tensor {name} has dtype {array.dtype}", hint="quantised checkpoints are not converted")
    if stays_float32(name):
        return array.astype(mx.float32)
    if dtype is not None:
        return array.astype(_DTYPES[dtype])
    return array if array.dtype in _DTYPES.values() else array.astype(mx.float32)


def _write_folder(target: Path, source: Path, config_text: str, weights: Mapping[str, mx.array]) -> None:
    """Fill a hidden sibling and rename it: the folder is never there half-written."""
    draft = target.parent / f".{target.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        for name in _COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, draft / name)
        _write_weights(draft, weights)
        write_atomic(draft / "config.json", lambda path: path.write_text(config_text, encoding="utf-8"))
        os.replace(draft, target)  # over an empty folder too
    except OSError as error:
        raise DiskError(
            f"cannot write {target}: {error.strerror or error}", hint="check the disk's space and permissions"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_weights(folder: Path, weights: Mapping[str, mx.array]) -> None:
    shards = _shards(weights)
    names = {}
    for number, shard in enumerate(shards, start=1):
        single = len(shards) == 1
        name = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_atomic(folder / name, partial(_save, shard))
        names.update(dict.fromkeys(shard, name))
    if len(shards) > 1:
        total = sum(array.nbytes for array in weights.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": names}, indent=2)
        write_atomic(folder / INDEX, lambda path: path.write_text(text, encoding="utf-8"))


def _save(shard: dict[str, mx.array], path: Path) -> None:
    # "format" is what transformers and mlx-lm look for.
    mx.save_safetensors(str(path), shard, metadata={"format": "mlx"})


def _shards(weights: Mapping[str, mx.array]) -> list[dict[str, mx.array]]:
    shards: list[dict[str, mx.array]] = [{}]
    size = 0
    for name, array in weights.items():
        if size and size + array.nbytes > _SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = array
        size += array.nbytes
    return shards
