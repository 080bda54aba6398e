"""What the heads that remember write of a book: `python training/selectivity.py PACK OUT/NAME`.

A head's step at facts is compared with its steps at the development book's own tokens. What counts far out is the tail:
of 100,000 tokens, a thousandth is more than the facts of a document.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from data import Pack, Sampler, Shape
from evaluate import TRAINED, rates
from exam import ExamSampler, ExamShape
from holds import APART, FORGET, decay, typical_step
from net import Net
from stored import report, trained_net
from torch import Tensor

DOCUMENTS, WINDOWS = 48, 128
WARM = 16  # tokens at a window's start, which lack what comes before them


@torch.no_grad()
def steps(net: Net, ids: Tensor) -> list[Tensor]:
    """dt of every layer, (b, l, heads)."""
    found: list[Tensor] = []

    def look(_index: int, raw: Tensor) -> Tensor:
        found.append(F.softplus(raw))
        return torch.ones(())

    net(ids, look)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("trained", type=Path, help="a Mamba-2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    net = trained_net(args.trained)
    pack = Pack(args.pack / "pack.npz", "cpu")
    low, high = pack.tables["filler_dev"].tolist()
    starts = low + torch.randint(high - low - TRAINED, (WINDOWS,))
    filler = steps(net, pack.pool[starts[:, None] + torch.arange(TRAINED)])
    samplers = {"codes": Sampler(pack, Shape(TRAINED, 4, 1), "dev")}
    if report(args.trained).get("settings", {}).get("exam"):
        samplers["exam"] = ExamSampler(pack, ExamShape(TRAINED, 4, 1, min_facts=4), "dev")
    print("facts  layer head   decay in a window  step at facts  filler above a third of it  above it")
    for name, sampler in samplers.items():
        ids, kinds, _ = sampler.batch(DOCUMENTS)
        for index, dt in enumerate(steps(net, ids[:, :-1])):
            decays, typical = decay(dt, rates(net, index)).mean(0), typical_step(dt, kinds[:, :-1]).mean(0)
            for head in torch.nonzero(decays < FORGET).flatten().tolist():
                share = filler[index][:, WARM:, head].flatten() / typical[head]
                print(f"{name:>5} {index:>6} {head:>4} {decays[head] * TRAINED:>19.3f} {typical[head]:>14.3f} "
                      f"{(share > 1 / APART).float().mean():>27.5f} {(share > 1).float().mean():>9.5f}")  # fmt: skip


if __name__ == "__main__":
    main()
