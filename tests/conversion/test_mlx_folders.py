"""Folders that mlx-lm converted are read as they are, quantised or not, and mean what the original meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.conversion import convert
from longmamba_mlx.errors import ConfigError, ModelError
from longmamba_mlx.models.folder_facts import folder_facts
from longmamba_mlx.models.loading import load_model
from tests.conversion.mlx_lm_folders import fixture_folder, hub_cache, mlx_lm_folder
from tests.models.hybrids import hybrid
from tests.models.test_hybrid_reading import FILLED, WIDE, write_source
from tests.parity import comparing
from tests.parity.comparing import TOLERANCE

TOKENS = 60
# Families whose arithmetic mlx-lm 0.32 has right, and cases of others that transformers' logits decide.
RIGHT_IN_MLX_LM = ["mamba", "falcon_mamba", "granite-experts", "jamba-dense", "nemotron_h"]
WRONG_IN_MLX_LM = ["falcon_h1-factors-tied"]
WIDE_ENOUGH = {
    **WIDE,
    "granite": {"hidden_size": 64, "intermediate_size": 64, "shared_intermediate_size": 64},
    "nemotron_h": {"hidden_size": 64, "intermediate_size": 64},
}

ASKED_FOR: dict[str, object] = {  # keys that transformers writes and mlx-lm asks for
    "conv_kernel": 4, "mlp_bias": False, "layer_norm_epsilon": 1e-5, "use_bias": False, "use_conv_bias": True,
    "n_shared_experts": 1, "expert_layer_offset": 1, "expert_layer_period": 2, "mamba_expand": 2,
}  # fmt: skip


def ours(folder: Path, ids: np.ndarray) -> np.ndarray:
    model = load_model(folder).model
    return np.array(model.head(model(mx.array(ids[None]))[0]))[0]


def theirs(folder: Path, ids: np.ndarray) -> np.ndarray:
    from mlx_lm.utils import load_model as load_theirs

    model, _ = load_theirs(folder)
    return np.array(model(mx.array(ids[None])).astype(mx.float32))[0]


@pytest.mark.parametrize("name", RIGHT_IN_MLX_LM)
def test_unquantised_folders_give_the_logits_of_mlx_lm(tmp_path: Path, name: str) -> None:
    fixture = comparing.fixture(name)
    folder = fixture_folder(name, tmp_path)
    ids = fixture.ids[:TOKENS].astype(np.int32)
    assert np.abs(ours(folder, ids) - theirs(folder, ids)).max() <= TOLERANCE
    read = fixture.positions < TOKENS
    assert np.abs(ours(folder, ids)[fixture.positions[read]] - fixture.logits[read]).max() <= TOLERANCE
    assert folder_facts(folder).is_mlx and folder_facts(folder).bits == 32


@pytest.mark.parametrize("name", WRONG_IN_MLX_LM)
def test_what_mlx_lm_left_out_is_mended(tmp_path: Path, name: str) -> None:
    fixture = comparing.fixture(name)
    folder = fixture_folder(name, tmp_path, rope_theta=1e11, head_dim=8)
    ids = fixture.ids[:TOKENS].astype(np.int32)
    read = fixture.positions < TOKENS
    expected = fixture.logits[read]
    assert np.abs(theirs(folder, ids)[fixture.positions[read]] - expected).max() > 100 * TOLERANCE, "mlx-lm has learnt"
    assert np.abs(ours(folder, ids)[fixture.positions[read]] - expected).max() <= TOLERANCE


FACTORS: dict[str, object] = {
    "embedding_multiplier": 3.0, "lm_head_multiplier": 0.4, "key_multiplier": 0.39, "attention_in_multiplier": 0.8,
    "attention_out_multiplier": 0.9, "ssm_in_multiplier": 1.25, "ssm_out_multiplier": 0.3,
    "ssm_multipliers": [0.35, 0.25, 0.4, 0.5, 0.7], "mlp_multipliers": [0.9, 0.6],
}  # fmt: skip
BIASED: dict[str, object] = {
    "attention_bias": True, "mamba_proj_bias": True, "projectors_bias": True, "mlp_bias": True,
}  # fmt: skip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("biases", [{}, BIASED])
@pytest.mark.parametrize("bits", [None, 8])
def test_every_factor_of_falcon_h1_is_right_after_mlx_lm(
    tmp_path: Path, tied: bool, biases: dict[str, object], bits: int | None
) -> None:
    """Against the same checkpoint as it was before mlx-lm multiplied some of the factors in."""
    changes = {
        "vocab_size": 96, "mamba_rms_norm": False, **FILLED, **WIDE["falcon_h1"], **FACTORS, **biases,
        "tie_word_embeddings": tied, "rope_theta": 10000.0, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2,
    }  # fmt: skip
    model = hybrid("falcon_h1", **changes)
    source = write_source(tmp_path / "hf", "falcon_h1", model, changes)
    weights = {  # PyTorch's layout, as the original has it
        name: mx.contiguous(array.swapaxes(1, 2)) if name.endswith("conv1d.weight") else array
        for name, array in mx.load(str(source / "model.safetensors")).items()  # type: ignore[union-attr]
    }
    mx.save_safetensors(str(source / "model.safetensors"), weights)
    ids = np.random.default_rng(3).integers(0, 96, 40).astype(np.int32)
    expected = ours(source, ids)
    got = ours(mlx_lm_folder(source, tmp_path / "mlx", bits=bits), ids)
    difference = np.abs(got - expected).max() / expected.std()
    assert difference < (1e-4 if bits is None else 0.25), difference


def hybrid_folders(folder: Path, name: str, bits: int) -> tuple[Path, Path]:
    """A hybrid as this program converts it, and what mlx-lm makes of that in few bits."""
    changes = {"vocab_size": 96, **FILLED, **WIDE_ENOUGH[name], **ASKED_FOR}
    source = write_source(folder / "hf", name, hybrid(name, **changes), changes)
    plain = convert(source, folder / "plain")
    return plain, mlx_lm_folder(plain, folder / "mlx", bits=bits)


@pytest.mark.parametrize("name", ["jamba", "nemotron_h-experts"])
def test_what_mlx_lm_computes_otherwise_stays_what_it_was(tmp_path: Path, name: str) -> None:
    """Its experts are weighed otherwise there, so its folder is compared with the one it was made of."""
    plain, folder = hybrid_folders(tmp_path, name, 8)
    ids = np.random.default_rng(3).integers(0, 96, 40).astype(np.int32)
    expected = ours(plain, ids)
    # Rounding may send a token to other experts: most tokens stay where they were.
    assert np.median(np.abs(ours(folder, ids) - expected).max(-1)) / expected.std() < 0.5


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["granite-experts", "granite", "nemotron_h"])
def test_quantised_folders_give_the_logits_of_mlx_lm(tmp_path: Path, name: str, bits: int) -> None:
    _, folder = hybrid_folders(tmp_path, name, bits)
    ids = np.random.default_rng(3).integers(0, 96, 40).astype(np.int32)
    expected = theirs(folder, ids)
    got = ours(folder, ids)
    assert np.median(np.abs(got - expected).max(-1)) < 1e-3 * np.abs(expected).max()
    loaded = load_model(folder)
    assert loaded.quantisation == f"q{bits}-g32"
    assert bool(loaded.notes) == (bits < 8) and all("4 bits" in note for note in loaded.notes)


def pure(folder: Path, family: str) -> Path:
    """A pure Mamba whose widths can be quantised, in transformers' layout."""
    from mlx.utils import tree_flatten

    from longmamba_mlx.conversion.dialects import normalised_config
    from longmamba_mlx.models import FAMILIES
    from tests.models import samples

    own: dict[str, int] = {"dt_rank": 32} if family != "mamba2" else {"n_heads": 4, "headdim": 32}
    config = samples.ModelConfig(family, 96, 64, 2, 128, 16, 4, tie_embeddings=False, **own)
    model = samples.fill(FAMILIES[family](config)) if hasattr(samples, "fill") else FAMILIES[family](config)
    mx.random.seed(5)
    weights = {
        name: array
        if name.endswith(("A_log", "norm.weight", "norm_f.weight", ".D"))
        else 0.2 * mx.random.normal(array.shape)
        for name, array in tree_flatten(model.parameters())
    }
    weights = {
        name: mx.contiguous(array.swapaxes(1, 2)) if name.endswith("conv1d.weight") else array
        for name, array in weights.items()
    }
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(normalised_config(config, {})))
    return folder


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", ["mamba", "mamba2"])
def test_quantised_pure_mambas_give_the_logits_of_mlx_lm(tmp_path: Path, family: str, bits: int) -> None:
    folder = mlx_lm_folder(pure(tmp_path / "hf", family), tmp_path / "mlx", bits=bits)
    ids = np.random.default_rng(3).integers(0, 96, 40).astype(np.int32)
    expected = theirs(folder, ids)
    assert np.abs(ours(folder, ids) - expected).max() < 1e-3 * np.abs(expected).max()
    assert bool(load_model(folder).notes) == (bits < 8)


def test_a_converted_models_step_layers_need_no_note(tmp_path: Path) -> None:
    assert load_model(convert("demo", tmp_path / "q", quantize=True)).notes == ()


def test_end_tokens_come_from_the_generation_config_too(tmp_path: Path) -> None:
    folder = mlx_lm_folder(pure(tmp_path / "hf", "mamba2"), tmp_path / "mlx", bits=4)
    before = load_model(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    after = load_model(folder)
    assert after.config.eos_token_ids == (*before.config.eos_token_ids, 3, 5)
    assert after.fingerprint == before.fingerprint
    (folder / "generation_config.json").write_text('{"eos_token_id": 1000}')
    with pytest.raises(ConfigError, match="eos_token_id"):
        load_model(folder)


def test_a_head_that_is_stored_although_it_is_tied(tmp_path: Path) -> None:
    folder = mlx_lm_folder(pure(tmp_path / "hf", "mamba2"), tmp_path / "mlx", bits=4)
    table = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(table | {"tie_word_embeddings": True}))
    assert np.isfinite(ours(folder, np.arange(9, dtype=np.int32))).all()


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes", "compressed-tensors", None])
def test_the_formats_of_other_programs_are_refused(tmp_path: Path, method: str | None) -> None:
    folder = pure(tmp_path / "hf", "mamba2")
    table = json.loads((folder / "config.json").read_text())
    other = {"bits": 4, "group_size": 64} | ({"quant_method": method} if method else {})
    (folder / "config.json").write_text(json.dumps(table | {"quantization_config": other}))
    for use in (lambda: load_model(folder), lambda: convert(folder, tmp_path / "mlx")):
        with pytest.raises(ModelError, match="quantised by") as caught:
            use()
        assert "MLX format" in str(caught.value.hint) and not (tmp_path / "mlx").exists()


def test_damage_in_the_hub_cache_is_noticed(tmp_path: Path) -> None:
    folder = mlx_lm_folder(pure(tmp_path / "hf", "mamba2"), tmp_path / "mlx", bits=4)
    snapshot = hub_cache(tmp_path / "hub", "someone/model", folder)
    assert load_model(snapshot)
    blob = (snapshot / "model.safetensors").resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    with pytest.raises(ModelError, match="damaged in the Hub client's cache") as caught:
        load_model(snapshot)
    assert caught.value.hint


def test_what_a_folder_is(tmp_path: Path) -> None:
    source = pure(tmp_path / "hf", "mamba2")
    assert not folder_facts(source).is_mlx
    folder = mlx_lm_folder(source, tmp_path / "q4", bits=4)
    facts = folder_facts(folder)
    size = (folder / "model.safetensors").stat().st_size
    assert (facts.family, facts.bits, facts.size, facts.is_mlx) == ("mamba2", 4, size, True)
    assert folder_facts(mlx_lm_folder(source, tmp_path / "half", dtype=mx.bfloat16)).bits == 16
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelError):
        folder_facts(tmp_path / "broken")
