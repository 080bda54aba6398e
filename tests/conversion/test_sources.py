"""Layouts a checkpoint comes in, and the ways its folder can lie: links, indexes, configs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import ClassVar

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.conversion import convert
from longmamba_mlx.conversion.names import rename, stays_float32
from longmamba_mlx.errors import LongMambaError, ModelError
from longmamba_mlx.models.loading import load_model
from tests.conversion import torch_files as f
from tests.conversion.checkpoints import original_tensors, tiny_tokenizer, write_checkpoint
from tests.models.samples import ModelConfig, random_ids, random_model


def logits(model: object) -> np.ndarray:
    hidden, _ = model(random_ids(20))  # type: ignore[operator]
    return np.array(model.head(hidden))  # type: ignore[attr-defined]


def fails(source: Path, match: str) -> None:
    target = source.parent / "refused"
    with pytest.raises(LongMambaError, match=match) as caught:
        convert(source, target)
    assert caught.value.hint and "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert not target.exists() and not list(source.parent.glob(".*"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")
    return tmp_path / "hf"


def test_mistrals_own_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.models import samples

    config = ModelConfig(
        "mamba2", 37, 64, 2, 128, 128, 4, n_heads=2, headdim=64, n_groups=2, chunk_size=256, tie_embeddings=False
    )
    monkeypatch.setitem(samples.CONFIGS, "codestral-like", config)
    model = random_model("codestral-like")
    folder = tmp_path / "raw"
    folder.mkdir()
    tensors = {f"model.{name}": array for name, array in original_tensors("original", model).items()}
    mx.save_safetensors(str(folder / "consolidated.safetensors"), tensors)
    params = {
        "dim": 64, "n_layers": 2, "vocab_size": 37, "n_groups": 2, "rms_norm": True, "residual_in_fp32": True,
        "fused_add_norm": True, "pad_vocab_size_multiple": 1, "tie_embeddings": False, "model_type": "mamba",
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(params))
    convert(folder, tmp_path / "mlx")
    loaded = load_model(tmp_path / "mlx")
    assert loaded.config == config
    assert np.abs(logits(loaded.model) - logits(model)).max() < 1e-5 * np.abs(logits(model)).max()
    (folder / "params.json").write_text(json.dumps(params | {"model_type": "transformer"}))
    fails(folder, "not that of a Mamba model")
    (folder / "params.json").write_text(json.dumps(params | {"n_layers": 10**9}))
    fails(folder, "n_layer")


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_wrapped_names_and_computed_buffers(prefix: str) -> None:
    table = {
        f"{prefix}backbone.embedding.weight": 1,
        f"{prefix}backbone.layers.0.mixer.D": 2,
        f"{prefix}lm_head.weight": 3,
    }
    assert rename(table | {"model.layers.0.self_attn.rotary_emb.inv_freq": 9}) == {
        "backbone.embeddings.weight": 1, "backbone.layers.0.mixer.D": 2, "lm_head.weight": 3,
    }  # fmt: skip
    assert rename({"model.layers.0.mamba.D": 1}) == {"model.layers.0.mamba.D": 1}
    with pytest.raises(ModelError, match="twice") as caught:
        rename({"model.backbone.embedding.weight": 1, "backbone.embeddings.weight": 2})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("backbone.layers.0.mixer.A_log", True), ("backbone.layers.0.mixer.D", True),
        ("model.layers.0.mamba.dt_bias", True),
        ("model.layers.3.mamba.dt_proj.weight", True), ("model.layers.3.mamba.b_layernorm.weight", True),
        ("model.layers.1.input_layernorm.weight", True), ("model.final_layernorm.weight", True),
        ("backbone.layers.1.mixer.gate.e_score_correction_bias", True), ("backbone.norm_f.weight", True),
        ("backbone.layers.0.mixer.in_proj.weight", False), ("model.layers.0.self_attn.q_proj.weight", False),
        ("backbone.layers.0.mixer.x_proj.weight", False), ("lm_head.weight", False),
        ("model.layers.0.mamba.conv1d.bias", False),
        ("backbone.embeddings.weight", False), ("model.layers.0.mlp.down_proj.weight", False),
    ],
)  # fmt: skip
def test_what_is_never_rounded(name: str, kept: bool) -> None:
    assert stays_float32(name) is kept


def test_end_tokens_of_a_chat_model(source: Path, tmp_path: Path) -> None:
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 0, 7], "temperature": 1.0}))
    convert(source, tmp_path / "mlx")
    assert load_model(tmp_path / "mlx").config.eos_token_ids == (0, 5, 7)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": 10**9}))
    fails(source, "eos_token_id")


# ---------------------------------------------------------------- a folder that lies


class Opened:
    """Which files are opened while it watches."""

    watching = False
    paths: ClassVar[list[str]] = []

    @classmethod
    def hook(cls, event: str, arguments: tuple[object, ...]) -> None:
        if cls.watching and event == "open" and isinstance(arguments[0], str | bytes):
            cls.paths.append(os.fsdecode(arguments[0]))


sys.addaudithook(Opened.hook)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_links_out_of_the_folder_are_not_followed(source: Path, tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((source / name).read_bytes() if (source / name).exists() else b"{}")
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to(secret)
    Opened.paths.clear()
    Opened.watching = True
    try:
        fails(source, "link to a file outside")
    finally:
        Opened.watching = False
    assert not [path for path in Opened.paths if "secret" in path]


def test_links_inside_the_folder_and_in_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--a--b" / "snapshots" / "0123"
    write_checkpoint(snapshot, "transformers-4-mamba")
    blobs = tmp_path / "hub" / "models--a--b" / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / f"{path.name}-blob")
        path.symlink_to(f"../../blobs/{path.name}-blob")
    convert(snapshot, tmp_path / "one")
    by_links = tmp_path / "as-older-clients-leave-it"
    by_links.mkdir()
    for path in blobs.iterdir():
        (by_links / path.name.removesuffix("-blob")).symlink_to(path)
    convert(by_links, tmp_path / "three")
    write_checkpoint(tmp_path / "hf", "transformers-4-mamba")
    (tmp_path / "hf" / "model.safetensors").rename(tmp_path / "hf" / "real")
    (tmp_path / "hf" / "model.safetensors").symlink_to("real")
    convert(tmp_path / "hf", tmp_path / "two")
    assert load_model(tmp_path / "one").fingerprint == load_model(tmp_path / "two").fingerprint


HOSTILE_NAMES: list[object] = [
    "../pytorch_model.bin", "/etc/passwd.bin", "a/b.bin", "..\\m.bin", "~m.bin", "m\0.bin", "model.safetensors",
    "", ".bin",
    3, None, ["m.bin"], "x" * 300 + ".bin", "C:m.bin", "m\n.bin", "m\u202e.bin",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_index_of_bin_files_cannot_lead_out(tmp_path: Path, name: object) -> None:
    folder = tmp_path / "hf"
    write_checkpoint(folder, "transformers-4-mamba")
    (folder / "model.safetensors").unlink()
    f.write_torch(folder / "pytorch_model-00001-of-00002.bin", f.one(f.tensor()))
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": name}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    fails(folder, "not a plain bin name")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not valid JSON"), ("[]", "not a JSON object"), ("{}", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": ["a"]}', "no weight_map"), ('{"weight_map": {"a": "m.safetensors"}}', "is missing"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "twice"), ("[" * 100_000, "not valid JSON"),
        ('{"weight_map": {' + ",".join(f'"{n}": "{n}.safetensors"' for n in range(5000)) + "}}", "more than 1024"),
        ('{"weight_map": {"a": "' + "x" * (65 << 20) + '"}}', "larger than"), ('{"weight_map": {"a": NaN}}', "NaN"),
    ],
    ids=["empty", "list", "nothing", "no entries", "names", "missing", "double", "deep", "many", "huge", "nan"],
)  # fmt: skip
def test_hostile_indexes(source: Path, text: str, match: str) -> None:
    (source / "model.safetensors.index.json").write_text(text)
    fails(source, match)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not valid JSON"), ("[" * 200_000, "not valid JSON"), ('{"a": 1, "a": 2}', "twice"),
        ("{" + " " * (2 << 20), "larger"),
        ('{"model_type": "mamba", "hidden_size": -1, "vocab_size": 3}', "hidden_size"),
        ('{"model_type": "mamba", "hidden_size": 1e3, "vocab_size": 3}', "hidden_size"),
        ('{"model_type": "mamba", "hidden_size": 9223372036854775807, "vocab_size": 3}', "hidden_size"),
        ('{"model_type": "mamba", "hidden_size": NaN, "vocab_size": 3}', "NaN"),
        ('{"model_type": "mamba", "hidden_size": Infinity, "vocab_size": 3}', "hidden_size"),
        ('{"model_type": "llama"}', "not supported"), ('{"model_type": ["mamba"]}', "not supported"),
        ("{}", "not supported"),
        ('{"model_type": "mamba2", "quantization_config": {"quant_method": "gptq"}}', "quantised by"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "not valid JSON"),
    ],
)  # fmt: skip
def test_hostile_configs(source: Path, text: str, match: str) -> None:
    (source / "config.json").write_text(text)
    fails(source, match)


def test_a_deeply_nested_key_of_a_hybrid(tmp_path: Path) -> None:
    from tests.parity.comparing import fixture

    folder = fixture("bamba").write_folder(tmp_path / "hf")
    text = (folder / "config.json").read_text().rstrip().removesuffix("}")
    (folder / "config.json").write_text(text + ', "deep": ' + "[" * 900 + "]" * 900 + "}")
    try:
        convert(folder, tmp_path / "mlx")
    except LongMambaError as error:
        assert error.hint and not (tmp_path / "mlx").exists()
    else:
        assert load_model(tmp_path / "mlx")


def test_not_enough_room(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage(source)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    fails(source, "the disk has 1.0 kB left")


# ---------------------------------------------------------------- tokenizers


@pytest.fixture
def bare(source: Path) -> Path:
    """A checkpoint without a tokenizer."""
    (source / "tokenizer.json").unlink()
    return source


def test_a_tokenizer_can_be_given(bare: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.json"
    path.write_text(tiny_tokenizer())
    convert(bare, tmp_path / "by-file", tokenizer=path)
    folder = tmp_path / "with"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tiny_tokenizer(20))
    (folder / "chat_template.jinja").write_text("{{ x }}")
    convert(bare, tmp_path / "by-folder", tokenizer=str(folder))
    assert (tmp_path / "by-file" / "tokenizer.json").read_text() == tiny_tokenizer()
    assert (tmp_path / "by-folder" / "tokenizer.json").read_text() == tiny_tokenizer(20)
    assert (tmp_path / "by-folder" / "chat_template.jinja").read_text() == "{{ x }}"


def test_bytes_are_tokens_of_their_own(tmp_path: Path) -> None:
    from longmamba_mlx.tokenization.tokenizer import Tokenizer
    from tests.conversion.test_hub import Heard, original

    heard = Heard()
    original(tmp_path / "hf", 256)
    convert(tmp_path / "hf", tmp_path / "mlx", report=heard)
    tokenizer = Tokenizer.from_folder(tmp_path / "mlx")
    text = "Ahab's whale — 白鯨 \x00\t\n\U0001f433 "
    assert tokenizer.encode(text).tolist() == list(text.encode()) and tokenizer.vocabulary == 256
    assert tokenizer.decode(list("bücher\n".encode())) == "bücher\n"
    assert any("as bytes" in line for line in heard.lines)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path / "mlx")("é")["input_ids"] == [0xC3, 0xA9]


def test_tokenizers_that_do_not_fit(bare: Path, tmp_path: Path) -> None:
    def refused(match: str, choice: object) -> None:
        with pytest.raises(ModelError, match=match) as caught:
            convert(bare, tmp_path / "mlx", tokenizer=choice)  # type: ignore[arg-type]
        assert "--tokenizer" in str(caught.value.hint) and not (tmp_path / "mlx").exists()
        assert "tmp-" not in str(caught.value)

    refused("256 tokens, the model only 37", "bytes")
    refused("There is no tokenizer", "nowhere at all")
    path = tmp_path / "my.json"
    path.write_text("{}")
    refused("is broken", path)
    path.write_bytes(b"\xff")
    refused("is broken", path)
    (bare / "tokenizer.model").write_bytes(b"sentencepiece")
    refused("only as tokenizer.model", None)


def test_without_a_tokenizer_there_are_logits_but_no_text(bare: Path, tmp_path: Path) -> None:
    import longmamba_mlx as lm
    from tests.conversion.test_hub import Heard

    heard = Heard()
    convert(bare, tmp_path / "mlx", report=heard)
    assert "--tokenizer" in heard.lines[-1]
    model = lm.load(str(tmp_path / "mlx"))
    assert model.logits(np.arange(9)).shape == (9, 37)
    (tmp_path / "text.txt").write_text("words and words")
    with pytest.raises(ModelError, match="cannot read text") as caught:
        model.read(tmp_path / "text.txt")
    assert caught.value.hint
