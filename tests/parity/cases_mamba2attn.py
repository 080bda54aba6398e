"""mamba_ssm's Mamba-2 with attention in some layers (mamba2attn-2.7b)."""

from __future__ import annotations

from tests.parity.cases import Case

_NOTE = "The reference decodes by kernels alone, which need an NVIDIA GPU: its decoding was not run."
_SMALL = {"d_model": 32, "n_layer": 4, "vocab_size": 40}
_SSM = {"ssm_cfg": {"layer": "Mamba2", "d_state": 8, "headdim": 8, "chunk_size": 28}}
_ATTENTION = {"causal": True, "num_heads": 4, "head_dim": 12, "qkv_proj_bias": False, "out_proj_bias": False}

CASES = [
    Case(
        "mamba2attn", "mamba2attn",
        _SMALL | _SSM | {"attn_layer_idx": [1, 2], "attn_cfg": _ATTENTION | {"d_conv": 4, "rotary_emb_dim": 8}},
        note=_NOTE,
    ),
    Case(
        "mamba2attn-biases-untied", "mamba2attn",
        _SMALL | _SSM
        | {"attn_layer_idx": [0, 3], "tie_embeddings": False,
           "attn_cfg": _ATTENTION | {"num_heads_kv": 2, "qkv_proj_bias": True, "out_proj_bias": True,
                                     "rotary_emb_dim": 12, "rotary_emb_base": 500.0}},
        note=_NOTE,
    ),
]  # fmt: skip
