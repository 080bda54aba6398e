"""Make a built-in model of a trained net: `python training/export.py PACK OUT/NAME longmamba_mlx/builtin/demo`.

OUT/NAME:3 is member 3 of those that `many.py` trained. The net is saved in the layout of the original checkpoints,
converted by the project's own converter, and calibrated on windows like those it was trained on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import card
import numpy as np
import torch
from curriculum import sampler_of
from data import Pack, Shape
from exam import ExamShape
from pack import ATTRIBUTES, EXAM
from safetensors.torch import save_file
from stored import report, weights
from tokenizers import Tokenizer

from longmamba_mlx.conversion import convert
from longmamba_mlx.filtering import collect
from longmamba_mlx.models.loading import load_model
from longmamba_mlx.session.api import CALIBRATION, Model
from longmamba_mlx.tokenization.tokenizer import Tokenizer as Reader

TRAINED = 512
WINDOWS = 32
SETTINGS: dict[str, Any] = {
    "training_length": TRAINED,
    "theta": 1e-5,
    "question": "\nQuestion: {question}?\nAnswer:",
    "stop": ["\n"],
    "not_found": ["The document does not say"],
    "known_questions": [f"What is the {attribute} of {{name}}?" for attribute in ATTRIBUTES],
}


def learnt_exam(found: dict[str, Any]) -> bool:
    """Whether the training that wrote this report was on the harder exam too."""
    return bool(found.get("settings", {}).get("exam"))


def original(pack: Path, path: Path, folder: Path, clamp: float) -> None:
    """The checkpoint as the original repositories lay it out."""
    found = report(path)
    known = list(SETTINGS["known_questions"])
    if learnt_exam(found):
        known = list(dict.fromkeys([*known, *(question for item in EXAM for question in item.questions)]))
    tokenizer = Tokenizer.from_file(str(pack / "tokenizer.json"))
    settings = SETTINGS | {"known_questions": known, "clamp": clamp}
    config = found["original"] | {"eos_token_id": tokenizer.token_to_id("<|end|>"), "longmamba": settings}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = weights(path)
    tensors["lm_head.weight"] = tensors["backbone.embedding.weight"].clone()
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, str(folder / "model.safetensors"))
    shutil.copy(pack / "tokenizer.json", folder)


def main(pack: Path, path: Path, target: Path, facts: int, clamps: tuple[float, ...]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "original"
        original(pack, path, folder, clamps[0])
        readme = target / "README.md"
        kept = readme.read_text() if readme.exists() else None
        shutil.rmtree(target, ignore_errors=True)
        convert(folder, target, "float32")
        if kept is not None:
            readme.write_text(kept)
            card.write(target)
    model = Model(load_model(target), Reader.from_folder(target))
    torch.manual_seed(0)
    arrays, shapes = Pack(pack / "pack.npz", "cpu"), [Shape(TRAINED, facts, 1)]
    if learnt_exam(report(path)):
        shapes.append(ExamShape(TRAINED, facts, 1))
    each = WINDOWS // len(shapes)
    drawn = [sampler_of(arrays, shape).batch(each)[0][:, :TRAINED] for shape in shapes]
    windows = torch.cat(drawn).numpy().astype(np.uint32)
    calibration = collect(
        model.loaded.model,
        windows,
        fingerprint=model.loaded.fingerprint,
        quantisation=model.loaded.quantisation,
        clamps=clamps,
    )
    calibration.save(target / CALIBRATION)
    for path in sorted(target.iterdir()):
        print(f"{path.name:>24} {path.stat().st_size:>10,}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pack", "trained", "target"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--facts", type=int, default=12, help="at most, in a window")
    parser.add_argument("--clamps", type=float, nargs="+", default=[0.07], help="the first one is the model's")
    args = parser.parse_args()
    main(args.pack, args.trained, args.target, args.facts, tuple(args.clamps))
