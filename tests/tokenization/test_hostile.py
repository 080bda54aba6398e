"""Tokenizers that a stranger wrote: every token of a text is read, and failures are one line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from longmamba_mlx.errors import ModelError
from longmamba_mlx.tokenization.chat_template import template_form
from longmamba_mlx.tokenization.risks import may_run_away
from longmamba_mlx.tokenization.tokenizer import Tokenizer as OurTokenizer
from tests.tokenization.test_windowed import MODERN, SAMPLE, built_in, byte_level, modern, sentencepiece, word_pieces

TEXT = SAMPLE[:6000]


def letters(unknown: str | None = "?") -> Tokenizer:
    """One token for each word of the text."""
    words = {word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(TEXT)}
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["?", *sorted(words)])}, unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def unigram() -> Tokenizer:
    pieces = [("<unk>", 0.0), *((character, -1.0 - n / 100) for n, character in enumerate(sorted(set(TEXT))))]
    return Tokenizer(models.Unigram(pieces, 0, False))


def written(folder: Path, tokenizer: Tokenizer, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()) | changes))
    return folder


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level, "modern": modern, "sentencepiece": sentencepiece, "word pieces": word_pieces,
    "word level": letters, "unigram": unigram,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_is_read_whatever_the_file_asks_for(kind: str, tmp_path: Path) -> None:
    tokenizer = KINDS[kind]()
    expected = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert len(expected) > 500
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=20_000, pad_id=0, pad_token="x")
    ours = OurTokenizer.from_folder(written(tmp_path / "m", tokenizer))
    parts = list(ours.encode_document([TEXT[:1000], TEXT[1000:]]))
    assert np.concatenate([part.ids for part in parts]).tolist() == expected
    assert ours.encode(TEXT).tolist() == ours.encode(TEXT, as_text=True).tolist() == expected


def test_dropout_is_never_obeyed(tmp_path: Path) -> None:
    tokenizer = byte_level()
    expected = tokenizer.encode(TEXT).ids
    table = json.loads(tokenizer.to_str())
    ours = OurTokenizer.from_folder(written(tmp_path / "m", tokenizer, model=table["model"] | {"dropout": 0.9}))
    assert ours.encode(TEXT).tolist() == expected


@pytest.mark.parametrize("change", ["truncate", "pad"])
def test_a_count_that_does_not_fit_its_text_is_an_error(change: str) -> None:
    tokenizer = letters()
    ours = OurTokenizer(tokenizer, "")
    tokenizer.enable_truncation(8) if change == "truncate" else tokenizer.enable_padding(length=20_000)
    with pytest.raises(ModelError, match="truncates or pads"):
        ours.encode(TEXT)


@pytest.mark.parametrize(
    "model",
    [
        {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "zz", "continuing_subword_prefix": "##",
         "max_input_chars_per_word": 100},
        {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "zz"},
    ],
)  # fmt: skip
def test_an_unknown_token_that_is_missing_is_one_line(model: dict[str, Any], tmp_path: Path) -> None:
    ours = OurTokenizer.from_folder(written(tmp_path / "m", letters(), model=model))
    with pytest.raises(ModelError, match=r"cannot encode this text: .*UNK") as caught:
        ours.encode("a b c")
    assert caught.value.hint and "\n" not in str(caught.value)


def replaced(*pairs: tuple[str | Regex, str]) -> Tokenizer:
    tokenizer = letters()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(*pair) for pair in pairs])
    return tokenizer


def split(pattern: str) -> Tokenizer:
    tokenizer = letters()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return tokenizer


RUNAWAYS = {
    "panics in a replacement": lambda: replaced((Regex("(a|aa)+$"), "b")),
    "panics in a split": lambda: split("(a|aa)+$"),
    "grows without end": lambda: replaced(*[("a", "a" * 10)] * 12),
    "grows by nothing": lambda: replaced((Regex(""), "b" * 10_000), (Regex(""), "b" * 10_000)),
}


@pytest.mark.parametrize("kind", RUNAWAYS)
def test_runaways_end_in_a_child(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ours = OurTokenizer.from_folder(written(tmp_path / "m", RUNAWAYS[kind]()))
    started = time.monotonic()
    with pytest.raises(ModelError, match="fails on this text, or never ends") as caught:
        ours.encode("a" * 2000 + "c")
    assert caught.value.hint and time.monotonic() - started < 15
    assert capfd.readouterr().err == ""


def test_a_costly_pattern_gives_the_same_tokens_in_a_child(tmp_path: Path) -> None:
    tokenizer = split(r"(?:\w)+|[^\w\s]+|\s+")
    ours = OurTokenizer.from_folder(written(tmp_path / "m", tokenizer))
    assert may_run_away(tokenizer.pre_tokenizer)
    parts = list(ours.encode_document([TEXT]))
    assert np.concatenate([part.ids for part in parts]).tolist() == tokenizer.encode(TEXT).ids
    assert parts[-1].end == len(TEXT)


def test_a_decoder_that_grows_is_refused(tmp_path: Path) -> None:
    tokenizer = letters()
    tokenizer.decoder = decoders.Sequence([decoders.Replace("a", "a" * 10)] * 12)
    with pytest.raises(ModelError, match="decodes by patterns without bounds") as caught:
        OurTokenizer.from_folder(written(tmp_path / "m", tokenizer))
    assert caught.value.hint


def test_a_panic_outside_the_child_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = replaced((Regex("(a|aa)+$"), "b"))
    ours = OurTokenizer(tokenizer, "")
    monkeypatch.setattr(ours, "_bounded", False)
    with pytest.raises(ModelError, match="cannot encode this text: Onig") as caught:
        ours.encode("a" * 2000 + "c")
    assert "\n" not in str(caught.value)


def test_patterns_of_public_models_stay_in_this_process() -> None:
    for tokenizer in (byte_level(), modern(), sentencepiece(), word_pieces(), built_in()):
        assert not may_run_away(tokenizer.normalizer) and not may_run_away(tokenizer.pre_tokenizer)
        assert not may_run_away(tokenizer.decoder)
    assert not may_run_away(pre_tokenizers.Split(Regex(MODERN), "isolated"))


@pytest.mark.parametrize(
    ("pattern", "costly"),
    [(r"\n[ \t]*(\n[ \t]*)+", False), (r"(?:,[ab]*)*", False), (r"(aa*)+", True), (r"(a[ab]*)+", True), 
     (r"(a|b)+", True), (r"(\w)+", True), (r"((a)[b])+", True), (r"(a)\1", True), (r"a" * 5000, True), (r"\)+", False),
     (r"[()]+", False)],
)  # fmt: skip
def test_which_patterns_are_costly(pattern: str, costly: bool) -> None:
    assert may_run_away(pre_tokenizers.Split(Regex(pattern), "isolated")) == costly


@pytest.mark.parametrize(
    "template",
    [
        [{"name": {}, "template": 1}], [{"name": [], "template": "x"}], [{"name": "default", "template": 3}],
        [{"name": "default"}], [None], [[]], [], {}, {"default": "x"}, 3, None, True,
        [{"name": "other", "template": "x"}],
    ],
)  # fmt: skip
def test_odd_shapes_of_a_template_give_the_plain_form(template: object, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "bos_token": [{}]}))
    assert template_form(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", "{", "", '{"chat_template": ' + "[" * 5000, "\0", '{"a": 1' + "0" * 9000]
)
def test_odd_files_give_the_plain_form(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(text)
    assert template_form(tmp_path) is None
