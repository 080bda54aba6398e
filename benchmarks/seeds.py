"""Measure models that differ by a seed: `python benchmarks/seeds.py BOOKS demo 94=demo 95=OUT/model-0.1`.

First the built-in model whose recipe made them, then SEED=MODEL for each; MODEL is a folder, or the built-in model's
name for the one that is shipped. What is measured is kept and not measured again; the table goes to docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from measure_results import LOGS, RESULTS, ROOT, Measurement, knows_exam, run_one
from niah_tables import SEEDS

from longmamba_mlx.builtin import BUILT_IN

CODES = ((1, 16, 64, 256), "off,longmamba", 40)
EXAM = ((1, 16), "off,longmamba", 80)


def runs(built_in: str, seed: str, model: str) -> list[Measurement]:
    """The reports on the model of one seed."""
    found = [Measurement(f"{SEEDS}/{built_in}/{seed}/codes", model, *CODES)]
    if knows_exam(built_in):
        found.append(Measurement(f"{SEEDS}/{built_in}/{seed}/exam", model, *EXAM, more="--attributes trained"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path)
    parser.add_argument("built_in", choices=BUILT_IN)
    parser.add_argument("models", nargs="+", metavar="SEED=MODEL")
    options = parser.parse_args()
    for seed, _, model in (named.partition("=") for named in options.models):
        for run in runs(options.built_in, seed, model):
            report = RESULTS / f"{run.name}.json"
            if report.exists():
                continue
            for folder in (report.parent, (LOGS / run.name).parent):
                folder.mkdir(parents=True, exist_ok=True)
            if run_one(run.command(options.books, 1.0)):
                raise SystemExit(f"Failed: {run.name}. The same command goes on.")
            found = json.loads(report.read_text(encoding="utf-8"))
            found |= {"model": options.built_in, "training_seed": seed, "shipped": model in BUILT_IN}
            report.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    run_one([sys.executable, str(ROOT / "benchmarks" / "niah_tables.py")])


if __name__ == "__main__":
    main()
