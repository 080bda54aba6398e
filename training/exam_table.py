"""The harder exam on the development split, by kind of value: `python training/exam_table.py PACK OUT/NAME`.

OUT/NAME may be a training under way (its checkpoint). For watching and choosing only; the reported tables are made by
the package itself (`longmamba-mlx eval niah --attributes`).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from data import ABSENT, DIGIT, DIGIT1, Pack
from evaluate import TRAINED, accuracy, exact
from exam import UNSAID, ExamSampler, ExamShape
from net import Keep, Net, NetConfig
from safetensors.torch import load_file
from stored import weights
from torch import Tensor

from longmamba_mlx.evaluation.attributes import ATTRIBUTES, VALUES

FACTS = 4  # of a document, each asked for once


@torch.no_grad()
def answered(
    net: Net, pack: Pack, times: int, documents: int, keep: Keep | None, absent: float
) -> dict[str, list[float]]:
    """1 for every question whose answer is the likeliest token by token, else 0: by kind, "stranger", "unsaid"."""
    torch.manual_seed(5 + times)
    shape = ExamShape(TRAINED * times, FACTS, FACTS, min_facts=FACTS, absent=absent, others=4 * times)
    sampler, found = ExamSampler(pack, shape, "dev"), defaultdict(list)
    size = max(1, min(documents, 32 // times))
    for _ in range(-(-documents // size)):
        ids, kinds, _, about = sampler.draw(size)
        guess = net.logits(net(ids[:, :-1], keep)[:, shape.tokens :]).argmax(-1)
        target, kind = ids[:, 1 + shape.tokens :], kinds[:, 1 + shape.tokens :]
        starts = (kind == DIGIT1) | (kind == ABSENT)
        wrong = (guess != target) & (starts | (kind == DIGIT))
        number = (starts.long().cumsum(1) - 1).clamp(0, FACTS - 1)
        errors = torch.zeros(size, FACTS).scatter_add_(1, number, wrong.float())
        for row, one in zip(errors.tolist(), about.tolist(), strict=True):
            for count, what in zip(row, one, strict=True):
                name = (
                    ATTRIBUTES[what].kind if what >= 0 else "unsaid" if what < len(ATTRIBUTES) - UNSAID else "stranger"
                )
                found[name].append(float(count == 0))
    return dict(found)


def load(path: Path, layers: int) -> Net:
    net = Net(NetConfig("mamba2", layers=layers))
    checkpoint = path.with_suffix(".checkpoint")
    tensors: dict[str, Tensor]
    if checkpoint.exists():
        tensors = {k.removeprefix("net."): v for k, v in load_file(checkpoint).items() if k.startswith("net.")}
    else:
        tensors = weights(path)
    net.load_state_dict(tensors)
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--documents", type=int, default=64, help="at one training length; half as many further out")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 16])
    args = parser.parse_args()
    torch.set_num_threads(1)
    net, pack = load(args.trained, args.layers), Pack(args.pack / "pack.npz", "cpu")
    filtered = exact(net, pack)
    columns: dict[str, dict[str, list[float]]] = {}
    for times in args.times:
        keep = filtered(TRAINED * times) if times > 1 else None
        count = args.documents if times == 1 else args.documents // 2
        columns[f"{times}x"] = answered(net, pack, times, count, keep, 0.0)
        columns[f"{times}x"] |= answered(net, pack, times, count // 2, keep, 1.0)
        plain = accuracy(net, pack, times, count, filtered)
        columns[f"{times}x"] |= {"old exam": [plain] * count}
    for name in [*VALUES, "stranger", "unsaid", "old exam"]:
        cells = [f"{sum(v) / max(1, len(v)):.3f} ({len(v)})" for v in (c.get(name, []) for c in columns.values())]
        print(f"{name:>16} " + "  ".join(f"{cell:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
