"""Llamba's side of a fixture: its publisher's model, whose scan is mamba_ssm's reference of Mamba-2's."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tests.parity.cases import Case
from tests.parity.reference import Filtering
from tests.parity.upstream import UpstreamReference, mamba_ssm, package


class LlambaReference(UpstreamReference):
    """A random Llamba; `decoded` takes the recurrence's own steps."""

    def __init__(self, case: Case) -> None:
        mamba_ssm()
        package("cartesia_pytorch", Path(os.environ["EDGE_CHECKOUT"]) / "cartesia-pytorch/cartesia_pytorch")
        package(
            "cartesia_pytorch.Llamba", Path(os.environ["EDGE_CHECKOUT"]) / "cartesia-pytorch/cartesia_pytorch/Llamba"
        )
        llamba = importlib.import_module("cartesia_pytorch.Llamba.llamba")
        self.blocks = importlib.import_module("mamba_ssm.ops.triton.ssd_combined").ssd_chunk_scan_combined_ref
        self.step = importlib.import_module("mamba_ssm.ops.triton.selective_state_update").selective_state_update_ref
        self.mixer = importlib.import_module("cartesia_pytorch.Llamba.mixers.discrete_mamba2")
        self.stepwise, self.softplus = False, F.softplus
        self.mixer.mamba_chunk_scan_combined = self._scan
        torch.manual_seed(0)
        config = llamba.LlambaConfig(**case.options)
        super().__init__(case, llamba.LlambaLMHeadModel(config), {**case.options, **config.to_dict()})

    @contextlib.contextmanager
    def in_steps(self) -> Iterator[None]:
        self.stepwise = True
        try:
            yield
        finally:
            self.stepwise = False

    @contextlib.contextmanager
    def with_steps_of(self, chosen: Filtering) -> Iterator[None]:
        before = self.softplus
        self.softplus = lambda raw: chosen.steps(raw, (0.0, float("inf")))
        try:
            yield
        finally:
            self.softplus = before

    def _scan(self, *, x: torch.Tensor, dt: torch.Tensor, chunk_size: int, **given: Any) -> Any:
        A, B, C, dt = given["A"], given["B"], given["C"], self.softplus(dt.float())
        if not self.stepwise:
            return self.blocks(x, dt, A, B, C, chunk_size)
        heads, width, size = *x.shape[2:], B.shape[-1]
        state = torch.zeros(x.shape[0], heads, width, size)
        rate, dt = A[:, None, None].expand(heads, width, size), dt[..., None].expand(x.shape)
        return torch.stack(
            [self.step(state, x[:, t], dt[:, t], rate, B[:, t], C[:, t]) for t in range(x.shape[1])], dim=1
        )
