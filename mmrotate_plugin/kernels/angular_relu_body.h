/* The loops of angular_relu.c, which includes this once for each kind of processor. */

#ifndef TILE
#define TILE 32 /* pixels that are worked on at a time, and stay in the registers and the nearest cache */
#define MOST 16 /* orientations */
#define EACH for (int j = 0; j < TILE; j++)
#endif

/* the part of the highest frequency, +1 -1 +1 ..., which no other angle than these n can hold */
INLINE void NAME(highest)(float x[][TILE], float *part, const int n) {
    EACH part[j] = 0;
    for (int o = 0; o < n; o += 2) EACH part[j] += (x[o][j] - x[o + 1][j]) * (1.0f / n);
}

/* `width` pixels of one ring; all are read before the first is written */
INLINE void NAME(tile)(const float *x, float *out, int64_t size, int64_t width, const float *half, uint32_t *record,
                       const uint32_t *gate, const int n) {
    float at[MOST][TILE], between[MOST][TILE], in[MOST][TILE], part[TILE];
    uint32_t bits[TILE];
    for (int o = 0; o < n; o++) {
        const float *from = x + o * size;
        if (width == TILE) EACH in[o][j] = from[j];
        else EACH in[o][j] = j < width ? from[j] : 0;
    }
    EACH bits[j] = gate && j < width ? gate[j] : 0;
    NAME(highest)(in, part, n);
    for (int o = 0; o < n; o++) {
        EACH {
            float sum = 0;
            for (int k = 0; k < n; k++) sum += half[k] * in[(o + k) % n][j];
            between[o][j] = sum;
        }
        if (o % 2) EACH at[o][j] = in[o][j] + part[j];
        else EACH at[o][j] = in[o][j] - part[j];
    }
    for (int o = 0; o < n; o++) {
        const uint32_t here = 1u << (2 * o), behind = 2u << (2 * o);
        if (gate) {
            EACH at[o][j] = bits[j] & here ? at[o][j] : 0;
            EACH between[o][j] = bits[j] & behind ? between[o][j] : 0;
        } else {
            if (record) EACH bits[j] |= (at[o][j] > 0 ? here : 0) | (between[o][j] > 0 ? behind : 0);
            EACH at[o][j] = at[o][j] < 0 ? 0 : at[o][j]; /* not a number stays one */
            EACH between[o][j] = between[o][j] < 0 ? 0 : between[o][j];
        }
    }
    if (record) {
        if (width == TILE) EACH record[j] = bits[j];
        else for (int j = 0; j < width; j++) record[j] = bits[j];
    }
    NAME(highest)(at, part, n);
    for (int o = 0; o < n; o++) {
        float *to = out + o * size, sum[TILE];
        if (o % 2) EACH sum[j] = at[o][j] + part[j];
        else EACH sum[j] = at[o][j] - part[j];
        EACH {
            float all = sum[j];
            for (int k = 0; k < n; k++) all += half[k] * between[(o + n - k) % n][j];
            sum[j] = 0.5f * all;
        }
        if (width == TILE) EACH to[j] = sum[j];
        else for (int j = 0; j < width; j++) to[j] = sum[j];
    }
}

/* each combination has loops of its own, without a question inside */
#define RING(n)                                                                                                     \
    static void NAME(ring_of_##n)(const float *x, float *out, int64_t size, const float *half, uint32_t *record,    \
                                  const uint32_t *gate) {                                                           \
        for (int64_t p = 0; p < size; p += TILE) {                                                                  \
            int64_t width = size - p < TILE ? size - p : TILE;                                                      \
            if (gate) NAME(tile)(x + p, out + p, size, width, half, 0, gate + p, n);                                \
            else if (record) NAME(tile)(x + p, out + p, size, width, half, record + p, 0, n);                       \
            else NAME(tile)(x + p, out + p, size, width, half, 0, 0, n);                                            \
        }                                                                                                           \
    }

RING(8)
RING(16)
#undef RING
