"""Llamba: its config, and what the filter does to a write that no step multiplies."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import ConfigError
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.families.llamba import DiscreteMamba2Mixer
from tests.parity import comparing

SSM = {"d_state": 8, "n_v_heads": 4, "n_qk_heads": 2}
CONFIG = {"model_type": "llamba", "vocab_size": 39, "d_model": 32, "n_layer": 2, "ssm_cfg": SSM, "mlp_cfg": {}}


def test_the_config_is_known_without_a_model_type() -> None:
    config = parse_config({key: value for key, value in CONFIG.items() if key != "model_type"})
    assert config == parse_config(CONFIG) and config.model_type == "llamba"
    assert (config.vocab_size, config.d_inner, config.headdim, config.n_groups) == (40, 32, 8, 2)
    assert config.parts.d_ff == 14336 and not config.parts.conv_activation


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (CONFIG | {"ssm_cfg": SSM | {"n_v_heads": 5}}, "ssm_cfg.n_v_heads"),
        (CONFIG | {"ssm_cfg": SSM | {"n_qk_heads": 3}}, "n_groups"),
        (CONFIG | {"ssm_cfg": SSM | {"activation": "relu"}}, "ssm_cfg.activation"),
        (CONFIG | {"mlp_cfg": {"act_fn": "gelu"}}, "mlp_cfg.act_fn"),
        (CONFIG | {"lm_head_bias": True}, "lm_head_bias"),
    ],
)
def test_wrong_configs_name_the_key(raw: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"'{key}'"):
        parse_config(raw)


@pytest.mark.parametrize("kernel", ["auto", "reference"])
def test_a_filtered_token_writes_nothing(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGMAMBA_KERNEL", kernel)
    model = comparing.model("llamba", kernel)
    hidden = model.embed(mx.array(comparing.fixture("llamba").ids[:50])[None])
    _, state = model.layer(0, hidden[:, :20], model.initial_state().layers[0])
    units = model.config.units
    _, after, kept = model.layer(0, hidden[:, 20:], state, mx.full((units,), 1e6), return_kept=True)
    assert np.array_equal(np.array(after.ssm), np.array(state.ssm)) and not np.array(kept).any()
    _, after = model.layer(0, hidden[:, 20:], state, mx.full((units,), -math.inf))
    assert not np.array_equal(np.array(after.ssm), np.array(state.ssm))


def test_steps_too_small_for_float32_still_write() -> None:
    """softplus(-200) is 0 in float32: the decay is 1, and the write is B x all the same."""
    config = parse_config(CONFIG)
    mixer = DiscreteMamba2Mixer(config)
    rows = [mx.ones((config.conv_dim, 32)), mx.zeros((config.d_inner, 32)), mx.full((config.n_heads, 32), -200.0)]
    mixer.in_proj.weight = mx.concatenate(rows)
    mixer.conv1d.weight = mx.broadcast_to(mx.array([0.0, 0.0, 0.0, 1.0])[:, None], (config.conv_dim, 4, 1))
    hidden = mx.concatenate([mx.ones((1, 2, 1)), mx.zeros((1, 2, 31))], axis=-1)  # x = B = C = 1, raw = -200
    _, state, _ = mixer.mix(hidden, mixer.initial(1), None, False)
    np.testing.assert_allclose(np.array(state.ssm), 2.0, rtol=1e-5)
