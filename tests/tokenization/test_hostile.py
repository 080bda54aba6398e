"""Tokenizers that a stranger wrote: every token of a text is read, and failures are one line."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from longmamba_mlx.errors import ModelError
from longmamba_mlx.tokenization.chat_template import template_form
from longmamba_mlx.tokenization.count import count
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


SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}
SPECIAL = {"SpecialToken": {"id": "x", "type_id": 0}}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("single", [[], [SEQUENCE, SEQUENCE], [SPECIAL, SEQUENCE, SPECIAL], [SEQUENCE, SPECIAL] * 9])
def test_a_template_is_never_obeyed(single: list[dict[str, Any]], nested: bool, tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    expected = tokenizer.encode(TEXT, add_special_tokens=False)
    pair = [SEQUENCE, {"Sequence": {"id": "B", "type_id": 1}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": pair,
                "special_tokens": {"x": {"id": "x", "ids": [7, 8], "tokens": ["x", "x"]}}}  # fmt: skip
    processor = {"type": "Sequence", "processors": [BYTE_LEVEL, template]} if nested else template
    ours = OurTokenizer.from_folder(written(tmp_path / "m", tokenizer, post_processor=processor))
    (part,) = ours.encode_document([TEXT])
    assert part.ids.tolist() == ours.encode(TEXT).tolist() == expected.ids
    if nested:  # as in published files: a token's place is that of its first letter, not of the blank before it
        plain = OurTokenizer(tokenizer, "")
        (wanted,) = plain.encode_document([TEXT])
        assert part.places.tolist() == wanted.places.tolist()


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


def computed() -> float:
    """Seconds of CPU that this process's children have taken: a clock would say how busy the machine is."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("kind", RUNAWAYS)
def test_runaways_end_in_a_child(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ours = OurTokenizer.from_folder(written(tmp_path / "m", RUNAWAYS[kind]()))
    started = computed()
    with pytest.raises(ModelError, match="fails on this text, or never ends") as caught:
        ours.encode("a" * 2000 + "c")
    assert caught.value.hint and computed() - started < 5
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


def put(folder: Path, **parts: Any) -> Path:
    folder.mkdir(exist_ok=True)
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model} | parts))
    return folder


def split_by(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def added(number: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": text, "special": True, **flags}


BOMBS: dict[str, Callable[[], dict[str, Any]]] = {
    "patterns": lambda: {"pre_tokenizer": split_by(r"[\p{L}\p{N}]" * 20_000)},
    "many patterns": lambda: {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split_by(r"[\p{L}\p{N}]{1,9}")] * 20_000}
    },
    "a trie": lambda: {
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [[f"{n:06d}" + "x" * 300, -1.0] for n in range(6000)]}
    },
    "values": lambda: {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["", 0]] * 900_000}},
    "added tokens": lambda: {"added_tokens": [added(n + 1, f"{n}" * 900) for n in range(1000)]},
    "a replacement": lambda: {
        "normalizer": {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 3_000_000}
    },
    "twice": lambda: {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}},
    "depth": lambda: {},
}
WRITTEN = {
    "twice": ('"version"', '"model": null, "version"'),
    "depth": ('"version"', '"x": ' + "[" * 9999 + ', "version"'),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_files_that_would_cost_too_much_are_not_loaded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put(tmp_path / "m", **BOMBS[kind]())
    if kind in WRITTEN:
        path = folder / "tokenizer.json"
        path.write_text(path.read_text().replace(*WRITTEN[kind], 1))
    monkeypatch.setattr(Tokenizer, "from_str", lambda _: pytest.fail("loaded"))
    started = time.process_time()
    with pytest.raises(ModelError, match=r"tokenizer\.json of m is broken: ") as caught:
        OurTokenizer.from_folder(folder)
    assert caught.value.hint and "\n" not in str(caught.value)
    assert time.process_time() - started < 5


def test_vocabularies_of_genuine_size_load(tmp_path: Path) -> None:
    """256,000 tokens and the merges that make them, and a Unigram vocabulary whose words share their beginnings."""
    letters = "abcdefghijklmnop"
    words = [a + b + c + d for a in letters for b in letters for c in letters for d in letters][:64_000]
    pieces = [*letters, *dict.fromkeys(word[:n] for word in words for n in (2, 3)), *words]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    filler = {f"\u2581{n}": len(vocab) + n for n in range(256_000 - len(vocab))}
    merges = [[piece[:-1], piece[-1]] for piece in pieces if len(piece) > 1]
    bpe = {"type": "BPE", "vocab": vocab | filler, "merges": merges}
    ours = OurTokenizer.from_folder(put(tmp_path / "bpe", model=bpe))
    assert ours.vocabulary == 256_000 and ours.encode("abcd").tolist() == [vocab["abcd"]]
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [[piece * 4, -1.0] for piece in pieces]}
    assert OurTokenizer.from_folder(put(tmp_path / "unigram", model=unigram)).vocabulary == len(pieces)


def without_unknown() -> Tokenizer:
    return Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))


def test_characters_without_a_token_are_counted(tmp_path: Path) -> None:
    ours = OurTokenizer.from_folder(written(tmp_path / "m", without_unknown()))
    assert ours.left_out("ab ba\n") == 0 and ours.left_out("abc déf") == 4
    counted = count(ours, np.zeros(0, np.uint32), ["abc d", "éf ab"])
    assert (counted.left_out, len(counted.ids)) == (4, 2)
    for kind in KINDS.values():
        assert OurTokenizer(kind(), "").left_out("日本 \u0301é") == 0, "they have a token for what they do not know"


def test_a_reading_says_what_was_left_out(tmp_path: Path) -> None:
    from longmamba_mlx.documents import Document
    from longmamba_mlx.events import Notice
    from longmamba_mlx.session.api import load
    from longmamba_mlx.session.open_document import open_document
    from tests.models.hybrids import write_folder

    folder = write_folder(tmp_path / "granite", "granite")
    written(folder, without_unknown())
    document = Document("text", "ab cd " * 9)
    lines = [event.text for event in open_document(load(folder), document) if isinstance(event, Notice)]
    assert any("has no token for 18 characters of this text: they were left out" in line for line in lines)
    with pytest.warns(RuntimeWarning, match="no token for 18 characters"):
        load(folder).read(document)


def test_what_an_error_quotes_is_printable(tmp_path: Path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "\x1b[2J\u202e"]]}
    with pytest.raises(ModelError, match="out of vocabulary") as caught:
        OurTokenizer.from_folder(put(tmp_path / "m", model=model))
    assert str(caught.value).isprintable()
