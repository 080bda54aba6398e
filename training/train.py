"""Train one built-in model: `python training/train.py PACK OUT --kind mamba2 --seed 0 --minutes 45`.

A curriculum from one or two facts in 40 tokens to 12 facts in 512, and from names of one piece to names of three words.
A stage ends when the first digit of the answers is right often enough: later digits rise by induction and hide a
failure. One core, no GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from carry import Carry
from curriculum import sampler_of, shapes, stages
from data import ABSENT, DIGIT, DIGIT1, END, FILLER, KINDS, Pack, Sampler
from evaluate import rates, table
from hard_filler import HardFiller
from holds import closeness, decay, remembering, typical_step
from net import Net, NetConfig
from safetensors import safe_open
from safetensors.torch import save_file
from stored import weights
from torch import Tensor

TAIL = 0.35  # of the training, in which the learning rate falls
LATE = 0.2  # of the training: a stage ends then, mastered or not
UNTRAINED = (5.0, 0.0, 0.0, 0.0, 5.0)  # what a step returns, before the first of a stage


@dataclass
class Settings:
    kind: str
    seed: int
    minutes: float
    lr: float
    tokens: int  # a step
    language: float  # weight of the language loss
    stage: int  # to begin with
    most_facts: int  # in the last stage
    digit_weight: float  # of the later digits in the loss; the first has 2
    numbers: float  # share of the last stage's sequences that are full of other numbers
    density: float  # of those numbers, a token
    forgetting: int  # so many first layers are held to forget within a window, so that no global unit lies in them
    margin: float  # weight of the loss that holds filler's steps below the facts'
    absent: float  # share of the last stage's questions that are about names not there
    exam: float  # share of the last stages' sequences that are of the harder exam
    steps: int = 0  # of the training, whatever time they take; 0: `minutes`
    carry: bool = False  # windows go on from the states that others left
    tail: float = 0.0  # weight of the loss on filler that has large steps, which is searched for


def answer_weights(digit_weight: float) -> Tensor:
    """What a token of each kind counts in the loss of answers, (KINDS,)."""
    weights = torch.zeros(KINDS)
    for kind, weight in {DIGIT1: 2.0, DIGIT: digit_weight, END: 0.3, ABSENT: 2.0}.items():
        weights[kind] = weight
    return weights


def learning_rate(most: float, step: int, done: float) -> float:
    """It rises over 200 steps and falls over the last TAIL of the training, of which the share `done` is over."""
    return most * min(1.0, (step + 1) / 200) * max(0.01, min(1.0, (1 - done) / TAIL))


class Trainer:
    def __init__(self, settings: Settings, config: NetConfig, pack: Pack) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.pack = settings, pack
        self.net = Net(config)
        named = list(self.net.named_parameters())
        decayed = [p for name, p in named if p.dim() > 1 and "A_log" not in name]
        plain = [p for name, p in named if p.dim() <= 1 or "A_log" in name]
        groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), fused=True)
        self.weights = answer_weights(settings.digit_weight)
        self.carry = Carry(self.net) if settings.carry else None
        self.filler = HardFiller(self.net, pack) if settings.tail else None

    def tensors(self) -> dict[str, Tensor]:
        """Everything a later run needs to go on: weights and the optimiser's moments."""
        moments = self.optimizer.state_dict()["state"]
        named = {f"moment.{index}.{key}": value for index, one in moments.items() for key, value in one.items()}
        return {f"net.{key}": value for key, value in self.net.state_dict().items()} | named

    def restore(self, tensors: dict[str, Tensor]) -> None:
        whole = self.optimizer.state_dict()
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("moment."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**whole, "state": state})
        self.net.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})

    @torch.no_grad()
    def shorten(self, sampler: Sampler) -> None:
        """Raise |A| where the first `forgetting` layers would remember longer than they may."""

        def raise_rates(index: int, raw: Tensor) -> Tensor:
            if index < self.settings.forgetting:
                missing = remembering(decay(F.softplus(raw), rates(self.net, index))).mean(0)
                weight = self.net.backbone.layers[index].mixer.A_log
                weight += missing if weight.dim() == 1 else missing[:, None]
            return torch.ones(())

        self.net(sampler.batch(8)[0], raise_rates)

    def step(self, sampler: Sampler) -> Tensor:
        """One step; returns (loss of answers, shares right of first digits, later digits, refusals, language loss)."""
        ids, kinds, _ = sampler.batch(max(4, self.settings.tokens // sampler.shape.length))
        kind = kinds[:, 1:]
        picked = (self.weights[kind] > 0) | ((kind == FILLER) & (torch.rand(kind.shape) < 0.15))
        kind, target = kind[picked], ids[:, 1:][picked]
        extra: list[Tensor] = []

        def watch(index: int, raw: Tensor) -> Tensor:
            held = index < self.settings.forgetting
            if not held and not self.settings.margin and not self.filler:
                return torch.ones(())
            dt = F.softplus(raw)
            mean_decay = decay(dt, rates(self.net, index))
            if held:
                extra.append(remembering(mean_decay).mean(0).sum())
            if self.settings.margin:
                extra.append(self.settings.margin * closeness(dt, kinds[:, :-1], mean_decay).mean())
            if self.filler:
                self.filler.note(index, typical_step(dt, kinds[:, :-1]), mean_decay)
            return torch.ones(())

        if self.carry:
            self.carry.begin(len(ids), sampler.shape.tokens)
        logits = self.net.logits(self.net(ids[:, :-1], watch)[picked])
        if self.carry:
            self.carry.end()
        if self.filler:
            extra.append(self.settings.tail * self.filler.loss())
        loss = F.cross_entropy(logits, target, reduction="none")
        weight, filler = self.weights[kind], (kind == FILLER).float()
        answers = (loss * weight).sum() / weight.sum()
        language = (loss * filler).sum() / filler.sum()
        self.optimizer.zero_grad(set_to_none=True)
        (answers + self.settings.language * language + sum(extra)).backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        right = (logits.detach().argmax(-1) == target).float()
        shares = [right[kind == k].mean() if (kind == k).any() else torch.ones(()) for k in (DIGIT1, DIGIT, ABSENT)]
        return torch.stack([answers.detach(), *shares, language.detach()])


@dataclass
class Position:
    """Where a training is: what a checkpoint holds besides tensors."""

    spent: float = 0.0  # seconds of this process's CPU time, so that a busy machine gives the same training
    steps: int = 0
    stage: int = 0
    stage_started: float = 0.0  # share of the training

    def share(self, settings: Settings) -> float:
        """How much of the training is over."""
        return self.steps / settings.steps if settings.steps else self.spent / (settings.minutes * 60)


def samplers(settings: Settings, pack: Pack, stage: int) -> list[tuple[Sampler, float]]:
    """What a stage draws from, and how often."""
    asked = {"numbers": settings.numbers or None, "density": settings.density, "absent": settings.absent}
    mix = shapes(settings.kind, stage, most=settings.most_facts, exam=settings.exam, **asked)
    return [(sampler_of(pack, shape), share) for shape, share in mix]


def train(trainer: Trainer, at: Position, save: Callable[[], None], log: Callable[[str], None]) -> None:
    settings, before = trainer.settings, at.spent
    before_last = stages(settings.kind, exam=bool(settings.exam))
    started, saved = time.process_time(), at.spent
    mean = torch.tensor(UNTRAINED)
    rng = random.Random(settings.seed + at.steps)
    mix = samplers(settings, trainer.pack, at.stage)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopping.append(number))
    while (done_share := at.share(settings)) < 1:
        if stopping:
            save()
            raise SystemExit("stopped; the same command goes on from here")
        for group in trainer.optimizer.param_groups:
            group["lr"] = learning_rate(settings.lr, at.steps, done_share)
        mean.lerp_(trainer.step(rng.choices([s for s, _ in mix], [w for _, w in mix])[0]), 0.02)
        at.steps, at.spent = at.steps + 1, before + time.process_time() - started
        if at.steps % 50:
            continue
        loss, first, digits, absent, language = mean.tolist()
        done = at.stage < len(before_last) and first > before_last[at.stage][1] and digits > 0.85
        late = at.stage < len(before_last) and done_share - at.stage_started > LATE
        if at.steps % 250 == 0 or done or late:
            log(f"{at.spent:6.0f}s step {at.steps} stage {at.stage} loss {loss:.3f} first {first:.3f} "
                f"digits {digits:.3f} absent {absent:.3f} language {language:.3f}")  # fmt: skip
        if done or late:
            at.stage, at.stage_started = at.stage + 1, done_share
            mix, mean = samplers(settings, trainer.pack, at.stage), torch.tensor(UNTRAINED)
        if at.spent - saved > 180:
            saved = at.spent
            save()
    log(f"trained {at.steps} steps in {at.spent:.0f} s")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=("mamba1", "mamba2"), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=45, help="of CPU time")
    parser.add_argument("--steps", type=int, default=0, help="instead of minutes: the same on every machine")
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--tokens", type=int, default=5_000, help="tokens a step")
    parser.add_argument("--language", type=float, default=0.15)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--a-high", type=float, default=16)
    parser.add_argument("--a-low", type=float, default=1)
    parser.add_argument("--stage", type=int, default=0)
    parser.add_argument("--most-facts", type=int, default=12)
    parser.add_argument("--digit-weight", type=float, default=1.0)
    parser.add_argument("--numbers", type=float, default=0.0)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--forgetting", type=int, default=0, help="so many first layers must forget within a window")
    parser.add_argument("--margin", type=float, default=0.0, help="hold filler's steps below the facts'")
    parser.add_argument("--tail", type=float, default=0.0, help="the same for the filler with the largest steps")
    parser.add_argument("--absent", type=float, default=0.15, help="share of questions about names not there, at last")
    parser.add_argument("--exam", type=float, default=0.0, help="share of the harder exam, with stages of its own")
    parser.add_argument("--carry", action="store_true", help="pass states across windows (Mamba-2)")
    parser.add_argument(
        "--init",
        type=Path,
        help="start from these weights: OUT/NAME or OUT/NAME:MEMBER; "
        "with fewer layers than --layers, new ones that do nothing yet come before them",
    )
    parser.add_argument("--samples", type=int, default=96, help="of every kind on the development split, at the end")
    parser.add_argument("--name", default="")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    name = args.name or f"{args.kind}-{args.seed}"

    def log(text: str) -> None:
        print(f"[{name}] {text}", flush=True)

    config = NetConfig(
        args.kind,
        layers=args.layers,
        d_state=64 if args.kind == "mamba2" else 16,
        a_low=args.a_low,
        a_high=args.a_high,
    )
    pack = Pack(args.pack / "pack.npz", "cpu")
    settings = Settings(
        args.kind, args.seed, args.minutes, args.lr, args.tokens, args.language, args.stage, args.most_facts,
        args.digit_weight, args.numbers, args.density, args.forgetting, args.margin, args.absent, args.exam,
        args.steps, args.carry, args.tail,
    )  # fmt: skip
    trainer = Trainer(settings, config, pack)
    if args.init:
        trainer.net.start_from(weights(args.init))
    if args.forgetting:
        trainer.shorten(samplers(settings, pack, args.stage)[0][0])

    at, checkpoint = Position(stage=args.stage), args.out / f"{name}.checkpoint"
    if checkpoint.exists():
        with safe_open(checkpoint, "pt") as stored:
            trainer.restore({key: stored.get_tensor(key) for key in stored.keys()})  # noqa: SIM118
            at = Position(**json.loads(stored.metadata()["position"]))
        torch.manual_seed(args.seed + at.steps)
        log(f"goes on at step {at.steps}")

    def save() -> None:
        """The checkpoint; the same command goes on from it."""
        part = checkpoint.with_suffix(".part")
        save_file(trainer.tensors(), str(part), {"position": json.dumps(vars(at))})
        part.replace(checkpoint)

    log(json.dumps(trainer.net.describe()))
    train(trainer, at, save, log)
    last = {key: value.detach().contiguous() for key, value in trainer.net.state_dict().items()}
    save_file(last, str(args.out / f"{name}.safetensors"))
    checkpoint.unlink(missing_ok=True)
    lengths = (4, 16, 32) if args.kind == "mamba2" else (16, 64)
    rows = table(trainer.net, pack, lengths, args.samples) if args.samples else {}
    log(json.dumps(rows))
    report = {"config": trainer.net.describe(), "original": config.original(), "settings": vars(settings),
              "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("pack", "out")},
              "development": rows, "seconds": round(at.spent)}  # fmt: skip
    (args.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
