"""R24: an answer that is decoded token by token is the text of all its tokens, with whole characters in every piece."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from longmamba_mlx.session.api import Model

ALPHABET = (
    "abc XYZ 0123,.!?\n" * 3
    + "äöüßéñçœ€£"
    + "жщыю"
    + "日本語漢字"
    + "עברית"
    + "한국어"
    + "e\u0301👍🏽👩\u200d👩\u200d👧🇩🇪𝒳𐍈"
)


def check(model: Model, strings: int, record_property: Callable[[str, object], None]) -> None:
    dice, pieces = random.Random(strings), 0
    for _ in range(strings):
        text = "".join(dice.choices(ALPHABET, k=dice.randrange(1, 60)))
        ids, stream = model.tokenizer.encode(text), model.tokenizer.stream()
        parts = [stream.push(int(token)) for token in ids]
        pieces += len(parts)
        assert "".join(parts) == model.tokenizer.decode(ids), ascii(text)
        assert not any("\ufffd" in part for part in parts), ascii(text)
    record_property("strings", f"{strings} in {pieces} tokens")


def test_random_strings(demo: Model, record_property: Callable[[str, object], None]) -> None:
    check(demo, 500, record_property)


@pytest.mark.slow
def test_ten_thousand_random_strings(demo: Model, record_property: Callable[[str, object], None]) -> None:
    check(demo, 10_000, record_property)
