"""Choose which of a repository's files are downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterable

from longmamba_mlx.models.weight_files import INDEX

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.jsonl",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
TORCH_INDEX = "pytorch_model.bin.index.json"
CONFIGS = ("config.json", "generation_config.json", "params.json")

# In this order: the first kind that is there is taken, and no other.
_WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    re.compile(r"(?!consolidated|adapter|longmamba)[^/]+\.safetensors"),
    re.compile(r"consolidated[^/]*\.safetensors"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"),
)


def needed(names: Iterable[str]) -> list[str]:
    """Of a repository's files those that a conversion reads: configs, tokenizer, one kind of weights."""
    there = sorted(names)
    wanted = [name for name in there if name in CONFIGS or name in TOKENIZER_FILES]
    for kind in _WEIGHTS:
        weights = [name for name in there if kind.fullmatch(name)]
        if weights:
            index = TORCH_INDEX if weights[0].endswith(".bin") else INDEX
            return sorted({*wanted, *weights, *({index} & set(there))})
    return wanted


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files those that make its tokenizer."""
    return sorted(set(names) & set(TOKENIZER_FILES))
