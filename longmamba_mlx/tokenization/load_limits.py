"""What a tokenizer.json may cost to load, checked before the `tokenizers` library sees it.

The library builds whatever the file describes. Measured with its version 0.22: a vocabulary entry or merge takes up to
350 bytes, a node of a Unigram vocabulary's trie 320, a character of a pattern 1,400 (40 MB: 57 GB).
Genuine files with 256,000 tokens have up to 1.3 million values in 35 MB, and patterns of some hundred characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

MOST_BYTES = 40 << 20
_MOST_VALUES = 1_600_000  # of JSON
_MOST_PATTERNS = 16 << 10  # characters of all patterns together
_MOST_ADDED = 2_000_000  # characters of all added tokens, and of texts that are put in place of others
_MOST_NODES = 1_400_000  # of the trie of a Unigram vocabulary


def check_cost(data: bytes) -> None:
    """Raise ValueError for a tokenizer.json that would take more than about 500 MB or a few seconds to load."""
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if len(data) > MOST_BYTES or values > _MOST_VALUES:
        raise ValueError(f"{len(data):,} bytes with {values:,} values are too many")
    patterns = added = 0

    def table_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal patterns, added
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a key is there twice")
        patterns += sum(len(table[key]) for key in ("Regex", "String") if isinstance(table.get(key), str))
        added += len(table["content"]) if isinstance(table.get("content"), str) else 0
        return table

    try:
        table = json.loads(data, object_pairs_hook=table_of)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if patterns > _MOST_PATTERNS:
        raise ValueError(f"its patterns have {patterns:,} characters")
    if added > _MOST_ADDED:
        raise ValueError(f"its added tokens have {added:,} characters")
    model = table.get("model") if isinstance(table, dict) else None
    if isinstance(model, dict) and isinstance(model.get("vocab"), list):  # Unigram's is one, the others' are tables
        check_trie(item[0] for item in model["vocab"] if isinstance(item, list) and item and isinstance(item[0], str))


def check_trie(texts: Iterable[str]) -> None:
    """Raise ValueError for a Unigram vocabulary that is too large."""
    if _nodes(texts) > _MOST_NODES:
        raise ValueError("its vocabulary is too large")


def _nodes(texts: Iterable[str]) -> int:
    """The nodes of a trie of texts in UTF-8: every beginning that differs from all others."""
    words = sorted(text.encode("utf-8", "surrogatepass") for text in texts)
    total = sum(map(len, words))
    if total <= _MOST_NODES:
        return total
    return total - sum(_shared(*pair) for pair in pairwise(words))


def _shared(first: bytes, second: bytes) -> int:
    """How many bytes two words have in common at their beginnings."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
