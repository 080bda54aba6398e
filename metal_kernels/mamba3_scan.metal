// Mamba-3's scan, one token after the other, on what mamba3_steps.metal made of them. The body of a kernel; MLX writes the
// signature.
//
// Templates: T (type of y), N states a row, RANK keys and queries a token, S lanes a row, W rows a thread, TB tokens
// staged at once, GROUP threads a threadgroup, MIMO, HAS_Z. `sizes` holds length, rows, heads a group of B and C, and
// how many pairs of states turn.
//
// Grid: x = rows of a head over W, times lanes, rounded up to whole threadgroups; y = heads; z = batch.
//
// A threadgroup stages the keys and queries of a few tokens, biased and turned, for all its rows. Each thread holds N / S
// states of W rows in registers: what it reads of a key it uses for all of them. The last kept key stays where it
// was staged, and the tokens that are staged next take the other places: the trapezoid pairs each kept token with it.
// Threads past the last row do the last row's work and write nothing: all must reach every barrier.

constexpr int R = N / S;
constexpr int U = TB < 4 ? TB : 4;  // tokens loaded ahead: the compiler cannot move loads across the stores of y
constexpr int KEYS = RANK * N;
constexpr int HALF = N / 2;
// Four neighbouring states to a lane, then four to the next: lanes that read at once read neighbouring memory.
constexpr bool FOURS = R % 4 == 0;

threadgroup float shared_k[(TB + 1) * KEYS];
threadgroup float shared_q[TB * KEYS];
threadgroup float shared_steps[TB * 4];

const int length = sizes[0];
const int rows = sizes[1];
const int heads_per_group = sizes[2];
const int turning = sizes[3];
const int self = int(thread_index_in_threadgroup);
const int lane = int(thread_position_in_grid.x) % S;
const int top = int(thread_position_in_grid.x) / S * W;
const int head = int(thread_position_in_grid.y);
const int batch = int(thread_position_in_grid.z);
const int heads = int(threads_per_grid.y);
const int group = head / heads_per_group;
const int first = FOURS ? 4 * lane : R * lane;
const int mine = top + lane < rows ? top + lane : rows - 1;  // the row that this lane finishes
const bool writes = lane < W && top + lane < rows;

float h[W * R];
float up[W * RANK];
float last_v[W];
int row[W];
MLX_MTL_PRAGMA_UNROLL
for (int w = 0; w < W; ++w) {
    row[w] = top + w < rows ? top + w : rows - 1;
    last_v[w] = v_in[batch * v_in_strides[0] + head * v_in_strides[1] + row[w] * v_in_strides[2]];
    MLX_MTL_PRAGMA_UNROLL
    for (int r = 0; r < RANK; ++r) {
        up[w * RANK + r] = MIMO ? static_cast<float>(mimo_x[head * mimo_x_strides[0] + r * mimo_x_strides[1]
                                                            + row[w] * mimo_x_strides[2]]) : 1.0f;
    }
    MLX_MTL_PRAGMA_UNROLL
    for (int i = 0; i < R; ++i) {
        const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);
        h[w * R + i] = ssm_in[batch * ssm_in_strides[0] + head * ssm_in_strides[1] + row[w] * ssm_in_strides[2]
                              + n * ssm_in_strides[3]];
    }
}
for (int i = self; i < KEYS; i += GROUP) {
    shared_k[i] = k_in[batch * k_in_strides[0] + head * k_in_strides[1] + i / N * k_in_strides[2] + i % N * k_in_strides[3]];
}
int latest = 0;  // the place of the last kept key

const int64_t x_base = batch * x_strides[0] + head * x_strides[2];
const int64_t z_base = batch * z_strides[0] + head * z_strides[2] + mine * z_strides[3];
const int64_t b_base = batch * B_strides[0] + group * B_strides[3];
const int64_t c_base = batch * C_strides[0] + group * C_strides[3];
const int64_t to_x = head * mimo_x_strides[0] + mine * mimo_x_strides[2];
const int64_t to_z = head * mimo_z_strides[0] + mine * mimo_z_strides[2];
const int64_t to_out = head * mimo_out_strides[0] + mine * mimo_out_strides[2];

for (int start = 0; start < length; start += TB) {
    const int count = metal::min(TB, length - start);
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);  // everybody has read the tokens before
    const int64_t token = batch * int64_t(length) + start;
    for (int i = self; i < count * HALF; i += GROUP) {
        const int k = i / HALF;
        const int pair = i % HALF;
        const int64_t t = start + k;
        // MIMO turns halves of the state against each other, SISO its neighbours.
        const int a = MIMO ? pair : 2 * pair;
        const int b = MIMO ? pair + HALF : 2 * pair + 1;
        float2 way;
        way.x = 1.0f;
        way.y = 0.0f;
        if (pair < turning) {
            way = longmamba_direction(angles[((token + k) * heads + head) * turning + pair]);
        }
        const int64_t b_at = b_base + t * B_strides[1];
        const int64_t c_at = c_base + t * C_strides[1];
        const int place = (k < latest ? k : k + 1) * KEYS;
        for (int r = 0; r < RANK; ++r) {
            const int64_t b_from = b_at + r * B_strides[2];
            const int64_t c_from = c_at + r * C_strides[2];
            const int64_t b_add = head * B_bias_strides[0] + r * B_bias_strides[1];
            const int64_t c_add = head * C_bias_strides[0] + r * C_bias_strides[1];
            const float k_a = static_cast<float>(B[b_from + a * B_strides[4]])
                              + static_cast<float>(B_bias[b_add + a * B_bias_strides[2]]);
            const float k_b = static_cast<float>(B[b_from + b * B_strides[4]])
                              + static_cast<float>(B_bias[b_add + b * B_bias_strides[2]]);
            const float q_a = static_cast<float>(C[c_from + a * C_strides[4]])
                              + static_cast<float>(C_bias[c_add + a * C_bias_strides[2]]);
            const float q_b = static_cast<float>(C[c_from + b * C_strides[4]])
                              + static_cast<float>(C_bias[c_add + b * C_bias_strides[2]]);
            shared_k[place + r * N + a] = metal::fma(k_a, way.x, -(k_b * way.y));
            shared_k[place + r * N + b] = metal::fma(k_a, way.y, k_b * way.x);
            shared_q[k * KEYS + r * N + a] = metal::fma(q_a, way.x, -(q_b * way.y));
            shared_q[k * KEYS + r * N + b] = metal::fma(q_a, way.y, q_b * way.x);
        }
    }
    for (int i = self; i < count * 4; i += GROUP) {
        shared_steps[i] = steps[4 * ((token + i / 4) * heads + head) + i % 4];
    }
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    const int held = latest;  // its place is not taken by this round's tokens
    for (int k = 0; k < count; k += U) {
        float inputs[U * W];
        float gates[U];
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < U; ++j) {
            const int64_t t = start + (k + j < count ? k + j : count - 1);  // the last token is loaded again, and not used
            MLX_MTL_PRAGMA_UNROLL
            for (int w = 0; w < W; ++w) {
                inputs[j * W + w] = static_cast<float>(x[x_base + t * x_strides[1] + row[w] * x_strides[3]]);
            }
            gates[j] = HAS_Z ? static_cast<float>(z[z_base + t * z_strides[1]]) : 0.0f;
        }
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < U; ++j) {
            if (k + j < count) {
                const float decay = shared_steps[4 * (k + j)];
                if (!(decay < 0.0f)) {  // a NaN is kept
                    const int now = k + j < held ? k + j : k + j + 1;
                    const float own_weight = shared_steps[4 * (k + j) + 1];
                    const float earlier_weight = shared_steps[4 * (k + j) + 2];
                    float own[W * RANK];
                    float earlier[W * RANK];
                    MLX_MTL_PRAGMA_UNROLL
                    for (int w = 0; w < W; ++w) {
                        MLX_MTL_PRAGMA_UNROLL
                        for (int r = 0; r < RANK; ++r) {
                            own[w * RANK + r] = own_weight * (inputs[j * W + w] * up[w * RANK + r]);
                            earlier[w * RANK + r] = earlier_weight * (last_v[w] * up[w * RANK + r]);
                        }
                        last_v[w] = inputs[j * W + w];
                    }
                    MLX_MTL_PRAGMA_UNROLL
                    for (int i = 0; i < R; ++i) {
                        const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);
                        MLX_MTL_PRAGMA_UNROLL
                        for (int w = 0; w < W; ++w) {
                            h[w * R + i] *= decay;
                        }
                        MLX_MTL_PRAGMA_UNROLL
                        for (int r = 0; r < RANK; ++r) {
                            const float key_before = shared_k[latest * KEYS + r * N + n];
                            const float key_now = shared_k[now * KEYS + r * N + n];
                            MLX_MTL_PRAGMA_UNROLL
                            for (int w = 0; w < W; ++w) {
                                h[w * R + i] = metal::fma(earlier[w * RANK + r], key_before, h[w * R + i]);
                                h[w * R + i] = metal::fma(own[w * RANK + r], key_now, h[w * R + i]);
                            }
                        }
                    }
                    latest = now;
                }
                float sums[W * RANK];
                MLX_MTL_PRAGMA_UNROLL
                for (int r = 0; r < RANK; ++r) {
                    MLX_MTL_PRAGMA_UNROLL
                    for (int w = 0; w < W; ++w) {
                        sums[w * RANK + r] = 0.0f;
                    }
                    MLX_MTL_PRAGMA_UNROLL
                    for (int i = 0; i < R; ++i) {
                        const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);
                        const float query = shared_q[(k + j) * KEYS + r * N + n];
                        MLX_MTL_PRAGMA_UNROLL
                        for (int w = 0; w < W; ++w) {
                            sums[w * RANK + r] = metal::fma(h[w * R + i], query, sums[w * RANK + r]);
                        }
                    }
                    for (int offset = S / 2; offset > 0; offset /= 2) {
                        MLX_MTL_PRAGMA_UNROLL
                        for (int w = 0; w < W; ++w) {
                            sums[w * RANK + r] += metal::simd_shuffle_xor(sums[w * RANK + r], ushort(offset));
                        }
                    }
                }
                if (writes) {
                    // The lane's own row; skip, gate and, with MIMO, back to one.
                    float value = inputs[j * W];
                    MLX_MTL_PRAGMA_UNROLL
                    for (int w = 1; w < W; ++w) {
                        value = lane == w ? inputs[j * W + w] : value;
                    }
                    const float skip = shared_steps[4 * (k + j) + 3] * value;
                    float total = 0.0f;
                    MLX_MTL_PRAGMA_UNROLL
                    for (int r = 0; r < RANK; ++r) {
                        float sum = sums[r];
                        MLX_MTL_PRAGMA_UNROLL
                        for (int w = 1; w < W; ++w) {
                            sum = lane == w ? sums[w * RANK + r] : sum;
                        }
                        sum = metal::fma(skip, MIMO ? static_cast<float>(mimo_x[to_x + r * mimo_x_strides[1]]) : 1.0f, sum);
                        if (HAS_Z) {
                            const float gate = gates[j] * (MIMO ? static_cast<float>(mimo_z[to_z + r * mimo_z_strides[1]]) : 1.0f);
                            sum *= gate / (1.0f + metal::precise::exp(-gate));
                        }
                        if (MIMO && !HAS_Z) {
                            y[(((token + k + j) * RANK + r) * heads + head) * rows + mine] = static_cast<T>(sum);
                        }
                        total = MIMO ? metal::fma(sum, static_cast<float>(mimo_out[to_out + r * mimo_out_strides[1]]), total) : sum;
                    }
                    if (!MIMO || HAS_Z) {
                        y[((token + k + j) * heads + head) * rows + mine] = static_cast<T>(total);
                    }
                }
            }
        }
    }
}

const int64_t unit = int64_t(batch) * heads + head;
MLX_MTL_PRAGMA_UNROLL
for (int w = 0; w < W; ++w) {
    if (top + w < rows) {
        MLX_MTL_PRAGMA_UNROLL
        for (int i = 0; i < R; ++i) {
            const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);
            ssm_out[(unit * rows + top + w) * N + n] = h[w * R + i];
        }
        if (lane == w) {
            v_out[unit * rows + top + w] = last_v[w];
        }
    }
}
if (thread_position_in_grid.x < GROUP) {
    for (int i = self; i < KEYS; i += GROUP) {
        k_out[unit * KEYS + i] = shared_k[latest * KEYS + i];
    }
}
