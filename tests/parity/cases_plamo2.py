"""PLaMo-2: Mamba-2 whose B, C and dt are projected from x, between attention in windows."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {
    "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 4, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "hidden_size_per_head": 8, "mamba_num_heads": 6, "mamba_d_state": 8,
}  # fmt: skip

CASES = [
    Case("plamo2", "plamo2", _SMALL | {"attention_window_size": 50, "max_position_embeddings": 10 << 20}),
    Case(
        "plamo2-full-untied", "plamo2",
        _SMALL
        | {"attention_window_size": 5, "mamba_step": 3, "num_hidden_layers": 6, "full_attention_idx": [4],
           "num_key_value_heads": 1, "mamba_d_conv": 3, "rms_norm_eps": 1e-3, "tie_word_embeddings": False,
           "vocab_size": 41},
    ),
]  # fmt: skip
