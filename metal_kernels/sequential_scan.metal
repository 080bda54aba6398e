// The filtered scan of Mamba-1 and Mamba-2: one launch a layer. The body of a kernel; MLX writes the signature.
//
// Templates: T (type of y), N states a row, S lanes a row, TB tokens staged at once (a multiple of U), GROUP threads a
// threadgroup, PER_HEAD (Mamba-2: one dt, A, D and threshold for all rows of a head; else for each row), HAS_Z, REVERSE,
// KEPT. `sizes` holds length, rows, heads a group of B and C, and whether there is a threshold: template arguments would
// be compiled anew for every value.
//
// Grid: x = rows of a head times lanes, rounded up to whole threadgroups; y = heads (one in Mamba-1, whose rows are
// the channels); z = batch. x, dt, z, B and C are read through their strides, in place in wider arrays.
//
// A thread holds N / S states of one row in registers for the whole sequence; the S lanes of a row add up their
// parts of y. B and C, which all rows share, are staged through threadgroup memory as float, and so is what the rows of
// a Mamba-2 head share: dt, its decay and whether it is kept. Threads past the last row do the last row's work and write
// nothing: all must reach every barrier.

constexpr int R = N / S;
constexpr int U = 4;  // tokens loaded ahead: the compiler cannot move loads across the stores of y
// Four neighbouring states to a lane, then four to the next: lanes that read at once read neighbouring memory.
constexpr bool FOURS = R % 4 == 0;
// Where whole tokens fill the threadgroup, a thread stages one state of every PASS-th token and needs no products.
constexpr int PASS = GROUP < N ? 1 : GROUP / N;
constexpr bool WHOLE = GROUP % N == 0 && TB % PASS == 0;  // so that each of its threads stages as many tokens as the others

threadgroup float shared_b[TB][N];
threadgroup float shared_c[TB][N];
threadgroup float shared_dt[TB];
threadgroup float shared_decay[TB];  // negative where the token is filtered

const int length = sizes[0];
const int rows = sizes[1];
const int heads_per_group = sizes[2];
const bool filtered = sizes[3] != 0;
const int lane = int(thread_position_in_grid.x) % S;
const int own = int(thread_position_in_grid.x) / S;
const int head = int(thread_position_in_grid.y);
const int batch = int(thread_position_in_grid.z);
const int heads = int(threads_per_grid.y);
const int self = int(thread_index_in_threadgroup);
const bool live = own < rows;
const int row = live ? own : rows - 1;
const int unit = PER_HEAD ? head : row;
const int group = head / heads_per_group;
const int first = FOURS ? 4 * lane : R * lane;
const bool writes = live && lane == 0;

float h[R];
float unit_A[R];
MLX_MTL_PRAGMA_UNROLL
for (int i = 0; i < R; ++i) {
    const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);
    unit_A[i] = static_cast<float>(A[unit * A_strides[0] + (PER_HEAD ? 0 : n * A_strides[1])]);
    h[i] = state_in[batch * state_in_strides[0] + head * state_in_strides[1] + row * state_in_strides[2]
                    + n * state_in_strides[3]];
}
const float unit_bias = static_cast<float>(dt_bias[unit * dt_bias_strides[0]]);
const float unit_threshold = static_cast<float>(threshold[unit * threshold_strides[0]]);
const float unit_D = static_cast<float>(D[unit * D_strides[0]]);

// Offsets of the token that is loaded next, and of y's next token; one addition a token, no products.
const int64_t begin = REVERSE ? length - 1 : 0;
const int64_t forth = REVERSE ? -1 : 1;
const int64_t dt_base = batch * dt_strides[0] + head * dt_strides[2];
int64_t x_at = batch * x_strides[0] + begin * x_strides[1] + head * x_strides[2] + row * x_strides[3];
int64_t dt_at = dt_base + begin * dt_strides[1] + (PER_HEAD ? 0 : row * dt_strides[3]);
int64_t z_at = batch * z_strides[0] + begin * z_strides[1] + head * z_strides[2] + row * z_strides[3];
int64_t y_at = ((batch * int64_t(length) + begin) * heads + head) * rows + row;
const int64_t x_step = forth * x_strides[1];
const int64_t dt_step = forth * dt_strides[1];
const int64_t z_step = forth * z_strides[1];
const int64_t y_step = forth * heads * rows;
const int64_t b_base = batch * B_strides[0] + begin * B_strides[1] + group * B_strides[2];
const int64_t c_base = batch * C_strides[0] + begin * C_strides[1] + group * C_strides[2];
int64_t b_at = b_base + forth * (self / N) * B_strides[1] + self % N * B_strides[3];
int64_t c_at = c_base + forth * (self / N) * C_strides[1] + self % N * C_strides[3];

for (int start = 0; start < length; start += TB) {
    const int count = metal::min(TB, length - start);
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);  // everybody has read the tokens before
    if (WHOLE) {
        for (int i = self / N; i < count; i += PASS) {
            shared_b[i][self % N] = static_cast<float>(B[b_at]);
            shared_c[i][self % N] = static_cast<float>(C[c_at]);
            b_at += forth * PASS * B_strides[1];
            c_at += forth * PASS * C_strides[1];
        }
    } else {
        for (int i = self; i < count * N; i += GROUP) {
            const int64_t away = forth * (start + i / N);
            shared_b[i / N][i % N] = static_cast<float>(B[b_base + away * B_strides[1] + i % N * B_strides[3]]);
            shared_c[i / N][i % N] = static_cast<float>(C[c_base + away * C_strides[1] + i % N * C_strides[3]]);
        }
    }
    if (PER_HEAD) {
        for (int i = self; i < count; i += GROUP) {
            const int64_t t = begin + forth * (start + i);
            const float raw = static_cast<float>(dt[dt_base + t * dt_strides[1]]) + unit_bias;
            // Before the softplus, in float32, strictly greater: the same decision on every machine.
            const bool keep = !filtered || raw > unit_threshold;
            const float step = longmamba_dt(raw, dt_range[0], dt_range[1]);
            shared_dt[i] = step;
            shared_decay[i] = keep ? metal::precise::exp(step * unit_A[0]) : -1.0f;
            if (KEPT && thread_position_in_grid.x < GROUP) {
                kept[(batch * int64_t(length) + t) * heads + head] = keep;
            }
        }
    }
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    for (int k = 0; k < count; k += U) {
        float raws[U];
        float inputs[U];
        float gates[U];
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < U; ++j) {
            raws[j] = PER_HEAD ? 0.0f : static_cast<float>(dt[dt_at]) + unit_bias;
            inputs[j] = static_cast<float>(x[x_at]);
            gates[j] = HAS_Z ? static_cast<float>(z[z_at]) : 0.0f;
            const bool more = start + k + j + 1 < length;  // the last token is loaded again, and not used
            dt_at += more ? dt_step : 0;
            x_at += more ? x_step : 0;
            z_at += more ? z_step : 0;
        }
        uint kept_here = 0;  // a byte for each of the U tokens
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < U; ++j) {
            if (k + j < count) {
                const float shared = PER_HEAD ? shared_decay[k + j] : 0.0f;
                const bool keep = PER_HEAD ? !(shared < 0.0f) : !filtered || raws[j] > unit_threshold;  // a NaN is kept
                if (keep) {
                    const float step = PER_HEAD ? shared_dt[k + j] : longmamba_dt(raws[j], dt_range[0], dt_range[1]);
                    const float written = step * inputs[j];
                    MLX_MTL_PRAGMA_UNROLL
                    for (int i = 0; i < R; ++i) {
                        const float decay = PER_HEAD ? shared : metal::precise::exp(step * unit_A[i]);
                        h[i] = metal::fma(decay, h[i], written * shared_b[k + j][first + (FOURS ? i / 4 * 4 * S + i % 4 : i)]);
                    }
                }
                float sum = 0.0f;
                MLX_MTL_PRAGMA_UNROLL
                for (int i = 0; i < R; ++i) {
                    sum = metal::fma(h[i], shared_c[k + j][first + (FOURS ? i / 4 * 4 * S + i % 4 : i)], sum);
                }
                for (int offset = S / 2; offset > 0; offset /= 2) {
                    sum += metal::simd_shuffle_xor(sum, ushort(offset));
                }
                if (writes) {
                    float value = metal::fma(unit_D, inputs[j], sum);
                    if (HAS_Z) {
                        value *= gates[j] / (1.0f + metal::precise::exp(-gates[j]));
                    }
                    y[y_at] = static_cast<T>(value);
                    kept_here |= uint(keep) << (8 * j);
                }
                y_at += y_step;
            }
        }
        if (KEPT && !PER_HEAD) {
            // A simdgroup has at most 32 rows, so that four counts fit in one word and one sum.
            const uint together = metal::simd_sum(kept_here);
            const uint parts = threads_per_grid.x / 32;
            if (thread_index_in_simdgroup == 0) {
                for (int j = 0; j < U && k + j < count; ++j) {
                    const int64_t t = begin + forth * (start + k + j);
                    const uint one = together >> (8 * j) & 255;
                    kept[(batch * int64_t(length) + t) * parts + thread_position_in_grid.x / 32] = static_cast<uint8_t>(one);
                }
            }
        }
    }
}

if (live) {
    MLX_MTL_PRAGMA_UNROLL
    for (int i = 0; i < R; ++i) {
        const int n = first + (FOURS ? i / 4 * 4 * S + i % 4 : i);
        state_out[((int64_t(batch) * heads + head) * rows + row) * N + n] = h[i];
    }
}
if (!KEPT && thread_position_in_grid.x == 0 && head == 0 && batch == 0) {
    kept[0] = 0;  // outputs are uninitialised memory
}
