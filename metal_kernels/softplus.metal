// log(1 + exp(x)) without a logarithm: log1p(u) = 2 atanh(u / (2 + u)) for u = exp(-|x|) in [0, 1]. Accurate to a
// few units in the last place also where it is tiny, in any math mode; exactly 0 at -inf.
inline float longmamba_softplus(float x) {
    const float u = metal::precise::exp(-metal::fabs(x));
    const float w = u / (2.0f + u);
    const float q = w * w;
    float series = 1.0f / 15.0f;
    series = series * q + 1.0f / 13.0f;
    series = series * q + 1.0f / 11.0f;
    series = series * q + 1.0f / 9.0f;
    series = series * q + 1.0f / 7.0f;
    series = series * q + 1.0f / 5.0f;
    series = series * q + 1.0f / 3.0f;
    series = series * q + 1.0f;
    return metal::max(x, 0.0f) + 2.0f * w * series;
}
// dt from its raw value. Comparisons, since max and min would make a number of a NaN and hide it.
inline float longmamba_dt(float raw, float low, float high) {
    const float step = longmamba_softplus(raw);
    return step < low ? low : step > high ? high : step;
}
