"""Make the parity fixtures anew (needs torch and transformers): python -m tests.parity.make_fixtures [name ...]

One safetensors file for each case, at most 300 KB: the model as transformers saves it (config.json in the metadata,
tensors under "weights/", in float16, which holds the drawn values exactly), the text, the reference's logits with the
filter off and on, and the thresholds.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from tests.parity.cases import PREFILL, Case, all_cases
from tests.parity.comparing import FIXTURES
from tests.parity.reference import Reference

MAX_BYTES = 300_000


def make(case: Case) -> str:
    """Write one fixture; a line about it. Raises ValueError when it is too large or the model is dull."""
    reference = _reference(case)
    config, weights = reference.saved()
    plain, decoded = reference.logits(), reference.decoded()
    filtered, thresholds, zeroed = reference.filtered()
    drift = float(np.abs(plain - decoded)[PREFILL:].max())
    positions = np.arange(0, len(plain), case.stride)
    arrays = {f"weights/{name}": array.astype(np.float16) for name, array in weights.items()}
    arrays |= {f"thresholds/{index}": row for index, row in thresholds.items()}
    arrays |= {
        "ids": reference.ids.astype(np.int32),
        "positions": positions.astype(np.int32),
        "logits": plain[positions].astype(np.float32),
        "logits_filtered": filtered[positions].astype(np.float32),
    }
    about = {
        "case": case.name,
        "note": case.note,
        "options": json.dumps(case.options),
        "config": config,
        "made_with": f"{_library(case)}, torch {torch.__version__}",
        "decode_drift": f"{drift:.3g}",
        "zeroed": f"{zeroed:.3f}",
        "logits_std": f"{plain.std():.3f}",
    }
    moved = float(np.abs(plain - filtered).max())
    if not (0.4 < plain.std() < 2.5 and 0.1 < zeroed < 0.9 and moved > 0.05):
        raise ValueError(f"{case.name}: logits of std {plain.std():.2f}, {zeroed:.0%} zeroed, moved by {moved:.3f}")
    path = FIXTURES / f"{case.name}.safetensors"
    # As one value: the order of several is another in each run, and the file should not be.
    save_file(arrays, path, metadata={"about": json.dumps(about, indent=1)})
    path.chmod(0o644)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    return (
        f"{case.name}: {path.stat().st_size} bytes, logits std {plain.std():.2f}, decode drift {drift:.2g}, "
        f"{zeroed:.0%} of step sizes zeroed, which moves logits by {moved:.2f}"
    )


_MAMBA_SSM = "state-spaces/mamba e9594ce"


def _reference(case: Case) -> Any:
    """Transformers' model of a case, or the publisher's of a family that transformers does not have."""
    if case.model_type == "mamba3":
        from tests.parity.upstream_mamba3 import Mamba3Reference

        return Mamba3Reference(case)
    if case.model_type == "llamba":
        from tests.parity.upstream_llamba import LlambaReference

        return LlambaReference(case)
    if case.model_type == "mamba2attn":
        from tests.parity.upstream_mamba2attn import Mamba2AttnReference

        return Mamba2AttnReference(case)
    if case.model_type == "plamo2":
        from tests.parity.upstream_plamo2 import Plamo2Reference

        return Plamo2Reference(case)
    if case.model_type == "phi4flash":
        from tests.parity.upstream_phi4flash import Phi4FlashReference

        return Phi4FlashReference(case)
    return Reference(case)


_LIBRARIES = {
    "mamba2attn": _MAMBA_SSM,
    "mamba3": _MAMBA_SSM,
    "llamba": "cartesia-ai/edge 95d8276",
    "plamo2": f"mlx-lm {version('mlx-lm')}",
    "phi4flash": "NVIDIA/TensorRT-LLM 462587c",
}


def _library(case: Case) -> str:
    return _LIBRARIES.get(case.model_type, f"transformers {transformers.__version__}")


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    FIXTURES.mkdir(exist_ok=True)
    cases = all_cases()
    for name in names or list(cases):
        print(make(cases[name]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
