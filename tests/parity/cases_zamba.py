"""Zamba: Mamba-1 of several heads, and one shared block."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {
    "vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 6, "attn_layer_period": 2, "attn_layer_offset": 1,
    "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 40, "mamba_d_state": 8,
    "mamba_dt_rank": 3, "pad_token_id": None,
}  # fmt: skip

CASES = [
    Case("zamba", "zamba", _SMALL),
    Case(
        "zamba-heads-biases", "zamba",
        _SMALL | {"n_mamba_heads": 3, "num_key_value_heads": 2, "mamba_proj_bias": True, "mamba_conv_bias": False,
                  "rms_norm_eps": 1e-3, "hidden_act": "silu", "mamba_d_conv": 3},
    ),
]  # fmt: skip
