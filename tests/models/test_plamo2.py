"""PLaMo-2: its config, its windows, and that mlx-lm reads its converted folder."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

import longmamba_mlx as lm
from longmamba_mlx.errors import ConfigError, StateError
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.models import FAMILIES
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.models.state import FIRST, ModelState
from tests.parity import comparing

CONFIG = {
    "model_type": "plamo2", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 6, "intermediate_size": 48,
    "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size_per_head": 8, "mamba_num_heads": 6,
    "attention_window_size": 20, "mamba_d_state": 8,
}  # fmt: skip
M, W, A = "mamba", "windowed", "attention"


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, (M, W, M, W, M, W)),
        ({"full_attention_idx": [3, 4]}, (M, W, M, A, M, W)),
        ({"mamba_step": 4, "num_hidden_layers": 7}, (M, M, W, M, M, M, W)),
        ({"mamba_step": 8, "num_hidden_layers": 3}, (M, M, W)),
    ],
)
def test_layers_follow_from_the_step(changes: dict[str, object], layers: tuple[str, ...]) -> None:
    assert parse_config(CONFIG | changes).parts.layers == layers


def test_sizes_come_from_the_file() -> None:
    config = parse_config(CONFIG)
    assert (config.d_inner, config.units, config.dt_rank, config.n_groups) == (48, 6, 64, 1)
    assert parse_config(CONFIG | {"hidden_size": 2048}).dt_rank == 128
    assert config.parts.attends.own_window == 21 and config.tie_embeddings and not config.use_conv_bias
    assert parse_config(CONFIG | {"rope_theta": 5e5}).parts.attends.rope.theta == 5e5


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, 20),
        ({"max_position_embeddings": 10 * 1024 * 1024}, 20),  # the publisher's code: any length
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "longmamba": {"training_length": 64}}, 64),
    ],
)
def test_the_training_length_is_no_made_up_number(changes: dict[str, object], length: int) -> None:
    assert parse_config(CONFIG | changes).training_length == length


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"full_attention_idx": [6]}, "full_attention_idx"),
        ({"full_attention_idx": 3}, "full_attention_idx"),
        ({"mamba_step": 1}, "mamba_step"),
        ({"mamba_enabled": False}, "mamba_enabled"),
        ({"attention_window_size": 0}, "attention_window_size"),
        ({"hidden_size_per_head": 7}, "head_dim"),
        ({"linear_type": "fp8"}, "linear_type"),
    ],
)
def test_wrong_configs_name_the_key(raw: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'"):
        parse_config(CONFIG | raw)


def test_memory_stays_the_same_however_long_the_text() -> None:
    model = comparing.model("plamo2")
    ids = np.resize(comparing.fixture("plamo2").ids, 130).astype(np.uint32)
    initial = model.initial_state()
    assert initial.nbytes_per_token == 0 and initial.attends and initial.window is None
    assert initial.own_windows == {1: 51, 3: 51}
    sizes = {prefill(model, ids[:count], None, chunk=37).state.nbytes for count in (51, 52, 130)}
    assert sizes == {initial.nbytes_after(10**9)}


def test_a_window_that_is_asked_for_bounds_full_attention_alone(tmp_path: Path) -> None:
    name = "plamo2-full-untied"
    folder = comparing.fixture(name).write_folder(tmp_path / "model")
    state = load_model(folder, attention_window=9).model.initial_state()
    windows = {
        i: (l.attention.window, l.attention.first) for i, l in enumerate(state.layers) if l.attention is not None
    }
    assert windows == {1: (6, 0), 4: (9, FIRST)} and (state.window, state.nbytes_per_token) == (9, 0)
    free = load_model(folder).model.initial_state()
    assert free.window is None and free.nbytes_per_token == 2 * 8 * 4


def test_arrays_and_back_need_the_windows() -> None:
    model = comparing.model("plamo2-full-untied")
    ids = mx.array(comparing.fixture("plamo2-full-untied").ids)[None]
    _, state = model(ids[:, :30])
    back = ModelState.from_arrays(state.arrays(), 30, model.config.n_layer, None, state.own_windows)
    assert mx.array_equal(model(ids[:, 30:40], state)[0], model(ids[:, 30:40], back)[0])
    for wrong in ({}, {1: 5}, {1: 6, 4: 6}):
        with pytest.raises(StateError):
            ModelState.from_arrays(state.arrays(), 30, model.config.n_layer, None, wrong)


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_a_filtered_token_changes_nothing(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
    model = comparing.model("plamo2", kernel)
    hidden = model.embed(mx.array(comparing.fixture("plamo2").ids[:50])[None])
    _, state = model.layer(0, hidden[:, :20], model.initial_state().layers[0])
    _, after, kept = model.layer(0, hidden[:, 20:], state, mx.full((model.config.units,), 1e6), return_kept=True)
    assert np.array_equal(np.array(after.ssm), np.array(state.ssm)) and not np.array(kept).any()


def test_mlx_lm_reads_the_converted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And computes the same within one window, once its scan has no limits."""
    from functools import partial

    from mlx_lm.models import plamo2
    from mlx_lm.utils import load_model as load_theirs

    stored = comparing.fixture("plamo2")
    folder = lm.convert(stored.write_folder(tmp_path / "source"), tmp_path / "mlx")
    theirs, _ = load_theirs(folder)
    ids = mx.array(stored.ids[:50])[None]
    assert not stored.compare(np.array(theirs(ids, theirs.make_cache())[0]), filtered=False).exact
    monkeypatch.setattr(plamo2, "ssm_update", partial(plamo2.ssm_update, time_step_limit=(0.0, float("inf"))))
    assert stored.compare(np.array(theirs(ids, theirs.make_cache())[0]), filtered=False).exact


def test_a_16_bit_folder_keeps_float32_where_it_matters(tmp_path: Path) -> None:
    stored = comparing.fixture("plamo2")
    folder = lm.convert(stored.write_folder(tmp_path / "source"), tmp_path / "mlx", dtype="bfloat16")
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    exact = {name.split(".", 3)[-1] for name, array in weights.items() if array.dtype == mx.float32}
    assert {"0.mixer.A_log", "0.mixer.dt_proj.weight", "0.mixer.B_norm_weight", "1.mixer.q_weight"} <= exact
    assert weights["model.layers.layers.0.mixer.in_proj.weight"].dtype == mx.bfloat16


def test_what_decides_step_sizes_stays_at_eight_bits() -> None:
    from longmamba_mlx.models.quantisation import step_layers

    model = FAMILIES["plamo2"](parse_config(CONFIG))
    assert {path.rsplit(".", 1)[-1] for path in step_layers(model)} == {"bcdt_proj", "dt_proj"}
