"""Our side of a parity fixture: load it as a user's model folder and compare logits. Needs no torch."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.loading import load_model
from tests.parity.cases import PREFILL

FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-4
SHORT = 24


@dataclass(frozen=True, slots=True)
class Parity:
    """How far our logits are from the reference's."""

    max_abs: float
    argmax_same: float

    @property
    def exact(self) -> bool:
        """Within the tolerance, every argmax the same."""
        return self.max_abs <= TOLERANCE and self.argmax_same == 1.0


@dataclass(frozen=True)
class Fixture:
    """One stored case."""

    name: str
    about: dict[str, str]
    weights: dict[str, np.ndarray]
    thresholds: dict[int, np.ndarray]
    ids: np.ndarray
    positions: np.ndarray
    logits: np.ndarray
    logits_filtered: np.ndarray

    @property
    def config(self) -> dict[str, object]:
        """config.json as transformers saved it."""
        table: dict[str, object] = json.loads(self.about["config"])
        return table

    def write_folder(self, folder: Path) -> Path:
        """The model folder that transformers saved."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(self.about["config"])
        save_file(self.weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    def compare(self, logits: np.ndarray, filtered: bool) -> Parity:
        """Logits (tokens, vocab) of the first or of all tokens against the reference's at the stored positions."""
        read = self.positions < len(logits)
        expected = (self.logits_filtered if filtered else self.logits)[read]
        got = logits[self.positions[read]]
        same = got.argmax(-1) == expected.argmax(-1)
        return Parity(float(np.abs(got - expected).max()), float(same.mean()))


def names() -> list[str]:
    """All fixtures, by name."""
    return sorted(path.stem for path in FIXTURES.glob("*.safetensors"))


@functools.cache
def fixture(name: str) -> Fixture:
    """Read a fixture."""
    with safe_open(FIXTURES / f"{name}.safetensors", "np") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        about: dict[str, str] = json.loads(file.metadata()["about"])

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}

    return Fixture(
        name=name,
        about=about,
        weights={key: array.astype(np.float32) for key, array in under("weights/").items()},
        thresholds={int(key): array for key, array in under("thresholds/").items()},
        ids=arrays["ids"],
        positions=arrays["positions"],
        logits=arrays["logits"],
        logits_filtered=arrays["logits_filtered"],
    )


@functools.cache
def model(name: str, kernel: str = "") -> LanguageModel:
    """A fixture's model, loaded from the folder transformers saved; `kernel` keeps those of other kernels apart."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(fixture(name).write_folder(Path(folder) / name)).model


def run(name: str, chunk: int, filtered: bool, short: bool = True) -> Parity:
    """Prefill in chunks, with or without the filter; after a prefill in one piece, decode token by token without it.

    Single tokens are slow to read: in chunks of one only the first `SHORT` are, unless `short` is False.
    """
    stored, running = fixture(name), model(name, os.environ.get("LONGMAMBA_KERNEL", ""))
    thresholds = None
    if filtered:
        rows = stored.thresholds
        thresholds = [mx.array(rows[i]) if i in rows else None for i in range(running.config.n_layer)]
    ids = mx.array(stored.ids)[None]
    last = SHORT if chunk == 1 and short else PREFILL
    ends = [*range(chunk, last, chunk), last]
    if chunk >= PREFILL:
        ends += range(PREFILL + 1, ids.shape[1] + 1)
    state, parts, start = None, [], 0
    for end in ends:
        hidden, state = running(ids[:, start:end], state, thresholds if end <= PREFILL else None)
        parts.append(np.array(running.head(hidden)[0]))
        start = end
    return stored.compare(np.concatenate(parts), filtered)
