"""DeciMamba (arXiv 2406.14528): in some layers all but the tokens with the largest step sizes are dropped for good.

A dropped token has passed the layer's convolution but neither its scan nor anything above: from there on the sequence
is shorter. In the s-th of these layers the `base` * beta^s tokens with the largest Euclidean norm of Delta over all
units stay (at least `LEAST`). The method is the predecessor that LongMamba is compared with; questions and answers
follow undecimated.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering.delta import Float32, Limit, delta_of

Step = TypeVar("Step")

LEAST = 20
"""Tokens that always stay, where there are as many (the published minimum)."""

_PUBLISHED_MAMBA1 = {24: (12,), 48: (12,), 64: (22,)}
_PUBLISHED_MAMBA2 = {48: (6, 20, 22, 32)}
_PIECE = 1 << 20  # step sizes turned to Delta at once


@dataclass(frozen=True, slots=True)
class Decimation:
    """Which layers drop tokens, ascending, and how many stay in each."""

    layers: tuple[int, ...]
    counts: tuple[int, ...]

    def count(self, layer: int) -> int | None:
        """How many tokens stay in a layer; None where none are dropped."""
        return self.counts[self.layers.index(layer)] if layer in self.layers else None


def default_layers(n_layer: int, is_mamba1: bool, scans: Sequence[int]) -> tuple[int, ...]:
    """The published layers for a model of this depth: 12 of 24 or 48, 22 of 64 (Mamba-1), 6, 20, 22, 32 of 48
    (Mamba-2). Elsewhere one layer a third of the way up, but never the first: its step sizes know single tokens
    only. `scans`: the layers that have a scan, ascending; a layer without one passes it on to the next that has."""
    published = (_PUBLISHED_MAMBA1 if is_mamba1 else _PUBLISHED_MAMBA2).get(n_layer)
    wanted = published or (max(1, round(n_layer / 3)),)
    return tuple(dict.fromkeys(min((scan for scan in scans if scan >= layer), default=scans[-1]) for layer in wanted))


def decimation(layers: tuple[int, ...], base: int, beta: float, scans: Sequence[int]) -> Decimation:
    """Checked settings with the counts worked out. Raises UsageError for layers that are not among `scans`."""
    wrong = [layer for layer in layers if layer not in scans]
    if wrong:
        raise UsageError(f"the model has no layer {wrong[0]} with a scan", hint=f"It has {scans[0]} to {scans[-1]}.")
    layers = tuple(sorted(set(layers)))
    return Decimation(layers, tuple(max(LEAST, int(base * beta**place)) for place in range(len(layers))))


def kept_positions(raw: Float32, count: int, limit: Limit, *, first: int = 0, last: int = 0) -> NDArray[np.intp]:
    """The tokens that stay, ascending: the `count` largest norms of Delta; of equal ones the earlier.

    raw (S, units) float32 is dt + dt_bias. The first `first` and the last `last` tokens stay in addition.
    """
    tokens = len(raw)
    open_from, open_to = min(first, tokens), max(first, tokens - last)
    norms = _norms(raw[open_from:open_to], limit)
    order = np.argsort(-norms, kind="stable")[:count] + open_from
    return np.sort(np.concatenate([np.arange(open_from), order, np.arange(open_to, tokens)]))


def _norms(raw: Float32, limit: Limit) -> NDArray[np.float64]:
    rows = max(1, _PIECE // max(1, raw.shape[1]))
    norms = np.empty(len(raw))
    for start in range(0, len(raw), rows):
        norms[start : start + rows] = np.linalg.norm(delta_of(raw[start : start + rows], limit), axis=1)
    return norms


def decimate(
    model: Any,
    layer: int,
    hidden: list[Any],
    state: Any,
    keep: NDArray[np.intp],
    chunk: int,
    advance: Callable[[int], Step],
) -> Generator[Step, None, tuple[list[Any], Any]]:
    """Run a layer on the tokens at `keep` only, with the convolution still over all of them.

    hidden: chunks (1, l, d_model) of the whole document. The convolution's window moves over dropped tokens
    (`raw_step`) while the scan stands still. `advance` is told of kept tokens that are done; what it answers is
    yielded. Returns the kept tokens in chunks and the LayerState after all of them.
    """
    import mlx.core as mx

    whole = mx.concatenate(hidden, axis=1) if len(hidden) > 1 else hidden[0]
    reach = max(1, model.config.d_conv - 1)
    pieces: list[Any] = []
    done = pending = 0
    for start, stop in _runs(keep, chunk):
        state = _passed(model, layer, whole, state, done, start, reach)
        piece, state = model.layer(layer, whole[:, start:stop], state)
        pieces.append(piece)
        done, pending = stop, pending + stop - start
        if pending >= chunk:
            mx.eval(pieces, state.conv, state.ssm)
            yield advance(pending)
            pending = 0
    state = _passed(model, layer, whole, state, done, whole.shape[1], reach)
    kept = mx.concatenate(pieces, axis=1)
    mx.eval(kept)
    yield advance(pending)
    return [kept[:, start : start + chunk] for start in range(0, kept.shape[1], chunk)], state


def _passed(model: Any, layer: int, whole: Any, state: Any, start: int, stop: int, reach: int) -> Any:
    """The state with the dropped tokens from start to stop in its convolution window."""
    if stop <= start:
        return state
    return model.raw_step(layer, whole[:, max(start, stop - reach) : stop], state)[1]


def _runs(keep: NDArray[np.intp], longest: int) -> Iterator[tuple[int, int]]:
    """Neighbouring positions as (start, stop), at most `longest` together."""
    breaks = np.flatnonzero(np.diff(keep) > 1) + 1
    for run in np.split(keep, breaks):
        for start in range(int(run[0]), int(run[-1]) + 1, longest):
            yield start, min(start + longest, int(run[-1]) + 1)
