"""Falcon-H1: Mamba-2 beside attention in every layer, with factors everywhere."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "mamba_d_ssm": 48, "mamba_n_heads": 6, "mamba_d_head": 8, "mamba_n_groups": 1,
    "mamba_d_state": 8, "mamba_chunk_size": 32,
}  # fmt: skip
_FACTORS = {
    "embedding_multiplier": 2.6569, "lm_head_multiplier": 0.8390625, "key_multiplier": 0.390625,
    "attention_in_multiplier": 0.7, "attention_out_multiplier": 0.9375, "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.6357, "ssm_multipliers": [0.7071, 0.55, 0.7071, 1.3, 0.86],
    "mlp_multipliers": [0.88388, 0.5859375],
}  # fmt: skip
_LONG = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e11}}

CASES = [
    Case("falcon_h1", "falcon_h1", _SMALL),
    Case("falcon_h1-factors-tied", "falcon_h1", _SMALL | _FACTORS | _LONG | {"tie_word_embeddings": True}),
    Case(
        "falcon_h1-factors-biases", "falcon_h1",
        _SMALL | _FACTORS
        | {"attention_bias": True, "projectors_bias": True, "mamba_proj_bias": True, "mlp_bias": True, "head_dim": 10,
           "mamba_conv_bias": False, "rms_norm_eps": 1e-3, "num_key_value_heads": 1},
    ),
    Case(
        "falcon_h1-norm", "falcon_h1", _SMALL | {"mamba_rms_norm": True, "mamba_norm_before_gate": False},
    ),
    Case(
        "falcon_h1-norm-before-gate", "falcon_h1",
        _SMALL | {"mamba_rms_norm": True, "mamba_norm_before_gate": True, "mamba_d_conv": 3},
    ),
    Case(
        "falcon_h1-norm-groups", "falcon_h1",
        _SMALL | _FACTORS
        | {"mamba_rms_norm": True, "mamba_norm_before_gate": False, "mamba_n_groups": 2, "mamba_n_heads": 8,
           "mamba_d_head": 6, "num_key_value_heads": 4},
        note="The layout of Falcon-H1-34B: groups in the gated norm.",
    ),
]  # fmt: skip
