"""R24: an answer that is decoded token by token is the text of all its tokens, with whole characters in every piece."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from longmamba_mlx.tokenization.tokenizer import Tokenizer
from tests.tokenization.test_windowed import built_in, byte_level, modern, sentencepiece, word_pieces

ALPHABET = (
    "abc XYZ 0123,.!?\n" * 3
    + "äöüßéñçœ€£"
    + "жщыю"
    + "日本語漢字"
    + "עברית"
    + "한국어"
    + "e\u0301👍🏽👩\u200d👩\u200d👧🇩🇪𝒳𐍈"
)


KINDS = {"built-in": built_in, "byte level": byte_level, "modern": modern, "sentencepiece": sentencepiece,
         "word pieces": word_pieces}  # fmt: skip


def check(kind: str, strings: int, record_property: Callable[[str, object], None]) -> None:
    tokenizer, dice, pieces = Tokenizer(KINDS[kind](), ""), random.Random(strings), 0
    for _ in range(strings):
        text = "".join(dice.choices(ALPHABET, k=dice.randrange(1, 60)))
        ids, stream = tokenizer.encode(text), tokenizer.stream()
        parts = [stream.push(int(token)) for token in ids]
        pieces += len(parts)
        whole = tokenizer.decode(ids)
        assert "".join(parts) == whole, ascii(text)
        assert "\ufffd" in whole or not any("\ufffd" in part for part in parts), ascii(text)
    record_property(f"strings ({kind})", f"{strings} in {pieces} tokens")


@pytest.mark.parametrize("kind", KINDS)
def test_random_strings(kind: str, record_property: Callable[[str, object], None]) -> None:
    check(kind, 200, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_random_strings(kind: str, record_property: Callable[[str, object], None]) -> None:
    check(kind, 10_000, record_property)
