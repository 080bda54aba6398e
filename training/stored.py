"""Where trained weights lie: OUT/NAME, or OUT/NAME:3 for member 3 of those that `many.py` trained side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from net import Net, NetConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

SIX = 6  # members in a file


def save_members(members: list[dict[str, Tensor]], out: Path, name: str) -> None:
    """All members, in files of six: MEMBER.WEIGHT."""
    for part in range(0, len(members), SIX):
        held = enumerate(members[part : part + SIX], part)
        tensors = {f"{member}.{key}": weight for member, weights in held for key, weight in weights.items()}
        save_file(tensors, str(out / f"{name}-{part // SIX}.safetensors"))


def weights(path: Path) -> dict[str, Tensor]:
    name, _, member = path.name.partition(":")
    if not member:
        return load_file(path.with_name(f"{name}.safetensors"))
    many, start = load_file(path.with_name(f"{name}-{int(member) // SIX}.safetensors")), f"{member}."
    return {key.removeprefix(start): weight for key, weight in many.items() if key.startswith(start)}


def trained_net(path: Path) -> Net:
    """The net with its weights, ready to be asked."""
    config = {key: value for key, value in report(path)["config"].items() if key != "parameters"}
    net = Net(NetConfig(**config))
    net.load_state_dict(weights(path))
    return net.eval()


def report(path: Path) -> dict[str, Any]:
    """What the training wrote beside the weights."""
    return dict(json.loads(path.with_name(f"{path.name.partition(':')[0]}.json").read_text()))
