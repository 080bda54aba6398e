"""The C kernels as differentiable torch functions; built with gcc on first use, into the temporary folder."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
STEP = 16


@cache
def library() -> ctypes.CDLL:
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"longmamba-training-{digest}.so"
    if not target.exists():
        partial = target.with_suffix(f".{id(target)}.so")
        flags = ["-O3", "-march=native", "-ffast-math", "-funroll-loops", "-shared", "-fPIC", "-Wno-psabi"]
        subprocess.run(["gcc", *flags, "-o", str(partial), str(SOURCE), "-lmvec", "-lm"], check=True)
        partial.rename(target)
    return ctypes.CDLL(str(target))


def call(name: str, *arguments: Tensor | int) -> None:
    values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_long(a) for a in arguments]
    getattr(library(), name)(*values)


def rows(x: Tensor) -> Tensor:
    """x (b, l, w) with unit stride inside a row and evenly spaced rows; copied only if it is not."""
    even = x.stride(-1) == 1 and x.stride(0) == x.shape[1] * x.stride(1)
    return x if even else x.contiguous()


class Mamba1Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        x, dt, a, b, c = (item.contiguous() for item in (x, dt, a, b, c))
        batch, length, width = x.shape
        y = torch.empty_like(x)
        saved = torch.empty(batch, width // 16, -(-length // STEP), 256)
        call("mamba1_forward", x, dt, a, b, c, y, saved, batch, length, width)
        ctx.save_for_backward(x, dt, a, b, c, saved)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, dt, a, b, c, saved = ctx.saved_tensors
        out = tuple(torch.empty_like(item) for item in (x, dt, a, b, c))
        call("mamba1_backward", x, dt, a, b, c, saved, dy.contiguous(), *out, *x.shape)
        return out


class ConvSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x (b, l, w), maybe a slice of wider rows; weight (w, 1, 4)."""
        x, taps = rows(x), weight[:, 0].T.contiguous()
        batch, length, width = x.shape
        y = torch.empty(batch, length, width)
        call("conv_forward", x, x.stride(1), taps, bias, y, batch, length, width)
        ctx.save_for_backward(x, taps, bias)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, taps, bias = ctx.saved_tensors
        batch, length, width = x.shape
        dx, dw = torch.empty(batch, length, width), torch.empty(5, width)
        call("conv_backward", x, x.stride(1), taps, bias, dy.contiguous(), dx, dw, batch, length, width)
        return dx, dw[:4].T[:, None].contiguous(), dw[4]


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, weight: Tensor | None) -> Tensor:
        """y silu(z), and with a weight its RMSNorm."""
        y, z = y.contiguous(), rows(z)
        batch, length, width = y.shape
        scale = y.new_empty(width) if weight is None else weight
        out = torch.empty_like(y)
        call("gate_forward", y, z, z.stride(1), scale, out, batch * length, width, int(weight is not None))
        ctx.save_for_backward(y, z, scale)
        ctx.normed = weight is not None
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        y, z, scale = ctx.saved_tensors
        batch, length, width = y.shape
        dy, dz, dscale = torch.empty_like(y), torch.empty_like(y), torch.empty_like(scale)
        call("gate_backward", y, z, z.stride(1), scale, dout.contiguous(), dy, dz, dscale, batch * length, width,
             int(ctx.normed))  # fmt: skip
        return dy, dz, dscale if ctx.normed else None


@cache
def product_type() -> torch.dtype:
    """bfloat16 where the CPU multiplies it (2.7 times as fast there); elsewhere it is 10 times slower than float32."""
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


class HalfLinear(torch.autograd.Function):
    """x W^T with products of `product_type` and float32 results."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        half, rows_of_weight = x.flatten(0, -2).to(product_type()), weight.to(product_type())
        ctx.save_for_backward(half, rows_of_weight)
        return (half @ rows_of_weight.T).float().unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        half, weight = ctx.saved_tensors
        back = dy.flatten(0, -2).to(product_type())
        return (back @ weight).float().unflatten(0, dy.shape[:-1]), (back.T @ half).float()
