"""Llamba: discrete Mamba-2 with Llama's MLPs."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {"vocab_size": 40, "d_model": 32, "n_layer": 3}
_MLP = {"intermediate_size": 48, "bias": False, "act_fn": "silu"}
_SSM = {
    "d_state": 8, "n_v_heads": 4, "n_qk_heads": 4, "expand": 1, "chunk_size": 32, "activation": "identity",
    "bias": False,
}  # fmt: skip

CASES = [
    Case("llamba", "llamba", _SMALL | {"tie_embeddings": True, "mlp_cfg": _MLP, "ssm_cfg": _SSM}),
    Case(
        "llamba-groups-biases-untied", "llamba",
        _SMALL
        | {"norm_epsilon": 1e-3, "mlp_cfg": _MLP | {"bias": True}}
        | {"ssm_cfg": _SSM | {"n_v_heads": 8, "n_qk_heads": 2, "expand": 2, "bias": True, "activation": "silu",
                              "conv_bias": False, "d_conv": 3}},
    ),
]  # fmt: skip
