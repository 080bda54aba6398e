"""The pure families: mamba (MambaByte included), falcon_mamba, mamba2 (Codestral's layout included)."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 8}
_MAMBA1 = _SMALL | {"time_step_rank": 3}
_MAMBA2 = _SMALL | {"num_heads": 8, "head_dim": 8, "chunk_size": 32}

_DECODE = "The reference clamps the step size in prefill only: its own decoding drifts from its one pass."

CASES = [
    Case("mamba", "mamba", _MAMBA1),
    Case(
        "mamba-eps-untied-biases", "mamba",
        _MAMBA1 | {"layer_norm_epsilon": 1e-6, "use_bias": True, "tie_word_embeddings": False, "conv_kernel": 3},
    ),
    Case("mamba-no-conv-bias", "mamba", _MAMBA1 | {"use_conv_bias": False, "expand": 3, "layer_norm_epsilon": 1e-3}),
    Case("mambabyte", "mamba", _MAMBA1 | {"vocab_size": 256, "num_hidden_layers": 2}, stride=6),
    Case("mambabyte-specials", "mamba", _MAMBA1 | {"vocab_size": 264, "num_hidden_layers": 2}, stride=6),
    Case("falcon_mamba", "falcon_mamba", _MAMBA1 | {"mixer_rms_eps": 1e-6}),
    Case(
        "falcon_mamba-untied-eps", "falcon_mamba",
        _MAMBA1 | {"mixer_rms_eps": 1e-3, "tie_word_embeddings": False, "use_bias": True, "time_step_rank": "auto"},
    ),
    Case("mamba2", "mamba2", _MAMBA2 | {"n_groups": 1, "tie_word_embeddings": True}),
    Case("mamba2-groups4-untied", "mamba2", _MAMBA2 | {"n_groups": 4}),
    Case(
        "mamba2-codestral", "mamba2",
        _MAMBA2 | {"n_groups": 8, "num_heads": 16, "head_dim": 4, "layer_norm_epsilon": 1e-3, "norm_before_gate": True},
        note="The layout of Codestral-Mamba: eight groups, untied; the key norm_before_gate has no effect there.",
    ),
    Case(
        "mamba2-limits", "mamba2", _MAMBA2 | {"n_groups": 1, "time_step_limit": [0.001, 0.1]}, note=_DECODE,
    ),
    Case(
        "mamba2-biases", "mamba2",
        _MAMBA2 | {"n_groups": 2, "use_bias": True, "use_conv_bias": False, "conv_kernel": 3, "expand": 4,
                   "num_heads": 16},
    ),
]  # fmt: skip
