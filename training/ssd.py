"""The Mamba-2 scan in torch, as matrix products over blocks (Mamba-2 paper, section 6; one group of B and C)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64


@dataclass
class Passed:
    """A layer's state as it goes from one window to another: (batch, heads, d_state, headdim).

    `end` is the state at the last block that begins within `tokens`.
    """

    start: Tensor
    tokens: int
    end: Tensor | None = None


def mamba2_scan(
    x: Tensor, write: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, passed: Passed | None = None
) -> Tensor:
    """y of h_t = exp(log_decay_t) h_{t-1} + write_t x_t b_t^T, y_t = h_t c_t; differentiable, from an empty state or
    from the one that is `passed`, which takes the state after `passed.tokens`.

    x (batch, length, heads, headdim); write, log_decay (batch, length, heads), dt and dt A in a Mamba-2;
    b, c (batch, length, d_state).
    """
    length = x.shape[1]
    x, write, log_decay, b, c = (_in_blocks(item) for item in (x, write, log_decay, b, c))
    decay = log_decay.transpose(2, 3).cumsum(-1)  # (batch, blocks, heads, BLOCK), from each block's start
    written = (x * write[..., None]).transpose(2, 3)
    future = torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=x.device).triu(1)
    weights = torch.exp((decay[..., :, None] - decay[..., None, :]).masked_fill(future, -torch.inf))
    y = (weights * (c @ b.transpose(-1, -2))[:, :, None]) @ written
    added = b.transpose(-1, -2)[:, :, None] @ (written * torch.exp(decay[..., -1:] - decay)[..., None])
    states = _before(added, torch.exp(decay[..., -1]), None if passed is None else passed.start)
    if passed is not None:
        passed.end = states[:, passed.tokens // BLOCK].detach()
    y = y + (c[:, :, None] @ states) * torch.exp(decay)[..., None]
    return y.transpose(2, 3).flatten(1, 2)[:, :length]


def _in_blocks(item: Tensor) -> Tensor:
    """(batch, length, ...) -> (batch, blocks, BLOCK, ...), zeros after the end."""
    padding = [0, 0] * (item.dim() - 2) + [0, -item.shape[1] % BLOCK]
    return F.pad(item, padding).unflatten(1, (-1, BLOCK))


def _before(added: Tensor, decay: Tensor, start: Tensor | None) -> Tensor:
    """The state before every block, from `start` on.

    added (batch, blocks, heads, d_state, headdim), decay (batch, blocks, heads).
    """
    state, states = torch.zeros_like(added[:, 0]) if start is None else start, []
    for block in range(added.shape[1]):
        states.append(state)
        state = state * decay[:, block, :, None, None] + added[:, block]
    return torch.stack(states, 1)
