"""Hybrids in use: quantised, calibrated, read with a filter, remembered, asked."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import Calibration, build_plan, collect, policy_for
from longmamba_mlx.filtering.plan import require_layers
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.progress import Progress
from longmamba_mlx.inference.reading import Reading
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.states.state_file import StateKey, read_state, write_state
from tests.models.hybrids import hybrid, raw_config, write_folder

TEXT = "It was a dark night. The ring lay under the old oak, and nobody knew. " * 6
QUESTION = "Where is the ring?"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", ["granite", "nemotron_h", "falcon_h1", "jamba", "plamo2", "phi4flash"])
def test_calibration_has_a_place_for_every_layer(name: str, tmp_path: Path) -> None:
    model = hybrid(name)
    rng = np.random.default_rng(0)
    measured = collect(model, rng.integers(0, 40, (3, 64)), clamps=(0.05, 0.2), knots=16, chunk=20, fingerprint="f")
    units = [model.config.units if model.has_scan(index) else 0 for index in range(model.config.n_layer)]
    assert [layer.units for layer in measured.layers] == units
    require_layers(measured, model.config.n_layer, units)
    measured.save(tmp_path / "c.safetensors")
    loaded = Calibration.load(tmp_path / "c.safetensors", fingerprint="f", quantisation="none")
    for mode in ("paper", "curve", "document"):
        plan = build_plan(loaded, policy_for(model.config, mode, {"theta": 1e-9}), 1000)
        assert not plan.is_off
        assert [share == 0 for share in plan.global_shares] == [count == 0 for count in units]
        for index, count in enumerate(units):
            if not count:
                assert not plan.waits(index) and plan.thresholds(index) is None


@pytest.mark.parametrize("name", ["granite", "nemotron_h-experts", "falcon_h1", "zamba2", "plamo2", "phi4flash"])
@pytest.mark.parametrize("filter", ["document", "curve"])
def test_read_save_open_ask(name: str, filter: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / name, name)
    (tmp_path / "t.txt").write_text(TEXT)
    model = lm.load(folder, filter=filter)
    ids = model.tokenizer.encode(TEXT)
    plan = model.plan(len(ids), ids)
    assert plan is not None and not plan.is_off
    book = model.read(tmp_path / "t.txt", chunk=100)
    free = lm.load(folder, filter="off").read(tmp_path / "t.txt")
    apart = [
        not np.array_equal(np.array(mine), np.array(theirs))
        for mine, theirs in zip(book.reading.state.arrays().values(), free.reading.state.arrays().values(), strict=True)
    ]
    assert any(apart)
    first = book.ask(QUESTION, max_tokens=5).text
    book.save(tmp_path / "t.state")
    again = lm.load(folder, filter=filter).open(tmp_path / "t.state", tmp_path / "t.txt")
    assert again.ask(QUESTION, max_tokens=5).text == first == book.ask(QUESTION, max_tokens=5).text


@pytest.mark.parametrize("name", ["granite", "nemotron_h", "falcon_h1", "plamo2", "phi4flash"])
def test_a_reading_goes_on_from_a_stored_state(name: str, tmp_path: Path) -> None:
    """To the last bit, although keys and values come back from the file without their spare room."""
    model = hybrid(name)
    ids = np.random.default_rng(0).integers(0, 40, 150).astype(np.uint32)
    whole = prefill(model, ids, None, chunk=32)
    part = prefill(model, ids[:96], None, chunk=32)
    key = StateKey("d", 1, 150, "t", "m", "", "none", "off", "", 150, 32, "k", "float32")
    write_state(tmp_path / "s.safetensors", key, part.state, (), {})
    stored = read_state(tmp_path / "s.safetensors", key=key, like=model.initial_state(), whole=False)
    rest = prefill(model, ids, None, chunk=32, start=Reading(stored.state, None, None))
    assert whole.logits is not None and rest.logits is not None
    assert np.array_equal(rest.logits, whole.logits)
    for part_name, array in whole.state.arrays().items():
        assert np.array_equal(np.array(rest.state.arrays()[part_name]), np.array(array)), part_name


def test_nothing_is_begun_ahead_where_keys_and_values_are_written_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", "reference")
    model, begun = hybrid("granite"), []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda piece: begun.append(piece.shape[1]) or embed(piece))
    told = []

    def tell(progress: Progress) -> None:
        told.append(progress.done)
        assert len(begun) == len(told)

    prefill(model, np.arange(100, dtype=np.uint32) % 40, None, chunk=32, on_progress=tell)
    assert told == [32, 64, 96, 100]


def test_decimamba_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "granite", "granite")
    with pytest.raises(UsageError, match="pure Mamba"):
        lm.load(folder, filter="decimamba")


def test_the_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from longmamba_mlx.cli.app import app

    folder = write_folder(tmp_path / "nemotron", "nemotron_h")
    (tmp_path / "t.txt").write_text(TEXT)
    command = [
        "ask",
        "--model",
        str(folder),
        "--file",
        str(tmp_path / "t.txt"),
        "--json",
        "--max-tokens",
        "4",
        QUESTION,
    ]
    answers = []
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout)["answer"])
        said = result.stderr
    assert answers[0] == answers[1] and "Reopened" in said


WIDE = {
    "granite-experts": {"hidden_size": 64, "intermediate_size": 32, "shared_intermediate_size": 64},
    "nemotron_h-experts": {"hidden_size": 64, "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 64},
    "falcon_h1": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "mamba_d_ssm": 64,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
    },
    "bamba": {"hidden_size": 64, "intermediate_size": 64},
    "jamba": {"hidden_size": 64, "intermediate_size": 32, "mamba_dt_rank": 32},
    "zamba2": {"hidden_size": 64, "intermediate_size": 64, "n_mamba_heads": 8},
    "plamo2": {"hidden_size": 64, "intermediate_size": 64, "mamba_num_heads": 8},
    "phi4flash": {"hidden_size": 64, "intermediate_size": 64},
}
ENTRIES = {"plamo2": "qkv_proj", "phi4flash": "Wqkv"}


@pytest.mark.parametrize("name", WIDE)
def test_quantised_folders(name: str, tmp_path: Path) -> None:
    changes = {"vocab_size": 96, **WIDE[name]}
    model = hybrid(name, **changes)
    source = write_source(tmp_path / "source", name, model, changes)
    whole = load_model(lm.convert(source, tmp_path / "whole"))
    folder = lm.convert(source, tmp_path / "q", quantize=True, q_bits=8, q_group_size=32)
    rough = load_model(folder)
    assert (whole.quantisation, rough.quantisation) == ("none", "q8-g32")
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    quantised = {key.removesuffix(".scales") for key in weights if key.endswith(".scales")}
    for part in (ENTRIES.get(name, "q_proj"), "in_proj", *(["switch_mlp"] if whole.config.parts.experts else [])):
        assert any(part in path for path in quantised), part
    ids = mx.array(np.random.default_rng(1).integers(0, 96, (1, 30)))
    expected, got = (np.array(m.model.head(m.model(ids)[0])) for m in (whole, rough))
    # Rounding may send a token to other experts: most tokens stay where they were.
    close = np.median(np.abs(got - expected).max(-1)) / expected.std()
    assert close < 0.5, close


def write_source(folder: Path, name: str, model: LanguageModel, changes: dict[str, object]) -> Path:
    from mlx.utils import tree_flatten

    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (folder / "config.json").write_text(json.dumps(raw_config(name, **changes)))
    return folder


@pytest.mark.parametrize("name", ["granite-experts", "falcon_h1"])
def test_mlx_lm_reads_a_quantised_folder(name: str, tmp_path: Path) -> None:
    from mlx_lm.utils import load_model as load_theirs

    changes = {"vocab_size": 96, "mamba_rms_norm": False, **FILLED, **WIDE[name]}
    model = hybrid(name, **changes)
    folder = lm.convert(
        write_source(tmp_path / "source", name, model, changes),
        tmp_path / "q",
        quantize=True,
        q_bits=4,
        q_group_size=32,
    )
    ids = mx.array(np.random.default_rng(1).integers(0, 96, (1, 30)))
    ours = load_model(folder).model
    theirs, _ = load_theirs(folder)
    expected = np.array(ours.head(ours(ids)[0]))
    assert np.abs(np.array(theirs(ids).astype(mx.float32)) - expected).max() < 1e-3 * np.abs(expected).max()


# Keys that transformers writes and mlx-lm asks for.
FILLED: dict[str, object] = {
    "tie_word_embeddings": False, "attention_bias": False, "mamba_proj_bias": False, "mamba_conv_bias": True,
    "max_position_embeddings": 64, "mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_d_head": 16, "rms_norm_eps": 1e-5,
}  # fmt: skip
