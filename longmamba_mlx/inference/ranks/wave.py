"""Read one document on several ranks, as a wave: while one rank runs a layer over its span, the next runs the layer
below over the following span.

The document is cut into sweeps, a sweep into one span for each rank. For layer l of a span a rank needs two things: its
own output of layer l - 1, and the state of layer l at the end of the span before, which the rank before it sends as
soon as it has run l. The last rank's states go to the first, for the next sweep. So with R ranks, L layers and K
sweeps all have finished after K L + R - 1 steps, and no rank waits in between while R < L. What a rank computes
is what one process would: the same calls on the same pieces, to the last bit, whatever the layers are made of. What is
sent is a state for each layer, span and sweep; its size does not depend on their length.
"""

from __future__ import annotations

from collections.abc import Collection, Generator

import mlx.core as mx
import numpy as np

from longmamba_mlx.errors import UsageError
from longmamba_mlx.filtering import FilterPlan
from longmamba_mlx.inference import gpu_memory
from longmamba_mlx.inference.filtered import PlannedModel
from longmamba_mlx.inference.kept_share import Kept, KeptSum
from longmamba_mlx.inference.layerwise import layer_steps
from longmamba_mlx.inference.pieces import Ids, pieces_from, read_piece
from longmamba_mlx.inference.progress import Clock, Progress
from longmamba_mlx.inference.ranks.messages import CELLS, Layout, from_cells, to_cells
from longmamba_mlx.inference.ranks.ring import Ring
from longmamba_mlx.inference.ranks.sweeps import Sweep, cut, most_pieces
from longmamba_mlx.inference.reading import PrefillOptions, Reading, check_ids, counts_kept, finite, kept_so_far
from longmamba_mlx.models import LanguageModel
from longmamba_mlx.models.state import LayerState, ModelState


def check_readable(model: LanguageModel, plan: FilterPlan | None) -> None:
    """Raises UsageError where ranks cannot read with this model or plan."""
    like = model.initial_state()
    if like.nbytes_per_token:
        raise UsageError(
            "Ranks hand on states of a constant size, and this model's attention remembers every token.",
            hint="Bound it with --attention-window N, or read without --ranks.",
        )
    if plan is not None and plan.needs_document:
        raise UsageError(
            f"The filter {plan.policy.name!r} looks at the whole document before it is read, which ranks cannot.",
            hint="Use --filter longmamba or curve, or read without --ranks.",
        )


def wave_steps(
    model: LanguageModel,
    ids: Ids,
    plan: FilterPlan | None,
    options: PrefillOptions,
    ring: Ring,
    marks: Collection[int] = (),
) -> Generator[Progress, None, Reading | None]:
    """Read ids (S,) together with all other ranks of `ring`, which call this with the same arguments.

    Rank 0 calls `options.on_chunk` after every sweep and returns the Reading; the others return None. Only rank 0 needs
    the arrays of `options.start`. Sweeps end at `marks` too, where pieces do. No logits are computed. Raises as
    `prefill` does, UsageError as `check_readable`, and RankLostError.
    """
    check_readable(model, plan)
    check_ids(ids, options.chunk)
    first = 0 if options.start is None else options.start.state.tokens
    pieces = list(pieces_from(first, len(ids), options.chunk, plan))
    most = most_pieces(model.config.d_model, options.chunk, ring.size)
    rank = _Rank(model, ids, plan, options, ring, cut(pieces, marks, most))
    with gpu_memory.resident():
        yield from rank.steps()
    ring.flush()
    return None if ring.rank else finite(Reading(rank.state, None, plan, rank.kept))


class _Rank:
    """One rank's part of a reading. `state` and `kept` are rank 0's: of all sweeps that every rank has finished."""

    def __init__(
        self,
        model: LanguageModel,
        ids: Ids,
        plan: FilterPlan | None,
        options: PrefillOptions,
        ring: Ring,
        sweeps: list[Sweep],
    ) -> None:
        self.model, self.ids, self.options, self.ring, self.sweeps = model, ids, options, ring, sweeps
        self.planned = PlannedModel.of(model, plan)
        self.depth = model.config.n_layer
        self.thresholds = [None] * self.depth if plan is None else plan.all_thresholds()
        self.state = model.initial_state() if options.start is None else options.start.state
        self.counts = counts_kept(len(ids), plan)
        self.kept = kept_so_far(len(ids), plan, options.start)
        self.layout = Layout(model.initial_state())
        self.arrived: list[LayerState] = []  # at rank 0: states of the sweep that the last rank is finishing
        self.finished = 0  # sweeps
        # How many layers behind rank 0 the states that it takes are: just finished by the last rank, so that nobody
        # waits for it to take them; but no later than it needs them.
        self.lag = min(self.depth, ring.size + 1)

    def steps(self) -> Generator[Progress, None, None]:
        """Read all sweeps. Yields Progress, in tokens of the whole document."""
        clock = Clock(len(self.ids), before=self.state.tokens, should_stop=self.options.should_stop)
        for number, sweep in enumerate(self.sweeps):
            span = sweep.span(self.ring.rank, self.ring.size)
            # The progress of the whole sweep is estimated from the share of its own work that this rank has done.
            clock.begin(sweep.start, sweep.stop, self.depth * sum(stop - start for start, stop in span))
            hidden = [self.model.embed(read_piece(self.ids, piece, self.model.config.vocab_size)) for piece in span]
            first = sweep.first(self.ring.rank, self.ring.size)
            total = KeptSum(sum(stop - start for start, stop in span))
            for index in range(self.depth):
                state, cells = self._before(number, index)
                state = yield from layer_steps(
                    self.planned, index, hidden, state, self.thresholds[index], total, clock, first
                )
                self._hand_on(index, state, total if span else None, cells)
        while self.ring.rank == 0 and self.finished < len(self.sweeps):
            self._collect()

    def _before(self, sweep: int, index: int) -> tuple[LayerState, Kept | None]:
        """The state of a layer before this rank's span, and behind the last layer's the kept shares of the sweep."""
        if self.ring.rank:
            return self._take(sweep, index)
        # Rank 0 begins a sweep with the states at the end of the one before.
        step = sweep * self.depth + index
        while self.finished * self.depth + len(self.arrived) <= step - self.lag:
            self._collect()
        arriving = self.finished < sweep
        return (self.arrived if arriving else self.state.layers)[index], self._no_cells(index)

    def _collect(self) -> None:
        """Rank 0: take the next state that comes from the last rank; after the last layer's a sweep is finished."""
        index = len(self.arrived)
        state, cells = self._take(self.finished, index)
        self.arrived.append(state)
        if len(self.arrived) < self.depth:
            return
        sweep = self.sweeps[self.finished]
        self.state = ModelState(layers=tuple(self.arrived), tokens=sweep.stop)
        self.arrived, self.finished = [], self.finished + 1
        if self.kept is not None and cells is not None:
            for rank, row in enumerate(cells):
                start, stop = sweep.first(rank, self.ring.size), sweep.first(rank + 1, self.ring.size)
                self.kept[start:stop] = from_cells(row, stop - start)
        if self.options.on_chunk is not None:
            self.options.on_chunk(self.state, None if self.kept is None else self.kept[: sweep.stop])

    def _take(self, sweep: int, index: int) -> tuple[LayerState, Kept | None]:
        """The next message: the state of layer `index` where the span of the rank before ends."""
        tokens, cells = self._end_before(self.sweeps[sweep]), self._no_cells(index)
        at = self.layout.nbytes(index, tokens)
        size = at + (0 if cells is None else cells.nbytes)
        buffer = self.ring.receive(size) if size else mx.zeros((0,), dtype=mx.uint8)
        if cells is not None:
            cells[:] = np.array(buffer[at:]).reshape(cells.shape)
        return self.layout.unpack(index, tokens, buffer[:at]), cells

    def _hand_on(self, index: int, state: LayerState, kept: KeptSum | None, cells: Kept | None) -> None:
        """Send a layer's state to the next rank, and behind the last one what this and earlier ranks have kept."""
        buffer = self.layout.pack(state)
        if cells is not None:
            if kept is not None:
                cells[self.ring.rank] = to_cells(kept.share())
            buffer = mx.concatenate([buffer, mx.array(cells.reshape(-1))])
        if buffer.size:
            self.ring.send(buffer)

    def _end_before(self, sweep: Sweep) -> int:
        """The token at which the span of the rank before ends."""
        return sweep.first(self.ring.rank or self.ring.size, self.ring.size)

    def _no_cells(self, index: int) -> Kept | None:
        """Room for the kept shares of a sweep, one row for each rank; None where none are sent."""
        return np.zeros((self.ring.size, CELLS), np.uint8) if self.counts and index == self.depth - 1 else None
