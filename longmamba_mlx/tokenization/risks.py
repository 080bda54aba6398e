"""Find settings of a tokenizer.json that would change a text, run forever or use all memory.

The file is untrusted. Its "truncation", "padding", "dropout" and the templates of its "post_processor" are ignored:
truncation would read the start of a book as if it were the book, and a template can read it twice or not at all. Its
patterns are regular expressions with backtracking, and its replacements can turn each character into a thousand: where
they could explode, the tokenizer encodes in a child process with limits (`encode_worker`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_GROWTH = 64.0  # characters that replacements may make of one; public tokenizers stay below 4
_LONGEST_PATTERN = 4096
_BYTE_LEVEL = ("ByteLevel", "RobertaProcessing")
# A repeated group may take exponential time, a reference back or a recursion too.
_COSTLY = re.compile(r"(?<!\\)\)[*+{]|\\[1-9gk]|\(\?[&P>R]")
# Not so a repeated group of one character and sets of others: there is only one way to match it.
_CHARACTER = r"(?:\\[nrt]|[^\\\[\](){}.*+?|^$-])"
_PLAIN_GROUP = re.compile(rf"\((?:\?:)?(?P<first>{_CHARACTER})(?P<rest>(?:\[{_CHARACTER}+\][*+?]?)*)\)[*+]")


def switch_off_changes(backend: Tokenizer) -> None:
    """Turn off truncation, padding, dropout and templates."""
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None) is not None:
        backend.model.dropout = None
    if backend.post_processor is not None:
        backend.post_processor = _without_templates(backend.post_processor)


def _without_templates(processor: Any) -> Any:
    """A post-processor that leaves all tokens as they are. Templates put special tokens around a text, which is never
    asked for; what byte-level processors do to the offsets of tokens stays."""
    from tokenizers import processors

    nodes = list(_nodes(json.loads(processor.__getstate__())))
    if all(node.get("type") != "TemplateProcessing" for node in nodes):
        return processor
    trims = [bool(node.get("trim_offsets", True)) for node in nodes if node.get("type") in _BYTE_LEVEL]
    return processors.Sequence([processors.ByteLevel(trim_offsets=trim) for trim in trims])


def may_run_away(part: Any) -> bool:
    """Whether a normaliser, pre-tokenizer or decoder (None: there is none) could take unbounded time or memory."""
    nodes = [] if part is None else list(_nodes(json.loads(part.__getstate__())))
    patterns = [text for node in nodes for text in _pattern(node, "Regex")]
    if any(map(_is_costly, patterns)):
        return True
    return math.prod(map(_growth, nodes)) > _MOST_GROWTH


def _is_costly(pattern: str) -> bool:
    if len(pattern) > _LONGEST_PATTERN:
        return True
    rest = _PLAIN_GROUP.sub(lambda found: found[0] if found["first"] in found["rest"] else "", pattern)
    return _COSTLY.search(rest) is not None


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _nodes(item)


def _pattern(node: dict[str, Any], kind: str) -> list[str]:
    pattern = node.get("pattern")
    found = pattern.get(kind) if isinstance(pattern, dict) else None
    return [found] if isinstance(found, str) else []


def _growth(node: dict[str, Any]) -> float:
    """How many characters a replacement may make of one; 1 for every other part."""
    content = node.get("content")
    if node.get("type") != "Replace" or not isinstance(content, str):
        return 1.0
    if literal := _pattern(node, "String"):
        return max(1.0, len(content) / max(1, len(literal[0])))
    return 1.0 + len(content)  # a regular expression may match nothing, between any two characters
