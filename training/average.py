"""The mean of weights, of which one training went on from the other: `python training/average.py OUT/MEAN OUT/A OUT/B`.

The report beside it is that of the last one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from stored import report, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mean", type=Path)
    parser.add_argument("trained", type=Path, nargs="+")
    args = parser.parse_args()
    each = [weights(path) for path in args.trained]
    means = {name: torch.stack([one[name] for one in each]).mean(0) for name in each[0]}
    save_file(means, str(args.mean.with_name(f"{args.mean.name}.safetensors")))
    said = report(args.trained[-1]) | {"mean of": [path.name for path in args.trained]}
    args.mean.with_name(f"{args.mean.name}.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main()
