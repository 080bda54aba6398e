// RMS norms of the three parts of x, each on its own: what Falcon-Mamba and Jamba do with x_proj's output (dt, B, C).
// The body of a kernel; MLX writes the signature.
//
// Grid: x = three times the threads of a threadgroup, y = tokens, z = batch: a threadgroup does one part of one token.
// x and the weights are read through their strides; what is written is float32.

threadgroup float partial[32];

const int self = int(thread_index_in_threadgroup);
const int crowd = int(threads_per_threadgroup.x);
const int part = int(threadgroup_position_in_grid.x);
const int size = part == 0 ? first : part == 1 ? second : third;
const int start = part == 0 ? 0 : part == 1 ? first : first + second;
const int batch = int(thread_position_in_grid.z);
const int token = int(thread_position_in_grid.y);
const int64_t row = batch * int64_t(threads_per_grid.y) + token;
const int64_t x_at = batch * x_strides[0] + token * x_strides[1] + start * x_strides[2];

float squares = 0.0f;
for (int i = self; i < size; i += crowd) {
    const float value = static_cast<float>(x[x_at + i * x_strides[2]]);
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

for (int i = self; i < size; i += crowd) {
    const float normed = static_cast<float>(x[x_at + i * x_strides[2]]) * scale;
    if (part == 0) {
        dt[row * size + i] = normed * static_cast<float>(dt_weight[i * dt_weight_strides[0]]);
    } else if (part == 1) {
        B[row * size + i] = normed * static_cast<float>(B_weight[i * B_weight_strides[0]]);
    } else {
        C[row * size + i] = normed * static_cast<float>(C_weight[i * C_weight_strides[0]]);
    }
}
