"""What training may hold a model's step sizes to, so that a threshold can tell facts from filler far out.

Both losses look at every sequence and unit by itself and at logarithms: else a unit is strict where facts are many and
careless where they are few. dt (..., length, units) throughout, from softplus.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from data import FACT, FILLER, NUMBER
from torch import Tensor

FORGET = 1 / 24  # the least mean of dt |A| a token where a layer must forget: e^-21 over 512 tokens
APART = 3.0  # a filler token's step should be so many times smaller than a fact's, where a unit remembers


def decay(dt: Tensor, rates: Tensor) -> Tensor:
    """The mean of dt |A| over a sequence's tokens, of a unit's slowest state: rates (..., units) -> (..., units)."""
    return dt.mean(-2) * rates


def remembering(mean_decay: Tensor) -> Tensor:
    """How far (in nats) a unit is from forgetting within a window: 0 where it does."""
    return F.relu(torch.log(FORGET / mean_decay.clamp(min=1e-8)))


def typical_step(dt: Tensor, kinds: Tensor) -> Tensor:
    """A unit's step at facts, (..., units): weighted by the step itself, since it may write at few of their tokens."""
    facts = dt * (kinds == FACT)[..., None]
    return (facts.square().sum(-2) / (facts.sum(-2) + 1e-6)).clamp(min=1e-6)


def excess(dt: Tensor, typical: Tensor) -> Tensor:
    """How far (in nats) steps are from being APART from the typical one at facts: 0 where they are."""
    # A step of 0 has no logarithm, and its gradient would be infinity times 0.
    return F.relu(torch.log(dt.clamp(min=1e-8) * APART / typical))


def closeness(dt: Tensor, kinds: Tensor, mean_decay: Tensor) -> Tensor:
    """How far (in nats a token) filler and numbers are from being APART from the facts: (..., units).

    Only units that remember count. kinds (..., length).
    """
    filler = ((kinds == FILLER) | (kinds == NUMBER))[..., None]
    over = excess(dt, typical_step(dt, kinds).unsqueeze(-2)) * filler
    return over.sum(-2) / filler.sum(-2).clamp(min=1) * (mean_decay < FORGET)
