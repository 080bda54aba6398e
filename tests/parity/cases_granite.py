"""Granite 4 hybrids: with experts and dense, without and with rotary positions."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "shared_intermediate_size": 24, "intermediate_size": 24, "mamba_n_heads": 8, "mamba_d_state": 8,
    "mamba_chunk_size": 32, "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "attention_multiplier": 0.3, "embedding_multiplier": 2.5, "residual_multiplier": 0.44, "logits_scaling": 0.8,
}  # fmt: skip
_EXPERTS = _SMALL | {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 16}
_DENSE = _SMALL | {"num_local_experts": 0}

CASES = [
    Case("granite-experts", "granitemoehybrid", _EXPERTS),
    Case(
        "granite-experts-rope-groups", "granitemoehybrid",
        _EXPERTS | {"position_embedding_type": "rope", "mamba_n_groups": 4, "num_experts_per_tok": 3,
                    "tie_word_embeddings": True, "num_key_value_heads": 4, "logits_scaling": 1.3},
    ),
    Case("granite-dense-tied", "granitemoehybrid", _DENSE | {"tie_word_embeddings": True}),
    Case(
        "granite-dense-rope-biases", "granitemoehybrid",
        _DENSE | {"position_embedding_type": "rope", "attention_bias": True, "mamba_proj_bias": True,
                  "mamba_conv_bias": False, "rms_norm_eps": 1e-3, "num_key_value_heads": 1,
                  "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}},
    ),
    Case(
        "granite-dense-limits", "granitemoehybrid", _DENSE | {"time_step_limit": [0.002, 0.1]},
        note="The reference clamps the step size in prefill only: its own decoding drifts from its one pass.",
    ),
]  # fmt: skip
