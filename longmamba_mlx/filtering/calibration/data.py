"""A calibration: statistics of a model's step sizes at its training length, and their file.

Filters are planned from these numbers without the model, for any theta, clamp, reduction and length: budgets and decays
per window, the pooled mass curve, and the authors' table for the clamps it was computed for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import CalibrationError, LongMambaError
from longmamba_mlx.filtering.calibration.paper_table import paper_lengths
from longmamba_mlx.filtering.delta import DtRange, Float32

FORMAT = "longmamba-calibration"
FORMAT_VERSION = 1
_AGAIN = "Calibrate this model again: longmamba-mlx calibrate --model MODEL"


@dataclass(frozen=True, slots=True, eq=False)
class PaperTable:
    """The authors' table of one layer for one clamp (`paper` mode).

    budgets (windows, units): T, the sum of clamped Delta; step_mean (windows, units) as in `LayerCalibration`;
    mean, maximum (lengths, units): raw thresholds for `paper_lengths`, windows combined by "avg" and "max" of
    Delta.
    """

    clamp: float
    budgets: Float32
    step_mean: Float32 | None
    mean: Float32
    maximum: Float32


@dataclass(frozen=True, slots=True, eq=False)
class LayerCalibration:
    """One layer's step sizes.

    rates (units, modes): |A|, one mode for Mamba-2, and for Mamba-3 the mean of |A_t| weighted by Delta; budgets
    (windows, units): the unclamped sum of Delta of each window; step_mean (windows, units): log step-mean decay for
    Mamba-1, -sum |A_t| Delta_t for Mamba-3, None for Mamba-2; knot_raw, knot_mass
    (knots, units): raw value and pooled sum of Delta at the calibration's ranks; tables: one per clamp; knot_rate,
    knot_decay (knots, units), for Mamba-3: the sums of |A_t| and of |A_t| Delta_t over the tokens up to these ranks.
    """

    rates: Float32
    budgets: Float32
    step_mean: Float32 | None
    knot_raw: Float32
    knot_mass: Float32
    tables: tuple[PaperTable, ...] = ()
    knot_rate: Float32 | None = None
    knot_decay: Float32 | None = None

    def rate_curves(self) -> tuple[Float32, Float32]:
        """knot_rate and knot_decay. Raises CalibrationError where an older version made the calibration."""
        if self.knot_rate is None or self.knot_decay is None:
            raise CalibrationError(
                "This calibration does not say how Mamba-3's decay depends on the step.", hint=_AGAIN
            )
        return self.knot_rate, self.knot_decay

    @property
    def units(self) -> int:
        """Channels (Mamba-1) or heads (Mamba-2)."""
        return int(self.rates.shape[0])

    def table(self, clamp: float) -> PaperTable:
        """The authors' table for a clamp. Raises CalibrationError where it was not computed."""
        for table in self.tables:
            if math.isclose(table.clamp, clamp, rel_tol=1e-9, abs_tol=1e-12):
                return table
        known = ", ".join(f"{table.clamp:g}" for table in self.tables) or "none"
        raise CalibrationError(
            f"This calibration has no table for clamp {clamp:g} (it has: {known})",
            hint="Calibrate with that clamp, or use the curve mode, which takes any.",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A model's calibration.

    ranks (knots,): what the mass curves' knots stand for, of windows * training_length pooled tokens;
    text_digest: sha256 of the windows or their text; fingerprint, quantisation: the model it belongs to;
    time_step_limit: the clip after softplus, which all sums of Delta include.
    """

    layers: tuple[LayerCalibration, ...]
    ranks: NDArray[np.int64]
    training_length: int
    windows: int
    text_digest: str
    fingerprint: str = ""
    quantisation: str = "none"
    time_step_limit: DtRange = (0.0, math.inf)
    format_version: int = FORMAT_VERSION

    def save(self, path: Path, *, private: bool = True) -> None:
        """Write the calibration (safetensors) atomically; `private` as in `write_atomic`. Raises DiskError."""
        from longmamba_mlx.storage import checked_safetensors

        arrays: dict[str, NDArray[Any]] = {"ranks": self.ranks.astype(np.int64)}
        for index, layer in enumerate(self.layers):
            arrays.update(_layer_arrays(f"layers.{index}.", layer))
        clamps = [table.clamp for table in self.layers[0].tables] if self.layers else []
        low, high = self.time_step_limit
        facts = {
            "layers": len(self.layers),
            "training_length": self.training_length,
            "windows": self.windows,
            "time_step_limit": [low, None if math.isinf(high) else high],
            "clamps": clamps,
        }
        metadata = {
            "format": FORMAT,
            "format_version": str(self.format_version),
            "fingerprint": self.fingerprint,
            "quantisation": self.quantisation,
            "text_digest": self.text_digest,
            "facts": json.dumps(facts),
        }
        checked_safetensors.save_arrays(Path(path), arrays, metadata, private=private)

    @staticmethod
    def load(path: Path, *, fingerprint: str, quantisation: str) -> Calibration:
        """Reads a calibration made for exactly this model.

        Raises CalibrationError (with a hint) where the file is missing, broken, of another format version, or
        made for other weights or another quantisation: step sizes differ with either.
        """
        from longmamba_mlx.storage import checked_safetensors

        try:
            arrays, metadata = checked_safetensors.load_numpy(Path(path))
        except (LongMambaError, OSError, ValueError) as error:
            what = "is missing" if not Path(path).exists() else f"cannot be read ({error})"
            raise CalibrationError(f"The calibration {Path(path).name} {what}.", hint=_AGAIN) from error
        _check_origin(metadata, fingerprint, quantisation)
        try:
            return _from_arrays(arrays, metadata)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise CalibrationError(f"The calibration {Path(path).name} is broken ({error})", hint=_AGAIN) from error


def _layer_arrays(prefix: str, layer: LayerCalibration) -> dict[str, Float32]:
    named = {
        "rates": layer.rates,
        "budgets": layer.budgets,
        "step_mean": layer.step_mean,
        "knot_raw": layer.knot_raw,
        "knot_mass": layer.knot_mass,
        "knot_rate": layer.knot_rate,
        "knot_decay": layer.knot_decay,
    }
    for index, table in enumerate(layer.tables):
        inner = f"tables.{index}."
        named |= {inner + "budgets": table.budgets, inner + "step_mean": table.step_mean}
        named |= {inner + "mean": table.mean, inner + "maximum": table.maximum}
    return {
        prefix + name: np.ascontiguousarray(array, np.float32) for name, array in named.items() if array is not None
    }


def _check_origin(metadata: Mapping[str, str], fingerprint: str, quantisation: str) -> None:
    if metadata.get("format") != FORMAT:
        raise CalibrationError("This file is not a calibration.", hint=_AGAIN)
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise CalibrationError(f"This calibration is of format version {version}, not {FORMAT_VERSION}.", hint=_AGAIN)
    if metadata.get("fingerprint") != fingerprint:
        raise CalibrationError("This calibration was made for another model's weights.", hint=_AGAIN)
    if metadata.get("quantisation") != quantisation:
        made = metadata.get("quantisation")
        raise CalibrationError(f"This calibration was made for quantisation {made}, not {quantisation}.", hint=_AGAIN)


def _from_arrays(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> Calibration:
    facts = json.loads(metadata["facts"])
    count, length, windows = (_positive(facts[key]) for key in ("layers", "training_length", "windows"))
    low, high = facts["time_step_limit"]
    ranks = np.asarray(arrays["ranks"], np.int64)
    _require(
        ranks.ndim == 1 and ranks[0] == 1 and ranks[-1] == windows * length and bool((np.diff(ranks) > 0).all()),
        "ranks",
    )
    clamps = [float(clamp) for clamp in facts["clamps"]]
    shape = (windows, len(ranks), len(paper_lengths(length)))
    layers = tuple(_read_layer(arrays, f"layers.{index}.", clamps, shape) for index in range(count))
    return Calibration(
        layers=layers,
        ranks=ranks,
        training_length=length,
        windows=windows,
        text_digest=metadata["text_digest"],
        fingerprint=metadata["fingerprint"],
        quantisation=metadata["quantisation"],
        time_step_limit=(float(low), math.inf if high is None else float(high)),
    )


def _read_layer(
    arrays: Mapping[str, NDArray[Any]], prefix: str, clamps: list[float], shape: tuple[int, int, int]
) -> LayerCalibration:
    windows, knots, lengths = shape
    rates = np.asarray(arrays[prefix + "rates"])
    _require(rates.ndim == 2 and rates.dtype == np.float32 and bool((rates >= 0).all()), prefix + "rates")
    units, modes = rates.shape

    def read(name: str, rows: int, *, lowest: float = -math.inf, endless: bool = False) -> Float32:
        array = np.asarray(arrays[prefix + name])
        # Raw thresholds may be -inf (nothing filtered); everything else is a finite number.
        sound = not np.isnan(array).any() if endless else np.isfinite(array).all()
        fits = array.shape == (rows, units) and array.dtype == np.float32
        _require(fits and bool(sound) and bool((array >= lowest).all()), prefix + name)
        return array

    def read_steps(name: str) -> Float32 | None:
        return read(name, windows) if modes > 1 or prefix + name in arrays else None

    tables = tuple(
        PaperTable(
            clamp=clamp,
            budgets=read(f"tables.{index}.budgets", windows, lowest=0.0),
            step_mean=read_steps(f"tables.{index}.step_mean"),
            mean=read(f"tables.{index}.mean", lengths, endless=True),
            maximum=read(f"tables.{index}.maximum", lengths, endless=True),
        )
        for index, clamp in enumerate(clamps)
    )
    knot_raw, knot_mass = read("knot_raw", knots), read("knot_mass", knots, lowest=0.0)
    ordered = (np.diff(knot_raw, axis=0) <= 0).all() and (np.diff(knot_mass, axis=0) >= 0).all()
    _require(bool(ordered), prefix + "knots")
    by_token = [
        read(name, knots, lowest=0.0) if prefix + name in arrays else None for name in ("knot_rate", "knot_decay")
    ]
    _require(all(curve is None or bool((np.diff(curve, axis=0) >= 0).all()) for curve in by_token), prefix + "knots")
    return LayerCalibration(
        rates=rates,
        budgets=read("budgets", windows, lowest=0.0),
        step_mean=read_steps("step_mean"),
        knot_raw=knot_raw,
        knot_mass=knot_mass,
        tables=tables,
        knot_rate=by_token[0],
        knot_decay=by_token[1],
    )


def _positive(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 40:
        raise ValueError(f"invalid count {value!r}")
    return value


def _require(condition: bool, name: str) -> None:
    if not condition:
        raise ValueError(f"{name} has impossible content")
