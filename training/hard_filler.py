"""Stretches of the training books where a unit that remembers has a large step all the same, found again and again.

A novel has few such places ("Ben Gunn is wanted" reads like a fact until it ends), one or two tokens in a thousand, so
that the mean over filler hardly sees them. In 100,000 tokens they are more than the facts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from data import Pack
from holds import APART, FORGET
from net import Net
from torch import Tensor

BEFORE, AFTER = 48, 15  # tokens around a place
SEARCHED = 48  # windows of 512 tokens, each time
FOUND = 128  # places of a search
HELD = 2_048  # places, the oldest make room
FADING = 0.98  # of the running means, a step


class HardFiller:
    """The places, and what facts' steps are like: both follow the net while it trains."""

    def __init__(self, net: Net, pack: Pack, split: str = "train") -> None:
        self.net, self.pool = net, pack.pool
        self.low, self.high = pack.tables[f"filler_{split}"].tolist()
        self.places = torch.empty(0, dtype=torch.long)
        self.typical: dict[int, Tensor] = {}  # by layer: a unit's step at facts, (units,)
        self.decays: dict[int, Tensor] = {}  # by layer: mean decay of a unit, (units,)

    def note(self, index: int, typical: Tensor, mean_decay: Tensor) -> None:
        """What a step of the training saw in a layer: (batch, units) both."""
        for held, seen in ((self.typical, typical), (self.decays, mean_decay)):
            mean = seen.detach().mean(0)
            held[index] = mean if index not in held else held[index] * FADING + mean * (1 - FADING)

    def excess(self, index: int, dt: Tensor) -> Tensor:
        """How far (in nats) steps (..., units) are from being APART from the facts', in units that remember."""
        over = F.relu(torch.log(dt.clamp(min=1e-8) * APART / self.typical[index].clamp(min=1e-6)))
        return over * (self.decays[index] < FORGET)

    @torch.no_grad()
    def search(self) -> None:
        """Look through other windows of the books for their worst places."""
        starts = self.low + torch.randint(self.high - self.low - 512, (SEARCHED,))
        ids = self.pool[starts[:, None] + torch.arange(512)]
        worst = torch.zeros(ids.shape)

        def look(index: int, raw: Tensor) -> Tensor:
            worst.copy_(torch.maximum(worst, self.excess(index, F.softplus(raw)).amax(-1)))
            return torch.ones(())

        self.net(ids, look)
        worst[:, :BEFORE] = 0
        values, found = worst.flatten().topk(FOUND)
        found = found[values > 0]
        self.places = torch.cat([starts[found // 512] + found % 512, self.places])[:HELD]

    def loss(self, count: int) -> Tensor:
        """The mean excess a token and unit of `count` places."""
        if not len(self.places):
            return torch.zeros(())
        chosen = self.places[torch.randint(len(self.places), (count,))]
        ids = self.pool[chosen[:, None] - BEFORE + torch.arange(BEFORE + 1 + AFTER)]
        found: list[Tensor] = []

        def look(index: int, raw: Tensor) -> Tensor:
            found.append(self.excess(index, F.softplus(raw[:, 8:])).mean())
            return torch.ones(())

        self.net(ids, look)
        return torch.stack(found).sum()
