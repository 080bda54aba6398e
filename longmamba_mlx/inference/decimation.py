"""Running a layer on some tokens of a document only, with all others dropped for good (DeciMamba)."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.inference.progress import Clock, Progress
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import LayerState


def decimate(
    model: LanguageModel,
    layer: int,
    hidden: list[mx.array],
    state: LayerState,
    keep: NDArray[np.intp],
    chunk: int,
    clock: Clock,
) -> Generator[Progress, None, tuple[list[mx.array], LayerState]]:
    """Run a layer on the tokens at `keep` only, with the convolution still over all of them.

    hidden: chunks (1, l, d_model) of the whole document. The convolution's window moves over dropped tokens
    (`raw_step`) while the scan stands still. Yields Progress; returns the kept tokens in chunks and the LayerState
    after all of them.
    """
    whole = mx.concatenate(hidden, axis=1) if len(hidden) > 1 else hidden[0]
    reach = max(1, model.config.d_conv - 1)
    pieces: list[mx.array] = []
    done = pending = 0
    for start, stop in _runs(keep, chunk):
        state = _passed(model, layer, whole, state, done, start, reach)
        piece, state = model.layer(layer, whole[:, start:stop], state)
        pieces.append(piece)
        done, pending = stop, pending + stop - start
        if pending >= chunk:
            mx.eval(pieces, *state.buffers())
            yield clock.advance(pending)
            pending = 0
    state = _passed(model, layer, whole, state, done, whole.shape[1], reach)
    kept = mx.concatenate(pieces, axis=1)
    mx.eval(kept, *state.buffers())
    yield clock.advance(pending)
    return [kept[:, start : start + chunk] for start in range(0, kept.shape[1], chunk)], state


def _passed(
    model: LanguageModel, layer: int, whole: mx.array, state: LayerState, start: int, stop: int, reach: int
) -> LayerState:
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
