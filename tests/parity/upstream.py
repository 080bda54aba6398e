"""The reference's side of a fixture where transformers does not have the family: the publisher's own code, in torch.

Needs torch, einops and checkouts of the publishers' repositories, named by environment variables; nothing of them is
compiled or installed. Their kernels need an NVIDIA GPU: reference functions of the same repositories stand in for them,
on a stand-in for triton.

    MAMBA_SSM_CHECKOUT   https://github.com/state-spaces/mamba (e9594ce, 23 July 2026, was used)
    EDGE_CHECKOUT        https://github.com/cartesia-ai/edge (95d8276)
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import sys
import types
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch

from tests.parity.cases import DECODE, PREFILL, Case
from tests.parity.reference import Filtering, draw_weights

_STOOD_IN = (
    "triton", "triton.language", "triton.testing", "selective_scan_cuda", "causal_conv1d_cuda",
    "mamba_ssm.ops.triton.mamba3.mamba3_siso_combined", "mamba_ssm.ops.triton.mamba3.mamba3_siso_step",
    "mamba_ssm.modules.mamba_simple",
    "mamba_ssm.utils.generation", "mamba_ssm.utils.hf",
)  # fmt: skip


@functools.cache
def mamba_ssm() -> Path:
    """Make mamba_ssm importable from its checkout, which is returned."""
    checkout = Path(os.environ["MAMBA_SSM_CHECKOUT"])
    for name in _STOOD_IN:
        sys.modules[name] = MagicMock(name=name)
    _stand_in_for_triton(sys.modules["triton"])
    sys.modules["mamba_ssm.utils.generation"].GenerationMixin = type("GenerationMixin", (), {})
    package("mamba_ssm", checkout / "mamba_ssm")
    gated = importlib.import_module("mamba_ssm.ops.triton.layernorm_gated")
    norms = importlib.import_module("mamba_ssm.ops.triton.layer_norm")
    gated.RMSNorm.forward = lambda norm, x, z=None: gated.rms_norm_ref(
        x, norm.weight, None, z, norm.eps, norm.group_size, norm.norm_before_gate
    )
    norms.RMSNorm.forward = lambda norm, x: norms.rms_norm_ref(x, norm.weight, None, eps=norm.eps, upcast=True)
    return checkout


def _stand_in_for_triton(triton: Any) -> None:
    """What modules with kernels ask of triton when they are imported."""
    config = MagicMock(num_warps=4, kwargs=defaultdict(lambda: 16))
    kernel = MagicMock(configs=[config])
    triton.__version__ = "3.5.0"
    triton.Config = MagicMock(return_value=config)
    triton.jit = lambda function: kernel
    triton.autotune = triton.heuristics = lambda *_, **__: lambda function: kernel


def package(name: str, folder: Path) -> None:
    """Make a package importable without its __init__, which wants kernels."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)]
    sys.modules[name] = module


def module_of(path: Path) -> Any:
    """A file as a module."""
    spec = importlib.util.spec_from_file_location(f"upstream_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class UpstreamReference:
    """As `reference.Reference`, for a publisher's language model with `backbone.layers` and a `mixer` in each."""

    def __init__(self, case: Case, model: Any, config: dict[str, object]) -> None:
        self.rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        self.model, self.config = model.eval(), dict(config)
        draw_weights(model, self.rng, tied=bool(config["tie_embeddings"]))
        self.ids = self.rng.integers(0, int(str(config["vocab_size"])), PREFILL + DECODE)

    def saved(self) -> tuple[str, dict[str, np.ndarray]]:
        """config.json and the tensors as upstream saves them, a tied head once."""
        tensors = {name: array.numpy() for name, array in self.model.state_dict().items()}
        if self.config["tie_embeddings"]:
            tensors.pop("lm_head.weight", None)
        return json.dumps(self.config, indent=4), tensors

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        """(tokens, vocab) of one pass over everything."""
        return self.model(torch.tensor(self.ids)[None]).logits[0].numpy()

    def decoded(self) -> np.ndarray:
        """The same through the recurrence."""
        with self.in_steps():
            return self.logits()

    def filtered(self) -> tuple[np.ndarray, dict[int, np.ndarray], float]:
        """One pass with the filter on in the prefill; the thresholds by layer; the share of step sizes zeroed."""
        layers = self.model.backbone.layers
        chosen = Filtering(self.rng, unfiltered=len(layers) - 1)
        hooks = [
            layer.mixer.register_forward_pre_hook(lambda *_, index=index: setattr(chosen, "layer", index))
            for index, layer in enumerate(layers)
        ]
        with self.with_steps_of(chosen):
            logits = self.logits()
        for hook in hooks:
            hook.remove()
        return logits, chosen.thresholds, chosen.zeroed / max(chosen.seen, 1)

    def in_steps(self) -> contextlib.AbstractContextManager[None]:
        """Within, scans run token by token."""
        raise NotImplementedError

    def with_steps_of(self, chosen: Filtering) -> contextlib.AbstractContextManager[None]:
        """Within, scans run on filtered step sizes."""
        raise NotImplementedError
