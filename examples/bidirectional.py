"""A layer that looks both ways, as Bi-Mamba+ does for time series (arXiv 2404.15772).

One selective scan runs from the first step to the last, one from the last to the first, each with its own parameters;
the results are added. `ops.selective_scan(reverse=True)` is the second one: no copy of the sequence is turned round.
Bi-Mamba+ adds a forget gate, which lets as much of the old input through as of the new is held back.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx import ops


class Direction(nn.Module):
    """One scan: x (b, l, d) -> (b, l, d), forwards or backwards in time."""

    def __init__(self, width: int, states: int, *, reverse: bool) -> None:
        super().__init__()
        self.reverse, self.states = reverse, states
        self.to_dt = nn.Linear(width, width)
        self.to_dt.bias = mx.full((width,), -4.0)  # small steps: a long memory
        self.to_bc = nn.Linear(width, 2 * states, bias=False)
        self.A_log = mx.log(mx.broadcast_to(mx.arange(1.0, states + 1), (width, states)))
        self.D = mx.ones((width,))

    def __call__(self, x: mx.array) -> mx.array:
        b_in, c_out = mx.split(self.to_bc(x), 2, axis=-1)
        y, _ = ops.selective_scan(x, self.to_dt(x), -mx.exp(self.A_log), b_in, c_out, D=self.D, reverse=self.reverse)
        return y


class BidirectionalLayer(nn.Module):
    """Both directions and the gate: x (b, l, d) -> (b, l, d)."""

    def __init__(self, width: int, states: int = 8) -> None:
        super().__init__()
        self.forward_scan = Direction(width, states, reverse=False)
        self.backward_scan = Direction(width, states, reverse=True)
        self.gate = nn.Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        keep = mx.sigmoid(self.gate(x))
        return keep * (self.forward_scan(x) + self.backward_scan(x)) + (1 - keep) * x


def main() -> None:
    mx.random.seed(0)
    layer = BidirectionalLayer(16)
    series = mx.random.normal((1, 300, 16))
    output = layer(series)
    print(f"{series.shape} -> {output.shape}")
    late = mx.concatenate([series[:, :-1], series[:, -1:] + 1], axis=1)
    changed = mx.abs(layer(late) - output).max(axis=(0, 2))
    print(f"a change at the last step is felt {int((changed > 1e-6).sum())} of 300 steps back")


if __name__ == "__main__":
    main()
