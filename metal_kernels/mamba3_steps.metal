// What Mamba-3 makes of a token in each head before its scan: dt, decay, the weights of its two writes, whether it is kept,
// and the running angles. The body of a kernel; MLX writes the signature.
//
// Templates: GROUP threads a threadgroup, KEPT. `sizes` holds length, angles, whether there is a threshold, and whether
// A is raw; `least` the lowest decay rate then. Tables are those of ops/mamba3/turns.py: rows of a value and three
// coefficients, a row for each 128th from -32 to 32 (softplus), from -12 to 12 (tanh).
//
// Grid: x = angles, rounded up to whole threadgroups; y = heads; z = batch. GROUP tokens at once: each thread works out
// one of them, then each adds up one angle over all of them.
//
// `steps` holds four numbers for each token and head: the decay, negative where the token is filtered; the weight of its
// own write; that of the write of the last kept token before it, already decayed; and D.

constexpr int U = 4;  // tokens loaded ahead: the compiler cannot move loads across the stores of angles
constexpr int64_t PIECE = 33554432;  // 2^-7 in whole numbers of 2^-32
constexpr int64_t ONE = 128 * PIECE;

threadgroup uint64_t shared_dt[GROUP];

const int length = sizes[0];
const int turning = sizes[1];
const bool filtered = sizes[2] != 0;
const bool raw_rates = sizes[3] != 0;
const int self = int(thread_index_in_threadgroup);
const int own = int(thread_position_in_grid.x);
const int head = int(thread_position_in_grid.y);
const int batch = int(thread_position_in_grid.z);
const int heads = int(threads_per_grid.y);
const bool live = own < turning;
const int turn = live ? own : turning - 1;

const float unit_bias = static_cast<float>(dt_bias[head * dt_bias_strides[0]]);
const float unit_threshold = static_cast<float>(threshold[head * threshold_strides[0]]);
const int64_t whole_bias = longmamba_whole(unit_bias);
uint running = angle_in[batch * angle_in_strides[0] + head * angle_in_strides[1] + turn * angle_in_strides[2]];

const int64_t dt_base = batch * dt_strides[0] + head * dt_strides[2];
const int64_t a_base = batch * A_strides[0] + head * A_strides[2];
const int64_t trap_base = batch * trap_strides[0] + head * trap_strides[2];
const int64_t angle_base = batch * angle_strides[0] + turn * angle_strides[2];

for (int start = 0; start < length; start += GROUP) {
    const int count = metal::min(GROUP, length - start);
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);  // everybody has read the tokens before
    if (self < count) {
        const int64_t t = start + self;
        const float given = static_cast<float>(dt[dt_base + t * dt_strides[1]]);
        const float raw = given + unit_bias;
        // Before the softplus, in float32, strictly greater: the same decision on every machine.
        const bool keep = !filtered || raw > unit_threshold;

        // dt in 2^-32, from the sum as it is before it is rounded.
        const int64_t sum = longmamba_whole(given) + whole_bias;
        const int64_t inside = sum < -32 * ONE ? -32 * ONE : sum > 32 * ONE ? 32 * ONE : sum;
        const int64_t piece = (inside + PIECE / 2) >> 25;
        const int64_t row = 4 * (piece + 32 * 128);
        const int64_t value = longmamba_cubic(softplus_table[row], softplus_table[row + 1], softplus_table[row + 2],
                                              softplus_table[row + 3], inside - piece * PIECE, 22);
        shared_dt[self] = keep ? uint64_t(value + (sum - inside > 0 ? sum - inside : 0)) : 0;

        if (thread_position_in_grid.x < GROUP) {
            const float step = longmamba_softplus(raw);
            float rate = static_cast<float>(A[a_base + t * A_strides[1]]);
            if (raw_rates) {
                const float size = rate < 0.0f ? 1.0f / (1.0f - rate) : 1.0f + rate;
                rate = size < least[0] ? -least[0] : -size;
            }
            const float share = 1.0f / (1.0f + metal::precise::exp(-static_cast<float>(trap[trap_base + t * trap_strides[1]])));
            const float decay = metal::precise::exp(rate * step);
            const float now = share * step;
            const int64_t at = 4 * ((batch * int64_t(length) + t) * heads + head);
            steps[at] = keep ? decay : -1.0f;
            steps[at + 1] = keep ? now : 0.0f;
            steps[at + 2] = keep ? (step - now) * decay : 0.0f;
            steps[at + 3] = static_cast<float>(D[head * D_strides[0]]);
            if (KEPT) {
                kept[(batch * int64_t(length) + t) * heads + head] = keep;
            }
        }
    }
    threadgroup_barrier(metal::mem_flags::mem_threadgroup);

    for (int k = 0; k < count; k += U) {
        uint turned[U];
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < U; ++j) {
            const int near = k + j < count ? k + j : count - 1;  // the last token is loaded again, and not used
            const int64_t t = start + near;
            const int64_t whole = longmamba_whole(static_cast<float>(angle[angle_base + t * angle_strides[1]]));
            const int64_t inside = whole < -12 * ONE ? -12 * ONE : whole > 12 * ONE ? 12 * ONE : whole;
            const int64_t piece = (inside + PIECE / 2) >> 25;
            const int64_t row = 4 * (piece + 12 * 128);
            const int64_t value = longmamba_cubic(tanh_table[row], tanh_table[row + 1], tanh_table[row + 2],
                                                  tanh_table[row + 3], inside - piece * PIECE, 23);
            // 2^-31 times 2^-32 times half a turn, rounded to 2^-32 turns; whole turns drop out of 64 bits.
            turned[j] = uint((uint64_t(value) * shared_dt[near] + 2147483648u) >> 32);
        }
        MLX_MTL_PRAGMA_UNROLL
        for (int j = 0; j < U; ++j) {
            if (k + j < count) {
                running += turned[j];
                if (live) {
                    angles[((batch * int64_t(length) + start + k + j) * heads + head) * turning + turn] = running;
                }
            }
        }
    }
}

if (live) {
    angle_out[(int64_t(batch) * heads + head) * turning + turn] = running;
}
if (!KEPT && thread_position_in_grid.x == 0 && head == 0 && batch == 0) {
    kept[0] = 0;  // outputs are uninitialised memory
}
