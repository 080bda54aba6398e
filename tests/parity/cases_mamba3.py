"""Mamba-3: SISO and MIMO, in mamba_ssm's own dialect."""

from __future__ import annotations

from tests.parity.cases import Case

_SMALL = {"d_model": 32, "n_layer": 3, "vocab_size": 40}


def _ssm(**options: object) -> dict[str, object]:
    return {"ssm_cfg": {"layer": "Mamba3", "d_state": 16, "headdim": 8, "chunk_size": 16, **options}}


CASES = [
    Case("mamba3-siso", "mamba3", _SMALL | _ssm()),
    Case(
        "mamba3-siso-norm-groups-mlp", "mamba3",
        _SMALL | {"d_intermediate": 96, "tie_embeddings": False}
        | _ssm(is_outproj_norm=True, ngroups=2, rope_fraction=1.0, expand=3, A_floor=0.4),
    ),
    Case("mamba3-mimo", "mamba3", _SMALL | {"d_intermediate": 64} | _ssm(is_mimo=True)),
    Case(
        "mamba3-mimo-norm-groups", "mamba3",
        _SMALL | {"tie_embeddings": False, "vocab_size": 39}
        | _ssm(is_mimo=True, mimo_rank=3, is_outproj_norm=True, ngroups=4, rope_fraction=1.0, d_state=8),
    ),
]  # fmt: skip
