// Mamba-2's gated RMS norm: norm(y silu(z)) weight, or norm(y) weight silu(z). The body of a kernel; MLX writes the
// signature.
//
// Templates: T (type of y and of the result), BEFORE (the norm comes before the gate). Grid: x = groups times the
// threads of a threadgroup, y = tokens, z = batch: a threadgroup does one group of one token. Everything is read
// through its strides.

threadgroup float partial[32];

const int self = int(thread_index_in_threadgroup);
const int crowd = int(threads_per_threadgroup.x);
const int start = int(threadgroup_position_in_grid.x) * size;
const int token = int(thread_position_in_grid.y);
const int batch = int(thread_position_in_grid.z);
const int64_t width = int64_t(threadgroups_per_grid.x) * size;
const int64_t y_at = batch * y_strides[0] + token * y_strides[1];
const int64_t z_at = batch * z_strides[0] + token * z_strides[1];
const int64_t out_at = (batch * int64_t(threads_per_grid.y) + token) * width;

float squares = 0.0f;
for (int i = start + self; i < start + size; i += crowd) {
    const float gate = static_cast<float>(z[z_at + i * z_strides[2]]);
    const float raw = static_cast<float>(y[y_at + i * y_strides[2]]);
    const float value = BEFORE ? raw : raw * (gate / (1.0f + metal::precise::exp(-gate)));
    squares = metal::fma(value, value, squares);
}
squares = metal::simd_sum(squares);
if (thread_index_in_simdgroup == 0) {
    partial[simdgroup_index_in_threadgroup] = squares;
}
threadgroup_barrier(metal::mem_flags::mem_threadgroup);
float total = 0.0f;
for (int i = 0; i < int(simdgroups_per_threadgroup); ++i) {
    total += partial[i];
}
const float scale = metal::precise::rsqrt(total / float(size) + eps);

for (int i = start + self; i < start + size; i += crowd) {
    const float gate = static_cast<float>(z[z_at + i * z_strides[2]]);
    const float raw = static_cast<float>(y[y_at + i * y_strides[2]]);
    const float gated = raw * (gate / (1.0f + metal::precise::exp(-gate)));
    out[out_at + i] = static_cast<T>(gated * scale * static_cast<float>(weight[i * weight_strides[0]]));
}
