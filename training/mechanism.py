"""What the filter mends, decay or pollution: `python training/mechanism.py PACK OUT/mamba2-1 --times 16`.

A filtered token neither writes to a global unit's memory nor lets it decay. Here it is made to do one of the two all
the same, on the development split: if "does not write, still decays" is as good as the filter, pollution by filler was
the trouble; if "writes, does not decay" is, the decay of the facts was. `--decay 2` is a control: the same net
with |A| of its global units raised until each forgets by e^-2 within a window.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import net as nets
import torch
from data import Pack
from evaluate import TRAINED, accuracy, budgets, exact, rates
from net import Keep, Net
from ssd import mamba2_scan
from stored import trained_net
from torch import Tensor

THETA = 1e-5
WAYS = ("filter off", "filter on", "does not write, still decays", "writes, does not decay")


class Halves:
    """Stands in for the scan: takes the unfiltered step and applies the mask to the write, the decay or both."""

    def __init__(self) -> None:
        self.way, self.mask = WAYS[0], torch.ones(())

    def __call__(
        self, x: Tensor, write: Tensor, log_decay: Tensor, b: Tensor, c: Tensor, _passed: None = None
    ) -> Tensor:
        write = write if self.way in (WAYS[0], WAYS[3]) else write * self.mask
        log_decay = log_decay if self.way in (WAYS[0], WAYS[2]) else log_decay * self.mask
        return mamba2_scan(x, write, log_decay, b, c)

    def watching(self, keep: Keep) -> Keep:
        def watch(index: int, raw: Tensor) -> Tensor:
            self.mask = keep(index, raw)
            return torch.ones(())

        return watch


class Writes:
    """The same for Mamba-1, where only the write can be taken alone: an input of 0 writes nothing."""

    def __init__(self) -> None:
        self.way, self.mask, self._scan = WAYS[0], torch.ones(()), nets.Mamba1Scan

    watching = Halves.watching

    def apply(self, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Any:
        if self.way == WAYS[1]:
            dt = dt * self.mask
        return self._scan.apply(x * self.mask if self.way == WAYS[2] else x, dt, a, b, c)


@torch.no_grad()
def raise_decay(model: Net, pack: Pack, nats: float) -> None:
    """Raise |A| of every global unit until it decays by so many nats within a training-like window."""
    for index, sums in enumerate(budgets(model, pack)):
        decays = sums * rates(model, index)
        more = torch.where(decays < math.log(1 / THETA), (nats / decays).clamp(min=1), torch.ones(())).log()
        weight = model.backbone.layers[index].mixer.A_log
        weight += more if weight.dim() == 1 else more[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--times", type=int, default=16)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--decay", type=float, default=0.0, help="of the global units within a window, in nats")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = trained_net(args.trained)
    pack = Pack(args.pack / "pack.npz", "cpu")
    keep = exact(model, pack, THETA)(TRAINED * args.times)
    if args.decay:
        raise_decay(model, pack, args.decay)
        print(f"{'at one training length':>30} {accuracy(model, pack, 1, args.samples, None):.3f}", flush=True)
    second = model.config.kind == "mamba2"
    scan: Any = Halves() if second else Writes()
    setattr(nets, "mamba2_scan" if second else "Mamba1Scan", scan)
    for way in WAYS if second else WAYS[:3]:
        scan.way = way
        watch = scan.watching(keep)
        print(f"{way:>30} {accuracy(model, pack, args.times, args.samples, lambda _, w=watch: w):.3f}", flush=True)


if __name__ == "__main__":
    main()
