"""Calibrate a model: run windows of its training length through the unfiltered model, layer by layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import CalibrationError, NumericError
from longmamba_mlx.filtering.calibration.data import Calibration, LayerCalibration, PaperTable
from longmamba_mlx.filtering.calibration.paper_table import clamped, paper_lengths, table_rows
from longmamba_mlx.filtering.constants import ModelFacts, constants_for
from longmamba_mlx.filtering.decay import log_step_mean
from longmamba_mlx.filtering.delta import DtRange, Float32, Float64, delta_of, raw_of
from longmamba_mlx.filtering.thresholds import knot_ranks, mass_curve, rate_curves
from longmamba_mlx.ground.steps import run_to_end

_BLOCK = 1 << 20  # float64 values worked on at once: 8 MB an array


class CalibratedConfig(ModelFacts, Protocol):
    """The part of a model's configuration that calibration reads."""

    @property
    def n_layer(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def units(self) -> int: ...
    @property
    def time_step_limit(self) -> tuple[float, float]: ...


class CalibratedModel(Protocol):
    """The part of a language model that calibration calls; arrays are MLX arrays."""

    @property
    def config(self) -> CalibratedConfig: ...
    def has_scan(self, index: int) -> bool: ...
    def initial_state(self, batch: int = 1) -> Any: ...
    def embed(self, ids: Any) -> Any: ...
    def layer(self, index: int, hidden: Any, state: Any) -> Any: ...
    def raw_step(self, index: int, hidden: Any, state: Any) -> Any: ...
    def token_rates(self, index: int, hidden: Any) -> Any: ...
    def decay_rates(self, index: int) -> NDArray[np.floating[Any]]: ...


def calibration_windows(ids: NDArray[np.uint32], length: int, count: int = 16) -> NDArray[np.uint32]:
    """At most `count` windows of `length` tokens, evenly spread over ids (N,) and not overlapping: (k,
    length).

    Raises CalibrationError where there is not even one.
    """
    most = min(count, len(ids) // length)
    if most < 1:
        raise CalibrationError(
            f"Calibration needs at least {length} tokens of text, got {len(ids)}.",
            hint="Give a longer text: longmamba-mlx calibrate --text FILE",
        )
    starts = [round(i * (len(ids) - length) / max(1, most - 1)) for i in range(most)]
    return np.stack([ids[start : start + length] for start in starts]).astype(np.uint32)


def collect(
    model: CalibratedModel,
    windows: NDArray[np.uint32],
    *,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Calibration:
    """`collect_steps` run to its end; `on_progress(done, total)` counts windows times layers."""
    steps = collect_steps(model, windows, **options)
    return run_to_end(steps, None if on_progress is None else lambda step: on_progress(*step))


def collect_steps(
    model: CalibratedModel,
    windows: NDArray[np.uint32],
    *,
    fingerprint: str = "",
    quantisation: str = "none",
    text_digest: str | None = None,
    clamps: Sequence[float] | None = None,
    knots: int | None = None,
    chunk: int = 512,
) -> Generator[tuple[int, int], None, Calibration]:
    """Run windows (k, L) of token ids through the unfiltered model and collect the statistics that policies need.

    `clamps`: for which clamps the authors' table is computed (default: the published one for the model's
    family; () for none; every other mode works with any clamp). `knots`: points of the mass curve (default
    256, or 64 for Mamba-1, which has thousands of units per layer). Yields (done, total), windows times
    layers. Holds all windows' hidden states and one layer's step sizes, float32. Raises
    CalibrationError for windows of a wrong shape, ModelError for ids outside the vocabulary, NumericError where a
    layer's step sizes are not finite.
    """
    windows = np.asarray(windows)
    if windows.ndim != 2 or windows.shape[0] < 1 or windows.shape[1] < 2:
        raise CalibrationError(f"Calibration windows must be (count, length), got {windows.shape}.")
    config = model.config
    if clamps is None:
        clamps = (constants_for(config).clamp,)
    count, length = windows.shape
    ranks = knot_ranks(count * length, knots or (64 if config.is_mamba1 else 256))
    dt_range = (float(config.time_step_limit[0]), float(config.time_step_limit[1]))
    hidden = [_embedded(model, window, chunk) for window in windows]
    layers = []
    for index in range(config.n_layer):
        units = config.units if model.has_scan(index) else 0
        raw = np.empty((units, count, length), np.float32)
        token_rates = None
        for number in range(count):
            raw[:, number], found = _run_layer(model, index, hidden[number])
            if found is not None:
                token_rates = np.empty_like(raw) if token_rates is None else token_rates
                token_rates[:, number] = found
            yield index * count + number + 1, config.n_layer * count
        rates = _rates(model, index, units) if token_rates is None else token_rates
        layers.append(summarise(raw, rates, ranks, clamps=clamps, dt_range=dt_range))
    digest = text_digest or hashlib.sha256(windows.astype("<u4").tobytes()).hexdigest()
    return Calibration(
        layers=tuple(layers),
        ranks=ranks,
        training_length=length,
        windows=count,
        text_digest=digest,
        fingerprint=fingerprint,
        quantisation=quantisation,
        time_step_limit=dt_range,
    )


def _embedded(model: CalibratedModel, window: NDArray[np.uint32], chunk: int) -> list[Any]:
    from longmamba_mlx.ops.token_ids import token_ids

    ids = token_ids(window[None], model.config.vocab_size)
    return [model.embed(ids[:, start : start + chunk]) for start in range(0, len(window), chunk)]


def _rates(model: CalibratedModel, index: int, units: int) -> Float32:
    """|A| (units, modes) of a layer; (0, 1) without a scan."""
    if not units:
        return np.zeros((0, 1), np.float32)
    return np.asarray(model.decay_rates(index), np.float32).reshape(units, -1)


def _run_layer(model: CalibratedModel, index: int, hidden: list[Any]) -> tuple[Float32, Float32 | None]:
    """One window through one layer: raw (units, L) and, where A depends on the token, |A| (units, L). The chunks (1, l,
    d_model) of `hidden` are replaced."""
    from longmamba_mlx.ops.fallback import with_fallback

    state = model.initial_state().layers[index]
    scans = model.has_scan(index)
    pieces, rates = [], []
    for number, chunk in enumerate(hidden):
        raw, rate, hidden[number], state = with_fallback(partial(_run_chunk, model, index, chunk, state, scans))
        if raw is not None:
            pieces.append(raw)
        if rate is not None:
            rates.append(rate)
    if not scans:
        return np.empty((0, sum(chunk.shape[1] for chunk in hidden)), np.float32), None
    joined = np.concatenate(pieces, axis=1)
    if not np.isfinite(joined).all():
        raise NumericError(f"Layer {index} gives step sizes that are not finite.", hint="The weights may be broken.")
    return joined, np.concatenate(rates, axis=1) if rates else None


def _run_chunk(
    model: CalibratedModel, index: int, chunk: Any, state: Any, scans: bool
) -> tuple[Float32 | None, Float32 | None, Any, Any]:
    """raw (units, l) and, where A depends on the token, |A| (units, l) of a chunk of a layer that scans; its output and
    the state after it."""
    import mlx.core as mx

    raw, _ = model.raw_step(index, chunk, state) if scans else (None, None)
    rate = model.token_rates(index, chunk) if scans else None
    hidden, after = model.layer(index, chunk, state)
    mx.eval([array for array in (raw, rate, hidden) if array is not None])
    raw, rate = (None if array is None else np.array(array, np.float32)[0].T for array in (raw, rate))
    return raw, rate, hidden, after


def summarise(
    raw: Float32, rates: Float32, ranks: NDArray[np.int64], *, clamps: Sequence[float] = (), dt_range: DtRange
) -> LayerCalibration:
    """One layer's calibration from raw (units, windows, L), by blocks of units.

    rates: |A| (units, modes), or of each token, (units, windows, L), where A depends on it.
    """
    units, windows, length = raw.shape
    if not units:
        return _without_units(len(ranks), windows, length, clamps)
    rows = max(1, _BLOCK // (windows * length))
    blocks = [
        _summarise_block(raw[start : start + rows], rates[start : start + rows], ranks, clamps, dt_range)
        for start in range(0, units, rows)
    ]
    if len(blocks) == 1:
        return blocks[0]
    return LayerCalibration(
        rates=np.concatenate([block.rates for block in blocks]),
        budgets=_side_by_side([block.budgets for block in blocks]),
        step_mean=_joined([block.step_mean for block in blocks]),
        knot_raw=_side_by_side([block.knot_raw for block in blocks]),
        knot_mass=_side_by_side([block.knot_mass for block in blocks]),
        tables=tuple(_joined_table([block.tables[k] for block in blocks]) for k in range(len(clamps))),
        knot_rate=_joined([block.knot_rate for block in blocks]),
        knot_decay=_joined([block.knot_decay for block in blocks]),
    )


def _without_units(knots: int, windows: int, length: int, clamps: Sequence[float]) -> LayerCalibration:
    """The calibration of a layer without a scan: everything is there, for no unit."""
    nothing = np.zeros((windows, 0), np.float32)
    rows = np.zeros((len(paper_lengths(length)), 0), np.float32)
    return LayerCalibration(
        rates=np.zeros((0, 1), np.float32),
        budgets=nothing,
        step_mean=None,
        knot_raw=np.zeros((knots, 0), np.float32),
        knot_mass=np.zeros((knots, 0), np.float32),
        tables=tuple(PaperTable(float(clamp), nothing, None, rows, rows) for clamp in clamps),
    )


def _summarise_block(
    raw: Float32, rates: Float32, ranks: NDArray[np.int64], clamps: Sequence[float], dt_range: DtRange
) -> LayerCalibration:
    delta = delta_of(raw, dt_range)
    pooled = raw.reshape(len(raw), -1)
    knot_raw, knot_mass = mass_curve(pooled, ranks, dt_range)
    by_token: list[Float32 | None] = [None, None]
    if rates.ndim == 3:
        by_token = [
            curve.astype(np.float32) for curve in rate_curves(pooled, rates.reshape(pooled.shape), ranks, dt_range)
        ]
    return LayerCalibration(
        rates=_mean_rate(delta, rates) if rates.ndim == 3 else rates,
        budgets=delta.sum(axis=2).T.astype(np.float32),
        step_mean=_step_mean(delta, rates),
        knot_raw=knot_raw.astype(np.float32),
        knot_mass=knot_mass.astype(np.float32),
        tables=tuple(_paper_table(delta, rates, clamp, dt_range) for clamp in clamps),
        knot_rate=by_token[0],
        knot_decay=by_token[1],
    )


def _mean_rate(delta: Float64, rates: Float32) -> Float32:
    """The rate (units, 1) that all tokens (units, windows, L) together decay with: |A|'s mean weighted by Delta."""
    total = delta.sum(axis=(1, 2))
    mean = np.divide(
        (rates * delta).sum(axis=(1, 2)), total, out=rates.mean(axis=(1, 2)).astype(np.float64), where=total > 0
    )
    return np.asarray(mean[:, None], np.float32)


def _step_mean(delta: Float64, rates: Float32) -> Float32 | None:
    if rates.ndim == 3:
        return np.asarray(-(rates * delta).sum(axis=2).T, np.float32)
    return log_step_mean(delta, rates).T.astype(np.float32) if rates.shape[1] > 1 else None


def _paper_table(delta: Float64, rates: Float32, clamp: float, dt_range: DtRange) -> PaperTable:
    """The authors' table of a block: delta (units, windows, L)."""
    delta = clamped(delta, clamp)
    units, windows, length = delta.shape
    lengths = paper_lengths(length)
    budgets = delta.sum(axis=2)
    total = np.zeros((len(lengths), units))
    largest = np.zeros((len(lengths), units))
    for number in range(windows):
        descending = np.sort(delta[:, number], axis=1)[:, ::-1]
        thresholds, _ = table_rows(descending, budgets[:, number], lengths)
        total += thresholds
        largest = np.maximum(largest, thresholds)
    return PaperTable(
        clamp=float(clamp),
        budgets=budgets.T.astype(np.float32),
        step_mean=_step_mean(delta, rates),
        mean=raw_of(total / windows, dt_range),
        maximum=raw_of(largest, dt_range),
    )


def _side_by_side(parts: Sequence[Float32]) -> Float32:
    return np.concatenate(parts, axis=1)


def _joined(parts: Sequence[Float32 | None]) -> Float32 | None:
    present = [part for part in parts if part is not None]
    return _side_by_side(present) if present else None


def _joined_table(parts: Sequence[PaperTable]) -> PaperTable:
    return PaperTable(
        clamp=parts[0].clamp,
        budgets=_side_by_side([part.budgets for part in parts]),
        step_mean=_joined([part.step_mean for part in parts]),
        mean=_side_by_side([part.mean for part in parts]),
        maximum=_side_by_side([part.maximum for part in parts]),
    )
