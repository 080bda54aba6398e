"""MambaByte end to end: an original checkpoint without any tokenizer is converted, reads text as bytes and answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import longmamba_mlx as lm
from tests.parity import comparing

TEXT = "Grüße, 世界! 🐍 \x7f\nSecond paragraph: the key is under the mat.\n"
CONFIG = {
    "d_model": 32, "n_layer": 2, "vocab_size": 256, "ssm_cfg": {"d_state": 8, "dt_rank": 3}, "rms_norm": True,
    "residual_in_fp32": True, "fused_add_norm": True, "pad_vocab_size_multiple": 8,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The converted folder of a byte model in the original layout, which ships no tokenizer."""
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "home"))
    source = tmp_path / "mambabyte"
    source.mkdir()
    weights = {
        key.replace("backbone.embeddings.", "backbone.embedding."): array
        for key, array in comparing.fixture("mambabyte").weights.items()
    }
    save_file(weights, source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(CONFIG))
    return Path(lm.convert(source, tmp_path / "mlx", offline=True))


def test_logits_of_bytes_equal_the_reference(folder: Path) -> None:
    stored = comparing.fixture("mambabyte")
    model = lm.load(str(folder), filter="off")
    assert stored.compare(np.array(model.logits(stored.ids, chunk=77)), filtered=False).exact


def test_text_goes_in_as_its_bytes_and_comes_back(folder: Path) -> None:
    model = lm.load(str(folder), filter="off")
    ids = model.tokenizer.encode(TEXT)
    assert list(ids) == list(TEXT.encode())
    assert model.tokenizer.decode(ids) == TEXT.replace("\x7f", "")


def test_a_document_is_read_and_asked(folder: Path, tmp_path: Path) -> None:
    document = tmp_path / "text.txt"
    document.write_text(TEXT * 20, encoding="utf-8")
    book = lm.load(str(folder), filter="off").read(str(document))
    reply = book.ask("Where is the key?", max_tokens=5)
    assert reply.tokens == 5 and isinstance(reply.text, str)
