"""Print the parity table of docs/models.md, measured now: python -m tests.parity.table [name ...]"""

from __future__ import annotations

import json
import sys

from tests.parity import comparing
from tests.parity.cases import all_cases

CHUNKS = (1, 77, 512)
# Sizes that keep the fixtures small and change no formula.
_SIZES = frozenset(
    (
        "adapter_rank attn_layer_indices chunk_size conv_kernel expand head_dim hidden_size hybrid_override_pattern "
        "intermediate_size layer_types layers_block_type mamba_chunk_size mamba_d_conv mamba_d_head mamba_d_ssm "
        "mamba_d_state mamba_dt_rank mamba_expand mamba_head_dim mamba_n_heads mamba_num_heads moe_intermediate_size "
        "moe_shared_expert_intermediate_size n_mamba_heads num_attention_heads num_heads num_hidden_layers "
        "num_key_value_heads shared_intermediate_size ssm_state_size state_size time_step_rank vocab_size"
    ).split()
)


def options_of(name: str) -> str:
    """The options of a case that change the maths, on one line."""
    shown: dict[str, str] = {}
    for key, value in json.loads(comparing.fixture(name).about["options"]).items():
        if key.endswith(("multiplier", "multipliers", "scaling")) and not key.startswith("routed"):
            shown["multipliers"] = "multipliers"
        elif key == "rope_parameters":
            shown[key] = f"rope_theta {value['rope_theta']:g}"
        elif isinstance(value, bool):
            shown[key] = key if value else f"no {key.removeprefix('use_')}"
        elif key not in _SIZES:
            shown[key] = f"{key} {json.dumps(value)}"
    return ", ".join(shown.values())


def row(name: str) -> str:
    """One line: the worst of all ways of cutting the text up."""
    runs = {on: [comparing.run(name, chunk, on, short=False) for chunk in CHUNKS] for on in (False, True)}
    worst = {on: max(parity.max_abs for parity in found) for on, found in runs.items()}
    same = min(parity.argmax_same for found in runs.values() for parity in found)
    drift = float(comparing.fixture(name).about["decode_drift"])
    return f"| {name} | {options_of(name)} | {worst[False]:.1e} | {worst[True]:.1e} | {same:.1%} | {drift:.1e} |"


def main(names: list[str]) -> None:
    print("| case | options | filter off | filter on | argmax same | reference's own decoding |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names or [name for name in all_cases() if name in comparing.names()]:
        print(row(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
