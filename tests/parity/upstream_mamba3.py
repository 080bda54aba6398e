"""Mamba-3's side of a fixture: upstream's own modules, its kernels replaced by the reference functions of its tests.

The filter is written here a second time: a filtered token is one step of the recurrence with a step size of zero, after
which the key and value before it are put back.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import types
from collections.abc import Iterator
from typing import Any

import torch

from tests.parity.cases import Case
from tests.parity.reference import Filtering
from tests.parity.upstream import UpstreamReference, mamba_ssm, module_of

_CHUNK = 16


class Upstream:
    """The parts that are run, and which of the two references stands in for the kernels.

    `in_steps`: the recurrence token by token, which knows the filter; else the one pass over blocks.
    """

    def __init__(self) -> None:
        checkout = mamba_ssm()
        self.mixer = importlib.import_module("mamba_ssm.modules.mamba3")
        self.models = importlib.import_module("mamba_ssm.models.mixer_seq_simple")
        self.config = importlib.import_module("mamba_ssm.models.config_mamba").MambaConfig
        self.siso = module_of(checkout / "tests/ops/triton/test_mamba3_siso.py")
        self.mimo = module_of(checkout / "tests/ops/tilelang/test_mamba3_mimo.py")
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


@functools.cache
def upstream() -> Upstream:
    """The one of this process: its modules are patched."""
    return Upstream()


class Mamba3Reference(UpstreamReference):
    """A random Mamba-3 of upstream's language model; `decoded` is the recurrence from the first token on."""

    def __init__(self, case: Case) -> None:
        self.upstream = upstream()
        # Its fused addition and norm is a kernel; the plain one means the same.
        options = {"rms_norm": True, "fused_add_norm": False, **case.options}
        torch.manual_seed(0)
        config = self.upstream.config(**options)
        super().__init__(case, self.upstream.models.MambaLMHeadModel(config), config.__dict__)

    @contextlib.contextmanager
    def in_steps(self) -> Iterator[None]:
        self.upstream.in_steps = True
        try:
            yield
        finally:
            self.upstream.in_steps = False

    @contextlib.contextmanager
    def with_steps_of(self, chosen: Filtering) -> Iterator[None]:
        functional = self.upstream.mixer.F
        # The one softplus of the mixer makes its step sizes.
        self.upstream.mixer.F = types.SimpleNamespace(softplus=lambda raw: chosen.steps(raw, (0.0, float("inf"))))
        try:
            with self.in_steps():
                yield
        finally:
            self.upstream.mixer.F = functional
