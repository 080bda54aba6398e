"""Every family as transformers saves it, converted: logits stay the reference's, and mlx-lm reads the folder."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.conversion import convert
from longmamba_mlx.conversion.names import stays_float32
from longmamba_mlx.models.config.parse import parse_config, read_json
from longmamba_mlx.models.loading import load_model
from tests.parity.comparing import TOLERANCE
from tests.parity.comparing import fixture as stored

# One of each family that mlx-lm computes rightly, and those it lacks or computes otherwise.
SAME_IN_MLX_LM = [
    "mamba",
    "falcon_mamba",
    "mamba2",
    "falcon_h1-factors-tied",
    "granite-experts",
    "jamba-dense",
    "nemotron_h",
]
OURS_ALONE = ["mamba2-codestral", "bamba", "zamba2-1.2b", "jamba-moe"]
TOKENS = 120


def converted(tmp_path: Path, name: str, **options: object) -> Path:
    fixture = stored(name)
    source = fixture.write_folder(tmp_path / "hf")
    return convert(source, tmp_path / "mlx", **options)  # type: ignore[arg-type]


def logits(model: object, ids: np.ndarray) -> np.ndarray:
    hidden, _ = model(mx.array(ids[None]))  # type: ignore[operator]
    return np.array(model.head(hidden))[0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", SAME_IN_MLX_LM + OURS_ALONE)
def test_logits_survive(tmp_path: Path, name: str) -> None:
    fixture = stored(name)
    folder = converted(tmp_path, name)
    read = fixture.positions < TOKENS
    ids, places = fixture.ids[:TOKENS].astype(np.int32), fixture.positions[read]
    ours = logits(load_model(folder).model, ids)[places]
    assert np.abs(ours - fixture.logits[read]).max() <= TOLERANCE
    written, source = parse_config(read_json(folder / "config.json")), parse_config(fixture.config)
    if not name.startswith("falcon_h1"):  # its factors are multiplied into the weights
        assert written == source
    if name in SAME_IN_MLX_LM:
        from mlx_lm.utils import load_model as load_theirs

        theirs, _ = load_theirs(folder)
        assert np.abs(np.array(theirs(mx.array(ids[None])))[0][places] - fixture.logits[read]).max() <= TOLERANCE


@pytest.mark.parametrize("name", SAME_IN_MLX_LM + OURS_ALONE)
def test_half_precision_leaves_steps_decays_and_norms_alone(tmp_path: Path, name: str) -> None:
    folder = converted(tmp_path, name, dtype="bfloat16")
    decisive = (
        "A_log",
        ".D",
        "dt_bias",
        "dt_proj.weight",
        "dt_proj.bias",
        "norm.weight",
        "norm_f.weight",
        "layernorm.weight",
    )
    for key, array in mx.load(str(folder / "model.safetensors")).items():
        small = key.endswith(decisive) or "e_score_correction" in key
        assert (array.dtype == mx.float32) == small == stays_float32(key), key
    assert np.isfinite(logits(load_model(folder).model, np.arange(20, dtype=np.int32))).all()


def test_a_hybrids_config_is_carried_over_without_what_runs_code(tmp_path: Path) -> None:
    import json

    fixture = stored("falcon_h1")
    source = fixture.write_folder(tmp_path / "hf")
    table = fixture.config | {
        "auto_map": {"AutoModel": "evil.Model"}, "custom_pipelines": {}, "model_file": "evil.py",
        "a_new_key": [1, {"x": 2}],
        "inner": {"auto_map": {}, "limit": "HUGE"}, "longmamba": {"training_length": 64},
    }  # fmt: skip
    (source / "config.json").write_text(json.dumps(table).replace('"HUGE"', "Infinity"))
    convert(source, tmp_path / "mlx", "float16")
    written = json.loads((tmp_path / "mlx" / "config.json").read_text())
    assert not {"auto_map", "custom_pipelines", "model_file"} & written.keys()
    assert written["a_new_key"] == [1, {"x": 2}] and written["inner"] == {"limit": {"__float__": "Infinity"}}
    assert written["longmamba"] == {"training_length": 64}
    kept = {key for key in fixture.config if "multiplier" not in key} - {"dtype", "torch_dtype"}
    assert {key: written[key] for key in kept} == {key: fixture.config[key] for key in kept}
    assert all(written[key] == "float16" for key in ("dtype", "torch_dtype") if key in written)


@pytest.mark.parametrize("name", ["falcon_mamba", "granite-experts", "jamba-dense"])
def test_quantised_folders_are_the_same_model_in_mlx_lm(tmp_path: Path, name: str) -> None:
    from mlx_lm.utils import load_model as load_theirs

    folder = converted(tmp_path, name, quantize=True, q_group_size=32)
    ids = np.arange(40, dtype=np.int32) % 30
    theirs, _ = load_theirs(folder)
    assert np.abs(np.array(theirs(mx.array(ids[None])))[0] - logits(load_model(folder).model, ids)).max() <= TOLERANCE


def test_factors_are_multiplied_into_float32_without_rounding(tmp_path: Path) -> None:
    source = stored("falcon_h1-factors-tied").write_folder(tmp_path / "hf")
    weights = {key: array.astype(mx.bfloat16) for key, array in mx.load(str(source / "model.safetensors")).items()}
    mx.eval(weights)
    mx.save_safetensors(str(source / "model.safetensors"), weights)
    convert(source, tmp_path / "mlx", "float32")
    ids = np.arange(60, dtype=np.int32) % 40
    as_it_is, converted_model = (load_model(folder).model for folder in (source, tmp_path / "mlx"))
    assert np.abs(logits(as_it_is, ids) - logits(converted_model, ids)).max() < 1e-5
