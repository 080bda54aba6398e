"""Feed-forward networks: gated MLP, squared-ReLU MLP, and routed experts."""

from __future__ import annotations

from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn

from longmamba_mlx.models.mixer import Mixer, float_type
from longmamba_mlx.models.state import LayerState

_SORTED_FROM = 64  # choices from which it pays to bring the tokens of one expert together


class FeedForward(Mixer):
    """A network on each token alone: a mixer that remembers nothing."""

    def __call__(self, x: mx.array) -> mx.array:
        """x (b, l, d_model) -> (b, l, d_model)."""
        raise NotImplementedError

    def mix(
        self, hidden: mx.array, state: LayerState, threshold: mx.array | None, return_kept: bool
    ) -> tuple[mx.array, LayerState, mx.array | None]:
        return self(hidden), state, None


class GatedMLP(FeedForward):
    """down(silu(gate(x)) * up(x)); `gate_scale` and `down_scale` multiply gate and output (Falcon-H1)."""

    entry: ClassVar[str] = "gate_proj"

    def __init__(
        self, width: int, inner: int, *, bias: bool = False, gate_scale: float = 1.0, down_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.gate_scale, self.down_scale = gate_scale, down_scale
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        gate = self.gate_proj(x)
        if self.gate_scale != 1.0:
            gate = gate * self.gate_scale
        y: mx.array = self.down_proj(nn.silu(gate) * self.up_proj(x))
        return y if self.down_scale == 1.0 else y * self.down_scale


class PackedMLP(FeedForward):
    """down(silu(gate) * up), gate and up from one product."""

    entry: ClassVar[str] = "gate_up_proj"
    exit: ClassVar[str] = "down_proj"

    def __init__(self, width: int, inner: int, *, bias: bool = False) -> None:
        super().__init__()
        self[self.entry] = nn.Linear(width, 2 * inner, bias=bias)
        self[self.exit] = nn.Linear(inner, width, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        gate, up = mx.split(self[self.entry](x), 2, axis=-1)
        y: mx.array = self[self.exit](nn.silu(gate) * up)
        return y


class SquaredReluMLP(FeedForward):
    """down(relu(up(x)) ** 2), Nemotron-H's."""

    entry: ClassVar[str] = "up_proj"

    def __init__(self, width: int, inner: int, *, bias: bool = False) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.down_proj(squared_relu(self.up_proj(x)))
        return y


def squared_relu(x: mx.array) -> mx.array:
    """relu(x) ** 2."""
    return mx.square(mx.maximum(x, 0))


class ExpertLinear(nn.Module):
    """One linear for each expert: weight (experts, outputs, inputs), as mlx-lm stores them."""

    def __init__(self, experts: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = mx.zeros((experts, outputs, inputs))

    def __call__(self, x: mx.array, chosen: mx.array, in_order: bool) -> mx.array:
        """x (..., 1, inputs), chosen (...) indices of experts -> (..., 1, outputs)."""
        kind, weight = x.dtype, self.weight
        if mx.default_device().type == mx.cpu:  # where MLX has this product in float32 only
            x, weight = x.astype(mx.float32), weight.astype(mx.float32)
        y: mx.array = mx.gather_mm(x, weight.swapaxes(-1, -2), rhs_indices=chosen, sorted_indices=in_order)
        return y.astype(kind)

    def to_quantized(
        self, group_size: int | None = None, bits: int | None = None, mode: str = "affine", **unused: Any
    ) -> QuantizedExpertLinear:
        """The same with its weight quantised along the inputs (mlx.nn.quantize calls this)."""
        return QuantizedExpertLinear(self.weight, group_size, bits, mode)


class QuantizedExpertLinear(nn.Module):
    """`ExpertLinear` on quantised weights, with the parameter names of mlx-lm."""

    def __init__(self, weight: mx.array, group_size: int | None, bits: int | None, mode: str) -> None:
        super().__init__()
        self.group_size, self.bits, self.mode = group_size, bits, mode
        self.weight, self.scales, *biases = mx.quantize(weight, group_size, bits, mode=mode)
        if biases:
            self.biases = biases[0]

    def __call__(self, x: mx.array, chosen: mx.array, in_order: bool) -> mx.array:
        y: mx.array = mx.gather_qmm(
            x,
            self.weight,
            self.scales,
            self.get("biases"),
            rhs_indices=chosen,
            transpose=True,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=in_order,
        )
        return y


class Experts(nn.Module):
    """MLPs of which each token visits some; subclasses hold the linears."""

    entry: ClassVar[str] = "gate_proj"

    def input_type(self) -> mx.Dtype:
        """The dtype the experts compute in."""
        return float_type(self[self.entry])

    def __call__(self, x: mx.array, chosen: mx.array, weights: mx.array) -> mx.array:
        """x (b, l, width), chosen and weights (b, l, k) -> the chosen experts' weighted sum (b, l, width)."""
        width = x.shape[-1]
        flat, choices = x.reshape(-1, width), chosen.reshape(-1)
        per_token = chosen.shape[-1]
        tokens = mx.arange(choices.size) // per_token
        in_order = choices.size >= _SORTED_FROM
        if in_order:
            order = mx.argsort(choices)
            tokens, choices = tokens[order], choices[order]
        y = self.visit(flat[:, None][tokens], choices, in_order)[:, 0]
        if in_order:
            y = y[mx.argsort(order)]
        y = y.reshape(*chosen.shape, -1)
        summed: mx.array = (y.astype(mx.float32) * weights[..., None]).sum(axis=-2).astype(x.dtype)
        return summed

    def visit(self, x: mx.array, chosen: mx.array, in_order: bool) -> mx.array:
        """x (n, 1, width) through the experts chosen (n,) -> (n, 1, width)."""
        raise NotImplementedError


class GatedExperts(Experts):
    """Experts that are gated MLPs."""

    def __init__(self, count: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = ExpertLinear(count, width, inner)
        self.up_proj = ExpertLinear(count, width, inner)
        self.down_proj = ExpertLinear(count, inner, width)

    def visit(self, x: mx.array, chosen: mx.array, in_order: bool) -> mx.array:
        gate, up = self.gate_proj(x, chosen, in_order), self.up_proj(x, chosen, in_order)
        y: mx.array = self.down_proj(nn.silu(gate) * up, chosen, in_order)
        return y


class SquaredReluExperts(Experts):
    """Experts that are squared-ReLU MLPs (Nemotron-H)."""

    entry: ClassVar[str] = "fc1"

    def __init__(self, count: int, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = ExpertLinear(count, width, inner)
        self.fc2 = ExpertLinear(count, inner, width)

    def visit(self, x: mx.array, chosen: mx.array, in_order: bool) -> mx.array:
        y: mx.array = self.fc2(squared_relu(self.fc1(x, chosen, in_order)), chosen, in_order)
        return y


def router_scores(router: nn.Module, x: mx.array) -> mx.array:
    """A router's scores (b, l, experts) in float32: the choice of experts must not depend on rounding."""
    scores: mx.array = router(x.astype(float_type(router)))
    return scores.astype(mx.float32)


def top_experts(scores: mx.array, count: int) -> mx.array:
    """The indices (..., count) of the highest scores (..., experts), in no particular order."""
    return mx.argpartition(-scores, kth=count - 1, axis=-1)[..., :count]
