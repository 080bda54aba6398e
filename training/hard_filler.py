"""Stretches of the training books where a unit that remembers has a large step all the same, found again and again.

A novel has few such places ("Ben Gunn is wanted" reads like a fact until it ends), one or two tokens in a thousand, so
that the mean over filler hardly sees them. In 100,000 tokens they are more than the facts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from data import Pack
from evaluate import TRAINED
from holds import FORGET, excess
from net import Net
from torch import Tensor

BEFORE, AFTER = 48, 15  # tokens around a place
WARM = 8  # of these, which lack what comes before them and are left alone
SEARCH = 20  # steps between two searches
SEARCHED = 48  # windows of the training length, each time
FOUND = 128  # places of a search
HELD = 2_048  # places, the oldest make room
TAKEN = 24  # places a step
FADING = 0.98  # of the running means, a step


class HardFiller:
    """The places, and what facts' steps are like: both follow the net while it trains."""

    def __init__(self, net: Net, pack: Pack, split: str = "train") -> None:
        self.net, self.pool = net, pack.pool
        self.low, self.high = pack.tables[f"filler_{split}"].tolist()
        self.steps = 0
        self.places = torch.empty(0, dtype=torch.long)
        self.typical: dict[int, Tensor] = {}  # by layer: a unit's step at facts, (units,)
        self.decays: dict[int, Tensor] = {}  # by layer: mean decay of a unit, (units,)

    def note(self, index: int, typical: Tensor, mean_decay: Tensor) -> None:
        """What a step of the training saw in a layer: (batch, units) both."""
        for held, seen in ((self.typical, typical), (self.decays, mean_decay)):
            mean = seen.detach().mean(0)
            held[index] = mean if index not in held else held[index] * FADING + mean * (1 - FADING)

    def excess(self, index: int, raw: Tensor) -> Tensor:
        """How far (in nats) the steps (..., units) of a layer are too large, in its units that remember."""
        return excess(F.softplus(raw), self.typical[index]) * (self.decays[index] < FORGET)

    @torch.no_grad()
    def search(self) -> None:
        """Look through other windows of the books for their worst places."""
        starts = self.low + torch.randint(self.high - self.low - TRAINED, (SEARCHED,))
        ids = self.pool[starts[:, None] + torch.arange(TRAINED)]
        worst = torch.zeros(ids.shape)

        def look(index: int, raw: Tensor) -> Tensor:
            worst.copy_(torch.maximum(worst, self.excess(index, raw).amax(-1)))
            return torch.ones(())

        self.net(ids, look)
        worst[:, :BEFORE] = 0
        values, found = worst.flatten().topk(FOUND)
        found = found[values > 0]
        self.places = torch.cat([starts[found // TRAINED] + found % TRAINED, self.places])[:HELD]

    def loss(self) -> Tensor:
        """The mean excess a token and unit of some places; searches first, where it is time."""
        if self.steps % SEARCH == 0:
            self.search()
        self.steps += 1
        if not len(self.places):
            return torch.zeros(())
        chosen = self.places[torch.randint(len(self.places), (TAKEN,))]
        ids = self.pool[chosen[:, None] - BEFORE + torch.arange(BEFORE + 1 + AFTER)]
        found: list[Tensor] = []

        def look(index: int, raw: Tensor) -> Tensor:
            found.append(self.excess(index, raw[:, WARM:]).mean())
            return torch.ones(())

        self.net(ids, look)
        return torch.stack(found).sum()
