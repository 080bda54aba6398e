"""From nothing to the built-in model, stage after stage: `python training/recipe.py BOOKS OUT`.

What is done is kept in OUT and not done again, and a stage that was interrupted goes on from its last checkpoint, so
the same command finishes what it began. `--seed N` is added to the seed of every stage: another model of the same
recipe, OUT/model-N. `--list` prints the commands and runs nothing.
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


@dataclass(frozen=True)
class Stage:
    """One run of `train.py`: it begins with the weights of the stage before."""

    name: str
    seed: int
    steps: int
    lr: float
    options: str


# The steps and options are those of the shipped weights. The learning rates of "numbers" and "dense" were not written
# down then and are chosen here.
DEMO = (
    Stage("three", 1, 6_342, 2.5e-3, ""),
    Stage("longer", 11, 6_386, 2e-3, "--stage 7"),
    Stage("numbers", 31, 1_375, 1.5e-3, "--stage 7 --numbers 0.6 --most-facts 8"),
    Stage("dense", 51, 1_965, 1.5e-3, "--stage 7 --numbers 0.7 --density 0.25 --most-facts 8"),
    Stage("grown", 61, 1_868, 1.5e-3, f"--stage 7 {GROWN} --numbers 0.5 --density 0.2 --absent 0.2"),
)


@dataclass(frozen=True)
class Task:
    """A command, and the file that is there when it is done."""

    command: list[str]
    made: Path


def tasks(books: Path, out: Path, stages: tuple[Stage, ...], *, seed: int, share: float) -> list[Task]:
    """Everything from the books to the model, in order; `share` of every stage's steps."""
    pack, python = out / "pack", sys.executable
    found = [Task([python, str(HERE / "pack.py"), str(books), str(pack)], pack / "pack.npz")]
    before: Path | None = None
    for stage in stages:
        steps, name = max(1, round(stage.steps * share)), f"{stage.name}-{seed}"
        command = [python, str(HERE / "train.py"), str(pack), str(out), "--kind", "mamba2", "--name", name]
        command += ["--seed", str(stage.seed + seed), "--steps", str(steps), "--lr", str(stage.lr), "--samples", "0"]
        command += [*shlex.split(stage.options), *([] if before is None else ["--init", str(before)])]
        before = out / name
        found.append(Task(command, out / f"{name}.json"))
    model = out / f"model-{seed}"
    command = [python, str(HERE / "export.py"), str(pack), str(before), str(model), "--facts", "8", "--clamps", "0.05"]
    return [*found, Task(command, model / "longmamba.safetensors")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("books", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="added to every stage's")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of every stage's steps: 0.001 tries it all in minutes"
    )
    parser.add_argument("--list", action="store_true", help="print the commands")
    args = parser.parse_args()
    if not args.list and not args.books.is_dir():
        parser.error(f"there is no folder {args.books}: it should hold the texts that training/README.md names")
    for task in tasks(args.books, args.out, DEMO, seed=args.seed, share=args.share):
        print(f"{'done: ' if task.made.exists() else ''}{shlex.join(task.command)}", flush=True)
        if not args.list and not task.made.exists():
            subprocess.run(task.command, check=True)


if __name__ == "__main__":
    main()
