"""Train many seeds and recipes side by side on one GPU: `python training/many.py PACK OUT --kind mamba2 --steps 12000`.

The curriculum and the step of `train.py`, for all members at once; members differ in their first weights, their data
and their recipe. A stage ends when most members master it. At the end every member is measured on the
development split; OUT holds all weights and what was found. `export.py` takes one of them as OUT/NAME:MEMBER.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from choose import development
from curriculum import FINAL, START, THEN
from data import ABSENT, DIGIT, DIGIT1, FILLER, Pack, Sampler
from holds import closeness, decay, remembering
from members import Members
from net import Net, NetConfig
from stored import save_members
from torch import Tensor
from train import UNTRAINED, answer_weights, learning_rate

QUORUM, LATE = 0.6, 0.06  # a stage ends when so many members master it, or after that share of all steps


@dataclass(frozen=True)
class Recipe:
    """What the members of one group share. Numbers come after the first stages, `most` facts at most in the last."""

    name: str
    count: int
    most: int = 12
    numbers: float = 0.0
    density: float = 0.1
    forgetting: int = 0  # so many first layers are held to forget within a window
    margin: float = 0.0  # weight of the loss that holds filler's steps below the facts'
    since: int = 0  # the stage from which on these two count
    language: float = 0.15
    digit_weight: float = 1.0


RECIPES = {
    "mamba2": (
        Recipe("plain", 3),
        Recipe("numbers", 2, 10, 0.5, 0.15),
        Recipe("margin", 2, 10, 0.5, 0.2, margin=0.3, since=5),
        Recipe("forget and margin later", 3, 10, 0.5, 0.2, forgetting=1, margin=0.3, since=5),
        Recipe("forget and margin", 2, 10, 0.5, 0.2, forgetting=1, margin=0.3),
    ),
    "mamba1": (
        Recipe("plain", 3, 6, language=0.05, digit_weight=2.0),
        Recipe("margin", 3, 8, 0.5, 0.2, margin=0.3, since=5, language=0.05, digit_weight=2.0),
    ),
}


class Adam:
    """AdamW on stacked weights; gradients are clipped member by member."""

    def __init__(self, weights: dict[str, Tensor], decay: float = 0.05) -> None:
        self.betas, self.steps = (0.9, 0.98), 0
        parts = []
        for name, weight in weights.items():
            decayed = weight.dim() > 2 and "A_log" not in name
            parts.append(torch.full((weight[0].numel(),), decay * decayed, device=weight.device))
        self.decay = torch.cat(parts)
        # The weights become views of one buffer, so that a step is a handful of operations.
        self.flat = flat = torch.cat([w.flatten(1) for w in weights.values()], 1)
        at = 0
        for name, weight in weights.items():
            size = weight[0].numel()
            weights[name] = flat[:, at : at + size].view(weight.shape).detach().requires_grad_()
            at += size
        self.weights = list(weights.values())
        self.mean, self.square = torch.zeros_like(flat), torch.zeros_like(flat)
        self.rate, self.corrected = flat.new_zeros(()), flat.new_zeros(())

    def begin(self, rate: float) -> None:
        """Set what changes from step to step; `step` itself may be a replayed graph."""
        self.steps += 1
        first, second = self.betas
        self.rate.fill_(rate)
        self.corrected.fill_(rate * (1 - second**self.steps) ** 0.5 / (1 - first**self.steps))

    @torch.no_grad()
    def step(self) -> None:
        gradient = torch.cat([w.grad.flatten(1) for w in self.weights], 1)  # type: ignore[union-attr]
        for weight in self.weights:
            weight.grad = None
        gradient *= (1.0 / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        first, second = self.betas
        self.mean.lerp_(gradient, 1 - first)
        self.square.lerp_(gradient.square(), 1 - second)
        self.flat.mul_(1 - self.rate * self.decay)
        self.flat.sub_(self.mean / self.square.sqrt().add_(1e-8) * self.corrected)


class Trainer:
    def __init__(self, kind: str, seed: int, config: NetConfig, recipes: tuple[Recipe, ...], pack: Pack) -> None:
        self.pack, self.kind = pack, kind
        self.recipes = [recipe for recipe in recipes for _ in range(recipe.count)]
        nets = []
        for member in range(len(self.recipes)):
            torch.manual_seed(seed + member)
            nets.append(Net(config))
        torch.manual_seed(seed)
        self.members = Members(config, nets, pack.device)
        self.adam = Adam(self.members.weights)

        def each(name: str) -> Tensor:
            return torch.tensor([float(getattr(recipe, name)) for recipe in self.recipes], device=pack.device)

        self.most, self.numbers, self.density = each("most"), each("numbers"), each("density")
        self.forgetting, self.margin, self.since = each("forgetting"), each("margin"), each("since")
        self.language, self.stage = each("language"), 0
        self.mean = torch.empty(len(self.recipes), 5, device=pack.device)
        self.weights = torch.stack([answer_weights(recipe.digit_weight) for recipe in self.recipes]).to(pack.device)

    def samplers(self, tokens: int) -> list[tuple[Sampler, int, float]]:
        """(sampler, sequences a member, share of steps) of this stage."""
        self.mean.copy_(torch.tensor(UNTRAINED))
        stages, stage = (*START[self.kind], *THEN), self.stage
        shapes = [(stages[stage][0], 1.0)] if stage < len(stages) else list(FINAL)
        found = []
        for shape, share in shapes:
            batch = max(4, tokens // shape.length)
            most, numbers, density = (
                item.repeat_interleave(batch)[:, None] for item in (self.most, self.numbers, self.density)
            )
            if stage >= len(START[self.kind]):
                shape = replace(shape, numbers=numbers, density=density)
            if stage >= len(stages):
                shape = replace(shape, most=most.clamp(max=shape.facts))
            found.append((Sampler(self.pack, shape, "train"), batch, share))
        return found

    def decay(self, index: int, dt: Tensor) -> Tensor:
        return decay(dt, self.members.rates(index)[:, None])

    @torch.no_grad()
    def shorten(self, sampler: Sampler, batch: int) -> None:
        """Raise |A| where the first `forgetting` layers would remember longer than they may."""

        def raise_rates(index: int, raw: Tensor) -> Tensor:
            missing = remembering(self.decay(index, F.softplus(raw))).mean(1)
            missing = missing * self.held(index)[:, None]
            weight = self.members.weights[f"backbone.layers.{index}.mixer.A_log"]
            weight += missing if weight.dim() == 2 else missing[..., None]
            return torch.ones((), device=raw.device)

        self.members.hidden(self.batch(sampler, batch)[0], raise_rates)

    def batch(self, sampler: Sampler, batch: int) -> tuple[Tensor, Tensor]:
        ids, kinds, _ = sampler.batch(self.members.count * batch)
        return ids.unflatten(0, (-1, batch)), kinds.unflatten(0, (-1, batch))

    def captured(self, sampler: Sampler, batch: int, pool: Any) -> Callable[[], None]:
        """The step as a CUDA graph: launching its thousand kernels one by one takes as long as running them."""
        if self.pack.device != "cuda":
            return lambda: self.step(sampler, batch)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.step(sampler, batch)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self.step(sampler, batch)
        return graph.replay

    def step(self, sampler: Sampler, batch: int) -> None:
        """One step; `mean` follows (members, 5): loss of answers, shares right of first digits, later digits,
        refusals; language loss."""
        ids, kinds = self.batch(sampler, batch)
        kind, target, before = kinds[..., 1:].flatten(1), ids[..., 1:].flatten(1), kinds[..., :-1]
        weight = self.weights.gather(1, kind)
        # All answers and some filler, a fixed number of places: what has a size to wait for stalls the GPU.
        count = batch * (7 * sampler.shape.questions + sampler.shape.tokens // 8)
        chance = torch.rand(kind.shape, device=kind.device)
        picked = torch.where(weight > 0, 2.0, chance * (kind == FILLER)).topk(count, 1).indices
        kind, target, weight = (item.gather(1, picked) for item in (kind, target, weight))
        extra: list[Tensor] = []

        def watch(index: int, raw: Tensor) -> Tensor:
            dt = F.softplus(raw)
            mean_decay = self.decay(index, dt)
            if any(recipe.forgetting > index for recipe in self.recipes):
                extra.append(remembering(mean_decay).mean((1, 2)) * 8 * self.held(index))
            if any(recipe.margin for recipe in self.recipes):
                over = closeness(dt, before, mean_decay).mean((1, 2))
                extra.append(over * self.margin * (self.since <= self.stage))
            return torch.ones((), device=raw.device)

        hidden = self.members.hidden(ids[..., :-1], watch).flatten(1, 2)
        logits = self.members.logits(hidden.gather(1, picked[..., None].expand(-1, -1, hidden.shape[-1])))
        loss = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        plain = (kind == FILLER).float()
        answers = (loss * weight).sum(1) / weight.sum(1)
        language = (loss * plain).sum(1) / plain.sum(1).clamp(min=1)
        (answers + self.language * language + sum(extra)).sum().backward()
        self.adam.step()
        right = (logits.detach().argmax(-1) == target).float()
        shares = [(right * (kind == k)).sum(1) / (kind == k).sum(1).clamp(min=1) for k in (DIGIT1, DIGIT, ABSENT)]
        self.mean.lerp_(torch.stack([answers.detach(), *shares, language.detach()], 1), 0.02)

    def held(self, index: int) -> Tensor:
        """Which members' layer must forget within a window now."""
        return (self.forgetting > index) & (self.since <= self.stage)


def train(trainer: Trainer, steps: int, seconds: float, lr: float, tokens: int, seed: int) -> None:
    stages, rng, started = (*START[trainer.kind], *THEN), random.Random(seed), time.monotonic()

    def prepared() -> tuple[list[Callable[[], None]], list[float]]:
        mix = trainer.samplers(tokens)
        if trainer.stage == 0:
            trainer.shorten(*mix[0][:2])
        trainer.adam.begin(0.0)
        pool = torch.cuda.graph_pool_handle() if trainer.pack.device == "cuda" else None
        return [trainer.captured(sampler, batch, pool) for sampler, batch, _ in mix], [share for _, _, share in mix]

    step, since = 0, 0
    ways, shares = prepared()
    while (done := max(step / steps, (time.monotonic() - started) / seconds)) < 1:
        trainer.adam.begin(learning_rate(lr, step, done))
        rng.choices(ways, shares)[0]()
        step += 1
        if step % 50:
            continue
        _, first, digits, absent, language = trainer.mean.T.tolist()
        over = trainer.stage < len(stages)
        if over:
            mastered = sum(f > stages[trainer.stage][1] and d > 0.85 for f, d in zip(first, digits, strict=True))
            over = mastered >= QUORUM * len(first) or step - since > LATE * steps
        if step % 500 == 0 or over:
            shown = " ".join(f"{100 * f:.0f}/{100 * d:.0f}" for f, d in zip(first, digits, strict=True))
            print(f"{time.monotonic() - started:5.0f}s step {step} stage {trainer.stage} language {min(language):.2f} "
                  f"absent {min(absent):.2f} first/later digits {shown}", flush=True)  # fmt: skip
        if over:
            trainer.stage, since = trainer.stage + 1, step
            del ways
            ways, shares = prepared()
    print(f"trained {step} steps in {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=("mamba1", "mamba2"), required=True)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--seconds", type=float, default=1e9, help="at most, for the training")
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--tokens", type=int, default=5_000, help="a step and member")
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    second = args.kind == "mamba2"
    ranges = {} if second else {"a_low": 1 / 16, "a_high": 1.0}
    config = NetConfig(args.kind, d_state=64 if second else 16, **ranges)
    pack = Pack(args.pack / "pack.npz", args.device)
    trainer = Trainer(args.kind, args.seed, config, RECIPES[args.kind], pack)
    args.out.mkdir(parents=True, exist_ok=True)
    train(trainer, args.steps, args.seconds, args.lr, args.tokens, args.seed)
    name = f"{args.kind}-{args.seed}"
    save_members([trainer.members.one(m) for m in range(trainer.members.count)], args.out, name)
    found = development(trainer.members, pack, trainer.most)
    for cell, row in found.items():
        print(f"{cell:>18} " + " ".join(f"{value:5.2f}" for value in row))
    report = {"config": asdict(config), "original": config.original(), "development": found,
              "arguments": {k: v for k, v in vars(args).items() if k not in ("pack", "out")},
              "recipes": [asdict(recipe) for recipe in trainer.recipes]}  # fmt: skip
    (args.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
