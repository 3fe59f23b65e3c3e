/* Moments of ReLU and of maxima over windows, for maps of float32 on a CPU; the rules in Python say which and why.

   Plain C without torch or Python: pointers come through ctypes, so one build serves every version of either. */

#include <stdlib.h>
#include <string.h>

#define BODY "moments_body.h"
#include "processors.h"

/* ReLU of `planes` maps of `size` values each, of variance first * first_scale[c] + second * second_scale[c] for map
   number b * channels + c. `second` and the scales may be null; `plain` asks for the plain ReLU of means. */
EXPORT void relu_moments(const float *mean, const float *first, const float *first_scale, const float *second,
                         const float *second_scale, float *to_mean, float *to_var, int64_t planes, int64_t channels,
                         int64_t size, int plain, int threads) {
    void (*run)(const float *, const float *, const float *, const float *, const float *, float *, float *, int64_t,
                int64_t, int64_t, int64_t, int) = CHOOSE(relu_range);
    int64_t total = planes * size, parts = parts_of(total, threads);
#pragma omp parallel for num_threads((int)parts) if (parts > 1) schedule(static, 1)
    for (int64_t part = 0; part < parts; part++)
        run(mean, first, first_scale, second, second_scale, to_mean, to_var, total * part / parts,
            total * (part + 1) / parts, channels, size, plain);
}

/* Maxima over windows of kernel x kernel values in `planes` maps. Row s of `steps` and `corrections` merges the second
   position of the window into the first, with rho and lambda; the last step leaves the result in its first position.
   Returns 0, or 1 where memory is short. */
EXPORT int max_moments(const float *mean, const float *var, float *to_mean, float *to_var, int64_t planes,
                       int64_t height, int64_t width, int64_t out_height, int64_t out_width, int64_t kernel,
                       int64_t stride, int64_t pad_y, int64_t pad_x, int64_t dilation, const int32_t *steps,
                       const float *corrections, int64_t count, int threads) {
    void (*run)(const float *, const float *, float *, float *, float *, int64_t, int64_t, int64_t, int64_t, int64_t,
                int64_t, int64_t, int64_t, int64_t, const int32_t *, const float *, int64_t) = CHOOSE(max_plane);
    int64_t parts = parts_of(planes * out_height * out_width, threads), line = 2 * kernel * kernel * out_width;
    float *work = malloc(sizeof(float) * (size_t)(parts * line));
    if (work == NULL) return 1;
#pragma omp parallel for num_threads((int)parts) if (parts > 1) schedule(static, 1)
    for (int64_t part = 0; part < parts; part++)
        for (int64_t plane = planes * part / parts; plane < planes * (part + 1) / parts; plane++)
            run(mean + plane * height * width, var + plane * height * width, to_mean + plane * out_height * out_width,
                to_var + plane * out_height * out_width, work + part * line, height, width, out_height, out_width,
                kernel, stride, pad_y, pad_x, dilation, steps, corrections, count);
    free(work);
    return 0;
}
