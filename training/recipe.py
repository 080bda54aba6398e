"""From nothing to the built-in model, stage after stage: `python training/recipe.py BOOKS OUT`.

What is done is kept in OUT and not done again, and a stage that was interrupted goes on from its last checkpoint, so
the same command finishes what it began. `--seed N` is added to the seed of every stage: another model of the same
recipe, OUT/model-N. `--last N` is added to the seed of the last stage alone: OUT/model-0.N, which shares all others
with OUT/model-0. `--list` prints the commands and runs nothing.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
GROWN = "--layers 4 --forgetting 1 --margin 0.3 --most-facts 8"
EXAM = "--numbers 0.4 --density 0.2 --absent 0.3 --exam 0.7 --language 0.1"


@dataclass(frozen=True)
class Stage:
    """One run of `train.py`: it begins with the weights of the stage before."""

    name: str
    seed: int
    steps: int
    lr: float
    options: str


# The steps and options are those of the shipped weights, with two exceptions: the learning rates of "numbers" and
# "dense" were not written down then and are chosen here, and "exam" began with 1,000 steps at 2e-3, fewer refusals.
DEMO = (
    Stage("three", 1, 6_342, 2.5e-3, ""),
    Stage("longer", 11, 6_386, 2e-3, "--stage 7"),
    Stage("numbers", 31, 1_375, 1.5e-3, "--stage 7 --numbers 0.6 --most-facts 8"),
    Stage("dense", 51, 1_965, 1.5e-3, "--stage 7 --numbers 0.7 --density 0.25 --most-facts 8"),
    Stage("grown", 61, 1_868, 1.5e-3, f"--stage 7 {GROWN} --numbers 0.5 --density 0.2 --absent 0.2"),
    Stage("exam", 71, 8_638, 1.5e-3, f"--stage 7 {GROWN} {EXAM}"),
    Stage("selective", 91, 1_577, 1e-3, f"--stage 9 {GROWN} {EXAM} --margin 20 --tail 3"),
    Stage("sharper", 94, 700, 6e-4, f"--stage 9 {GROWN} {EXAM} --margin 20 --tail 30"),
)


@dataclass(frozen=True)
class Task:
    """A command, and the file that is there when it is done."""

    command: list[str]
    made: Path


def tasks(books: Path, out: Path, stages: tuple[Stage, ...], *, seed: int, last: int, share: float) -> list[Task]:
    """Everything from the books to the model, in order; `share` of every stage's steps."""
    pack, python = out / "pack", sys.executable
    found = [Task([python, str(HERE / "pack.py"), str(books), str(pack)], pack / "pack.npz")]
    before: Path | None = None
    for stage in stages:
        more, which = (last, f"{seed}.{last}") if last and stage is stages[-1] else (0, f"{seed}")
        steps, name = max(1, round(stage.steps * share)), f"{stage.name}-{which}"
        command = [python, str(HERE / "train.py"), str(pack), str(out), "--kind", "mamba2", "--name", name]
        numbers = {"--seed": stage.seed + seed + more, "--steps": steps, "--lr": stage.lr, "--samples": 0}
        command += [str(word) for pair in numbers.items() for word in pair]
        command += [*shlex.split(stage.options), *([] if before is None else ["--init", str(before)])]
        last_two, before = (before, out / name), out / name
        found.append(Task(command, out / f"{name}.json"))
    mean = out / f"mean-{which}"  # more selective than the one, keener on facts than the other
    command = [python, str(HERE / "average.py"), str(mean), *map(str, last_two)]
    found.append(Task(command, out / f"{mean.name}.json"))
    model = out / f"model-{which}"
    command = [python, str(HERE / "export.py"), str(pack), str(mean), str(model), "--facts", "8", "--clamps", "0.05"]
    return [*found, Task(command, model / "longmamba.safetensors")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("books", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="added to every stage's")
    parser.add_argument("--last", type=int, default=0, help="added to the last one's")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of every stage's steps: 0.001 tries it all in minutes"
    )
    parser.add_argument("--list", action="store_true", help="print the commands")
    args = parser.parse_args()
    if not args.list and not args.books.is_dir():
        parser.error(f"there is no folder {args.books}: it should hold the texts that training/README.md names")
    for task in tasks(args.books, args.out, DEMO, seed=args.seed, last=args.last, share=args.share):
        print(f"{'done: ' if task.made.exists() else ''}{shlex.join(task.command)}", flush=True)
        if not args.list and not task.made.exists():
            subprocess.run(task.command, check=True)


if __name__ == "__main__":
    main()
