"""Bamba: Mamba-2 or attention with half of each head turned, then a gated MLP."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_state": 8,
    "mamba_chunk_size": 32,
}  # fmt: skip

_NOTE = (
    "Unless it is given position_ids, as generate() gives them, the reference starts its positions at 0 again in each "
    "call: its own decoding drifts from its one pass."
)

CASES = [
    Case("bamba", "bamba", _SMALL, note=_NOTE),
    Case(
        "bamba-groups-biases-tied", "bamba",
        _SMALL | {"mamba_n_groups": 2, "attention_bias": True, "mlp_bias": True, "mamba_proj_bias": True,
                  "mamba_conv_bias": False, "tie_word_embeddings": True, "rms_norm_eps": 1e-3,
                  "attn_layer_indices": [0], "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
        note=_NOTE,
    ),
]  # fmt: skip
