"""Ids of a text taken in windows are those of the whole text, for every kind of tokenizer and odd texts."""

from __future__ import annotations

import random
import threading
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from longmamba_mlx.builtin import sample_document
from longmamba_mlx.errors import StoppedError
from longmamba_mlx.registry.resolve import resolve
from longmamba_mlx.session.api import Model
from longmamba_mlx.tokenization.count import count
from longmamba_mlx.tokenization.spool import Spool
from longmamba_mlx.tokenization.tokenizer import Tokenizer as OurTokenizer
from longmamba_mlx.tokenization.windowed import encode_parts

SAMPLE = sample_document().read_text(encoding="utf-8")
# The pattern of many newer models: contractions, words, digits in threes, punctuation, white space.
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def trained(tokenizer: Tokenizer, trainer: object) -> Tokenizer:
    tokenizer.train_from_iterator([SAMPLE[:20000], "a" * 200, " " * 200, "0123456789" * 20], trainer)
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False))


def modern() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(MODERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False))


def sentencepiece() -> Tokenizer:
    """Without a pre-tokenizer: the whole text is one word, with a mark put before it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=["<unk>"], show_progress=False)
    trained(tokenizer, trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return trained(tokenizer, trainers.WordPieceTrainer(vocab_size=800, special_tokens=["[UNK]"], show_progress=False))


def built_in() -> Tokenizer:
    return Tokenizer.from_file(str(resolve("demo") / "tokenizer.json"))


KINDS = {kind.__name__: kind for kind in (built_in, byte_level, modern, sentencepiece, word_pieces)}
ATOMS = [
    *("\n", "\n\n", " ", "  ", "\t", "a", "word", " The", "1", "2024", "’s", "'ll", "é", "e\u0301", "😀👍🏽", "中文字"),
    *("\n \n", "\nQuestion:", "?\nAnswer:", "<|end|>", "x" * 60, " " * 70, "\n" * 30, "7" * 45, "-" * 80, "\r\n", "ﬁ"),
]


@pytest.fixture(scope="module", params=KINDS)
def backend(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]()


def check(backend: Tokenizer, text: str, pieces: list[str], window: int = 500, overlap: int = 120) -> int:
    encode = partial(backend.encode, add_special_tokens=False)
    parts = list(encode_parts(encode, pieces, window=window, overlap=overlap))
    assert np.concatenate([part.ids for part in parts]).tolist() == encode(text).ids
    begins = [int(begin) for part in parts for begin in part.places[1]]
    assert begins == sorted(begins) and parts[-1].end == len(text)
    return len(parts)


def test_windows_give_the_ids_of_the_whole(backend: Tokenizer) -> None:
    assert check(backend, SAMPLE, [SAMPLE]) > 20
    assert check(backend, SAMPLE, list(SAMPLE)) > 20
    assert check(backend, SAMPLE, [SAMPLE], 4096, 512) > 4


def test_odd_texts(backend: Tokenizer) -> None:
    choose = random.Random(0)
    for _ in range(20):
        text = "".join(choose.choice(ATOMS) for _ in range(choose.randint(1, 900)))
        size = choose.randint(1, 3000)
        check(backend, text, [text[at : at + size] for at in range(0, len(text), size)])


@pytest.mark.parametrize("text", ("", "a", " " * 5000, "a" * 5000, "1" * 5000, "\n" * 5000, "😀" * 2000, "é " * 2000))
def test_texts_without_a_seam(backend: Tokenizer, text: str) -> None:
    check(backend, text, [text])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(ATOMS) | st.text(max_size=20), max_size=200), st.integers(1, 700))
def test_any_text(parts: list[str], size: int) -> None:
    text = "".join(parts).encode("utf-8", "replace").decode("utf-8")
    check(KINDS["built_in"](), text, [text[at : at + size] for at in range(0, len(text), size)], 300, 90)


def test_a_document_cannot_hold_a_special_token(demo: Model) -> None:
    end = demo.tokenizer.encode("<|end|>")
    assert len(end) == 1 and demo.tokenizer.special(int(end[0]))
    counted = count(demo.tokenizer, np.zeros(0, np.uint32), ["One <|end|>", " two."])
    assert int(end[0]) not in counted.ids[:]
    assert int(end[0]) not in demo.tokenizer.encode("<|end|>", as_text=True)
    assert len(demo.tokenizer.encode("<|end|>")) == 1, "questions may still use it"


def test_counting_maps_tokens_to_characters(demo: Model) -> None:
    opening = demo.tokenizer.encode("Before it: ")
    counted = count(demo.tokenizer, opening, [SAMPLE])
    ids = counted.ids[:]
    np.testing.assert_array_equal(ids, np.concatenate([opening, demo.tokenizer.encode(SAMPLE)]))
    assert counted.text_map.character(len(opening)) == 0 and counted.text_map.character(len(ids)) == len(SAMPLE)
    for token in range(len(opening), len(ids), 977):
        exact = len(demo.tokenizer.decode(ids[len(opening) : token]))
        assert abs(counted.text_map.character(token) - exact) < 400


def test_counting_stops(demo: Model) -> None:
    with pytest.raises(StoppedError):
        count(demo.tokenizer, np.zeros(0, np.uint32), [SAMPLE], should_stop=lambda: True)


@pytest.mark.parametrize("most_in_memory", (1, 100, 1 << 20))
def test_a_spool_is_an_array(most_in_memory: int) -> None:
    spool, choose = Spool(most_in_memory), random.Random(1)
    whole = np.zeros(0, np.uint32)
    for size in (0, 1, 7, 300, 5):
        more = np.array([choose.getrandbits(32) for _ in range(size)], np.uint32)
        spool.append(more)
        whole = np.concatenate([whole, more])
        for part in (slice(None), slice(3, 9), slice(-4, None), slice(500, 900), slice(9, 2), slice(0, 0)):
            np.testing.assert_array_equal(spool[part], whole[part])
    assert len(spool) == len(whole) and spool[:].dtype == np.uint32
    with pytest.raises(ValueError):
        spool[::2]


def test_other_threads_run_while_a_text_is_tokenised() -> None:
    tokenizer = OurTokenizer.from_folder(resolve("demo"))
    work = threading.Thread(target=tokenizer.encode, args=(SAMPLE * 20,), kwargs={"as_text": True})
    begun = last = time.monotonic()
    longest = 0.0
    work.start()
    while work.is_alive():
        time.sleep(0.001)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    assert longest < (last - begun) / 3
