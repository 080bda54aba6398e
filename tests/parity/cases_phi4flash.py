"""Phi-4-mini-flash: Mamba-1 and attention in windows, then layers that share one scan's output and one KV cache."""

from __future__ import annotations

from tests.parity.cases import Case

_NOTE = "The reference has no decoding."
_SMALL = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 4, "mamba_d_state": 6, "sliding_window": 30, "max_position_embeddings": 512,
}  # fmt: skip

CASES = [
    Case("phi4flash", "phi4flash", _SMALL, note=_NOTE),
    Case(
        "phi4flash-groups-biases-untied", "phi4flash",
        _SMALL
        | {"hidden_size": 24, "num_key_value_heads": 2, "sliding_window": 7, "mamba_proj_bias": True, "mlp_bias": True,
           "mamba_conv_bias": False, "mamba_d_conv": 3, "mamba_dt_rank": 3, "layer_norm_eps": 1e-3,
           "tie_word_embeddings": False, "intermediate_size": 16},
        note=_NOTE,
    ),
]  # fmt: skip
