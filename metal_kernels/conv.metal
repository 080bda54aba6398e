// silu(causal depthwise convolution + bias) with a carried window. The body of a kernel; MLX writes the signature.
//
// Templates: T (type of x, y and the windows), K taps, TOKENS a thread computes. Grid: x = channels, y = strips of
// TOKENS tokens, z = batch; exact, without padding. All inputs are read through their strides.

constexpr int BEFORE = K - 1;

const int channel = int(thread_position_in_grid.x);
const int start = int(thread_position_in_grid.y) * TOKENS;
const int stop = metal::min(start + TOKENS, int(length));
const int batch = int(thread_position_in_grid.z);
const int64_t channels = threads_per_grid.x;
const int64_t x_at = batch * x_strides[0] + channel * x_strides[2];
const int64_t initial_at = batch * initial_strides[0] + channel * initial_strides[2];

float taps[K];
float recent[K];  // the K raw inputs that the next output is made of, oldest first
MLX_MTL_PRAGMA_UNROLL
for (int j = 0; j < K; ++j) {
    taps[j] = static_cast<float>(weight[channel * weight_strides[0] + j * weight_strides[1]]);
}
MLX_MTL_PRAGMA_UNROLL
for (int j = 0; j < BEFORE; ++j) {
    const int t = start - BEFORE + j;
    if (t >= 0) {
        recent[j] = static_cast<float>(x[x_at + t * x_strides[1]]);
    } else {
        recent[j] = static_cast<float>(static_cast<T>(initial[initial_at + (BEFORE + t) * initial_strides[1]]));
    }
}
const float offset = static_cast<float>(bias[channel * bias_strides[0]]);

for (int t = start; t < stop; ++t) {
    recent[BEFORE] = static_cast<float>(x[x_at + t * x_strides[1]]);
    float sum = 0.0f;
    MLX_MTL_PRAGMA_UNROLL
    for (int j = 0; j < K; ++j) {
        sum = metal::fma(recent[j], taps[j], sum);
    }
    const float value = sum + offset;
    y[(int64_t(batch) * length + t) * channels + channel] = static_cast<T>(value / (1.0f + metal::precise::exp(-value)));
    MLX_MTL_PRAGMA_UNROLL
    for (int j = 0; j < BEFORE; ++j) {
        recent[j] = recent[j + 1];
    }
}
if (stop == length) {
    MLX_MTL_PRAGMA_UNROLL
    for (int j = 0; j < BEFORE; ++j) {
        window[(int64_t(batch) * BEFORE + j) * channels + channel] = static_cast<T>(recent[j]);
    }
}
