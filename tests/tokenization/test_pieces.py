"""PLaMo-2's tokenizer.jsonl against its definition, written here a second time: best sum, then longest pieces first."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import ModelError
from longmamba_mlx.tokenization.pieces import Encoded, Pieces
from longmamba_mlx.tokenization.tokenizer import Tokenizer
from longmamba_mlx.tokenization.windowed import encode_parts
from tests.parity import comparing

Row = list[object]
CONTROL: list[Row] = [
    ["<|plamo:unk|>", 0.0, "UNKNOWN"],
    ["<|plamo:bos|>", 0.0, "CONTROL"],
    ["<|plamo:op|>", 0.0, "NORMAL"],
]
BYTES: list[Row] = [[f"<0x{byte:02X}>", 0.0, "BYTE"] for byte in range(256)]
FIRST = len(CONTROL) + len(BYTES)


def file_of(pieces: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*CONTROL, *BYTES, *pieces]).encode()


def by_definition(pieces: dict[str, tuple[float, int]], text: str) -> list[tuple[int, int, int]]:
    """Ids with their spans. Costs in ten-thousandths from each character to the end, and the piece to take there."""
    longest = max(map(len, pieces), default=1)
    costs, taken = [0] * (len(text) + 1), [0] * len(text)
    for place in reversed(range(len(text))):
        best = math.inf
        for end in range(min(len(text), place + longest), place, -1):
            found = pieces.get(text[place:end])
            if found is not None and costs[end] - round(found[0] * 1e4) < best:
                best, taken[place] = costs[end] - round(found[0] * 1e4), end
        if costs[place + 1] + 10_000_000 < best:
            best, taken[place] = costs[place + 1] + 10_000_000, -1
        costs[place] = int(best)
    tokens, place = [], 0
    while place < len(text):
        end = taken[place]
        if end < 0:
            tokens += [(len(CONTROL) + byte, place, place + 1) for byte in text[place].encode()]
            end = place + 1
        else:
            tokens.append((pieces[text[place:end]][1], place, end))
        place = end
    return tokens


def vocabulary(rng: np.random.Generator, alphabet: str) -> dict[str, tuple[float, int]]:
    """Pieces with few different scores, so that many sums are equal; some characters are pieces, others are not."""
    names = {"".join(rng.choice(list(alphabet), rng.integers(1, 6))) for _ in range(60)}
    return {
        name: (-float(rng.integers(1, 5)) * len(name) / 2, FIRST + number) for number, name in enumerate(sorted(names))
    }


def rows(pieces: dict[str, tuple[float, int]]) -> list[Row]:
    return [[name, score, "NORMAL"] for name, (score, _) in pieces.items()]


def tokens(encoded: Encoded) -> list[tuple[int, int, int]]:
    return [(token, *span) for token, span in zip(encoded.ids, encoded.spans, strict=True)]


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    alphabet = ["ab", "abcé", "日本語のa ", "ab\U0001f600\n"][seed % 4]
    pieces = vocabulary(rng, alphabet)
    ours = Pieces(file_of(rows(pieces)))
    for length in (0, 1, 2, 7, 60, 400):
        text = "".join(rng.choice(list(alphabet + "x\U0010ffff本"), length))
        assert tokens(ours.encode(text, special=False)) == by_definition(pieces, text), text


def test_among_equal_sums_the_first_piece_is_longest() -> None:
    pieces = {"a": (-1.0, FIRST), "ab": (-2.0, FIRST + 1), "ba": (-2.0, FIRST + 2), "b": (-1.0, FIRST + 3)}
    assert Pieces(file_of(rows(pieces))).encode("aba", special=False).ids == [FIRST + 1, FIRST]


@pytest.mark.parametrize("text", ["a<|plamo:bos|>b", "<|plamo:op|><|plamo:op|>", "ab", "<|plamo:op|"])
def test_special_tokens_are_recognised_where_they_may_be(text: str) -> None:
    pieces = {"a": (-1.0, FIRST), "b": (-1.0, FIRST + 1), "<|plamo:bos": (-1.0, FIRST + 2)}
    ours = Pieces(file_of(rows(pieces)))
    marks = {"<|plamo:bos|>": 1, "<|plamo:op|>": 2}
    found = tokens(ours.encode(text, special=True))
    assert [token for token, *_ in found if token in (0, 1, 2)] == [
        marks[name] for name in sorted(marks, key=text.find) for _ in range(text.count(name))
    ]
    assert not {0, 1, 2} & set(ours.encode(text, special=False).ids)
    assert all(text[begin:end] in marks for token, begin, end in found if token in (1, 2))


def test_windows_give_the_whole_texts_tokens() -> None:
    rng = np.random.default_rng(5)
    pieces = vocabulary(rng, "abc d")
    ours = Pieces(file_of(rows(pieces)))
    text = "".join(rng.choice(list("abc dé"), 5000))
    parts = list(encode_parts(lambda piece: ours.encode(piece, special=False), [text], window=700, overlap=200))
    assert (
        len(parts) > 3 and np.concatenate([part.ids for part in parts]).tolist() == ours.encode(text, special=False).ids
    )


def written(folder: Path, **changes: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    letters = {chr(code): (-float(code % 7), FIRST + code - 32) for code in range(32, 127)}
    (folder / "tokenizer.jsonl").write_bytes(changes.get("jsonl", file_of(rows(letters))))
    return folder


def test_a_folder_with_it_reads_and_answers(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(written(tmp_path))
    text = "It is 3 °C in 東京 🗼."
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text and tokenizer.vocabulary == FIRST + 95
    stream = tokenizer.stream()
    assert "".join(stream.push(int(token)) for token in ids) == text
    assert tokenizer.special(1) and tokenizer.special(2) and not tokenizer.special(FIRST)
    assert tokenizer.decode([1, *ids[:2]]) == "It"
    assert 1 in tokenizer.encode("<|plamo:bos|>") and 1 not in tokenizer.encode("<|plamo:bos|>", as_text=True)


def test_tokens_that_the_settings_call_special_are(tmp_path: Path) -> None:
    folder = written(tmp_path)
    (folder / "tokenizer_config.json").write_text(
        '{"added_tokens_decoder": {"300": {"content": "A", "special": true}}}'
    )
    assert Tokenizer.from_folder(folder).special(FIRST + ord("A") - 32)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "every byte"),
        (b'{"a": 1}\n', "line 1"),
        (b'["a"]\n', "line 1"),
        (b'["a", NaN, "NORMAL"]\n', "line 1"),
        (b'["a", 1e9, "NORMAL"]\n', "line 1"),
        (b'["a", true]\n', "line 1"),
        (b'["<0xZZ>", 0.0, "BYTE"]\n', "line 1"),
        (b"[" * 100_000, "line 1"),
        (b"\xff\xfe\n", "line 1"),
    ],
)
def test_broken_files_are_one_line(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=reason):
        Tokenizer.from_folder(written(tmp_path, jsonl=data))


def test_a_conversion_takes_it_along_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "home"))
    stored = comparing.fixture("plamo2")
    config = dict(stored.config) | {"vocab_size": 400}
    weights = dict(stored.weights) | {"model.embed_tokens.weight": np.zeros((400, 32), np.float32)}
    source = tmp_path / "source"
    source.mkdir()
    from safetensors.numpy import save_file

    save_file(weights, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(config))
    (source / "tokenization_plamo.py").write_text("raise SystemExit")
    (source / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["tokenization_plamo.X", null]}}')
    written(source)
    folder = lm.convert(source, tmp_path / "mlx")
    assert (folder / "tokenizer.jsonl").is_file() and not list(folder.glob("*.py"))
    assert "auto_map" not in (folder / "tokenizer_config.json").read_text()
    (tmp_path / "text.txt").write_text("The ring lay under the oak. " * 9)
    book = lm.load(folder, filter="off").read(tmp_path / "text.txt")
    assert book.ask("Where is the ring?", max_tokens=3).tokens > 0
