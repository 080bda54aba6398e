"""The reference's side of a Mamba-3 fixture: state-spaces/mamba's own modules and the reference functions of its tests.

Needs torch, einops and a checkout of https://github.com/state-spaces/mamba (e9594ce, 23 July 2026, was used), which
the environment variable MAMBA_SSM_CHECKOUT names; nothing of it is compiled or installed. Its kernels need an NVIDIA
GPU: in their place stand the functions its tests compare them with, on a stand-in for triton.

The filter is written here a second time: a filtered token is one step of the recurrence with a step size of zero, after
which the key and value before it are put back.
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
from collections.abc import Iterator
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
    "mamba_ssm.modules.mamba_simple", "mamba_ssm.modules.mamba2", "mamba_ssm.modules.mha",
    "mamba_ssm.utils.generation", "mamba_ssm.utils.hf",
)  # fmt: skip
_CHUNK = 16


class Upstream:
    """The parts of a checkout that are run, and which of its two references stands in for the kernels.

    `in_steps`: the recurrence token by token, which knows the filter; else the one pass over blocks.
    """

    def __init__(self, checkout: Path) -> None:
        for name in _STOOD_IN:
            sys.modules[name] = MagicMock(name=name)
        sys.modules["triton"].__version__ = "3.5.0"
        sys.modules["triton"].Config = MagicMock(return_value=MagicMock(num_warps=4))
        sys.modules["mamba_ssm.utils.generation"].GenerationMixin = object
        package = types.ModuleType("mamba_ssm")
        package.__path__ = [str(checkout / "mamba_ssm")]  # without its __init__, which wants the kernels
        sys.modules["mamba_ssm"] = package
        gated = importlib.import_module("mamba_ssm.ops.triton.layernorm_gated")
        norms = importlib.import_module("mamba_ssm.ops.triton.layer_norm")
        gated.RMSNorm.forward = lambda norm, x, z=None: gated.rms_norm_ref(
            x, norm.weight, None, z, norm.eps, norm.group_size, norm.norm_before_gate
        )
        norms.RMSNorm.forward = lambda norm, x: norms.rms_norm_ref(x, norm.weight, None, eps=norm.eps, upcast=True)
        self.mixer = importlib.import_module("mamba_ssm.modules.mamba3")
        self.models = importlib.import_module("mamba_ssm.models.mixer_seq_simple")
        self.config = importlib.import_module("mamba_ssm.models.config_mamba").MambaConfig
        self.siso = _file(checkout / "tests/ops/triton/test_mamba3_siso.py")
        self.mimo = _file(checkout / "tests/ops/tilelang/test_mamba3_mimo.py")
        self.mixer.mamba3_siso_combined = self._siso
        self.mixer.mamba3_mimo_combined = self._mimo
        self.in_steps = False

    def _siso(self, *, chunk_size: int, Input_States: None, return_final_states: bool, cu_seqlens: None, **given: Any):
        given = {name: None if array is None else array.float() for name, array in given.items()}
        if not self.in_steps:
            return self.siso.mamba3_siso_fwd_ref(**given, chunk_size=chunk_size)[0]
        step = functools.partial(
            self.siso.mamba3_siso_step_ref, **{name: given[name] for name in ("Q_bias", "K_bias", "D")}
        )
        return _stepped(step, given, keys=2)

    def _mimo(self, **given: Any):
        if not self.in_steps:
            return self._mimo_blocks(**given)
        fused = given["fuse_pregate_headwise_rms_norm"]
        assert given["Z"] is not None, "the recurrence has no way to leave the ranks apart"
        pairs = _neighbours(given["Q"].shape[-1])  # upstream's recurrence turns neighbours, its kernels halves
        weight = given["outproj_norm_weight"]
        step = functools.partial(
            self.mimo.mamba3_MIMO_step_ref,
            Q_bias=given["Q_bias"][..., pairs],
            K_bias=given["K_bias"][..., pairs],
            MIMO_V=given["MIMO_V"],
            MIMO_O=given["MIMO_Out"],
            MIMO_Z=given["MIMO_Z"],
            D=given["D"],
            fused_norm=fused,
            outproj_norm_weight=None if weight is None else weight.reshape(given["D"].shape[0], -1),
            outproj_norm_eps=given["outproj_norm_eps"],
        )
        given = given | {name: given[name][..., pairs] for name in ("Q", "K")}
        return _stepped(step, given, keys=2)

    def _mimo_blocks(self, **given: Any):
        dt, exponents = given["DT"].float(), given["ADT"].float()
        length = dt.shape[-1]
        padded = torch.nn.functional.pad(exponents, (0, -length % _CHUNK)).unflatten(-1, (-1, _CHUNK))
        sums = padded.cumsum(-1)
        rest = (padded.sum(-1, keepdim=True) - sums).flatten(2)[..., :length]
        y, _, _ = self.mimo.mamba3_MIMO_chunk_ref(
            given["Q"], given["K"], given["V"], given["Q_bias"], given["K_bias"], given["MIMO_V"], given["MIMO_Out"],
            given["Z"], given["MIMO_Z"],
            self.mimo.apply_angle_dt_reference(given["Angles"], dt.transpose(1, 2)),
            sums.flatten(2)[..., :length], rest, dt, given["Trap"], given["D"],
            chunk_size=_CHUNK,
            rotary_dim_divisor=given["rotary_dim_divisor"],
            contract_mimo_out=given["MIMO_Out"] is not None,
            fused_norm=given["fuse_pregate_headwise_rms_norm"],
            outproj_norm_weight=given["outproj_norm_weight"],
            outproj_norm_eps=given["outproj_norm_eps"],
        )  # fmt: skip
        return y


def _stepped(step: Any, given: dict[str, Any], keys: int) -> torch.Tensor:
    """The recurrence, one token to a call: where a step size is zero, the last key and value stay those before."""
    parts, state = [], None
    for t in range(given["DT"].shape[-1]):
        now = slice(t, t + 1)
        over_time = {name: given[name][:, now] for name in ("Q", "K", "V", "Angles")}
        over_time |= {name: given[name][..., now] for name in ("ADT", "DT", "Trap")}
        over_time["Z"] = None if given["Z"] is None else given["Z"][:, now]
        y, after = step(**over_time, Input_States=state)
        angle, ssm, key, value = after
        kept = given["DT"][..., t] > 0
        before = (torch.zeros_like(key), torch.zeros_like(value)) if state is None else state[keys:]
        key, value = (
            torch.where(kept.reshape(*kept.shape, *(1,) * (new.ndim - 2)), new, old)
            for new, old in zip((key, value), before, strict=True)
        )
        state = (angle, ssm, key, value)
        parts.append(y)
    return torch.cat(parts, dim=1)


def _neighbours(size: int) -> list[int]:
    """Dimensions in an order in which the pairs (i, size / 2 + i) are neighbours."""
    return [place for i in range(size // 2) for place in (i, size // 2 + i)]


def _file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"upstream_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@functools.cache
def upstream() -> Upstream:
    """The checkout that the environment names."""
    return Upstream(Path(os.environ["MAMBA_SSM_CHECKOUT"]))


class Mamba3Reference:
    """As `reference.Reference`, for upstream's language model; `decoded` is the recurrence from the first token on."""

    def __init__(self, case: Case) -> None:
        self.rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        self.upstream = upstream()
        # Its fused addition and norm is a kernel; the plain one means the same.
        options = {"rms_norm": True, "fused_add_norm": False, **case.options}
        torch.manual_seed(0)
        self.model = self.upstream.models.MambaLMHeadModel(self.upstream.config(**options)).eval()
        self.model.config.tie_word_embeddings = self.model.config.tie_embeddings
        draw_weights(self.model, self.rng)
        del self.model.config.tie_word_embeddings
        self.ids = self.rng.integers(0, self.model.config.vocab_size, PREFILL + DECODE)

    def saved(self) -> tuple[str, dict[str, np.ndarray]]:
        """config.json and the tensors as upstream saves them, the tied head once."""
        tensors = {name: array.numpy() for name, array in self.model.state_dict().items()}
        if self.model.config.tie_embeddings:
            del tensors["lm_head.weight"]
        return json.dumps(self.model.config.__dict__, indent=4), tensors

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        """(tokens, vocab) of one pass over everything."""
        return self.model(torch.tensor(self.ids)[None]).logits[0].numpy()

    def decoded(self) -> np.ndarray:
        """The same through the recurrence."""
        self.upstream.in_steps = True
        try:
            return self.logits()
        finally:
            self.upstream.in_steps = False

    def filtered(self) -> tuple[np.ndarray, dict[int, np.ndarray], float]:
        """One pass with the filter on in the prefill; the thresholds by layer; the share of step sizes zeroed."""
        with self._filtering() as chosen:
            logits = self.decoded()
        return logits, chosen.thresholds, chosen.zeroed / max(chosen.seen, 1)

    @contextlib.contextmanager
    def _filtering(self) -> Iterator[Filtering]:
        chosen = Filtering(self.rng, unfiltered=len(self.model.backbone.layers) - 1)
        functional = self.upstream.mixer.F
        # The one softplus of the mixer makes its step sizes.
        self.upstream.mixer.F = types.SimpleNamespace(softplus=lambda raw: chosen.steps(raw, (0.0, float("inf"))))
        hooks = [
            layer.mixer.register_forward_pre_hook(lambda *_, index=index: setattr(chosen, "layer", index))
            for index, layer in enumerate(self.model.backbone.layers)
        ]
        try:
            yield chosen
        finally:
            self.upstream.mixer.F = functional
            for hook in hooks:
                hook.remove()
