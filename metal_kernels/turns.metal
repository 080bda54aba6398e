// Angles in whole numbers, with the arithmetic of ops/mamba3/turns.py: the same bits.
//
// A number as the nearest whole number of 2^-32; in two parts, since GPUs convert 32 bits at once.
inline int64_t longmamba_whole(float x) {
    const float most = 1048576.0f;
    const float bound = x < -most ? -most : x > most ? most : x;
    const float piece = metal::rint(bound * 128.0f);
    const float rest = metal::fma(piece, -1.0f / 128.0f, bound);
    return int64_t(int(piece)) * 33554432 + int64_t(int(metal::rint(rest * 4294967296.0f)));
}
// One cubic piece of a table, `away` from its middle.
inline int64_t longmamba_cubic(int64_t value, int64_t first, int64_t second, int64_t third, int64_t away, int shift) {
    const int64_t slope = first + ((away * (second + ((away * third) >> 32))) >> 32);
    return (value + ((away * slope) >> shift) + 128) >> 8;
}
// cos and sin of 2^-32 turns. What is left of an eighth of a turn at most is turned into radians.
inline float2 longmamba_direction(uint angle) {
    const uint quarter = (angle + 536870912u) >> 30;
    const float rest = static_cast<float>(int(angle - quarter * 1073741824u));
    // 2 pi / 2^32 in two parts
    const float x = metal::fma(rest, 1.46291812e-9f, rest * -4.07094043e-17f);
    const float square = x * x;
    float sine = metal::fma(square, 2.7557319e-6f, -1.9841270e-4f);
    sine = metal::fma(square, sine, 8.3333333e-3f);
    sine = metal::fma(square, sine, -1.6666667e-1f);
    sine = metal::fma(x * square, sine, x);
    float cosine = metal::fma(square, -2.7557319e-7f, 2.4801587e-5f);
    cosine = metal::fma(square, cosine, -1.3888889e-3f);
    cosine = metal::fma(square, cosine, 4.1666667e-2f);
    cosine = metal::fma(square, cosine, -0.5f);
    cosine = metal::fma(square, cosine, 1.0f);
    const float across = quarter % 2 == 1 ? -sine : cosine;
    const float up = quarter % 2 == 1 ? cosine : sine;
    float2 result;
    result.x = quarter >= 2 ? -across : across;
    result.y = quarter >= 2 ? -up : up;
    return result;
}
