// The sum of two numbers, each given in a high and a low part, in two parts: about 48 bits. It needs a math mode that
// does not reorder sums, which is MLX's default.
inline float2 longmamba_sum(float a_high, float a_low, float b_high, float b_low) {
    float2 result;
    result.x = a_high + b_high;
    const float part = result.x - a_high;
    result.y = (a_high - (result.x - part)) + (b_high - part) + (a_low + b_low);
    return result;
}
