/* ReLU of regular fields between their orientations, for maps of float32 on a CPU; equivariant/fourier_relu.py says
   which and why, and computes the same where this was not compiled. */

#define BODY "angular_relu_body.h"
#include "processors.h"

/* (1/2) U^T f(U x) for `rings` of n orientations with `size` pixels each, where U samples the orientations and the
   angles half-way between them. Row k of `half` is the weight of orientation i + k for the angle i + 1/2. f is the ReLU,
   and notes in `record` which samples it lets pass; with `gate`, it lets pass what is noted there. Both may be null. Bit
   2 i is orientation i, bit 2 i + 1 the angle behind it. `out` may be `x`. Returns 0, or 1 for an n that it does not
   know. */
EXPORT int angular_relu(const float *x, float *out, int64_t rings, int64_t size, int n, const float *half,
                        uint32_t *record, const uint32_t *gate, int threads) {
    void (*run)(const float *, float *, int64_t, const float *, uint32_t *, const uint32_t *) =
        n == 8 ? CHOOSE(ring_of_8) : n == 16 ? CHOOSE(ring_of_16) : 0;
    if (!run) return 1;
    int64_t parts = parts_of(rings * size * n, threads);
#pragma omp parallel for num_threads((int)parts) if (parts > 1) schedule(static, 1)
    for (int64_t part = 0; part < parts; part++)
        for (int64_t ring = rings * part / parts; ring < rings * (part + 1) / parts; ring++)
            run(x + ring * n * size, out + ring * n * size, size, half, record ? record + ring * size : 0,
                gate ? gate + ring * size : 0);
    return 0;
}
