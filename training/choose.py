"""Exact match of many members on the development split, filter off and on, out to 256 training lengths.

For choosing only; the reported tables are made by the package itself (`longmamba-mlx eval niah`), on the test split.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from data import ABSENT, DIGIT, DIGIT1, Pack, Sampler, Shape
from members import Members, Watch
from torch import Tensor

TRAINED, THETA, ASKED = 512, 1e-5, 4
DOCUMENTS = {1: 96, 16: 48, 64: 16, 256: 12}  # by length


class Calibration:
    """Sorted step sizes of windows of training length: per layer (members, windows, units, TRAINED), descending."""

    @torch.no_grad()
    def __init__(self, members: Members, pack: Pack, most: Tensor, windows: int = 32) -> None:
        shape = replace(Shape(TRAINED, 12, 1), most=most.repeat_interleave(windows)[:, None])
        ids = Sampler(pack, shape, "train").batch(members.count * windows)[0].unflatten(0, (members.count, -1))
        self.steps: list[Tensor] = []

        def record(index: int, raw: Tensor) -> Tensor:
            self.steps.append(F.softplus(raw).transpose(2, 3).sort(-1, descending=True).values)
            return torch.ones((), device=raw.device)

        members.hidden(ids[..., :TRAINED], record)
        self.budgets = [steps.sum(-1).mean(1) for steps in self.steps]
        self.is_global = [b * members.rates(i) < math.log(1 / THETA) for i, b in enumerate(self.budgets)]

    def table(self, tokens: int, clamp: float) -> list[Tensor]:
        """The authors' thresholds (members, units) per layer: each window stretched to the document, then averaged."""
        found = []
        for steps in self.steps:
            rank = max(1, int(TRAINED * clamp)) - 1
            clamped = torch.minimum(steps, steps[..., rank : rank + 1]) if clamp else steps
            budget = clamped.sum(-1, keepdim=True)
            values = torch.zeros(steps.shape[:-1], device=steps.device)
            for window in range(steps.shape[1]):  # all at once would not fit
                long = F.interpolate(clamped[:, window], tokens, mode="linear")
                kept = (long.cumsum(-1) <= budget[:, window]).sum(-1, keepdim=True).clamp(max=tokens - 1)
                values[:, window] = long.gather(-1, kept)[..., 0]
            found.append(values.mean(1))
        return found

    def filtered(self, tokens: int, clamp: float | None) -> Watch:
        """`clamp` None is the exact budget of the document."""
        thresholds = None if clamp is None else self.table(tokens, clamp)

        def keep(index: int, raw: Tensor) -> Tensor:
            dt = F.softplus(raw[:, :, :tokens])
            if thresholds is not None:
                threshold = thresholds[index][:, None, None]
            else:
                order = dt.sort(2, descending=True).values
                filled = order.cumsum(2) <= self.budgets[index][:, None, None]
                threshold = order.gather(2, filled.sum(2, keepdim=True).clamp(1, tokens - 1))
            kept = (dt > threshold) | ~self.is_global[index][:, None, None]
            return torch.cat([kept, torch.ones_like(raw[:, :, tokens:], dtype=torch.bool)], 2).to(raw.dtype)

        return keep


@torch.no_grad()
def accuracy(
    members: Members, pack: Pack, times: int, watch: Watch | None, *, split: str, absent: float = 0.0, documents: int
) -> Tensor:
    """Share of questions whose every answer token is the likeliest one, (members,); the same documents for all."""
    torch.manual_seed(7 + times)
    shape = Shape(TRAINED * times, 4, ASKED, min_facts=4, absent=absent, attributes=0.0)
    sampler, size = Sampler(pack, shape, split), max(1, min(documents, 96 // times))
    right = torch.zeros(members.count, device=pack.device)
    rounds = math.ceil(documents / size)
    for _ in range(rounds):
        ids, kinds, _ = sampler.batch(size)
        many = ids.expand(members.count, -1, -1)
        hidden = members.hidden(many[..., :-1], watch)[:, :, shape.tokens :]
        guess = members.logits(hidden.flatten(1, 2)).argmax(-1).view(members.count, size, -1)
        target, kind = ids[:, 1 + shape.tokens :], kinds[:, 1 + shape.tokens :]
        asked = (kind == DIGIT1) | (kind == DIGIT) | (kind == ABSENT)
        wrong = (guess != target) & asked
        # A question's answer is a run of asked tokens; the first of each run is DIGIT1 or ABSENT.
        starts = (kind == DIGIT1) | (kind == ABSENT)
        number = starts.long().cumsum(1).clamp(min=1) - 1
        errors = torch.zeros(members.count, size, ASKED, device=ids.device)
        errors.scatter_add_(2, number.clamp(max=ASKED - 1).expand(members.count, -1, -1), wrong.float())
        right += (errors == 0).float().mean((1, 2))
    return right / rounds


def development(members: Members, pack: Pack, most: Tensor, split: str = "dev") -> dict[str, list[float]]:
    """One column a cell, one value a member."""
    members.weights = {k: w.detach() for k, w in members.weights.items()}
    pack = endless(pack, split)
    calibration = Calibration(members, pack, most)
    filters: dict[str, float | None] = {"document": None, ".05": 0.05, ".07": 0.07, ".1": 0.1}
    rows = {"1x": accuracy(members, pack, 1, None, split=split, documents=DOCUMENTS[1])}
    rows["1x absent"] = accuracy(members, pack, 1, None, split=split, absent=1.0, documents=DOCUMENTS[1])
    for times, documents in list(DOCUMENTS.items())[1:]:
        tokens = TRAINED * times
        if times < 256:
            rows[f"{times}x off"] = accuracy(members, pack, times, None, split=split, documents=documents)
        for name, clamp in filters.items():
            watch = calibration.filtered(tokens, clamp)
            rows[f"{times}x {name}"] = accuracy(members, pack, times, watch, split=split, documents=documents)
    watch = calibration.filtered(TRAINED * 16, 0.07)
    rows["16x .07 absent"] = accuracy(members, pack, 16, watch, split=split, absent=1.0, documents=24)
    found = {name: [round(v, 3) for v in row.tolist()] for name, row in rows.items()}
    found["global"] = [sum(int(g[m].sum()) for g in calibration.is_global) for m in range(members.count)]  # type: ignore[misc]
    first = calibration.is_global[0].sum(1)
    found["global in layer 0"] = first.tolist()
    return found


def endless(pack: Pack, split: str) -> Pack:
    """The same pack with the split's book several times over, so that documents may be longer than it."""
    low, high = pack.tables[f"filler_{split}"].tolist()
    book, start = pack.pool[low:high], len(pack.pool)
    longer = object.__new__(Pack)
    longer.device, longer.pool = pack.device, torch.cat([pack.pool, *[book] * 4])
    longer.tables = pack.tables | {f"filler_{split}": torch.tensor([start, start + 4 * len(book)])}
    return longer
