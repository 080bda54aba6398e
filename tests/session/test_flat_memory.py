"""A text file of any size is read in the memory of a small one: it is never held, nor are its ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from longmamba_mlx.builtin import sample_document
from longmamba_mlx.documents import Document
from longmamba_mlx.documents.decode import located_blocks
from longmamba_mlx.documents.streamed_text import LargeText, digest_of, length_of, open_large, pieces_of, text_between
from longmamba_mlx.errors import DocumentError, StoppedError
from longmamba_mlx.registry.resolve import resolve
from longmamba_mlx.session.api import Model
from longmamba_mlx.session.session import Session
from longmamba_mlx.tokenization import spool
from longmamba_mlx.tokenization.count import count

SAMPLE = sample_document().read_text(encoding="utf-8")
ROOT = Path(__file__).resolve().parents[2]

READ = """
    import os, sys
    from collections import deque
    from longmamba_mlx.documents import streamed_text
    from longmamba_mlx.tokenization import spool
    streamed_text.LARGE, spool.MOST_IN_MEMORY = int(sys.argv[3]), 1 << 18
    from longmamba_mlx.system import peak_bytes
    from longmamba_mlx.session.session import Session
    session = Session(sys.argv[2], filter="off", hold_text=False, chunk=2048)
    done = deque(session.open([sys.argv[1]]), maxlen=1)[0]
    held = session.document.document is not None
    assert done.stored and held == (os.path.getsize(sys.argv[1]) < streamed_text.LARGE)
    print(done.tokens, peak_bytes())
"""


def tiny(folder: Path) -> Path:
    """A model of one small layer, with the built-in tokenizer: reading is nearly all tokenising."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from longmamba_mlx.models import FAMILIES
    from longmamba_mlx.models.config.parse import parse_config

    raw = json.loads((resolve("demo") / "config.json").read_text(encoding="utf-8"))
    raw |= {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "state_size": 8, "num_heads": 2,
            "head_dim": 16}  # fmt: skip
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    (folder / "tokenizer.json").write_bytes((resolve("demo") / "tokenizer.json").read_bytes())
    config = parse_config(raw)
    weights = dict(tree_flatten(FAMILIES[config.model_type](config).parameters()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


def write(path: Path, megabytes: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for number in range(megabytes * 10**6 // len(SAMPLE) + 1):
            file.write(f"{number}\n{SAMPLE}")
    return path


def peak(path: Path, model: Path, large: int) -> int:
    command = [sys.executable, "-c", textwrap.dedent(READ), str(path), str(model), str(large)]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    return int(child.stdout.split()[1])


def held(demo: Model, megabytes: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """The most bytes that Python and NumPy held while a text that is made on the way was counted."""
    monkeypatch.setattr(spool, "MOST_IN_MEMORY", 1 << 16)
    pieces = (SAMPLE for _ in range(int(megabytes * 1e6) // len(SAMPLE)))
    tracemalloc.start()
    try:
        ids = count(demo.tokenizer, np.zeros(0, np.uint32), pieces).ids
        assert len(ids) > megabytes * 250_000
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_counting_holds_no_more_for_a_longer_text(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(demo, 1.0, monkeypatch) - held(demo, 0.3, monkeypatch) < 200_000


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_six_megabytes_need_no_more_than_one(tmp_path: Path) -> None:
    model = tiny(tmp_path / "model")
    small, large = (peak(write(tmp_path / f"{size}.txt", size), model, 100_000) for size in (1, 6))
    assert large - small <= 12 << 20


@pytest.mark.slow
@pytest.mark.timeout(6 * 3600)
def test_a_gigabyte_needs_64_more_than_ten(tmp_path: Path) -> None:
    model, most = tiny(tmp_path / "model"), int(os.environ.get("LONGMAMBA_MEGABYTES", "1000"))
    small, large = (peak(write(tmp_path / f"{size}.txt", size), model, 32 << 20) for size in (10, most))
    assert large - small <= 64 << 20


def test_pieces_are_the_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.documents import streamed_text

    monkeypatch.setattr(streamed_text, "LARGE", 10)
    path = tmp_path / "text.txt"
    text = "\ufeffOne\r\ntwo\x1b[2J thr\u00e9e \U0001f600\r\n\r\n" * 60_000
    path.write_bytes(text.encode())
    large = open_large([str(path)])
    assert isinstance(large, LargeText)
    whole = Document("text.txt", text, str(path))
    assert "".join(pieces_of(large)) == "".join(pieces_of(whole)) == whole.text
    assert (large.digest, large.length, large.title) == (whole.digest, len(whole.text), whole.title)
    for end in (1, 700_001, len(whole.text) - 1, len(whole.text)):
        assert "".join(pieces_of(large, end)) == whole.text[:end]
        assert digest_of(large, end) == digest_of(whole, end)
    for start, end in ((0, 3), (699_998, 700_003), (len(whole.text) - 9, len(whole.text)), (5, 5)):
        assert text_between(large, start, end) == text_between(whole, start, end) == whole.text[start:end]
    assert length_of(large) == length_of(whole)
    path.write_bytes(text.encode()[:-9])
    with pytest.raises(DocumentError, match="has changed"):
        list(pieces_of(large))
    with pytest.raises(DocumentError, match="has changed"):
        text_between(large, 0, 3)
    path.unlink()
    with pytest.raises(DocumentError, match="No such file"):
        list(pieces_of(large))


def test_a_large_text_is_not_looked_through_further_than_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from longmamba_mlx.documents import streamed_text

    session, read = Session(hold_text=False), []

    def blocks(file: IO[bytes]) -> Iterator[tuple[str, int]]:
        for block in located_blocks(file):
            read.append(block)
            session.stop()
            yield block

    monkeypatch.setattr(streamed_text, "LARGE", 10)
    monkeypatch.setattr(streamed_text, "located_blocks", blocks)
    (tmp_path / "text.txt").write_text("Words. " * 200_000)
    with pytest.raises(StoppedError):
        list(session.open([str(tmp_path / "text.txt")]))
    assert len(read) == 1


def test_what_is_not_one_large_text_is_left_to_the_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from longmamba_mlx.documents import streamed_text

    monkeypatch.setattr(streamed_text, "LARGE", 10)
    for name, data in (
        ("small.txt", b"short"), ("picture.txt", b"\x89PNG\r\n\x1a\n" + bytes(200)), ("blank.txt", b" \n" * 90),
        ("page.html", b"<!doctype html><p>Words in a page.</p>" * 9), ("latin.txt", b"caf\xe9 au lait " * 20),
        ("nuls.txt", bytes(400)),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        assert open_large([str(tmp_path / name)]) is None, name
    assert open_large(["-"]) is None and open_large([str(tmp_path)]) is None and open_large([]) is None
    assert open_large([str(tmp_path / "none")]) is None
