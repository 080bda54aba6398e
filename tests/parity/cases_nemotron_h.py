"""Nemotron-H: Mamba-2, attention, squared-ReLU MLP or experts, each layer one of them."""

from __future__ import annotations

from tests.parity.cases import Case

_NOTE = (
    "transformers clamps step sizes at time_step_min in prefill and not in decoding, so with its default of 0.001 its "
    "own decoding drifts from its one pass. The checkpoints' own code clamps by time_step_limit, (0, infinity), which "
    "is what we do. Here the reference is given a time_step_min of 1e-30, which makes it agree with itself."
)
_SMALL = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "ssm_state_size": 8, "mamba_num_heads": 8, "mamba_head_dim": 6, "n_groups": 1, "chunk_size": 32,
    "time_step_min": 1e-30, "layers_block_type": [
        "linear_attention", "mlp", "full_attention", "linear_attention", "mlp",
    ],
}  # fmt: skip
_EXPERTS = _SMALL | {
    "layers_block_type": ["linear_attention", "moe", "full_attention", "linear_attention"], "n_routed_experts": 8,
    "num_experts_per_tok": 3, "moe_intermediate_size": 12, "moe_shared_expert_intermediate_size": 20,
}  # fmt: skip

CASES = [
    Case("nemotron_h", "nemotron_h", _SMALL, note=_NOTE),
    Case(
        "nemotron_h-groups-biases", "nemotron_h",
        _SMALL | {"n_groups": 4, "use_bias": True, "use_conv_bias": False, "mlp_bias": True, "attention_bias": True,
                  "tie_word_embeddings": True,
                  "layer_norm_epsilon": 1e-3, "num_key_value_heads": 4},
        note=_NOTE,
    ),
    Case(
        "nemotron_h-experts", "nemotron_h",
        _EXPERTS | {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7}, note=_NOTE,
    ),
    Case(
        "nemotron_h-experts-latent", "nemotron_h",
        _EXPERTS | {"moe_latent_size": 16, "norm_topk_prob": False, "n_groups": 2, "n_routed_experts": 6}, note=_NOTE,
    ),
]  # fmt: skip
