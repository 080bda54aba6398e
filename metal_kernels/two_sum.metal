// The sum of two numbers, each given in a high and a low part, in two parts: about 48 bits. It needs a math mode that
// does not reorder sums, which is MLX's default.
inline float2 longmamba_sum(float a_high, float a_low, float b_high, float b_low) {
    const float sum = a_high + b_high;
    const float part = sum - a_high;
    const float rest = (a_high - (sum - part)) + (b_high - part) + (a_low + b_low);
    float2 result;
    result.x = sum + rest;
    result.y = rest - (result.x - sum);
    return result;
}
