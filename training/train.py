"""Train one built-in model: `python training/train.py PACK OUT --kind mamba2 --seed 0 --minutes 45`.

A curriculum from one or two facts in 40 tokens to 12 facts in 512, and from names of one piece to names of three words.
A stage ends when the first digit of the answers is right often enough: later digits rise by induction and hide a
failure. One core, no GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from data import ABSENT, DIGIT, DIGIT1, END, FILLER, KINDS, Pack, Sampler, Shape
from evaluate import rates, table
from exam import ExamSampler, ExamShape
from holds import closeness, decay, remembering
from net import Net, NetConfig
from safetensors import safe_open
from safetensors.torch import save_file
from stored import weights
from torch import Tensor

ONE = Shape(40, 2, 2, words=1, pieces=1, absent=0.0, attributes=0.0, sharing=0.0)
START = {
    "mamba2": (
        (ONE, 0.85),
        (replace(ONE, tokens=64, facts=3, min_facts=2), 0.9),
        (replace(ONE, tokens=96, facts=4, questions=3, min_facts=2), 0.9),
    ),
    "mamba1": (
        (replace(ONE, digits=1, questions=3), 0.85),
        (replace(ONE, tokens=64, facts=3, min_facts=2, questions=3, digits=1), 0.9),
        (replace(ONE, tokens=96, facts=5, min_facts=3, questions=4, digits=1), 0.9),
        (replace(ONE, tokens=64, facts=3, min_facts=1), 0.85),
        (replace(ONE, tokens=96, facts=4, questions=3, min_facts=2), 0.85),
    ),
}
THEN = (
    (replace(ONE, tokens=160, facts=5, questions=4, absent=0.1), 0.88),
    (replace(ONE, tokens=160, facts=5, questions=4, pieces=3, absent=0.1), 0.88),
    (replace(ONE, tokens=160, facts=6, questions=5, pieces=6, absent=0.12, words=2, sharing=0.1), 0.85),
    (Shape(256, 8, 6, pieces=8, sharing=0.25), 0.85),
)
TAIL = 0.35  # of the training, in which the learning rate falls
UNTRAINED = (5.0, 0.0, 0.0, 0.0, 5.0)  # what a step returns, before the first of a stage
# The harder exam: stages of its own after those above, then a share of the last one.
EXAM_THEN = (
    (ExamShape(128, 3, 6, words=1, pieces=4, sharing=0.0, absent=0.1, others=1, other_attribute=0.2), 0.8),
    (ExamShape(192, 5, 8, words=2, pieces=8, sharing=0.2, absent=0.15, others=2), 0.8),
)
EXAM_FINAL = (
    (ExamShape(192, 6, 8, min_facts=2), 0.3),
    (ExamShape(256, 8, 8, min_facts=2), 0.3),
    (ExamShape(512, 8, 10, min_facts=2), 0.4),
)
FINAL = ((Shape(160, 6, 6), 0.2), (Shape(256, 8, 8), 0.3), (Shape(512, 12, 10), 0.5))


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
            if not held and not self.settings.margin:
                return torch.ones(())
            dt = F.softplus(raw)
            mean_decay = decay(dt, rates(self.net, index))
            if held:
                extra.append(remembering(mean_decay).mean(0).sum())
            if self.settings.margin:
                extra.append(self.settings.margin * closeness(dt, kinds[:, :-1], mean_decay).mean())
            return torch.ones(())

        logits = self.net.logits(self.net(ids[:, :-1], watch)[picked])
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
    stage_started: float = 0.0


def stages(settings: Settings) -> tuple[tuple[Shape, float], ...]:
    """The shapes of the stages before the last one, and what share of first digits ends each."""
    return (*START[settings.kind], *THEN, *(EXAM_THEN if settings.exam else ()))


def samplers(settings: Settings, pack: Pack, stage: int) -> list[tuple[Sampler, float]]:
    """What a stage draws from, and how often."""
    before, most, harder = stages(settings), settings.most_facts, settings.exam
    asked = {"numbers": settings.numbers or None, "density": settings.density, "absent": settings.absent}

    def last(mix: tuple[tuple[Shape, float], ...], part: float) -> list[tuple[Shape, float]]:
        return [(replace(shape, facts=min(shape.facts, most), **asked), share * part) for shape, share in mix]

    if stage >= len(before):
        mix = last(FINAL, 1 - harder) + last(EXAM_FINAL, harder)
    elif isinstance(before[stage][0], ExamShape):
        mix = [*last(FINAL, 1 - harder), (before[stage][0], harder)]
    else:
        mix = [(before[stage][0], 1.0)]
    return [(sampler_of(pack, shape), share) for shape, share in mix if share]


def sampler_of(pack: Pack, shape: Shape, split: str = "train") -> Sampler:
    return ExamSampler(pack, shape, split) if isinstance(shape, ExamShape) else Sampler(pack, shape, split)


def train(trainer: Trainer, at: Position, save: Callable[[], None], log: Callable[[str], None]) -> None:
    settings, before = trainer.settings, at.spent
    before_last = stages(settings)
    total, started, saved = settings.minutes * 60, time.process_time(), at.spent
    mean = torch.tensor(UNTRAINED)
    rng = random.Random(settings.seed + at.steps)
    mix = samplers(settings, trainer.pack, at.stage)
    while at.spent < total:
        for group in trainer.optimizer.param_groups:
            group["lr"] = learning_rate(settings.lr, at.steps, at.spent / total)
        mean.lerp_(trainer.step(rng.choices([s for s, _ in mix], [w for _, w in mix])[0]), 0.02)
        at.steps, at.spent = at.steps + 1, before + time.process_time() - started
        if at.steps % 50:
            continue
        loss, first, digits, absent, language = mean.tolist()
        done = at.stage < len(before_last) and first > before_last[at.stage][1] and digits > 0.85
        late = at.stage < len(before_last) and at.spent - at.stage_started > total * 0.2
        if at.steps % 250 == 0 or done or late:
            log(f"{at.spent:6.0f}s step {at.steps} stage {at.stage} loss {loss:.3f} first {first:.3f} "
                f"digits {digits:.3f} absent {absent:.3f} language {language:.3f}")  # fmt: skip
        if done or late:
            at.stage, at.stage_started = at.stage + 1, at.spent
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
    parser.add_argument("--absent", type=float, default=0.15, help="share of questions about names not there, at last")
    parser.add_argument("--exam", type=float, default=0.0, help="share of the harder exam, with stages of its own")
    parser.add_argument(
        "--init",
        type=Path,
        help="start from these weights: OUT/NAME or OUT/NAME:MEMBER; "
        "with fewer layers than --layers, new ones that do nothing yet come before them",
    )
    parser.add_argument("--samples", type=int, default=96)
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
    rows = table(trainer.net, pack, (4, 16, 32) if args.kind == "mamba2" else (16, 64), args.samples)
    log(json.dumps(rows))
    report = {"config": trainer.net.describe(), "original": config.original(), "settings": vars(settings),
              "arguments": {k: str(v) for k, v in vars(args).items() if k not in ("pack", "out")},
              "development": rows, "seconds": round(at.spent)}  # fmt: skip
    (args.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
