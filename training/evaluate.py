"""Exact match by document length, filter off and on, for choosing among seeds on the development split.

The reported tables are made by the package itself (`longmamba-mlx eval niah`), on the test split.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from data import ABSENT, DIGIT, DIGIT1, Pack, Sampler, Shape
from net import Keep, Net
from torch import Tensor

TRAINED = 512


def rates(net: Net, index: int) -> Tensor:
    """The slowest |A| of every unit."""
    a = torch.exp(net.backbone.layers[index].mixer.A_log.float())
    return a if a.dim() == 1 else a.min(1).values


@torch.no_grad()
def budgets(net: Net, pack: Pack, windows: int = 64) -> list[Tensor]:
    """Per layer: the mean over training-like windows of the sum of dt, by unit."""
    shape = Shape(TRAINED, 12, 1)
    ids, _, _ = Sampler(pack, shape, "train").batch(windows)
    sums: list[Tensor] = []

    def record(index: int, raw: Tensor) -> Tensor:
        sums.append(F.softplus(raw[:, :TRAINED]).sum(1).mean(0))
        return torch.ones((), device=raw.device)

    net(ids[:, :TRAINED], record)
    return sums


def exact(net: Net, pack: Pack, theta: float = 1e-5, factor: float = 1.0) -> Callable[[int], Keep]:
    """The document's own largest steps that fill the budget, in global units; tokens after the document are kept."""
    sums = budgets(net, pack)
    is_global = [s * rates(net, i) < math.log(1 / theta) for i, s in enumerate(sums)]

    def for_document(tokens: int) -> Keep:
        def keep(index: int, raw: Tensor) -> Tensor:
            dt = F.softplus(raw[:, :tokens])
            order = dt.sort(1, descending=True).values
            count = (order.cumsum(1) <= sums[index] * factor).sum(1).clamp(1, tokens - 1)
            threshold = order.gather(1, count[:, None])
            kept = (dt > threshold) | ~is_global[index]
            return torch.cat([kept, torch.ones_like(raw[:, tokens:], dtype=torch.bool)], 1).float()

        return keep

    return for_document


@torch.no_grad()
def accuracy(
    net: Net, pack: Pack, times: int, samples: int, filtered: Callable[[int], Keep] | None, *, split: str = "dev",
    absent: float = 0.0, seed: int = 0, **options: object,
) -> float:  # fmt: skip
    """Share of questions whose every answer token is the likeliest one (greedy exact match)."""
    torch.manual_seed(seed)
    if pack.device == "cuda":
        torch.cuda.manual_seed(seed)
    shape = Shape(TRAINED * times, 4, 1, min_facts=4, absent=absent, attributes=0.0, **options)  # type: ignore[arg-type]
    sampler = Sampler(pack, shape, split)
    right = torch.zeros((), device=pack.device)
    size = max(4, min(64, 1024 // times, samples))
    rounds = math.ceil(samples / size)
    for _ in range(rounds):
        ids, kinds, _ = sampler.batch(size)
        keep = filtered(shape.tokens) if filtered is not None and times > 1 else None
        hidden = net(ids[:, :-1], keep)[:, shape.tokens :]
        guess = net.logits(hidden).argmax(-1)
        target, kind = ids[:, 1 + shape.tokens :], kinds[:, 1 + shape.tokens :]
        asked = (kind == DIGIT1) | (kind == DIGIT) | (kind == ABSENT)
        right += ((guess == target) | ~asked).all(1).sum()
    return right.item() / (size * rounds)


def table(net: Net, pack: Pack, lengths: tuple[int, ...], samples: int = 192) -> dict[str, float]:
    net.eval()
    keep = exact(net, pack)
    rows = {"1x": accuracy(net, pack, 1, samples * 2, None)}
    for kind, options in {"plain": {"words": 1}, "hard": {"sharing": 1.0}}.items():
        rows[f"1x {kind}"] = accuracy(net, pack, 1, samples, None, **options)
    rows["1x absent"] = accuracy(net, pack, 1, samples, None, absent=1.0)
    for times in lengths:
        rows[f"{times}x off"] = accuracy(net, pack, times, samples, None)
        rows[f"{times}x on"] = accuracy(net, pack, times, samples, keep)
    rows["16x absent on"] = accuracy(net, pack, 16, samples, keep, absent=1.0)
    net.train()
    return {name: round(value, 4) for name, value in rows.items()}
