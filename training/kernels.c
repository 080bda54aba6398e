// Forward and backward passes of what is slow in torch on a CPU: the Mamba-1 scan, the
// causal convolution with SiLU, and the gated RMSNorm. One thread, float32, vectors of 16. For training only.
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef float v16 __attribute__((vector_size(64)));
typedef float u16 __attribute__((vector_size(64), aligned(4)));
typedef int i16 __attribute__((vector_size(64)));
#define LOAD(p) (*(const u16 *)(p))
#define STORE(p, v) (*(u16 *)(p) = (v))
enum { STEP = 16 };  // tokens between saved states

// 2^x for x <= 0; relative error 2e-7; 2^-126 below -126.
static inline v16 exp2v(v16 x) {
    const v16 limit = (v16){} - 126.0f;
    i16 under = x < limit;
    x = (v16)(((i16)limit & under) | ((i16)x & ~under));
    i16 whole = __builtin_convertvector(x - 0.5f, i16);
    v16 f = x - __builtin_convertvector(whole, v16);
    v16 p = 1.5403530e-4f * f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return (v16)((i16)p + (whole << 23));
}

static inline float sum16(v16 v) {
    float total = 0;
    for (int i = 0; i < 16; i++) total += v[i];
    return total;
}

// Lane i of the result is the sum of the lanes of v[i]; v is used up. The masks are constants, or it would be slow.
static inline v16 sums(v16 *v) {
    for (int i = 0; i < 8; i++)
        v[i] = __builtin_shuffle(v[i], v[i + 8], (i16){0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23})
             + __builtin_shuffle(v[i], v[i + 8], (i16){8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31});
    for (int i = 0; i < 4; i++)
        v[i] = __builtin_shuffle(v[i], v[i + 4], (i16){0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27})
             + __builtin_shuffle(v[i], v[i + 4], (i16){4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31});
    for (int i = 0; i < 2; i++)
        v[i] = __builtin_shuffle(v[i], v[i + 2], (i16){0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29})
             + __builtin_shuffle(v[i], v[i + 2], (i16){2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31});
    return __builtin_shuffle(v[0], v[1], (i16){0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30})
         + __builtin_shuffle(v[0], v[1], (i16){1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31});
}

// ---- Mamba-1: x, dt, y (batch, length, width); a (width, 16), negative; b, c (batch, length, 16) ----
// saved (batch, width / 16, length / STEP + 1, 16, 16) holds the state before every STEP-th token.
#define N1 16

static inline void mamba1_rates(const float *a, long channel, v16 *rates) {
    for (int n = 0; n < N1; n++)
        for (int k = 0; k < 16; k++) rates[n][k] = a[(channel + k) * N1 + n] * 1.44269504f;
}

void mamba1_forward(const float *x, const float *dt, const float *a, const float *b, const float *c, float *y,
                    float *saved, long batch, long length, long width) {
    long blocks = (length + STEP - 1) / STEP;
    for (long i = 0; i < batch; i++)
        for (long g = 0; g < width / 16; g++) {
            v16 rates[N1], h[N1];
            mamba1_rates(a, g * 16, rates);
            memset(h, 0, sizeof h);
            float *keep = saved + (i * (width / 16) + g) * blocks * N1 * 16;
            for (long t = 0; t < length; t++) {
                if (t % STEP == 0) memcpy(keep + t / STEP * N1 * 16, h, sizeof h);
                long row = i * length + t, at = row * width + g * 16;
                v16 step = LOAD(dt + at), u = step * LOAD(x + at), out = {};
                for (int n = 0; n < N1; n++) {
                    h[n] = exp2v(step * rates[n]) * h[n] + u * b[row * N1 + n];
                    out += h[n] * c[row * N1 + n];
                }
                STORE(y + at, out);
            }
        }
}

void mamba1_backward(const float *x, const float *dt, const float *a, const float *b, const float *c,
                     const float *saved, const float *dy, float *dx, float *ddt, float *da, float *db, float *dc,
                     long batch, long length, long width) {
    long blocks = (length + STEP - 1) / STEP;
    memset(da, 0, width * N1 * sizeof(float));
    memset(db, 0, batch * length * N1 * sizeof(float));
    memset(dc, 0, batch * length * N1 * sizeof(float));
    for (long i = 0; i < batch; i++)
        for (long g = 0; g < width / 16; g++) {
            v16 rates[N1], dh[N1], da_sum[N1], h[STEP + 1][N1], decay[STEP][N1];
            mamba1_rates(a, g * 16, rates);
            memset(dh, 0, sizeof dh);
            memset(da_sum, 0, sizeof da_sum);
            const float *keep = saved + (i * (width / 16) + g) * blocks * N1 * 16;
            for (long block = blocks - 1; block >= 0; block--) {
                long first = block * STEP, count = length - first < STEP ? length - first : STEP;
                memcpy(h[0], keep + block * N1 * 16, sizeof h[0]);
                for (long s = 0; s < count; s++) {
                    long row = i * length + first + s, at = row * width + g * 16;
                    v16 step = LOAD(dt + at), u = step * LOAD(x + at);
                    for (int n = 0; n < N1; n++) {
                        decay[s][n] = exp2v(step * rates[n]);
                        h[s + 1][n] = decay[s][n] * h[s][n] + u * b[row * N1 + n];
                    }
                }
                for (long s = count - 1; s >= 0; s--) {
                    long row = i * length + first + s, at = row * width + g * 16;
                    v16 step = LOAD(dt + at), in = LOAD(x + at), u = step * in, out = LOAD(dy + at);
                    v16 written = {}, slopes = {}, to_b[N1], to_c[N1];
                    for (int n = 0; n < N1; n++) {
                        v16 d = dh[n] + out * c[row * N1 + n];
                        to_c[n] = out * h[s + 1][n];
                        to_b[n] = d * u;
                        written += d * b[row * N1 + n];
                        d *= decay[s][n];
                        v16 slope = d * h[s][n];
                        slopes += slope * rates[n];
                        da_sum[n] += slope * step;
                        dh[n] = d;
                    }
                    STORE(dc + row * N1, LOAD(dc + row * N1) + sums(to_c));
                    STORE(db + row * N1, LOAD(db + row * N1) + sums(to_b));
                    STORE(ddt + at, slopes * 0.69314718f + written * in);
                    STORE(dx + at, written * step);
                }
            }
            for (int n = 0; n < N1; n++)
                for (int k = 0; k < 16; k++) da[(g * 16 + k) * N1 + n] += da_sum[n][k];
        }
}

// ---- causal depthwise convolution of 4 taps, then SiLU. x has rows of `stride` floats, of which `width` are read ----
void conv_forward(const float *x, long stride, const float *w, const float *bias, float *y, long batch, long length,
                  long width) {
    for (long i = 0; i < batch; i++)
        for (long t = 0; t < length; t++) {
            const float *in = x + (i * length + t) * stride;
            float *out = y + (i * length + t) * width;
            for (long k = 0; k < width; k++) out[k] = bias[k];
            for (long tap = 0; tap < 4; tap++) {
                if (t < 3 - tap) continue;
                const float *past = in - (3 - tap) * stride, *wt = w + tap * width;
                for (long k = 0; k < width; k++) out[k] += past[k] * wt[k];
            }
            for (long k = 0; k < width; k++) out[k] = out[k] / (1.0f + expf(-out[k]));
        }
}

// w is (4, width); dw (5, width): the taps' gradients and the bias's. dx has rows of `width` floats.
void conv_backward(const float *x, long stride, const float *w, const float *bias, const float *dy, float *dx,
                   float *dw, long batch, long length, long width) {
    float *pre = malloc(width * sizeof(float));
    memset(dx, 0, batch * length * width * sizeof(float));
    memset(dw, 0, 5 * width * sizeof(float));
    for (long i = 0; i < batch; i++)
        for (long t = 0; t < length; t++) {
            const float *in = x + (i * length + t) * stride, *grad = dy + (i * length + t) * width;
            float *out = dx + (i * length + t) * width;
            for (long k = 0; k < width; k++) pre[k] = bias[k];
            for (long tap = 0; tap < 4; tap++) {
                if (t < 3 - tap) continue;
                const float *past = in - (3 - tap) * stride, *wt = w + tap * width;
                for (long k = 0; k < width; k++) pre[k] += past[k] * wt[k];
            }
            for (long k = 0; k < width; k++) {
                float gate = 1.0f / (1.0f + expf(-pre[k]));
                pre[k] = grad[k] * gate * (1.0f + pre[k] * (1.0f - gate));
            }
            for (long k = 0; k < width; k++) dw[4 * width + k] += pre[k];
            for (long tap = 0; tap < 4; tap++) {
                if (t < 3 - tap) continue;
                const float *past = in - (3 - tap) * stride, *wt = w + tap * width;
                float *back = out - (3 - tap) * width, *dwt = dw + tap * width;
                for (long k = 0; k < width; k++) {
                    dwt[k] += past[k] * pre[k];
                    back[k] += wt[k] * pre[k];
                }
            }
        }
    free(pre);
}

// ---- y silu(z), then RMSNorm with weight (norm != 0). z has rows of `stride` floats ----
void gate_forward(const float *y, const float *z, long stride, const float *weight, float *out, long rows, long width,
                  int norm) {
    for (long r = 0; r < rows; r++) {
        const float *yr = y + r * width, *zr = z + r * stride;
        float *o = out + r * width, square = 0;
        for (long k = 0; k < width; k++) o[k] = yr[k] * zr[k] / (1.0f + expf(-zr[k]));
        if (!norm) continue;
        for (long k = 0; k < width; k++) square += o[k] * o[k];
        float scale = 1.0f / sqrtf(square / width + 1e-5f);
        for (long k = 0; k < width; k++) o[k] *= scale * weight[k];
    }
}

void gate_backward(const float *y, const float *z, long stride, const float *weight, const float *dout, float *dy,
                   float *dz, float *dweight, long rows, long width, int norm) {
    float *gated = malloc(width * sizeof(float)), *dg = malloc(width * sizeof(float));
    memset(dweight, 0, width * sizeof(float));
    for (long r = 0; r < rows; r++) {
        const float *yr = y + r * width, *zr = z + r * stride, *d = dout + r * width;
        float square = 0, dot = 0;
        for (long k = 0; k < width; k++) gated[k] = yr[k] * zr[k] / (1.0f + expf(-zr[k]));
        if (norm) {
            for (long k = 0; k < width; k++) square += gated[k] * gated[k];
            float scale = 1.0f / sqrtf(square / width + 1e-5f);
            for (long k = 0; k < width; k++) {
                dweight[k] += d[k] * gated[k] * scale;
                dot += d[k] * weight[k] * gated[k];
            }
            dot *= scale * scale * scale / width;
            for (long k = 0; k < width; k++) dg[k] = d[k] * weight[k] * scale - gated[k] * dot;
        } else
            for (long k = 0; k < width; k++) dg[k] = d[k];
        for (long k = 0; k < width; k++) {
            float gate = 1.0f / (1.0f + expf(-zr[k]));
            dy[r * width + k] = dg[k] * zr[k] * gate;
            dz[r * width + k] = dg[k] * yr[k] * gate * (1.0f + zr[k] * (1.0f - gate));
        }
    }
    free(gated);
    free(dg);
}
