"""The Python API as its page shows it, from loading to a saved state."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import CalibrationError, DocumentMissingError, ModelError, UsageError

QUESTION = "What is the access code of Zorvath?"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, story: str) -> Path:
    file = tmp_path_factory.mktemp("api") / "book.txt"
    file.write_text(story, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def book(demo: lm.Model, path: Path) -> lm.ReadDocument:
    return demo.read(path)


def test_read_takes_a_path_a_list_or_a_document(demo: lm.Model, path: Path, story: str, book: lm.ReadDocument) -> None:
    seen: list[object] = []
    for source in (str(path), [path], lm.Document("book", story)):
        other = demo.read(source, on_progress=seen.append)
        assert isinstance(other, lm.ReadDocument) and other.tokens == book.tokens and other.key == book.key
    assert len(seen) == 3 * -(-book.tokens // 512)
    with pytest.raises(DocumentMissingError):
        demo.read(path.with_name("none.txt"))


def test_read_takes_an_encoding(demo: lm.Model, tmp_path: Path) -> None:
    file = tmp_path / "old.txt"
    file.write_bytes(b"A caf\xe9 costs \x80 5. " * 40)
    for encoding, text in (("windows-1252", "A café costs € 5."), ("iso-8859-5", "A cafщ costs")):
        document = demo.read(file, encoding=encoding).document
        assert document is not None and text in document.text
    with pytest.raises(UsageError):
        demo.read(file, encoding="nowhere-8")


def test_ask_and_stream_say_the_same(book: lm.ReadDocument) -> None:
    reply = book.ask(QUESTION)
    assert isinstance(reply, lm.Answer)
    assert (reply.text, reply.finish_reason, reply.found) == ("48213", "stop", True)
    assert reply.passages and reply.tokens > 0 and reply.seconds > 0
    assert "".join(book.stream(QUESTION)).strip() == reply.text
    with pytest.raises(UsageError):
        book.ask("  ")


def test_save_and_open_keep_everything(demo: lm.Model, book: lm.ReadDocument, path: Path, tmp_path: Path) -> None:
    book.save(tmp_path / "book.state")
    alone, with_text = demo.open(tmp_path / "book.state"), demo.open(tmp_path / "book.state", path)
    assert alone.ask(QUESTION).text == with_text.ask(QUESTION).text == "48213"
    assert not alone.ask(QUESTION).passages and with_text.ask(QUESTION).passages
    np.testing.assert_array_equal(with_text.kept, book.kept)
    assert with_text.regions(5) == book.regions(5) and with_text.tokens == book.tokens
    assert with_text.ask(QUESTION, as_of="5%").text == book.ask(QUESTION, as_of="5%").text != "48213"
    with pytest.raises(UsageError):
        alone.ask(QUESTION, as_of="50%")
    other = demo.with_filter("curve").open(tmp_path / "book.state", path)
    assert other.ask(QUESTION).text == "48213", "a state is what it is"
    with pytest.raises(UsageError, match="another filter"):
        other.ask(QUESTION, as_of="50%")


def test_logits(demo: lm.Model) -> None:
    ids = demo.tokenizer.encode("Once upon a time there was a key.")
    logits = demo.logits(ids, chunk=4)
    assert logits.shape == (len(ids), demo.loaded.config.vocab_size) and logits.dtype == np.float32


def test_convert_and_calibrate_are_there() -> None:
    with pytest.raises(ModelError):
        lm.convert("/nowhere/at/all", "/nowhere/else")
    assert callable(lm.calibrate)


def test_a_calibration_of_other_layers_is_refused(demo: lm.Model, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(demo.loaded.folder, tmp_path / "model"))
    assert demo.calibration is not None
    fewer = replace(demo.calibration, layers=demo.calibration.layers[:-1])
    fewer.save(folder / "longmamba.safetensors")
    with pytest.raises(CalibrationError, match="does not fit") as refused:
        lm.load(folder)
    assert refused.value.hint


def test_the_example_runs() -> None:
    done = subprocess.run(
        [sys.executable, "examples/api.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any("'17649', found: True" in line for line in lines)
    assert lines[-1] == "From the saved state: '17649'" and "The document does not say." in done.stdout
