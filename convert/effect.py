"""What quantising changed, measured: next-token distributions and the tokens that the filter keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.filtering import build_plan, calibration_windows, collect, policy_for
from longmamba_mlx.filtering.delta import Float32
from longmamba_mlx.models import LanguageModel

_WINDOWS = 4
_LONGEST_WINDOW = 1024
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
    before: LanguageModel, after: LanguageModel, ids: NDArray[np.uint32], settings: Mapping[str, object]
) -> Effect | None:
    """Compare two models with the same config on token ids (N,). None where the text is too short.

    settings: the "longmamba" block of the model's config.json.
    """
    length = min(before.config.training_length, _LONGEST_WINDOW, len(ids) // _WINDOWS)
    if length < 16:
        return None
    windows = calibration_windows(ids, length, _WINDOWS)
    known, fresh = windows[::2], windows[1::2]
    calibration = collect(before, known, clamps=())
    plan = build_plan(calibration, policy_for(before.config, "curve", settings), _LENGTHS * length)
    thresholds = [plan.thresholds(layer) for layer in range(before.config.n_layer)]
    parts = [_compare(before, after, window, thresholds) for window in fresh]
    return Effect(
        windows=len(fresh),
        window_tokens=length,
        divergence=float(np.mean([part.divergence for part in parts])),
        same_next=float(np.mean([part.same_next for part in parts])),
        largest_change=max(part.largest_change for part in parts),
        kept_before=_share([part.kept_before for part in parts], parts),
        kept=_share([part.kept for part in parts], parts),
        decisions_changed=_share([part.changed for part in parts], parts),
    )


@dataclass(slots=True)
class _Part:
    """One window's comparison; the last four are counts of (token, unit) pairs."""

    divergence: float = 0.0
    same_next: float = 0.0
    largest_change: float = 0.0
    pairs: int = 0
    kept_before: int = 0
    kept: int = 0
    changed: int = 0


def _share(counts: list[int], parts: list[_Part]) -> float:
    return sum(counts) / max(1, sum(part.pairs for part in parts))


def _compare(
    before: LanguageModel, after: LanguageModel, window: NDArray[np.uint32], thresholds: list[Float32 | None]
) -> _Part:
    """Both models side by side through their layers, each on its own hidden states."""
    part = _Part()
    ids = mx.array(window[None])
    streams = [before.embed(ids), after.embed(ids)]
    states = [before.initial_state().layers, after.initial_state().layers]
    for index, threshold in enumerate(thresholds):
        if threshold is not None:
            raws = [
                np.array(model.raw_step(index, stream, state[index])[0], np.float32)[0]
                for model, stream, state in zip((before, after), streams, states, strict=True)
            ]
            filtered = np.isfinite(threshold)
            kept_before, kept = (raw[:, filtered] > threshold[filtered] for raw in raws)
            part.pairs += kept.size
            part.kept_before += int(kept_before.sum())
            part.kept += int(kept.sum())
            part.changed += int((kept != kept_before).sum())
        streams = [
            model.layer(index, stream, state[index])[0]
            for model, stream, state in zip((before, after), streams, states, strict=True)
        ]
        mx.eval(streams)
    _compare_logits(part, *(_log_probabilities(m, s) for m, s in zip((before, after), streams, strict=True)))
    return part


def _log_probabilities(model: LanguageModel, hidden: mx.array) -> tuple[mx.array, mx.array]:
    """Logits (l, vocab) and their log-softmax."""
    logits = model.head(hidden)[0]
    return logits, logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _compare_logits(part: _Part, before: tuple[mx.array, mx.array], after: tuple[mx.array, mx.array]) -> None:
    divergence = (mx.exp(before[1]) * (before[1] - after[1])).sum(axis=-1)
    same = mx.argmax(before[0], axis=-1) == mx.argmax(after[0], axis=-1)
    part.divergence = float(divergence.mean())
    part.same_next = float(same.mean())
    part.largest_change = float(mx.abs(before[0] - after[0]).max())
