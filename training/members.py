"""Many nets at once on one device: the parameters of `net.Net` with a leading axis of members.

One pass takes every member's own batch, ids (members, batch, length), so that a GPU is busy with models as small as
these. The same arithmetic as `net.py`, which stays the reference; layouts are (members, batch, length, width).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from kernels_cuda import convolved, gated, mamba1_scan
from net import Net, NetConfig
from ssd import mamba2_scan
from torch import Tensor

Watch = Callable[[int, Tensor], Tensor]
"""Sees a layer's raw step sizes (members, batch, length, units); what it returns is multiplied into dt."""


class Members:
    """`count` nets of one shape, each with its own weights."""

    def __init__(self, config: NetConfig, nets: list[Net], device: str) -> None:
        self.config, self.count = config, len(nets)
        states = [net.state_dict() for net in nets]
        self.weights = {name: torch.stack([s[name] for s in states]).to(device) for name in states[0]}

    def one(self, member: int) -> dict[str, Tensor]:
        """The weights of one member, as `Net.load_state_dict` takes them."""
        return {name: weight[member].detach().cpu().clone() for name, weight in self.weights.items()}

    def rates(self, index: int) -> Tensor:
        """The slowest |A| of every unit, (members, units)."""
        a = torch.exp(self.weights[f"backbone.layers.{index}.mixer.A_log"])
        return a if a.dim() == 2 else a.min(-1).values

    def hidden(self, ids: Tensor, watch: Watch | None = None) -> Tensor:
        """Hidden states after the final norm, (members, batch, length, d_model)."""
        embedding = self.weights["backbone.embedding.weight"]
        offset = torch.arange(self.count, device=ids.device).view(-1, 1, 1) * embedding.shape[1]
        x = F.embedding(ids + offset, embedding.flatten(0, 1))
        mixer = self._mamba2 if self.config.kind == "mamba2" else self._mamba1
        for index in range(self.config.layers):
            prefix = f"backbone.layers.{index}."
            at = {k.removeprefix(prefix): w for k, w in self.weights.items() if k.startswith(prefix)}
            normed = norm(x, at["norm.weight"])
            x = x + mixer(normed, {k.removeprefix("mixer."): w for k, w in at.items()}, index, watch)
        return norm(x, self.weights["backbone.norm_f.weight"])

    def logits(self, hidden: Tensor) -> Tensor:
        """(members, n, d_model) -> (members, n, vocab)."""
        return hidden @ self.weights["backbone.embedding.weight"].transpose(1, 2)

    def _step(self, raw: Tensor, index: int, watch: Watch | None) -> Tensor:
        dt = F.softplus(raw)
        return dt if watch is None else dt * watch(index, raw)

    def _mamba2(self, x: Tensor, w: dict[str, Tensor], index: int, watch: Watch | None) -> Tensor:
        inner, n = self.config.d_inner, self.config.d_state
        heads = inner // self.config.headdim
        z, xbc, dt = linear(x, w["in_proj.weight"]).split([inner, inner + 2 * n, heads], -1)
        x, b, c = convolved(xbc, w["conv1d.weight"], w["conv1d.bias"]).split([inner, n, n], -1)
        x = x.unflatten(-1, (heads, -1))
        dt = self._step(dt + wide(w["dt_bias"]), index, watch)
        decay = dt * -torch.exp(wide(w["A_log"]))
        y = mamba2_scan(*(item.flatten(0, 1) for item in (x, dt, decay, b, c))).unflatten(0, x.shape[:2])
        y = (y + w["D"].view(self.count, 1, 1, heads, 1) * x).flatten(-2)
        return linear(gated(y, z, w["norm.weight"]), w["out_proj.weight"])

    def _mamba1(self, x: Tensor, w: dict[str, Tensor], index: int, watch: Watch | None) -> Tensor:
        n, rank = self.config.d_state, self.config.dt_rank
        x, z = linear(x, w["in_proj.weight"]).chunk(2, -1)
        x = convolved(x, w["conv1d.weight"], w["conv1d.bias"])
        dt, b, c = linear(x, w["x_proj.weight"]).split([rank, n, n], -1)
        dt = self._step(linear(dt, w["dt_proj.weight"]) + wide(w["dt_proj.bias"]), index, watch)
        y = mamba1_scan(x, dt, -torch.exp(w["A_log"]), b, c)
        return linear(gated(y + wide(w["D"]) * x, z, None), w["out_proj.weight"])


def wide(weight: Tensor) -> Tensor:
    """(members, width) against (members, batch, length, width)."""
    return weight[:, None, None]


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (members, batch, length, in), weight (members, out, in)."""
    return torch.bmm(x.flatten(1, 2), weight.transpose(1, 2)).unflatten(1, x.shape[1:3])


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), None, 1e-5) * wide(weight)
