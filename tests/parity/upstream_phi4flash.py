"""Phi-4-mini-flash's side of a fixture: the reference in torch that NVIDIA holds its own implementation to.

Its publisher's `modeling_phi4flash.py` wants an NVIDIA GPU for attention and scan. TensorRT-LLM's tests have the same
model in plain torch. The checkout is named by an environment variable, and nothing of it is installed:

    TENSORRT_LLM_CHECKOUT   https://github.com/NVIDIA/TensorRT-LLM (462587c was used)
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F

from tests.parity.cases import Case
from tests.parity.reference import Filtering
from tests.parity.upstream import UpstreamReference, module_of

_MODEL = "tensorrt_llm/_torch/auto_deploy/models/custom/modeling_phi4flash.py"
_TESTS = "tests/unittest/auto_deploy/singlegpu/models/test_phi4flash_modeling.py"
_STOOD_IN = (
    "tensorrt_llm", "tensorrt_llm._torch", "tensorrt_llm._torch.auto_deploy", "tensorrt_llm._torch.auto_deploy.export",
    "tensorrt_llm._torch.auto_deploy.models", "tensorrt_llm._torch.auto_deploy.models.hf",
    "tensorrt_llm._torch.auto_deploy.models.custom", "tensorrt_llm._torch.auto_deploy.utils",
    "tensorrt_llm._torch.auto_deploy.utils._graph",
)  # fmt: skip


class Phi4FlashReference(UpstreamReference):
    """A random Phi-4-mini-flash. It has no decoding of its own."""

    def __init__(self, case: Case) -> None:
        checkout = Path(os.environ["TENSORRT_LLM_CHECKOUT"])
        for name in _STOOD_IN:
            sys.modules[name] = MagicMock(name=name)
        model = module_of(checkout / _MODEL)
        sys.modules["tensorrt_llm._torch.auto_deploy.models.custom.modeling_phi4flash"] = model
        self.code = module_of(checkout / _TESTS)
        torch.manual_seed(0)
        config = model.Phi4FlashConfig(**case.options)
        tied = {"tie_embeddings": config.tie_word_embeddings}
        super().__init__(case, self.code.RefPhi4FlashForCausalLM(config), {**case.options, **tied})

    def saved(self) -> tuple[str, dict[str, np.ndarray]]:
        config, tensors = super().saved()
        own = {"model_type": "phi4flash", **json.loads(config)}
        del own["tie_embeddings"]
        return json.dumps(own, indent=4), tensors

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        logits: np.ndarray = self.model(torch.tensor(self.ids)[None], None)[0].numpy()
        return logits

    def decoded(self) -> np.ndarray:
        """There is none: the difference is 0."""
        return self.logits()

    def filtered(self) -> tuple[np.ndarray, dict[int, np.ndarray], float]:
        scanned = [i for i, layer in enumerate(self.model.model.layers) if hasattr(layer.attn, "A_log")]
        chosen, order = Filtering(self.rng, unfiltered=scanned[-1]), iter(scanned)
        with self.with_steps_of(chosen, order):
            logits = self.logits()
        return logits, chosen.thresholds, chosen.zeroed / max(chosen.seen, 1)

    @contextlib.contextmanager
    def with_steps_of(self, chosen: Filtering, order: Iterator[int]) -> Iterator[None]:  # type: ignore[override]
        """Within, each layer's scan is given filtered step sizes, of which it takes no softplus."""
        scan, functions = self.code._hf_phi4flash_ssm_prefill, self.code.F

        def run(*, dt: torch.Tensor, dt_bias: torch.Tensor, **others: Any) -> Any:
            chosen.layer = next(order)
            steps = chosen.steps(dt.float() + dt_bias.float(), (0.0, float("inf")))
            return scan(dt=steps, dt_bias=torch.zeros_like(dt_bias), **others)

        self.code._hf_phi4flash_ssm_prefill = run
        self.code.F = SimpleNamespace(
            softplus=lambda x: x, silu=F.silu, scaled_dot_product_attention=F.scaled_dot_product_attention
        )
        try:
            yield
        finally:
            self.code._hf_phi4flash_ssm_prefill, self.code.F = scan, functions
