"""Model what reading with several Macs costs (nothing is measured); print the tables of docs/many-macs.md.

A rank's step is one layer over one span. It begins when the rank has run the layer below and when the state of the
rank before has arrived; a link carries one state after the other. Sizes are those of published configurations; a Mac's
own speed and a link's are assumptions, named below.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from longmamba_mlx.inference.pieces import pieces_from
from longmamba_mlx.inference.ranks.messages import CELLS
from longmamba_mlx.inference.ranks.sweeps import Sweep, cut, most_pieces
from longmamba_mlx.states.checkpoints import places_of

CHUNK = 2048
TOKENS = 1_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of a model, and an assumed speed of one Mac with it."""

    name: str
    layers: int
    width: int
    state_values: int  # of a layer's scan, float32
    window_values: int  # of its convolution, 16 bits
    tokens_per_second: float

    @property
    def message(self) -> int:
        """Bytes of one layer's state."""
        return 4 * self.state_values + 2 * self.window_values


@dataclass(frozen=True, slots=True)
class Link:
    """A connection: bytes a second that TCP gets through it, seconds until the first one arrives."""

    name: str
    bytes_per_second: float
    delay: float


MODELS = (
    Model("Mamba-1 130M", 24, 768, 1536 * 16, 3 * 1536, 20_000),
    Model("Mamba-2 2.7B", 64, 2560, 80 * 64 * 128, 3 * (5120 + 256), 1_000),
    Model("Codestral 7B", 64, 4096, 128 * 64 * 128, 3 * (8192 + 2048), 400),
)
LINKS = (
    Link("1 GbE", 0.117e9, 2e-4),
    Link("10 GbE", 1.17e9, 1e-4),
    Link("Thunderbolt 5", 4e9, 1e-4),  # IP over Thunderbolt, taken as less than half of the line's 80 Gbit/s
)
RANKS = (1, 2, 3, 4, 6, 8)


def sweeps_of(model: Model, ranks: int, tokens: int = TOKENS) -> list[Sweep]:
    """The sweeps in which `ranks` read a document."""
    pieces = list(pieces_from(0, tokens, CHUNK, None))
    marks = places_of(tokens, CHUNK, model.layers * model.message)
    return cut(pieces, marks, most_pieces(model.width, CHUNK, ranks))


def seconds(model: Model, link: Link, ranks: int) -> float:
    """When the last rank has run the last layer over the last span."""
    each = 1 / (model.tokens_per_second * model.layers)  # a token through a layer
    finished = [0.0] * ranks
    free = [0.0] * ranks  # when the link to the next rank is
    arrived = [[0.0] * model.layers for _ in range(ranks)]  # the states that each rank may begin with
    for sweep in sweeps_of(model, ranks):
        steps = [each * sum(stop - start for start, stop in sweep.span(rank, ranks)) for rank in range(ranks)]
        for rank in range(ranks):
            after = (rank + 1) % ranks
            for layer in range(model.layers):
                finished[rank] = max(finished[rank], arrived[rank][layer]) + steps[rank]
                last = layer == model.layers - 1
                size = model.message + (ranks * CELLS if last else 0)
                free[rank] = max(free[rank], finished[rank]) + size / link.bytes_per_second
                arrived[after][layer] = free[rank] + link.delay
    return max(finished)


def main() -> None:
    print(f"{TOKENS:,} tokens, chunks of {CHUNK:,}: a layer's state, what is sent in all by two ranks and by eight\n")
    print("| model | a layer's state | 2 ranks | 8 ranks |")
    print("|---|---|---|---|")
    for model in MODELS:
        sent = [len(sweeps_of(model, n)) * n * (model.layers * model.message + n * CELLS) for n in (2, 8)]
        print(f"| {model.name} | {model.message / 1e6:.2f} MB | {sent[0] / 1e9:.1f} GB | {sent[1] / 1e9:.1f} GB |")
    print(f"\n| model, link | {' | '.join(f'{ranks} ranks' for ranks in RANKS[1:])} |")
    print(f"|---|{'---|' * len(RANKS[1:])}")
    for model in MODELS:
        for link in LINKS:
            alone = TOKENS / model.tokens_per_second
            gains = " | ".join(f"{alone / seconds(model, link, ranks):.2f}" for ranks in RANKS[1:])
            print(f"| {model.name}, {link.name} | {gains} |")


if __name__ == "__main__":
    main()
