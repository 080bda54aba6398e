"""States passed across windows while a Mamba-2 trains (arXiv 2507.02782): a window goes on from what another left.

The windows have nothing to do with each other, so the model learns to work with a memory that others have filled.
"""

from __future__ import annotations

import torch
from net import Net
from ssd import Passed
from torch import Tensor

FRESH = 0.25  # of the windows begin with an empty state all the same


class Carry:
    """What the last windows left in every layer, for the next ones to begin with."""

    def __init__(self, net: Net) -> None:
        self.mixers = [layer.mixer for layer in net.backbone.layers]
        self.left: list[Tensor] | None = None

    def begin(self, batch: int, tokens: int) -> None:
        """Give each of `batch` windows the state of some window before, the same one in all layers."""
        rows = torch.randint(len(self.left[0]), (batch,)) if self.left else None
        kept = (torch.rand(batch) >= FRESH).float()[:, None, None, None]
        for index, mixer in enumerate(self.mixers):
            if rows is None or self.left is None:
                config = mixer.config
                start = torch.zeros(batch, mixer.heads, config.d_state, config.headdim)
            else:
                start = self.left[index][rows] * kept
            mixer.passed = Passed(start, tokens)

    def end(self) -> None:
        """Keep what the windows left."""
        self.left = [mixer.passed.end for mixer in self.mixers]
        for mixer in self.mixers:
            mixer.passed = None
