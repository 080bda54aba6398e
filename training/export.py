"""Make a built-in model of a trained net: `python training/export.py PACK OUT/NAME longmamba_mlx/builtin/demo [FACTS]`.

The net is saved in the layout of the original checkpoints, converted by the project's own converter, and calibrated
on windows like those it was trained on (with at most FACTS facts).
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from data import Pack, Sampler, Shape
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from longmamba_mlx.api import CALIBRATION, Model
from longmamba_mlx.convert import convert
from longmamba_mlx.loader import load_model
from longmamba_mlx.longmamba import collect
from longmamba_mlx.tokenizer import Tokenizer as Reader

TRAINED = 512
WINDOWS = 32
FACTS = 12  # at most, in a window
CLAMPS = {"Mamba2": 0.07, "Mamba1": 0.1}  # chosen on the development split
SETTINGS = {
    "training_length": TRAINED,
    "theta": 1e-5,
    "question": "\nQuestion: {question}?\nAnswer:",
    "stop": ["\n"],
    "not_found": ["The document does not say"],
}


def original(pack: Path, trained: Path, folder: Path) -> None:
    """The checkpoint as the original repositories lay it out."""
    report = json.loads(trained.with_suffix(".json").read_text())
    tokenizer = Tokenizer.from_file(str(pack / "tokenizer.json"))
    clamp = CLAMPS[report["original"]["ssm_cfg"]["layer"]]
    settings = SETTINGS | {"clamp": clamp}
    config = report["original"] | {"eos_token_id": tokenizer.token_to_id("<|end|>"), "longmamba": settings}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = load_file(trained.with_suffix(".safetensors"))
    weights["lm_head.weight"] = weights["backbone.embedding.weight"].clone()
    save_file(weights, str(folder / "model.safetensors"))
    shutil.copy(pack / "tokenizer.json", folder)


def main(pack: Path, trained: Path, target: Path, facts: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "original"
        original(pack, trained, folder)
        card = target / "README.md"
        kept = card.read_text() if card.exists() else None
        shutil.rmtree(target, ignore_errors=True)
        convert(folder, target, "float32")
        if kept is not None:
            card.write_text(kept)
    model = Model(load_model(target), Reader.from_folder(target))
    torch.manual_seed(0)
    ids, _, _ = Sampler(Pack(pack / "pack.npz", "cpu"), Shape(TRAINED, facts, 1), "train").batch(WINDOWS)
    windows = ids[:, :TRAINED].numpy().astype(np.uint32)
    calibration = collect(
        model.loaded.model,
        windows,
        fingerprint=model.loaded.fingerprint,
        quantisation=model.loaded.quantisation,
        clamps=(model.settings.clamp,),
    )
    calibration.save(target / CALIBRATION)
    for path in sorted(target.iterdir()):
        print(f"{path.name:>24} {path.stat().st_size:>10,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else FACTS)
