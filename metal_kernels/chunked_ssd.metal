// Mamba-2's filtered scan in chunks of 64 tokens (state-space duality, arXiv 2405.21060, sec. 6), on 8 x 8 matrix products.
// The body of a kernel; MLX writes the signature.
//
// Templates: T (type of y), P rows of a head in one threadgroup (a multiple of 8), N states a row (a multiple of 64),
// HAS_Z, REVERSE, KEPT. `sizes` holds length (a multiple of 64), rows of a head, heads a group of B and C, and whether
// there is a threshold.
//
// Grid: x = 256 threads for every P rows of a head; y = heads; z = batch. x, dt, z, B and C are read through their
// strides, in place in wider arrays.
//
// The eight simdgroups of a threadgroup walk the chunks. Of the state each keeps N / 8 columns in registers; of y it
// makes the eight tokens 8 mine .. 8 mine + 7 of a chunk, transposed:
//   y[., t] = exp(sum of dt A to t) (state C[t]) + sum over kept k <= t of x[k] dt[k] exp(sum of dt A from k to t) (B[k] C[t])
// A filtered token has no part in the second sum, nor in what is added to the state: only kept tokens are staged, packed.

constexpr int Q = 64;
constexpr int TILE = 16;  // kept tokens staged at once
constexpr int OWN = N / 8;
constexpr int ROWS = P / 8;
constexpr int COLUMNS = OWN / 8;
constexpr int SHARED = 2 * OWN;  // columns of the state staged at once
constexpr int EACH = TILE / 8;  // kept tokens that a simdgroup stages
// Whether C of a simdgroup's tokens fits in registers beside the state and y; else it is loaded again for every use.
constexpr bool HOLDS_C = ROWS * COLUMNS + ROWS + N / 8 <= 40;
// Rows of staged arrays: eight of them, read at once, begin in different banks of threadgroup memory.
constexpr int STATE_ROW = SHARED + 8;
constexpr int B_ROW = N + 8;
constexpr int X_ROW = TILE + 4;

threadgroup float staged[P * STATE_ROW > TILE * B_ROW ? P * STATE_ROW : TILE * B_ROW];  // the state, or B
threadgroup float staged_x[P * X_ROW];
threadgroup float high[Q];  // sum of dt A up to and with a token, in two parts: differences of one would lose small dt
threadgroup float low[Q];
threadgroup float kept_high[Q];
threadgroup float kept_low[Q];
threadgroup float kept_dt[Q];
threadgroup int kept_token[Q];
threadgroup int kept_count[1];

const int length = sizes[0];
const int rows = sizes[1];
const int heads_per_group = sizes[2];
const bool filtered = sizes[3] != 0;
const int self = int(thread_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);
const int mine = int(simdgroup_index_in_threadgroup);
const int head = int(thread_position_in_grid.y);
const int batch = int(thread_position_in_grid.z);
const int heads = int(threads_per_grid.y);
const int group = head / heads_per_group;
const int top = int(threadgroup_position_in_grid.x) * P;
// A lane holds two numbers of a matrix: in this row, this column and the next.
const int r = (lane >> 4) * 4 + (lane >> 1 & 3);
const int c = (lane >> 3 & 1) * 4 + (lane & 1) * 2;

const float unit_A = static_cast<float>(A[head * A_strides[0]]);
const float unit_bias = static_cast<float>(dt_bias[head * dt_bias_strides[0]]);
const float unit_threshold = static_cast<float>(threshold[head * threshold_strides[0]]);
const float unit_D = static_cast<float>(D[head * D_strides[0]]);
const int64_t begin = REVERSE ? length - 1 : 0;
const int64_t forth = REVERSE ? -1 : 1;
const int64_t dt_base = batch * dt_strides[0] + head * dt_strides[2];
const int64_t x_base = batch * x_strides[0] + head * x_strides[2] + top * x_strides[3];
const int64_t z_base = batch * z_strides[0] + head * z_strides[2] + (top + r) * z_strides[3];
const int64_t b_base = batch * B_strides[0] + group * B_strides[2] + lane * B_strides[3];
const int64_t c_base = batch * C_strides[0] + group * C_strides[2] + r * C_strides[3];

metal::simdgroup_matrix<float, 8, 8> state[ROWS * COLUMNS];
MLX_MTL_PRAGMA_UNROLL
for (int i = 0; i < ROWS; ++i) {
    MLX_MTL_PRAGMA_UNROLL
    for (int j = 0; j < COLUMNS; ++j) {
        const int64_t at = batch * state_in_strides[0] + head * state_in_strides[1]
                           + (top + 8 * i + r) * state_in_strides[2] + (mine * OWN + 8 * j + c) * state_in_strides[3];
        state[i * COLUMNS + j].thread_elements()[0] = state_in[at];
        state[i * COLUMNS + j].thread_elements()[1] = state_in[at + state_in_strides[3]];
    }
}

for (int start = 0; start < length; start += Q) {
    const int64_t from = begin + forth * start;
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);  // everybody has done the chunk before
    if (mine == 0) {
        // Two tokens a lane: their dt, the sums up to them, and where they are packed.
        bool keep[2];
        float step[2];
        float change[2];
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < 2; ++j) {
            const int64_t t = from + forth * (2 * lane + j);
            const float raw = static_cast<float>(dt[dt_base + t * dt_strides[1]]) + unit_bias;
            // Before the softplus, in float32, strictly greater: the same decision on every machine.
            keep[j] = !filtered || raw > unit_threshold;
            step[j] = longmamba_dt(raw, dt_range[0], dt_range[1]);
            change[j] = keep[j] ? step[j] * unit_A : 0.0f;
            if (KEPT && top == 0) {
                kept[(batch * int64_t(length) + t) * heads + head] = keep[j];
            }
        }
        int places = int(keep[0]) + int(keep[1]);
        float2 sum = longmamba_sum(change[0], 0.0f, change[1], 0.0f);
        for (int away = 1; away < 32; away *= 2) {
            const int places_before = metal::simd_shuffle_up(places, ushort(away));
            const float high_before = metal::simd_shuffle_up(sum.x, ushort(away));
            const float low_before = metal::simd_shuffle_up(sum.y, ushort(away));
            if (lane >= away) {
                places += places_before;
                sum = longmamba_sum(high_before, low_before, sum.x, sum.y);
            }
        }
        const float high_before = metal::simd_shuffle_up(sum.x, ushort(1));
        const float low_before = metal::simd_shuffle_up(sum.y, ushort(1));
        sum = longmamba_sum(lane > 0 ? high_before : 0.0f, lane > 0 ? low_before : 0.0f, change[0], 0.0f);
        int place = places - int(keep[0]) - int(keep[1]);
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < 2; ++j) {
            sum = j > 0 ? longmamba_sum(sum.x, sum.y, change[j], 0.0f) : sum;
            high[2 * lane + j] = sum.x;
            low[2 * lane + j] = sum.y;
            if (keep[j]) {
                kept_high[place] = sum.x;
                kept_low[place] = sum.y;
                kept_dt[place] = step[j];
                kept_token[place] = 2 * lane + j;
                place += 1;
            }
        }
        if (lane == 31) {
            kept_count[0] = places;
        }
    }

    // What the state before this chunk gives to y.
    metal::simdgroup_matrix<float, 8, 8> out[ROWS];
    MLX_MTL_PRAGMA_UNROLL
    for (int i = 0; i < ROWS; ++i) {
        out[i].thread_elements()[0] = 0.0f;
        out[i].thread_elements()[1] = 0.0f;
    }
    const int64_t c_start = c_base + (from + forth * (8 * mine + c)) * C_strides[1];
    metal::simdgroup_matrix<float, 8, 8> held[HOLDS_C ? N / 8 : 1];
    int64_t c_at = c_start;
    MLX_MTL_PRAGMA_UNROLL
    for (int part = 0; part < N / SHARED; ++part) {
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);  // everybody has used what was staged before
        if (mine / 2 == part) {
            MLX_MTL_PRAGMA_UNROLL
            for (int i = 0; i < ROWS; ++i) {
                MLX_MTL_PRAGMA_UNROLL
                for (int j = 0; j < COLUMNS; ++j) {
                    const int at = (8 * i + r) * STATE_ROW + mine % 2 * OWN + 8 * j + c;
                    staged[at] = state[i * COLUMNS + j].thread_elements()[0];
                    staged[at + 1] = state[i * COLUMNS + j].thread_elements()[1];
                }
            }
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);
        MLX_MTL_PRAGMA_UNROLL
        for (int n = 0; n < SHARED; n += 8) {
            metal::simdgroup_matrix<float, 8, 8> of_c;
            of_c.thread_elements()[0] = static_cast<float>(C[c_at]);
            of_c.thread_elements()[1] = static_cast<float>(C[c_at + forth * C_strides[1]]);
            c_at += 8 * C_strides[3];
            if (HOLDS_C) {
                held[HOLDS_C ? (part * SHARED + n) / 8 : 0] = of_c;
            }
            MLX_MTL_PRAGMA_UNROLL
            for (int i = 0; i < ROWS; ++i) {
                metal::simdgroup_matrix<float, 8, 8> of_state;
                of_state.thread_elements()[0] = staged[(8 * i + r) * STATE_ROW + n + c];
                of_state.thread_elements()[1] = staged[(8 * i + r) * STATE_ROW + n + c + 1];
                metal::simdgroup_multiply_accumulate(out[i], of_state, of_c, out[i]);
            }
        }
    }
    const float first_decay = metal::precise::exp(high[8 * mine + c]);
    const float second_decay = metal::precise::exp(high[8 * mine + c + 1]);
    MLX_MTL_PRAGMA_UNROLL
    for (int i = 0; i < ROWS; ++i) {
        out[i].thread_elements()[0] *= first_decay;
        out[i].thread_elements()[1] *= second_decay;
    }

    // What the kept tokens of this chunk give to y and to the state.
    const int count = kept_count[0];
    const float end_high = high[Q - 1];
    const float end_low = low[Q - 1];
    if (count > 0) {
        const float decay = metal::precise::exp(end_high);
        MLX_MTL_PRAGMA_UNROLL
        for (int i = 0; i < ROWS * COLUMNS; ++i) {
            state[i].thread_elements()[0] *= decay;
            state[i].thread_elements()[1] *= decay;
        }
    }
    for (int tile = 0; tile < count; tile += TILE) {
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);  // everybody has used what was staged before
        for (int j = 0; j < EACH; ++j) {
            const int k = EACH * mine + j;
            const bool present = tile + k < count;  // else a token is read, and zeros are staged
            const int64_t t = from + forth * (present ? kept_token[tile + k] : 0);
            int64_t b_at = b_base + t * B_strides[1];
            for (int n = lane; n < N; n += 32) {
                const float value = static_cast<float>(B[b_at]);
                staged[k * B_ROW + n] = present ? value : 0.0f;
                b_at += 32 * B_strides[3];
            }
            int64_t x_at = x_base + t * x_strides[1] + lane * x_strides[3];
            for (int row = lane; row < P; row += 32) {
                const float value = static_cast<float>(x[x_at]);
                staged_x[row * X_ROW + k] = present ? value : 0.0f;
                x_at += 32 * x_strides[3];
            }
        }
        threadgroup_barrier(metal::mem_flags::mem_threadgroup);

        for (int k = 0; k < TILE && tile + k < count; k += 8) {
            const int at = tile + k + r;
            const bool present = at < count;
            const int token = present ? kept_token[at] : Q;
            const float token_high = present ? kept_high[at] : 0.0f;
            const float token_low = present ? kept_low[at] : 0.0f;
            const float token_dt = present ? kept_dt[at] : 0.0f;
            if (kept_token[tile + k] <= 8 * mine + 7) {
                metal::simdgroup_matrix<float, 8, 8> score;  // kept tokens x tokens
                score.thread_elements()[0] = 0.0f;
                score.thread_elements()[1] = 0.0f;
                c_at = c_start;
                MLX_MTL_PRAGMA_UNROLL
                for (int n = 0; n < N; n += 8) {
                    metal::simdgroup_matrix<float, 8, 8> of_c;
                    metal::simdgroup_matrix<float, 8, 8> of_b;
                    if (HOLDS_C) {
                        of_c = held[HOLDS_C ? n / 8 : 0];
                    } else {
                        of_c.thread_elements()[0] = static_cast<float>(C[c_at]);
                        of_c.thread_elements()[1] = static_cast<float>(C[c_at + forth * C_strides[1]]);
                        c_at += 8 * C_strides[3];
                    }
                    of_b.thread_elements()[0] = staged[(k + r) * B_ROW + n + c];
                    of_b.thread_elements()[1] = staged[(k + r) * B_ROW + n + c + 1];
                    metal::simdgroup_multiply_accumulate(score, of_b, of_c, score);
                }
                MLX_MTL_PRAGMA_UNROLL
                for (int j = 0; j < 2; ++j) {
                    const int t = 8 * mine + c + j;
                    const float decay = metal::precise::exp((high[t] - token_high) + (low[t] - token_low));
                    const float weighted = score.thread_elements()[j] * (token_dt * decay);
                    score.thread_elements()[j] = token <= t ? weighted : 0.0f;
                }
                MLX_MTL_PRAGMA_UNROLL
                for (int i = 0; i < ROWS; ++i) {
                    metal::simdgroup_matrix<float, 8, 8> of_x;
                    of_x.thread_elements()[0] = staged_x[(8 * i + r) * X_ROW + k + c];
                    of_x.thread_elements()[1] = staged_x[(8 * i + r) * X_ROW + k + c + 1];
                    metal::simdgroup_multiply_accumulate(out[i], of_x, score, out[i]);
                }
            }
            const float to_end = token_dt * metal::precise::exp((end_high - token_high) + (end_low - token_low));
            metal::simdgroup_matrix<float, 8, 8> written[COLUMNS];
            MLX_MTL_PRAGMA_UNROLL
            for (int j = 0; j < COLUMNS; ++j) {
                const int from_b = (k + r) * B_ROW + mine * OWN + 8 * j + c;
                written[j].thread_elements()[0] = to_end * staged[from_b];
                written[j].thread_elements()[1] = to_end * staged[from_b + 1];
            }
            MLX_MTL_PRAGMA_UNROLL
            for (int i = 0; i < ROWS; ++i) {
                metal::simdgroup_matrix<float, 8, 8> of_x;
                of_x.thread_elements()[0] = staged_x[(8 * i + r) * X_ROW + k + c];
                of_x.thread_elements()[1] = staged_x[(8 * i + r) * X_ROW + k + c + 1];
                MLX_MTL_PRAGMA_UNROLL
                for (int j = 0; j < COLUMNS; ++j) {
                    metal::simdgroup_multiply_accumulate(
                        state[i * COLUMNS + j], of_x, written[j], state[i * COLUMNS + j]);
                }
            }
        }
    }

    MLX_MTL_PRAGMA_UNROLL
    for (int j = 0; j < 2; ++j) {
        const int64_t t = from + forth * (8 * mine + c + j);
        int64_t x_at = x_base + t * x_strides[1] + r * x_strides[3];
        int64_t z_at = z_base + t * z_strides[1];
        int64_t y_at = ((batch * int64_t(length) + t) * heads + head) * rows + top + r;
        MLX_MTL_PRAGMA_UNROLL
        for (int i = 0; i < ROWS; ++i) {
            float value = metal::fma(unit_D, static_cast<float>(x[x_at]), out[i].thread_elements()[j]);
            if (HAS_Z) {
                const float gate = static_cast<float>(z[z_at]);
                value *= gate / (1.0f + metal::precise::exp(-gate));
            }
            y[y_at] = static_cast<T>(value);
            x_at += 8 * x_strides[3];
            z_at += 8 * z_strides[3];
            y_at += 8;
        }
    }
}

MLX_MTL_PRAGMA_UNROLL
for (int i = 0; i < ROWS; ++i) {
    MLX_MTL_PRAGMA_UNROLL
    for (int j = 0; j < COLUMNS; ++j) {
        const int64_t at = ((int64_t(batch) * heads + head) * rows + top + 8 * i + r) * N + mine * OWN + 8 * j + c;
        state_out[at] = state[i * COLUMNS + j].thread_elements()[0];
        state_out[at + 1] = state[i * COLUMNS + j].thread_elements()[1];
    }
}
if (!KEPT && self == 0 && top == 0 && head == 0 && batch == 0) {
    kept[0] = 0;  // outputs are uninitialised memory
}
