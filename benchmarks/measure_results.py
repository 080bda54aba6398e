"""Measure everything `docs/results.md` shows and write its tables: `python benchmarks/measure_results.py BOOKS`.

BOOKS holds frankenstein.txt (test) and treasure-island.txt (development). Every run goes on where it was interrupted;
`--only` names some of them (`--list` prints them). At full size this takes hours on one core; `--samples 40` gives the
same tables with larger errors.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
TEST, DEV = "frankenstein.txt", "treasure-island.txt"
EVERY = "off,longmamba,curve,document,decimamba,last"
THETAS = ",".join(["paper", *(f"paper:theta={theta}" for theta in ("0.5", "0.1", "1e-2", "1e-3", "1e-10", "1e-30"))])
FAR = "paper,curve:clamp=0.04,curve:clamp=0.03,curve:clamp=0.02,document"
CLAMPS = ",".join(f"curve:clamp={clamp}" for clamp in ("0", "0.03", "0.05", "0.07", "0.1", "0.2"))


def runs(books: Path, samples: int) -> dict[str, list[str]]:
    """Name of the report -> the words of `longmamba-mlx eval`."""
    test = ["--filler", str(books / TEST), "--seed", "1", "--split", "test"]
    dev = ["--filler", str(books / DEV), "--seed", "7", "--split", "dev"]
    many, some, few = str(samples), str(max(8, samples // 2)), str(max(4, samples // 10))
    found = {}
    for model, lengths, far in (("demo", "1x,4x,8x,16x,32x", "64x,128x,256x"),
                                ("demo-mamba1", "1x,4x,16x,64x", "128x,256x")):  # fmt: skip
        niah = ["niah", "--model", model]
        found |= {
            f"niah-{model}": [*niah, "--lengths", lengths, "--filter", EVERY, "--samples", many, *test],
            f"far-{model}": [*niah, "--lengths", far, "--filter", "off,longmamba,document", "--samples", some, *test],
            f"surest-{model}": [*niah, "--lengths", "32x", "--filter", "surest", "--samples", few, *test],
            f"absent-{model}": [*niah, "--lengths", "1x,16x,32x", "--filter", "off,longmamba", "--samples", many,
                                "--absent", *test],
            f"depth-{model}": [*niah, "--lengths", "1x,8x,16x,32x", "--depths", "5", "--filter", "off,longmamba",
                               "--samples", few, *test],
            f"modes-{model}": [*niah, "--lengths", "1x,8x,16x,32x", "--filter", "off,paper,curve,document",
                               "--samples", many, *dev],
            f"theta-{model}": [*niah, "--lengths", "32x", "--filter", THETAS, "--samples", some, *dev],
            f"clamp-{model}": [*niah, "--lengths", "32x", "--filter", CLAMPS, "--samples", some, *dev],
            f"ppl-{model}": ["ppl", "--model", model, "--text", str(books / TEST), "--lengths", "1x,4x,16x,64x",
                             "--filter", EVERY, "--samples", some],
        }  # fmt: skip
    far = ["niah", "--model", "demo", "--lengths", "2048x"]
    return found | {
        "farther-dev-demo": [*far, "--filter", FAR, "--samples", "8", *dev[:2], "--seed", "41", "--split", "dev"],
        "farther-demo": [*far, "--filter", "document", "--samples", few, *test],
    }


def others(books: Path) -> dict[str, list[str]]:
    """Name of the report -> the words of `benchmarks/far.py`."""
    return {
        "passkey-demo": ["passkey"],
        "kept-demo": ["kept", str(books / DEV), "--tokens", "131072"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("books", type=Path)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--only", default="", help="reports, with commas")
    parser.add_argument("--list", action="store_true", help="print the commands and run nothing")
    options = parser.parse_args()
    wanted = [name for name in options.only.split(",") if name]
    for name, words in runs(options.books, options.samples).items():
        if wanted and name not in wanted:
            continue
        command = [sys.executable, "-m", "longmamba_mlx", "eval", *words, "--json", str(RESULTS / f"{name}.json"),
                   "--log", str(ROOT / "build" / "results" / f"{name}.jsonl"),
                   "--plot", str(RESULTS / f"{name}.png")]  # fmt: skip
        print(" ".join(command), flush=True)
        if not options.list:
            subprocess.run(command, check=True)
    for name, words in others(options.books).items():
        if not wanted or name in wanted:
            command = [sys.executable, str(ROOT / "benchmarks" / "far.py"), *words]
            print(" ".join(command), flush=True)
            if not options.list:
                subprocess.run(command, check=True)
    if not options.list:
        for script in ("niah_tables.py", "figures.py"):
            subprocess.run([sys.executable, str(ROOT / "benchmarks" / script)], check=True)


if __name__ == "__main__":
    main()
