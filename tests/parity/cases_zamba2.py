"""Zamba2 in the layouts of its three sizes, with every option of the shared transformer block."""

from __future__ import annotations

from tests.parity.cases import Case

_PREFILL = (
    "The reference clamps step sizes at time_step_min in prefill and not in decoding, so its own decoding drifts from "
    "its one pass; the checkpoints' own code has no floor. A config that says time_step_limit (as those of the "
    "published models do, null) is taken at its word; one that does not is read as transformers 5 reads it, with the "
    "floor, here in decoding too."
)
_SMALL = {
    "vocab_size": 40, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 5, "num_attention_heads": 4,
    "n_mamba_heads": 6, "mamba_d_state": 8, "adapter_rank": 4, "chunk_size": 32,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "hybrid"],
}  # fmt: skip

CASES = [
    Case(
        "zamba2-1.2b", "zamba2",
        _SMALL | {"num_mem_blocks": 1, "use_mem_rope": True, "use_shared_attention_adapter": True, "mamba_ngroups": 1},
        note=_PREFILL,
    ),
    Case("zamba2-2.7b", "zamba2", _SMALL | {"num_mem_blocks": 2, "mamba_ngroups": 1}, note=_PREFILL),
    Case(
        "zamba2-7b", "zamba2", _SMALL | {"num_mem_blocks": 2, "mamba_ngroups": 2, "use_mem_rope": True}, note=_PREFILL,
    ),
    Case(
        "zamba2-long-untied", "zamba2",
        _SMALL | {"num_mem_blocks": 2, "use_mem_rope": True, "use_long_context": True, "tie_word_embeddings": False,
                  "use_shared_attention_adapter": True, "rms_norm_eps": 1e-3,
                  "rope_parameters": {"rope_type": "default", "rope_theta": 80000.0}},
        note=_PREFILL,
    ),
    Case(
        "zamba2-no-floor-biases", "zamba2",
        _SMALL | {"num_mem_blocks": 1, "add_bias_linear": True, "mamba_ngroups": 3, "hidden_act": "silu",
                  "time_step_limit": None, "time_step_min": 1e-30},
        note="time_step_limit is null, as in the published configs: no floor. The reference is given one of 1e-30.",
    ),
]  # fmt: skip
