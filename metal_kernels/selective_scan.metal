// Mamba-1's selective scan with LongMamba's filter: one launch a layer. The body of a kernel; MLX writes the
// signature. Templates: T (type of y), N states a channel, S lanes a channel, TB tokens staged at once, HAS_Z,
// REVERSE, KEPT. Scalars come as inputs, since a template argument would be compiled anew for every length.
//
// A thread holds N / S states of one channel in registers for the whole sequence; the S lanes of a channel add
// up their parts of y. B and C, which all channels share, are staged through threadgroup memory as float.
// Threads past the last channel do the last channel's work and write nothing: all must reach every barrier.

constexpr int R = N / S;
constexpr int U = 4;  // tokens loaded ahead: loads cannot be moved across the stores of y by the compiler

threadgroup float shared_b[TB * N];
threadgroup float shared_c[TB * N];

const int lane = int(thread_position_in_grid.x) % S;
const int unit = int(thread_position_in_grid.x) / S;
const int batch = int(thread_position_in_grid.y);
const int self = int(thread_index_in_threadgroup);
const int crowd = int(threads_per_threadgroup.x);
const bool live = unit < channels;
const int channel = live ? unit : channels - 1;
const int first = lane * R;

float h[R];
float rate[R];
const size_t state_at = (size_t(batch) * size_t(channels) + size_t(channel)) * N + first;
for (int i = 0; i < R; ++i) {
    rate[i] = A[channel * N + first + i];
    h[i] = state_in[state_at + i];
}
const float bias = dt_bias[channel];
const float cut = threshold[channel];
const float skip = D[channel];
const float low = limits[0];
const float high = limits[1];
const size_t rows = size_t(batch) * size_t(length);

for (int start = 0; start < length; start += TB) {
    const int count = metal::min(TB, length - start);
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);  // everybody has read the tokens before
    for (int i = self; i < count * N; i += crowd) {
        const int t = REVERSE ? length - 1 - (start + i / N) : start + i / N;
        const size_t at = (rows + size_t(t)) * N + i % N;
        shared_b[i] = static_cast<float>(B[at]);
        shared_c[i] = static_cast<float>(C[at]);
    }
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    for (int k = 0; k < count; k += U) {
        float raws[U];
        float inputs[U];
        float gates[U];
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < U; ++j) {
            const int ahead = start + metal::min(k + j, count - 1);
            const int t = REVERSE ? length - 1 - ahead : ahead;
            const size_t at = (rows + size_t(t)) * size_t(channels) + size_t(channel);
            raws[j] = static_cast<float>(dt[at]) + bias;
            inputs[j] = static_cast<float>(x[at]);
            gates[j] = HAS_Z ? static_cast<float>(z[at]) : 0.0f;
        }
        for (int j = 0; j < U && k + j < count; ++j) {
            const int t = REVERSE ? length - 1 - (start + k + j) : start + k + j;
            const int staged = (k + j) * N + first;
            // Before the softplus, in float32, strictly greater: the same decision on every machine.
            const bool keep = raws[j] > cut;
            if (keep) {
                const float step = metal::min(metal::max(longmamba_softplus(raws[j]), low), high);
                const float written = step * inputs[j];
                MLX_MTL_PRAGMA_UNROLL
                for (int i = 0; i < R; ++i) {
                    h[i] = metal::precise::exp(step * rate[i]) * h[i] + written * shared_b[staged + i];
                }
            }
            float sum = 0.0f;
            MLX_MTL_PRAGMA_UNROLL
            for (int i = 0; i < R; ++i) {
                sum += h[i] * shared_c[staged + i];
            }
            for (int offset = S / 2; offset > 0; offset /= 2) {
                sum += metal::simd_shuffle_xor(sum, ushort(offset));
            }
            const bool speaks = live && lane == 0;
            if (speaks) {
                float value = sum + skip * inputs[j];
                if (HAS_Z) {
                    value *= gates[j] / (1.0f + metal::precise::exp(-gates[j]));
                }
                y[(rows + size_t(t)) * size_t(channels) + size_t(channel)] = static_cast<T>(value);
            }
            if (KEPT) {
                const int together = metal::simd_sum(speaks && keep ? 1 : 0);
                if (thread_index_in_simdgroup == 0) {
                    const size_t group = size_t(thread_position_in_grid.x) / 32;
                    const size_t groups = size_t(threads_per_grid.x) / 32;
                    kept[(rows + size_t(t)) * groups + group] = static_cast<uint8_t>(together);
                }
            }
        }
    }
}

if (live) {
    for (int i = 0; i < R; ++i) {
        state_out[state_at + i] = h[i];
    }
}
if (!KEPT && thread_position_in_grid.x == 0 && batch == 0) {
    kept[0] = 0;  // outputs are uninitialised memory
}
