"""Mamba-1 and Mamba-2 language models in torch, with the parameter names of the original checkpoints.

Only for training and for choosing among seeds: the package has its own models. A model may be given a `keep` function
that sees a layer's raw step sizes (dt + bias) and says which of them stay; the others become 0 (LongMamba).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from kernels import ConvSiLU, Gate, HalfLinear, Mamba1Scan
from ssd import Passed, mamba2_scan
from torch import Tensor, nn

Keep = Callable[[int, Tensor], Tensor]
LAYERS = "backbone.layers."


@dataclass(frozen=True)
class NetConfig:
    kind: str  # "mamba1" or "mamba2"
    vocab: int = 2048
    d_model: int = 128
    layers: int = 3
    d_state: int = 64
    headdim: int = 32
    expand: int = 2
    d_conv: int = 4
    a_low: float = 1.0
    a_high: float = 16.0
    dt_low: float = 1e-3
    dt_high: float = 1e-1

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def dt_rank(self) -> int:
        return math.ceil(self.d_model / 16)

    def original(self) -> dict[str, object]:
        """config.json as the original repositories write it."""
        cfg: dict[str, object] = {"layer": "Mamba1", "d_state": self.d_state, "d_conv": self.d_conv}
        if self.kind == "mamba2":
            cfg |= {"layer": "Mamba2", "headdim": self.headdim, "ngroups": 1, "chunk_size": 64}
        return {
            "d_model": self.d_model, "d_intermediate": 0, "n_layer": self.layers, "vocab_size": self.vocab,
            "ssm_cfg": cfg | {"expand": self.expand}, "rms_norm": True, "residual_in_fp32": True,
            "fused_add_norm": True, "pad_vocab_size_multiple": 8, "tie_embeddings": True,
        }  # fmt: skip


def step_bias(config: NetConfig, units: int) -> Tensor:
    """A dt bias whose softplus is log-uniform in [dt_low, dt_high]."""
    dt = torch.exp(torch.rand(units) * math.log(config.dt_high / config.dt_low) + math.log(config.dt_low))
    return dt + torch.log(-torch.expm1(-dt))


class Linear(nn.Linear):
    """A linear layer that may multiply in bfloat16 while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y = HalfLinear.apply(x, self.weight)
        return y if self.bias is None else y + self.bias


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, 1e-5)


class Mixer(nn.Module):
    def __init__(self, config: NetConfig, index: int) -> None:
        super().__init__()
        self.config, self.index = config, index

    passed: Passed | None = None  # the state that a window goes on from (Mamba-2)

    def kept(self, raw: Tensor, keep: Keep | None) -> Tensor:
        dt = F.softplus(raw)
        return dt if keep is None else dt * keep(self.index, raw)


class Mamba2Mixer(Mixer):
    def __init__(self, config: NetConfig, index: int) -> None:
        super().__init__(config, index)
        inner, n = config.d_inner, config.d_state
        self.heads = inner // config.headdim
        self.in_proj = Linear(config.d_model, 2 * inner + 2 * n + self.heads, bias=False)
        self.conv1d = nn.Conv1d(inner + 2 * n, inner + 2 * n, config.d_conv, groups=inner + 2 * n)
        self.dt_bias = nn.Parameter(step_bias(config, self.heads))
        rates = torch.empty(self.heads).uniform_(config.a_low, config.a_high)
        self.A_log = nn.Parameter(torch.log(rates))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = RMSNorm(inner)
        self.out_proj = Linear(inner, config.d_model, bias=False)

    def forward(self, x: Tensor, keep: Keep | None) -> Tensor:
        inner, n = self.config.d_inner, self.config.d_state
        z, xbc, dt = self.in_proj(x).split([inner, inner + 2 * n, self.heads], -1)
        x, b, c = ConvSiLU.apply(xbc, self.conv1d.weight, self.conv1d.bias).split([inner, n, n], -1)
        x = x.unflatten(-1, (self.heads, -1))
        dt = self.kept(dt + self.dt_bias, keep)
        y = mamba2_scan(x, dt, dt * -torch.exp(self.A_log), b, c, self.passed) + self.D[:, None] * x
        return self.out_proj(Gate.apply(y.flatten(-2), z, self.norm.weight))


class Mamba1Mixer(Mixer):
    def __init__(self, config: NetConfig, index: int) -> None:
        super().__init__(config, index)
        inner, n, rank = config.d_inner, config.d_state, config.dt_rank
        self.in_proj = Linear(config.d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, config.d_conv, groups=inner)
        self.x_proj = Linear(inner, rank + 2 * n, bias=False)
        self.dt_proj = Linear(rank, inner)
        nn.init.uniform_(self.dt_proj.weight, -(rank**-0.5), rank**-0.5)
        self.dt_proj.bias.data.copy_(step_bias(config, inner))
        rates = torch.linspace(config.a_low, config.a_high, n).expand(inner, -1)
        self.A_log = nn.Parameter(torch.log(rates).contiguous())
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = Linear(inner, config.d_model, bias=False)

    def forward(self, x: Tensor, keep: Keep | None) -> Tensor:
        n, rank = self.config.d_state, self.config.dt_rank
        x, z = self.in_proj(x).chunk(2, -1)
        x = ConvSiLU.apply(x, self.conv1d.weight, self.conv1d.bias)
        dt, b, c = self.x_proj(x).split([rank, n, n], -1)
        dt = self.kept(self.dt_proj(dt), keep)
        y = Mamba1Scan.apply(x, dt, -torch.exp(self.A_log), b, c) + self.D * x
        return self.out_proj(Gate.apply(y, z, None))


class Layer(nn.Module):
    def __init__(self, config: NetConfig, index: int) -> None:
        super().__init__()
        self.norm = RMSNorm(config.d_model)
        self.mixer = (Mamba2Mixer if config.kind == "mamba2" else Mamba1Mixer)(config, index)

    def forward(self, x: Tensor, keep: Keep | None) -> Tensor:
        return x + self.mixer(self.norm(x), keep)


class Backbone(nn.Module):
    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.layers))
        self.norm_f = RMSNorm(config.d_model)


class Net(nn.Module):
    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        for name, weight in self.named_parameters():
            if name.endswith("out_proj.weight"):  # as GPT-2 scales residual branches
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
                weight.data /= math.sqrt(config.layers)

    @torch.no_grad()
    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take over these weights; layers they lack come first and add nothing until they have learnt to.

        So what a trained first layer's step sizes see may be widened from one token to what came before it.
        """
        new = self.config.layers - len({name.split(".")[2] for name in weights if name.startswith(LAYERS)})
        moved = {f"{LAYERS}{int(i) + new}.{rest}": weight for name, weight in weights.items()
                 if name.startswith(LAYERS) for i, _, rest in [name.removeprefix(LAYERS).partition(".")]}  # fmt: skip
        moved |= {name: weight for name, weight in weights.items() if not name.startswith(LAYERS)}
        for layer in self.backbone.layers[:new]:
            layer.mixer.out_proj.weight.zero_()
        # Only the new layers keep what they have: weights that lack anything else are refused.
        fresh = tuple(f"{LAYERS}{index}." for index in range(new))
        self.load_state_dict({k: v for k, v in self.state_dict().items() if k.startswith(fresh)} | moved)

    def forward(self, ids: Tensor, keep: Keep | None = None) -> Tensor:
        """Hidden states after the final norm, (b, l, d_model)."""
        x = self.backbone.embedding(ids)
        for layer in self.backbone.layers:
            x = layer(x, keep)
        return self.backbone.norm_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        weight = self.backbone.embedding.weight
        return HalfLinear.apply(hidden, weight) if self.training else hidden @ weight.T

    def describe(self) -> dict[str, object]:
        return asdict(self.config) | {"parameters": sum(p.numel() for p in self.parameters())}
