"""Measure everything `docs/results.md` shows and write its tables: `python benchmarks/measure_results.py BOOKS`.

BOOKS holds frankenstein.txt (test) and treasure-island.txt (development). Every run goes on where it was interrupted.
`--model demo` measures one model and keeps the other's reports, `--only 'exam-*,farther-demo'` some of the reports;
`--list` prints the commands, most important first, with the tokens that each reads. `--jobs 2` runs two at a time.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout that is not installed

from longmamba_mlx.builtin import BUILT_IN, known_questions  # noqa: E402
from longmamba_mlx.evaluation.attributes import ATTRIBUTES  # noqa: E402

HERE = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
RESULTS, LOGS = ROOT / "docs" / "results", ROOT / "build" / "results"
TEST, DEV = "frankenstein.txt", "treasure-island.txt"
L = 512  # the training length of the built-in models
FULL = 200  # questions a cell of the main table
FACTS = 4  # of a document, each asked for once
EVERY = "off,longmamba,curve,document,decimamba,last"
THETAS = ",".join(["paper", *(f"paper:theta={theta}" for theta in ("0.5", "0.1", "1e-2", "1e-3", "1e-10", "1e-30"))])
FAR = "paper,curve:clamp=0.04,curve:clamp=0.07,document,document:r=0.7,document:r=1.5"
TUNED = "curve:clamp=0.04,document:r=0.7"  # the best of FAR on the development split
CLAMPS = ",".join(f"curve:clamp={clamp}" for clamp in ("0", "0.03", "0.05", "0.07", "0.1", "0.2"))


@dataclass(frozen=True)
class Measurement:
    """A report that `longmamba-mlx eval` writes. `lengths` in training lengths, `samples` questions (or windows) a cell
    at full size; `seed` 1 is the test split's, any other the development split's."""

    name: str
    model: str
    lengths: tuple[int, ...]
    filters: str
    samples: int
    seed: int = 1
    task: str = "niah"
    more: str = ""
    each: int = FACTS  # questions a document

    def count(self, share: float) -> int:
        """Questions a cell, of whole documents."""
        return max(1, round(self.samples * share / self.each)) * self.each

    def tokens(self, share: float) -> int:
        """The tokens that it reads."""
        read = sum(self.lengths) * len(self.filters.split(","))
        depths = 5 if "--depths" in self.more else 1
        return L * read * depths * math.ceil(self.count(share) / self.each)

    def command(self, books: Path, share: float) -> list[str]:
        book, split = (TEST, "test") if self.seed == 1 else (DEV, "dev")
        text = (["--text", str(books / book)] if self.task == "ppl" else
                ["--filler", str(books / book), "--seed", str(self.seed), "--split", split])  # fmt: skip
        return [
            sys.executable, "-m", "longmamba_mlx", "eval", self.task, "--model", self.model,
            "--lengths", ",".join(f"{length}x" for length in self.lengths), "--filter", self.filters,
            "--samples", str(self.count(share)), *self.more.split(), *text,
            "--json", str(RESULTS / f"{self.name}.json"), "--log", str(LOGS / f"{self.name}.jsonl"),
        ]  # fmt: skip


def measurements() -> Iterator[Measurement]:
    """All reports, those of the summary first."""
    off_on = "off,longmamba"
    demo, mamba1 = BUILT_IN
    yield Measurement("niah-demo", demo, (1, 4, 8, 16, 32), EVERY, FULL)
    yield Measurement("far-demo", demo, (64, 128, 256), "off,longmamba,document,decimamba", 60)
    for model in BUILT_IN:
        yield from exam(model)
    yield Measurement("absent-demo", demo, (1, 16, 32), off_on, FULL, more="--absent")
    yield Measurement("depth-demo", demo, (1, 8, 16, 32), off_on, 20, more="--depths 5", each=1)
    yield Measurement("surest-demo", demo, (32,), "surest", 20)
    yield Measurement("surest-far-demo", demo, (256,), "longmamba,surest", 60)
    yield Measurement("farther-demo", demo, (2048,), "off,longmamba,document,last", 20)
    yield Measurement("ppl-demo", demo, (1, 4, 16, 64), EVERY, 10, task="ppl", each=1)
    yield Measurement("modes-demo", demo, (1, 8, 16, 32), "off,paper,curve,document", 120, seed=7)
    yield Measurement("clamp-demo", demo, (32,), CLAMPS, 40, seed=7)
    yield Measurement("theta-demo", demo, (32,), THETAS, 40, seed=7)
    yield Measurement("farther-dev-demo", demo, (2048,), FAR, 8, seed=41)
    yield Measurement("farther-tuned-demo", demo, (2048,), TUNED, 20)
    yield Measurement("millions-demo", demo, (16384,), "document:r=0.7", 4)
    yield Measurement("niah-demo-mamba1", mamba1, (1, 4, 16, 64), f"{off_on},last", FULL)
    yield Measurement("far-demo-mamba1", mamba1, (256,), off_on, 60)
    yield Measurement("absent-demo-mamba1", mamba1, (1, 16), off_on, FULL, more="--absent")


def knows_exam(model: str) -> bool:
    """Whether a built-in model may be asked all of the harder exam."""
    return set(known_questions(model)) >= {question for item in ATTRIBUTES for question in item.questions}


def exam(model: str) -> Iterator[Measurement]:
    """The harder exam, where a model knows its questions."""
    if not knows_exam(model):
        return
    off_on, trained = "off,longmamba", "--attributes trained"
    yield Measurement(f"exam-{model}", model, (1, 16), "off,longmamba,decimamba", FULL, more=trained)
    yield Measurement(f"exam-absent-{model}", model, (1, 16), off_on, 120, more=f"{trained} --absent")
    yield Measurement(f"exam-far-{model}", model, (64, 256), "off,longmamba,decimamba", 40, more=trained)


@dataclass(frozen=True)
class Script:
    """A report that another script of this folder writes, and about how many tokens it reads."""

    name: str
    model: str
    words: str
    read: int

    def tokens(self, _share: float) -> int:
        return self.read

    def command(self, books: Path, share: float) -> list[str]:
        words = self.words.format(dev=books / DEV, logs=LOGS, samples=max(FACTS, round(64 * share / FACTS) * FACTS))
        script, *rest = shlex.split(words)
        return [sys.executable, str(ROOT / "benchmarks" / script), *rest]


def scripts() -> Iterator[Script]:
    baselines = "baselines.py --filler {dev} --samples {samples} --log {logs}/baselines.jsonl"
    yield Script("baselines-demo", "demo", baselines, 7_900_000)
    yield Script("kept-demo", "demo", "far.py kept {dev} --tokens 131072", 400_000)
    yield Script("passkey-demo", "demo", "far.py passkey", 200_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("--model", choices=BUILT_IN, help="only this model's reports")
    parser.add_argument("--samples", type=int, default=FULL, help="of a main table's cell; others in proportion")
    parser.add_argument("--only", default="*", help="names of reports, with commas and *")
    parser.add_argument("--jobs", type=int, default=1, help="commands that run at the same time")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    options = parser.parse_args()
    share, patterns = options.samples / FULL, options.only.split(",")
    chosen = [
        run for run in [*measurements(), *scripts()]
        if options.model in (None, run.model) and any(fnmatch(run.name, pattern) for pattern in patterns)
    ]  # fmt: skip
    if not chosen:
        parser.error(f"no report is named {options.only!r}; see --list")
    commands = [run.command(options.books, share) for run in chosen]
    if options.list:
        for run, command in zip(chosen, commands, strict=True):
            print(f"# {run.name}: {run.tokens(share) / 1e6:.1f} million tokens\n{shlex.join(command)}")
        print(f"# in all {sum(run.tokens(share) for run in chosen) / 1e6:.1f} million tokens")
        return
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            codes = list(pool.map(run_one, commands))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    for script in ("niah_tables.py", "figures.py"):
        run_one([sys.executable, str(ROOT / "benchmarks" / script)])
    if any(codes):
        failed = [run.name for run, code in zip(chosen, codes, strict=True) if code]
        raise SystemExit(f"Failed: {', '.join(failed)}. The same command goes on.")


def run_one(command: list[str]) -> int:
    print(shlex.join(command), flush=True)
    return subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": HERE}).returncode


if __name__ == "__main__":
    main()
