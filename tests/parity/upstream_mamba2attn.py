"""The side of Mamba-2 with attention of a fixture: mamba_ssm's own modules, Mamba-2's scan by its reference.

The rotary positions are those of flash_attn, which upstream imports; they are written down here.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F

from tests.parity.cases import Case
from tests.parity.reference import Filtering
from tests.parity.upstream import UpstreamReference, mamba_ssm


class Rotary(torch.nn.Module):
    """Turns dimensions i and dim / 2 + i of queries and keys."""

    def __init__(self, dim: int, base: float, interleaved: bool, device: Any) -> None:
        super().__init__()
        assert not interleaved
        self.dim, self.base = dim, base

    def forward(self, q: torch.Tensor, kv: torch.Tensor, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """q (b, l, h, d), kv (b, l, 2, h, d)."""
        return self._turned(q), torch.stack([self._turned(kv[:, :, 0]), kv[:, :, 1]], dim=2)

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        periods = self.base ** (torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
        angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None, None] / periods
        cos, sin = angle.cos().float(), angle.sin().float()
        first, second, rest = x.split([self.dim // 2, self.dim // 2, x.shape[-1] - self.dim], dim=-1)
        return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)


class Mamba2AttnReference(UpstreamReference):
    """A random Mamba-2 of upstream's language model with attention in some layers."""

    def __init__(self, case: Case) -> None:
        mamba_ssm()
        combined = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
        self.blocks = combined.ssd_chunk_scan_combined_ref
        importlib.import_module("mamba_ssm.modules.mha").RotaryEmbedding = Rotary
        importlib.import_module("mamba_ssm.modules.mamba2").mamba_chunk_scan_combined = self._scan
        self.softplus = F.softplus
        options = {"rms_norm": True, "fused_add_norm": False, **case.options}
        options["ssm_cfg"] = {**options["ssm_cfg"], "use_mem_eff_path": False}
        torch.manual_seed(0)
        config = importlib.import_module("mamba_ssm.models.config_mamba").MambaConfig(**options)
        models = importlib.import_module("mamba_ssm.models.mixer_seq_simple")
        super().__init__(case, models.MambaLMHeadModel(config), {**config.__dict__, "ssm_cfg": case.options["ssm_cfg"]})

    def in_steps(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # upstream decodes by kernels alone

    @contextlib.contextmanager
    def with_steps_of(self, chosen: Filtering) -> Iterator[None]:
        before = self.softplus
        self.softplus = lambda raw: chosen.steps(raw, (0.0, float("inf")))
        try:
            yield
        finally:
            self.softplus = before

    def _scan(self, x: Any, dt: Any, A: Any, B: Any, C: Any, *, chunk_size: int, D: Any, dt_bias: Any, **_: Any) -> Any:
        return self.blocks(x, self.softplus(dt + dt_bias), A, B, C, chunk_size, D=D)
