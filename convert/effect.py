"""What quantising changed, measured: next-token distributions and the tokens that the filter keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.conversion.layerwise import LayerByLayer
from longmamba_mlx.conversion.logit_difference import LogitDifference
from longmamba_mlx.filtering import build_plan, calibration_windows, collect, policy_for
from longmamba_mlx.filtering.delta import Float32
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.ops import backend

_WINDOWS = 4
_LONGEST_WINDOW = 512
_LONGEST_ON_CPU = 256  # where a model is large
_LARGE = 100_000_000  # numbers
_LENGTHS = 16  # the filter is that of a document of so many windows


@dataclass(frozen=True, slots=True)
class Effect:
    """A quantised model against the same model unquantised, on the same text, unfiltered.

    divergence: mean Kullback-Leibler divergence of its next-token distributions, nats. same_next: share of
    positions with the same likeliest token. largest_change: of any logit. kept, kept_before: share of
    (token, unit) pairs that the thresholds keep, in the units they filter; decisions_changed: share of those
    pairs decided otherwise. Thresholds are the closed-form ones (`curve`) for 16 windows, calibrated on other
    windows of the unquantised model.
    """

    windows: int
    window_tokens: int
    divergence: float
    same_next: float
    largest_change: float
    kept_before: float
    kept: float
    decisions_changed: float

    def as_config(self) -> dict[str, object]:
        """Rounded, for config.json."""
        return {key: round(value, 6) for key, value in asdict(self).items()}

    def __str__(self) -> str:
        return (
            f"against unquantised, on {self.windows} windows of {self.window_tokens} tokens: "
            f"same next token {self.same_next:.1%}, divergence {self.divergence:.4f} nats, "
            f"largest change of a logit {self.largest_change:.2f}; "
            f"kept tokens {self.kept_before:.1%} -> {self.kept:.1%}, "
            f"{self.decisions_changed:.2%} of the decisions differ"
        )


def measure_effect(
    build_before: Callable[[], LanguageModel],
    build_after: Callable[[], LanguageModel],
    ids: NDArray[np.uint32],
    settings: Mapping[str, object],
) -> Effect | None:
    """Compare two models with the same config on token ids (N,). None where the text is too short.

    The models run layer by layer, all windows through one layer before the next: each is built with lazy tensors, and
    no more than one layer of both is in memory. settings: the "longmamba" block of the model's config.json.
    """
    before = LayerByLayer(build_before)
    slow = backend.in_numpy() and before.size > _LARGE
    longest = _LONGEST_ON_CPU if slow else _LONGEST_WINDOW
    length = min(before.config.training_length, longest, len(ids) // _WINDOWS)
    if length < 16:
        return None
    windows = calibration_windows(ids, length, _WINDOWS)
    known, fresh = windows[::2], windows[1::2]
    calibration = collect(before, known, clamps=())
    plan = build_plan(calibration, policy_for(before.config, "curve", settings), _LENGTHS * length)
    thresholds = plan.all_thresholds()
    sides = (LayerByLayer(build_before), LayerByLayer(build_after))
    streams = [[side.embed(mx.array(window[None])) for window in fresh] for side in sides]
    decisions = _Decisions()
    for index, threshold in enumerate(thresholds):
        _run_layer(sides, index, streams, threshold, decisions)
    difference = _compare_logits(sides, streams)
    return Effect(
        windows=len(fresh),
        window_tokens=length,
        divergence=difference.divergence,
        same_next=difference.same_next,
        largest_change=difference.largest_change,
        kept_before=decisions.share(decisions.kept_before),
        kept=decisions.share(decisions.kept),
        decisions_changed=decisions.share(decisions.changed),
    )


@dataclass(slots=True)
class _Decisions:
    """Counts of (token, unit) pairs in the units that are filtered."""

    pairs: int = 0
    kept_before: int = 0
    kept: int = 0
    changed: int = 0

    def share(self, count: int) -> float:
        """A count as a share of all pairs."""
        return count / max(1, self.pairs)

    def add(self, before: Float32, after: Float32, threshold: Float32) -> None:
        """Take both models' raw step sizes (l, units) of one layer."""
        filtered = np.isfinite(threshold)
        kept_before, kept = (raw[:, filtered] > threshold[filtered] for raw in (before, after))
        self.pairs += kept.size
        self.kept_before += int(kept_before.sum())
        self.kept += int(kept.sum())
        self.changed += int((kept != kept_before).sum())


def _run_layer(
    sides: tuple[LayerByLayer, LayerByLayer],
    index: int,
    streams: list[list[mx.array]],
    threshold: Float32 | None,
    decisions: _Decisions,
) -> None:
    """All windows through one layer of both models, each on its own hidden states, which are replaced."""
    raws: list[list[Float32]] = []
    for side, hidden in zip(sides, streams, strict=True):
        model = side.at(index)
        state = model.initial_state().layers[index]
        if threshold is not None:
            raws.append([np.array(model.raw_step(index, stream, state)[0], np.float32)[0] for stream in hidden])
        for number, stream in enumerate(hidden):
            hidden[number] = model.layer(index, stream, state)[0]
            mx.eval(hidden[number])
    if threshold is not None:
        for before, after in zip(*raws, strict=True):
            decisions.add(before, after, threshold)


def _compare_logits(sides: tuple[LayerByLayer, LayerByLayer], streams: list[list[mx.array]]) -> LogitDifference:
    hidden = [mx.concatenate(windows, axis=1) for windows in streams]
    difference = LogitDifference(hidden[0].shape[1])
    for before, after in zip(*(side.logits(stream) for side, stream in zip(sides, hidden, strict=True)), strict=True):
        difference.add(np.array(before, np.float32)[0], np.array(after, np.float32)[0])
    return difference
