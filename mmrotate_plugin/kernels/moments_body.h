/* The loops of moments.c, which includes this once for each kind of processor. */

#ifndef MOMENTS_CONSTANTS
#define MOMENTS_CONSTANTS
#include <float.h>
#include <math.h>

#define FAR_AWAY 9.0f /* standard deviations beyond which the tail, 1e-19, is zero: denormal numbers are slow */
#define SLOPE 0.34f    /* of Mills' ratio, a polynomial in 1 / (1 + SLOPE t): see functional/_normal.py */

/* each comparison lets a NaN through, as torch's clamps do */
#define AT_LEAST(x, low) ((x) < (low) ? (low) : (x))
#define AT_MOST(x, high) ((x) > (high) ? (high) : (x))
/* of degree 7, by Estrin's scheme: latency bounds these loops, and Horner's chain of products is twice as long */
#define POLYNOMIAL(x, x2, c0, c1, c2, c3, c4, c5, c6, c7) \
    (((c0) + (c1) * (x) + ((c2) + (c3) * (x)) * (x2)) + ((c4) + (c5) * (x) + ((c6) + (c7) * (x)) * (x2)) * ((x2) * (x2)))
#endif

/* 2 to the power of x, from -126 to 0: the series of the exponential about the nearest integer, right to 1e-8 */
INLINE float NAME(power_of_2)(float x) {
    x = x > -126.0f ? x : -126.0f; /* not NaN, which has no integer */
    int32_t whole = (int32_t)(x - 0.5f);
    float f = x - (float)whole, f2 = f * f;
    float y = POLYNOMIAL(f, f2, 1.0f, 6.93147181e-1f, 2.40226507e-1f, 5.55041087e-2f, 9.61812911e-3f, 1.33335581e-3f,
                         1.54035304e-4f, 1.52527339e-5f);
    union {
        int32_t bits;
        float value;
    } scale = {(whole + 127) << 23};
    return y * scale.value;
}

/* the normal density at t and the tail beyond it, for t from 0 to FAR_AWAY */
INLINE float NAME(density)(float t) { return NAME(power_of_2)(t * t * -0.72134752f - 1.32574806f); }

INLINE float NAME(tail)(float t, float density) {
    float u = 1.0f / (1.0f + SLOPE * t), u2 = u * u;
    float y = POLYNOMIAL(u, u2, -5.375092314352514e-06f, 0.3409053385257721f, 0.32623299956321716f,
                         0.3879365921020508f, -0.06748823821544647f, 0.6515184640884399f, -0.49686166644096375f,
                         0.11107604205608368f);
    return y * density;
}

/* functional/activations.py, `relu` */
INLINE void NAME(relu_loop)(const float *restrict mean, const float *restrict first, float first_scale,
                            const float *restrict second, float second_scale, float *restrict to_mean,
                            float *restrict to_var, int64_t n, int plain) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        float m = mean[i], v = first[i] * first_scale;
        if (second) v += second[i] * second_scale;
        float root = sqrtf(AT_LEAST(v, FLT_MIN)), inverse = 1.0f / root;
        float t = fabsf(m) * inverse;
        float near = (float)(t < FAR_AWAY);
        t = AT_MOST(t, FAR_AWAY);
        float density = NAME(density)(t), tail = NAME(tail)(t, density) * near;
        float excess = density * near - t * tail;
        excess = AT_LEAST(excess, 0.0f);
        float share = fabsf((float)(m > 0.0f) - tail) - (t + excess) * excess;
        to_var[i] = AT_LEAST(share, 0.0f) * v;
        float positive = AT_LEAST(m, 0.0f);
        to_mean[i] = plain ? positive : positive + inverse * v * excess;
    }
}

static void NAME(relu_range)(const float *mean, const float *first, const float *first_scale, const float *second,
                             const float *second_scale, float *to_mean, float *to_var, int64_t start, int64_t end,
                             int64_t channels, int64_t size, int plain) {
    while (start < end) {
        int64_t plane = start / size, stop = (plane + 1) * size, c = plane % channels;
        if ((!first_scale && !second_scale) || stop > end) stop = end;
        float a = first_scale ? first_scale[c] : 1.0f, b = second_scale ? second_scale[c] : 1.0f;
        const float *m = mean + start, *v = first + start, *w = second ? second + start : NULL;
        float *to_v = to_var + start, *to_m = to_mean + start;
        int64_t n = stop - start;
        /* a loop of its own for each kind of call, so that none branches inside */
        if (plain) {
            if (second) NAME(relu_loop)(m, v, a, w, b, to_m, to_v, n, 1);
            else NAME(relu_loop)(m, v, a, NULL, 0.0f, to_m, to_v, n, 1);
        } else if (second) NAME(relu_loop)(m, v, a, w, b, to_m, to_v, n, 0);
        else NAME(relu_loop)(m, v, a, NULL, 0.0f, to_m, to_v, n, 0);
        start = stop;
    }
}

/* functional/maxima.py, `_pair_moments`: the maximum of two rows, in the place of the first */
INLINE void NAME(pair_loop)(float *restrict m1, float *restrict v1, const float *restrict m2, const float *restrict v2,
                            float rho, float lambda, int64_t n) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) {
        float a = m1[i], b = m2[i], va = v1[i], vb = v2[i], s = va + vb;
        float root = sqrtf(AT_LEAST(s, FLT_MIN)), inverse = 1.0f / root, limit = FLT_MAX / 4;
        /* minus infinity, the padding, may meet another */
        float low = AT_LEAST(a, -limit), high = AT_LEAST(b, -limit);
        float z = (AT_MOST(low, limit) - AT_MOST(high, limit)) * inverse;
        float t = fabsf(z);
        float near = (float)(t < FAR_AWAY);
        t = AT_MOST(t, FAR_AWAY);
        float density = NAME(density)(t), tail = NAME(tail)(t, density) * near;
        float excess = density * near - t * tail;
        excess = AT_LEAST(excess, 0.0f);
        float first = fabsf((float)(z > 0.0f) - tail), step = va - vb;
        m1[i] = (a > b ? a : b) + rho * (inverse * s * excess);
        float mixed = first < 0.5f ? vb + first * step : va - step * (1.0f - first);
        mixed -= lambda * ((t + excess) * excess * s);
        v1[i] = AT_LEAST(mixed, 0.0f);
    }
}

static void NAME(max_plane)(const float *mean, const float *var, float *to_mean, float *to_var, float *work,
                            int64_t height, int64_t width, int64_t out_height, int64_t out_width, int64_t kernel,
                            int64_t stride, int64_t pad_y, int64_t pad_x, int64_t dilation, const int32_t *steps,
                            const float *corrections, int64_t count) {
    int64_t places = kernel * kernel;
    float *means = work, *variances = work + places * out_width;
    for (int64_t y = 0; y < out_height; y++) {
        for (int64_t place = 0; place < places; place++) {
            float *m = means + place * out_width, *v = variances + place * out_width;
            int64_t row = y * stride - pad_y + place / kernel * dilation, from = place % kernel * dilation - pad_x;
            for (int64_t x = 0; x < out_width; x++) {
                int64_t column = x * stride + from;
                int inside = row >= 0 && row < height && column >= 0 && column < width;
                m[x] = inside ? mean[row * width + column] : -INFINITY;
                v[x] = inside ? var[row * width + column] : 0.0f;
            }
        }
        for (int64_t s = 0; s < count; s++) {
            int64_t a = steps[2 * s] * out_width, b = steps[2 * s + 1] * out_width;
            NAME(pair_loop)(means + a, variances + a, means + b, variances + b, corrections[2 * s],
                            corrections[2 * s + 1], out_width);
        }
        int64_t last = count ? steps[2 * count - 2] * out_width : 0;
        memcpy(to_mean + y * out_width, means + last, sizeof(float) * (size_t)out_width);
        memcpy(to_var + y * out_width, variances + last, sizeof(float) * (size_t)out_width);
    }
}
