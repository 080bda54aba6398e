"""The Mamba-2 scan in torch, as matrix products over blocks (Mamba-2 paper, section 6; one group of B and C)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64


def mamba2_scan(x: Tensor, write: Tensor, log_decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y of h_t = exp(log_decay_t) h_{t-1} + write_t x_t b_t^T, y_t = h_t c_t; differentiable, from an empty state.

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
    y = y + (c[:, :, None] @ _before(added, torch.exp(decay[..., -1]))) * torch.exp(decay)[..., None]
    return y.transpose(2, 3).flatten(1, 2)[:, :length]


def _in_blocks(item: Tensor) -> Tensor:
    """(batch, length, ...) -> (batch, blocks, BLOCK, ...), zeros after the end."""
    padding = [0, 0] * (item.dim() - 2) + [0, -item.shape[1] % BLOCK]
    return F.pad(item, padding).unflatten(1, (-1, BLOCK))


def _before(added: Tensor, decay: Tensor) -> Tensor:
    """The state before every block: added (batch, blocks, heads, d_state, headdim), decay (batch, blocks, heads)."""
    state, states = torch.zeros_like(added[:, 0]), []
    for block in range(added.shape[1]):
        states.append(state)
        state = state * decay[:, block, :, None, None] + added[:, block]
    return torch.stack(states, 1)
