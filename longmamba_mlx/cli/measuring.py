"""`eval niah`: a table as it grows, and the rows as JSON."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from pathlib import Path

from longmamba_mlx.documents import read_document
from longmamba_mlx.errors import DiskError, UsageError


def measure_niah(
    model: str,
    lengths: str,
    filters: list[str],
    *,
    samples: int,
    facts: int,
    split: str,
    filler: list[Path],
    absent: bool,
    seed: int,
    json: Path | None,
) -> None:
    """Measure, print a row when it is known, and write all rows at the end."""
    from longmamba_mlx import catalogue
    from longmamba_mlx.api import load
    from longmamba_mlx.evaluation.needles import Filler
    from longmamba_mlx.evaluation.niah import Row, measure, parse_lengths

    if split not in ("dev", "test", "train"):
        raise UsageError(f"unknown split {split!r}", hint="One of: dev, test, train.")
    loaded = load(model, filter="off")
    tokens = parse_lengths(lengths, loaded.training_length)
    texts = [read_document(path).text for path in filler or [catalogue.sample_document()]]
    hay = Filler(texts, lambda text: len(loaded.tokenizer.encode(text)))
    rows: list[Row] = []
    print(f"{'filter':>10} {'tokens':>8} {'times L':>8} {'questions':>9} {'right':>15} {'nll':>7} {'refused':>8}")
    for row in measure(loaded, hay, tokens, [name.strip() for name in filters], samples=samples, facts=facts,
                       split=split, absent=absent, seed=seed):  # fmt: skip
        rows.append(row)
        nll = "" if row.nll is None else f"{row.nll:.3f}"
        right = f"{row.accuracy:.3f} ± {row.stderr:.3f}"
        times = f"{row.length / loaded.training_length:g}x"
        print(f"{row.filter:>10} {row.length:>8,} {times:>8} {row.samples:>9} {right:>15} {nll:>7} "
              f"{row.refused:>8.3f}", flush=True)  # fmt: skip
    if json is not None:
        report = {
            "model": model,
            "task": "niah-absent" if absent else "niah",
            "training_length": loaded.training_length,
            "facts": facts,
            "split": split,
            "seed": seed,
            "filler": [path.name for path in filler] or ["built-in sample"],
            "rows": [asdict(row) for row in rows],
        }
        _write(json, json_module.dumps(report, indent=1, allow_nan=True) + "\n")


def _write(path: Path, text: str) -> None:
    from longmamba_mlx.safeio import write_atomic

    try:
        write_atomic(path, lambda draft: draft.write_text(text, encoding="utf-8"))
    except DiskError:
        sys.stdout.write(text)
        raise
