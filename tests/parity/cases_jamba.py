"""Jamba: Mamba-1 with weighted norms on dt, B and C, attention without positions, dense and sparse MLPs."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "mamba_d_state": 8, "mamba_dt_rank": 3, "attn_layer_period": 4, "attn_layer_offset": 2,
}  # fmt: skip
_MOE = _SMALL | {"intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}

CASES = [
    Case("jamba-dense", "jamba", _SMALL | {"num_experts": 1}),
    Case(
        "jamba-dense-tied-biases", "jamba",
        _SMALL | {"num_experts": 1, "tie_word_embeddings": True, "mamba_proj_bias": True, "mamba_conv_bias": False,
                  "rms_norm_eps": 1e-3, "num_key_value_heads": 4, "mamba_dt_rank": "auto"},
    ),
    Case("jamba-moe", "jamba", _MOE),
    Case(
        "jamba-moe-period3", "jamba",
        _MOE | {"expert_layer_period": 3, "expert_layer_offset": 0, "attn_layer_period": 3, "attn_layer_offset": 1,
                "num_experts": 5, "num_experts_per_tok": 3, "num_key_value_heads": 1},
    ),
    Case("jamba-moe-period4", "jamba", _MOE | {"expert_layer_period": 4, "num_experts_per_tok": 1}),
]  # fmt: skip
