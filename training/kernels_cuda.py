"""What is slow in torch on a GPU, for many nets at once: the Mamba-1 scan, the convolution and the gate.

CUDA kernels with their backward passes; on a CPU, and in float64 to compare with, the same in plain torch. The scan
gives a thread to every sequence and channel, its 16 states in registers, and in the backward pass computes 16 tokens'
states again from the saved one before them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STATES, STEP, WIDTH = 16, 16, 256

SOURCE = r"""
#define N 16
#define STEP 16
#define WIDTH 256
// x, dt, y (sequences, length, WIDTH); a (members, WIDTH, N), negative; b, c (sequences, length, N);
// saved (sequences, blocks, N, WIDTH): the state before every STEP-th token. One block of threads a sequence.
extern "C" __global__ void forward(const float *x, const float *dt, const float *a, const float *b, const float *c,
                                   float *y, float *saved, int length, int batch) {
    int s = blockIdx.x, w = threadIdx.x, blocks = (length + STEP - 1) / STEP;
    float rate[N], h[N];
    for (int n = 0; n < N; n++) { rate[n] = a[((s / batch) * WIDTH + w) * N + n] * 1.44269504f; h[n] = 0; }
    for (int t = 0; t < length; t++) {
        if (t % STEP == 0)
            for (int n = 0; n < N; n++) saved[(((long)s * blocks + t / STEP) * N + n) * WIDTH + w] = h[n];
        long row = (long)s * length + t, at = row * WIDTH + w;
        float step = dt[at], u = step * x[at], out = 0;
        for (int n = 0; n < N; n++) {
            h[n] = exp2f(step * rate[n]) * h[n] + u * b[row * N + n];
            out += h[n] * c[row * N + n];
        }
        y[at] = out;
    }
}

// Lane l gets the sum of all lanes' v[l].
__device__ float totals(float *v, int lane) {
#pragma unroll
    for (int off = 16; off; off >>= 1)
#pragma unroll
        for (int i = 0; i < off; i++) {
            bool up = lane & off;
            float send = up ? v[i] : v[i + off], mine = up ? v[i + off] : v[i];
            v[i] = mine + __shfl_xor_sync(0xffffffffu, send, off);
        }
    return v[0];
}

// da (sequences, WIDTH, N), to be summed over a member's sequences.
extern "C" __global__ void backward(const float *x, const float *dt, const float *a, const float *b, const float *c,
                                    const float *saved, const float *dy, float *dx, float *ddt, float *da, float *db,
                                    float *dc, int length, int batch) {
    int s = blockIdx.x, w = threadIdx.x, lane = w % 32, warp = w / 32, blocks = (length + STEP - 1) / STEP;
    __shared__ float parts[2][WIDTH / 32][32];
    float rate[N], dh[N], da_sum[N], h[STEP + 1][N];
    for (int n = 0; n < N; n++) {
        rate[n] = a[((s / batch) * WIDTH + w) * N + n] * 1.44269504f;
        dh[n] = da_sum[n] = 0;
    }
    for (int block = blocks - 1; block >= 0; block--) {
        int first = block * STEP, count = min(STEP, length - first);
        for (int n = 0; n < N; n++) h[0][n] = saved[(((long)s * blocks + block) * N + n) * WIDTH + w];
        for (int k = 0; k < count; k++) {
            long row = (long)s * length + first + k, at = row * WIDTH + w;
            float step = dt[at], u = step * x[at];
            for (int n = 0; n < N; n++) h[k + 1][n] = exp2f(step * rate[n]) * h[k][n] + u * b[row * N + n];
        }
        for (int k = count - 1; k >= 0; k--) {
            long row = (long)s * length + first + k, at = row * WIDTH + w;
            float step = dt[at], in = x[at], u = step * in, out = dy[at], written = 0, slopes = 0, v[2 * N];
#pragma unroll
            for (int n = 0; n < N; n++) {
                float d = dh[n] + out * c[row * N + n];
                v[N + n] = out * h[k + 1][n];
                v[n] = d * u;
                written += d * b[row * N + n];
                d *= exp2f(step * rate[n]);
                float slope = d * h[k][n];
                slopes += slope * rate[n];
                da_sum[n] += slope * step;
                dh[n] = d;
            }
            ddt[at] = slopes * 0.69314718f + written * in;
            dx[at] = written * step;
            parts[k % 2][warp][lane] = totals(v, lane);
            __syncthreads();
            if (warp == k % (WIDTH / 32)) {
                float sum = 0;
                for (int i = 0; i < WIDTH / 32; i++) sum += parts[k % 2][i][lane];
                (lane < N ? db : dc)[row * N + lane % N] = sum;
            }
        }
    }
    for (int n = 0; n < N; n++) da[((long)s * WIDTH + w) * N + n] = da_sum[n];
}

__device__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// Causal convolution of 4 taps. x has rows of `stride` floats, of which `width` are read; weight (members, width, 4);
// rows: of one member, sequences of `length`. One thread an element; blockIdx.y is the member.
__device__ float before_silu(const float *x, const float *weight, const float *bias, long row, int c, int t, int stride,
                             int width, int s) {
    float sum = bias[s * width + c];
    for (int k = 0; k < 4; k++)
        if (t - 3 + k >= 0) sum += weight[(s * width + c) * 4 + k] * x[(row - 3 + k) * stride + c];
    return sum;
}

extern "C" __global__ void conv_forward(const float *x, const float *weight, const float *bias, float *y, int stride,
                                        int width, int length, int rows) {
    long i = (long)blockIdx.x * blockDim.x + threadIdx.x;
    int s = blockIdx.y, c = i % width;
    if (i >= (long)rows * width) return;
    long row = (long)s * rows + i / width;
    float pre = before_silu(x, weight, bias, row, c, row % length, stride, width, s);
    y[row * width + c] = pre * sigmoid(pre);
}

// dy becomes the gradient before the SiLU.
extern "C" __global__ void conv_slopes(const float *x, const float *weight, const float *bias, const float *dy,
                                       float *slopes, int stride, int width, int length, int rows) {
    long i = (long)blockIdx.x * blockDim.x + threadIdx.x;
    int s = blockIdx.y, c = i % width;
    if (i >= (long)rows * width) return;
    long row = (long)s * rows + i / width;
    float pre = before_silu(x, weight, bias, row, c, row % length, stride, width, s), gate = sigmoid(pre);
    slopes[row * width + c] = dy[row * width + c] * gate * (1.0f + pre * (1.0f - gate));
}

extern "C" __global__ void conv_inputs(const float *slopes, const float *weight, float *dx, int width, int length,
                                       int rows) {
    long i = (long)blockIdx.x * blockDim.x + threadIdx.x;
    int s = blockIdx.y, c = i % width;
    if (i >= (long)rows * width) return;
    long row = (long)s * rows + i / width;
    int t = row % length;
    float sum = 0;
    for (int k = 0; k < 4; k++)
        if (t + 3 - k < length) sum += weight[(s * width + c) * 4 + k] * slopes[(row + 3 - k) * width + c];
    dx[row * width + c] = sum;
}

// dw (members, width, 5): the taps' gradients and the bias's, from zero. blockIdx.z takes every gridDim.z-th row.
extern "C" __global__ void conv_weights(const float *x, const float *slopes, float *dw, int stride, int width,
                                        int length, int rows) {
    int c = blockIdx.x * 32 + threadIdx.x, s = blockIdx.y;
    float sum[5] = {0, 0, 0, 0, 0};
    for (long r = blockIdx.z * blockDim.y + threadIdx.y; r < rows; r += gridDim.z * blockDim.y) {
        long row = (long)s * rows + r;
        int t = r % length;
        float slope = slopes[row * width + c];
        sum[4] += slope;
        for (int k = 0; k < 4; k++)
            if (t - 3 + k >= 0) sum[k] += slope * x[(row - 3 + k) * stride + c];
    }
    for (int k = 0; k < 5; k++) atomicAdd(dw + (s * width + c) * 5 + k, sum[k]);
}

__device__ float warp_sum(float v) {
    for (int off = 16; off; off >>= 1) v += __shfl_xor_sync(0xffffffffu, v, off);
    return v;
}

// y silu(z), and where `normed` its RMSNorm with weight (members, WIDTH). z has rows of `stride` floats. A warp a row.
extern "C" __global__ void gate_forward(const float *y, const float *z, const float *weight, float *out, int stride,
                                        int rows, int normed) {
    int lane = threadIdx.x % 32, s = blockIdx.y;
    long r = (long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (r >= rows) return;
    long row = (long)s * rows + r;
    float g[WIDTH / 32], square = 0, scale = 1.0f;
    for (int i = 0; i < WIDTH / 32; i++) {
        float in = z[row * stride + i * 32 + lane];
        g[i] = y[row * WIDTH + i * 32 + lane] * in * sigmoid(in);
        square += g[i] * g[i];
    }
    if (normed) scale = rsqrtf(warp_sum(square) / WIDTH + 1e-5f);
    for (int i = 0; i < WIDTH / 32; i++)
        out[row * WIDTH + i * 32 + lane] = g[i] * scale * (normed ? weight[s * WIDTH + i * 32 + lane] : 1.0f);
}

// dweight from zero; a warp takes every (warps in the grid)-th row.
extern "C" __global__ void gate_backward(const float *y, const float *z, const float *weight, const float *dout,
                                         float *dy, float *dz, float *dweight, int stride, int rows, int normed) {
    int lane = threadIdx.x % 32, s = blockIdx.y, warps = blockDim.x / 32;
    float total[WIDTH / 32], w[WIDTH / 32];
    for (int i = 0; i < WIDTH / 32; i++) {
        total[i] = 0;
        w[i] = normed ? weight[s * WIDTH + i * 32 + lane] : 1.0f;
    }
    for (long r = (long)blockIdx.x * warps + threadIdx.x / 32; r < rows; r += gridDim.x * warps) {
        long row = (long)s * rows + r;
        float g[WIDTH / 32], d[WIDTH / 32], square = 0, dot = 0, scale = 1.0f;
        for (int i = 0; i < WIDTH / 32; i++) {
            float in = z[row * stride + i * 32 + lane];
            g[i] = y[row * WIDTH + i * 32 + lane] * in * sigmoid(in);
            d[i] = dout[row * WIDTH + i * 32 + lane];
            square += g[i] * g[i];
            dot += d[i] * w[i] * g[i];
        }
        if (normed) {
            scale = rsqrtf(warp_sum(square) / WIDTH + 1e-5f);
            dot = warp_sum(dot) * scale * scale * scale / WIDTH;
        } else
            dot = 0;
        for (int i = 0; i < WIDTH / 32; i++) {
            float in = z[row * stride + i * 32 + lane], sig = sigmoid(in);
            float dg = d[i] * w[i] * scale - g[i] * dot;
            total[i] += d[i] * g[i] * scale;
            dz[row * WIDTH + i * 32 + lane] = dg * y[row * WIDTH + i * 32 + lane] * sig * (1.0f + in * (1.0f - sig));
            dy[row * WIDTH + i * 32 + lane] = dg * in * sig;
        }
    }
    if (normed)
        for (int i = 0; i < WIDTH / 32; i++) atomicAdd(dweight + s * WIDTH + i * 32 + lane, total[i]);
}
"""


@cache
def module() -> Any:
    import cupy  # here and not above: only a GPU run has it

    return cupy.RawModule(code=SOURCE, options=("--std=c++14", "--use_fast_math"))


def launch(name: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Tensor | int) -> None:
    import cupy
    import numpy as np

    values = [a.data_ptr() if isinstance(a, Tensor) else np.int32(a) for a in arguments]
    with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
        module().get_function(name)(grid, block, tuple(values))


def rows_of(x: Tensor) -> Tensor:
    """x (members, batch, length, width) with unit stride inside a row and evenly spaced rows; copied if it is not."""
    _, batch, length, _ = x.shape
    step = x.stride(2)
    even = x.stride() == (batch * length * step, length * step, step, 1)
    return x if even else x.contiguous()


class CudaScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        x, dt, a, b, c = (item.contiguous() for item in (x, dt, a, b, c))
        members, batch, length, width = x.shape
        assert width == WIDTH and b.shape[-1] == STATES
        y = torch.empty_like(x)
        saved = x.new_empty(members * batch, -(-length // STEP), STATES, WIDTH)
        launch("forward", (members * batch,), (WIDTH,), x, dt, a, b, c, y, saved, length, batch)
        ctx.save_for_backward(x, dt, a, b, c, saved)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, dt, a, b, c, saved = ctx.saved_tensors
        members, batch, length, _ = x.shape
        dx, ddt, db, dc = (torch.empty_like(item) for item in (x, dt, b, c))
        da = x.new_empty(members, batch, WIDTH, STATES)
        given, wanted = (x, dt, a, b, c, saved, dy.contiguous()), (dx, ddt, da, db, dc)
        launch("backward", (members * batch,), (WIDTH,), *given, *wanted, length, batch)
        return dx, ddt, da.sum(1), db, dc


def mamba1_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y of h_t = exp(dt_t a) h_{t-1} + dt_t x_t b_t, y_t = h_t c_t, from an empty state.

    x, dt (members, batch, length, width); a (members, width, d_state), negative;
    b, c (members, batch, length, d_state).
    """
    if x.is_cuda and x.dtype == torch.float32:
        return CudaScan.apply(x, dt, a, b, c)
    state, outputs = torch.zeros(1, dtype=x.dtype, device=x.device), []
    for t in range(x.shape[2]):
        decay = torch.exp(dt[:, :, t, :, None] * a[:, None])
        state = decay * state + (dt[:, :, t] * x[:, :, t])[..., None] * b[:, :, t, None]
        outputs.append((state * c[:, :, t, None]).sum(-1))
    return torch.stack(outputs, 2)


class CudaConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x, weight, bias = rows_of(x), weight.contiguous(), bias.contiguous()
        members, batch, length, width = x.shape
        y = x.new_empty(x.shape)
        grid = (-(-batch * length * width // 256), members)
        launch("conv_forward", grid, (256,), x, weight, bias, y, x.stride(2), width, length, batch * length)
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, weight, bias = ctx.saved_tensors
        members, batch, length, width = x.shape
        rows, dy = batch * length, dy.contiguous()
        slopes, dx, dw = x.new_empty(x.shape), x.new_empty(x.shape), x.new_zeros(members, width, 5)
        grid = (-(-rows * width // 256), members)
        launch("conv_slopes", grid, (256,), x, weight, bias, dy, slopes, x.stride(2), width, length, rows)
        launch("conv_inputs", grid, (256,), slopes, weight, dx, width, length, rows)
        launch("conv_weights", (width // 32, members, 16), (32, 8), x, slopes, dw, x.stride(2), width, length, rows)
        return dx, dw[:, :, None, :4].contiguous(), dw[:, :, 4].contiguous()


def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Causal depthwise convolution and SiLU: x (members, batch, length, width), weight (members, width, 1, 4)."""
    if x.is_cuda and x.dtype == torch.float32:
        return CudaConv.apply(x, weight, bias)
    taps, length = weight.shape[-1], x.shape[2]
    past = F.pad(x, (0, 0, taps - 1, 0))
    parts = (past[:, :, k : k + length] * weight[:, None, None, :, 0, k] for k in range(taps))
    return F.silu(bias[:, None, None] + sum(parts))


class CudaGate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, weight: Tensor | None) -> Tensor:
        y, z = y.contiguous(), rows_of(z)
        members, batch, length, width = y.shape
        assert width == WIDTH
        scale = y if weight is None else weight.contiguous()
        out, rows = torch.empty_like(y), batch * length
        ctx.normed = weight is not None
        launch("gate_forward", (-(-rows // 8), members), (256,), y, z, scale, out, z.stride(2), rows, int(ctx.normed))
        ctx.save_for_backward(y, z, scale)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        y, z, scale = ctx.saved_tensors
        members, batch, length, width = y.shape
        dy, dz, dscale = torch.empty_like(y), torch.empty_like(y), y.new_zeros(members, width)
        given = (y, z, scale, dout.contiguous(), dy, dz, dscale)
        launch("gate_backward", (32, members), (256,), *given, z.stride(2), batch * length, int(ctx.normed))
        return dy, dz, dscale if ctx.normed else None


def gated(y: Tensor, z: Tensor, weight: Tensor | None) -> Tensor:
    """y silu(z), and with a weight (members, width) its RMSNorm; y, z (members, batch, length, width)."""
    if y.is_cuda and y.dtype == torch.float32:
        return CudaGate.apply(y, z, weight)
    y = y * F.silu(z)
    return y if weight is None else F.rms_norm(y, (y.shape[-1],), None, 1e-5) * weight[:, None, None]
