"""Sizes of the known models' scans. Models of different sizes share compiled kernels: `distinct` gives one of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import mlx.core as mx

from longmamba_mlx.metal_kernels.scan import rows_at_once
from longmamba_mlx.metal_kernels.sequential_scan import layout
from longmamba_mlx.ops.inputs import ScanInputs


@dataclass(frozen=True, slots=True)
class ScanShape:
    """The scan of a model's layers: `heads` of `rows` with `states` each, B and C in `groups`.

    Mamba-1 (`per_head` False) is one head whose rows are the channels. `gated`: the scan itself multiplies with
    silu(z); elsewhere a norm does. `dtype` is that of x, B and C.
    """

    heads: int
    rows: int
    states: int
    groups: int = 1
    per_head: bool = True
    gated: bool = False
    dtype: str = "bfloat16"

    def kernels(self) -> tuple[object, ...]:
        """What decides which compiled kernels run, apart from options of a call; equal for shapes that share them."""
        plan = layout(1, self.heads, self.rows, self.states)
        chunked = rows_at_once(self.rows, self.states) if self.per_head else None
        lanes = (plan.lanes, plan.staged, plan.group)
        rows = self.rows if self.per_head else None
        return (self.dtype, self.per_head, self.gated, self.states, rows, chunked, lanes)

    def smallest(self) -> ScanShape:
        """The fewest heads, or channels, with the same kernels."""
        if self.per_head:
            smaller = (replace(self, heads=heads) for heads in range(self.groups, self.heads, self.groups))
        else:
            smaller = (replace(self, rows=rows) for rows in range(32, self.rows, 32))
        return next((shape for shape in smaller if shape.kernels() == self.kernels()), self)


def distinct(shapes: Iterable[tuple[str, ScanShape]]) -> dict[str, ScanShape]:
    """One shape for each set of kernels, as small as can be, by the name of the first model that uses it."""
    found: dict[tuple[object, ...], tuple[str, ScanShape]] = {}
    for name, shape in shapes:
        found.setdefault(shape.kernels(), (name, shape.smallest()))
    return dict(found.values())


def random_inputs(shape: ScanShape, length: int) -> ScanInputs:
    """Arguments of a scan of this shape, batch 1, about half of the tokens filtered."""
    keys = iter(mx.random.split(mx.random.key(length), 8))
    low: mx.Dtype = getattr(mx, shape.dtype)

    def draw(*sizes: int) -> mx.array:
        return mx.random.normal(sizes, key=next(keys))

    rows = (shape.heads, shape.rows) if shape.per_head else (shape.rows,)
    units = rows[0]
    b_sizes = (shape.groups, shape.states) if shape.per_head else (shape.states,)
    x, z = draw(1, length, *rows).astype(low), draw(1, length, *rows).astype(low)
    dt = 2 * draw(1, length, units)
    A = -mx.exp(draw(units) if shape.per_head else draw(units, shape.states))
    B, C = draw(1, length, *b_sizes).astype(low), draw(1, length, *b_sizes).astype(low)
    return ScanInputs(
        x,
        dt.astype(low) if shape.per_head else dt,
        A,
        B,
        C,
        D=mx.ones((units,)),
        z=z if shape.gated else None,
        dt_bias=mx.full((units,), -1.0),
        threshold=mx.full((units,), -1.0),
        initial_state=draw(1, *rows, shape.states),
    )


def _mamba1(channels: int, dtype: str = "bfloat16") -> ScanShape:
    return ScanShape(heads=1, rows=channels, states=16, per_head=False, gated=True, dtype=dtype)


# As published with the models, by their names in `registry.known_models`.
KNOWN: dict[str, ScanShape] = {
    "ibm-granite/granite-4.0-h-350m": ScanShape(48, 32, 128),
    "ibm-granite/granite-4.0-h-1b": ScanShape(48, 64, 128),
    "ibm-granite/granite-4.0-h-micro": ScanShape(64, 64, 128),
    "ibm-granite/granite-4.0-h-tiny": ScanShape(48, 64, 128),
    "ibm-granite/granite-4.0-h-small": ScanShape(128, 64, 128),
    "tiiuae/Falcon3-Mamba-7B-Instruct": _mamba1(8192),
    "tiiuae/Falcon-H1-0.5B-Instruct": ScanShape(24, 64, 128, gated=True),
    "tiiuae/Falcon-H1-1.5B-Instruct": ScanShape(48, 64, 256, gated=True),
    "tiiuae/Falcon-H1-3B-Instruct": ScanShape(32, 128, 256, gated=True),
    "tiiuae/Falcon-H1-7B-Instruct": ScanShape(24, 128, 256, gated=True),
    "tiiuae/Falcon-H1-34B-Instruct": ScanShape(32, 128, 256, groups=2, gated=True),
    "ai21labs/AI21-Jamba-Reasoning-3B": _mamba1(5120),
    "tiiuae/Falcon-H1R-7B": ScanShape(24, 128, 256, gated=True),
    "ai21labs/AI21-Jamba2-3B": _mamba1(5120),
    "nvidia/NVIDIA-Nemotron-Nano-9B-v2": ScanShape(128, 80, 128, groups=8),
    "nvidia/NVIDIA-Nemotron-Nano-12B-v2": ScanShape(128, 80, 128, groups=8),
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": ScanShape(64, 64, 128, groups=8),
    "ibm-ai-platform/Bamba-9B-v2": ScanShape(128, 64, 128),
    "Zyphra/Zamba2-1.2B-Instruct": ScanShape(64, 64, 128),
    "Zyphra/Zamba2-2.7B-Instruct": ScanShape(80, 64, 64),
    "Zyphra/Zamba2-7B-Instruct": ScanShape(112, 64, 64, groups=2),
    "microsoft/Phi-4-mini-flash-reasoning": _mamba1(5120),
    "pfnet/plamo-2-1b": ScanShape(32, 128, 64, gated=True),
    "pfnet/plamo-2-8b": ScanShape(64, 128, 64, gated=True),
    "mistralai/Mamba-Codestral-7B-v0.1": ScanShape(128, 64, 128, groups=8),
    "state-spaces/mamba-130m-hf": _mamba1(1536, "float32"),
    "state-spaces/mamba-370m-hf": _mamba1(2048, "float32"),
    "state-spaces/mamba-790m-hf": _mamba1(3072, "float32"),
    "state-spaces/mamba-1.4b-hf": _mamba1(4096, "float32"),
    "state-spaces/mamba-2.8b-hf": _mamba1(5120, "float32"),
    "state-spaces/mamba-2.8b-slimpj": _mamba1(5120),
    "state-spaces/mamba2-130m": ScanShape(24, 64, 128),
    "state-spaces/mamba2-370m": ScanShape(32, 64, 128),
    "state-spaces/mamba2-780m": ScanShape(48, 64, 128),
    "state-spaces/mamba2-1.3b": ScanShape(64, 64, 128),
    "state-spaces/mamba2-2.7b": ScanShape(80, 64, 128),
}
# The second kind of scan of models that have two: Phi-4-mini-flash's last one gives its output before the gate.
SECOND = {"microsoft/Phi-4-mini-flash-reasoning": replace(_mamba1(5120), gated=False)}
# Known models whose sizes nobody was found to publish: their kernels are checked when they are loaded.
UNPUBLISHED = frozenset(
    {
        "Zyphra/Zamba-7B-v1",
        "cartesia-ai/Llamba-1B",
        "cartesia-ai/Llamba-3B",
        "cartesia-ai/Llamba-8B",
        "nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16",
        "nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-BF16",
        "state-spaces/mamba2attn-2.7b",
        "tiiuae/Falcon-H1-Tiny-R-0.6B",
        "tiiuae/Falcon-H1-Tiny-R-90M",
    }
)
