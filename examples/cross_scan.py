"""Four ways over an image, as VMamba, MambaDepth and LaMamba-Diff scan it (arXiv 2401.10166).

Rows from the top left, columns from the top left, and both backwards: every pixel hears of every other. The backward
scans use `reverse=True`, so an image is laid out twice, not four times.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx import ops


def cross_scan(
    image: mx.array, dt: mx.array, rates: mx.array, b_in: mx.array, c_out: mx.array, skip: mx.array
) -> mx.array:
    """The sum of four selective scans over image (b, h, w, d).

    dt (4, b, h, w, d) raw; rates A (4, d, n), negative; b_in, c_out (4, b, h, w, n); skip D (4, d): one set a
    direction, in the order rows, rows backwards, columns, columns backwards. -> (b, h, w, d).
    """
    batch, height, width, channels = image.shape
    total = mx.zeros(image.shape, dtype=mx.float32)
    for direction in range(4):
        by_columns, backwards = direction >= 2, direction % 2 == 1

        def laid_out(values: mx.array, by_columns: bool = by_columns) -> mx.array:
            turned = values.swapaxes(1, 2) if by_columns else values
            return turned.reshape(batch, height * width, -1)

        y, _ = ops.selective_scan(
            laid_out(image),
            laid_out(dt[direction]),
            rates[direction],
            laid_out(b_in[direction]),
            laid_out(c_out[direction]),
            D=skip[direction],
            reverse=backwards,
        )
        lines = (width, height) if by_columns else (height, width)
        y = y.reshape(batch, *lines, channels)
        total = total + (y.swapaxes(1, 2) if by_columns else y)
    return total


class CrossScanLayer(nn.Module):
    """image (b, h, w, d) -> (b, h, w, d), with steps, B and C computed from every pixel."""

    def __init__(self, width: int, states: int = 4) -> None:
        super().__init__()
        self.states = states
        self.to_dt = nn.Linear(width, 4 * width)
        self.to_dt.bias = mx.full((4 * width,), -4.0)  # small steps: a long memory
        self.to_bc = nn.Linear(width, 8 * states, bias=False)
        self.A_log = mx.log(mx.broadcast_to(mx.arange(1.0, states + 1), (4, width, states)))
        self.D = mx.ones((4, width))

    def __call__(self, image: mx.array) -> mx.array:
        dt = mx.stack(mx.split(self.to_dt(image), 4, axis=-1))
        b_in, c_out = (mx.stack(mx.split(half, 4, axis=-1)) for half in mx.split(self.to_bc(image), 2, axis=-1))
        return cross_scan(image, dt, -mx.exp(self.A_log), b_in, c_out, self.D)


def main() -> None:
    mx.random.seed(0)
    layer = CrossScanLayer(8)
    image = mx.random.normal((1, 12, 20, 8))
    output = layer(image)
    print(f"{image.shape} -> {output.shape}")
    spot = mx.zeros(image.shape)
    spot[:, 6, 10] = 1.0
    felt = mx.abs(layer(image + spot) - output).max(axis=(0, 3)) > 0
    print(f"one pixel is felt by {int(felt.sum())} of {12 * 20}")


if __name__ == "__main__":
    main()
