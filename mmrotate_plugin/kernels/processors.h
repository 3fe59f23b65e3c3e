/* What the loops share: each is compiled twice and chosen at run time, and threads divide its work. */

#ifndef PROCESSORS_H
#define PROCESSORS_H
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define CHOOSE(function) (wide() ? function##_wide : function##_any)

static inline int wide(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#else
#define CHOOSE(function) function##_any
#endif

#define GRAIN 16384 /* values for which waking another thread pays */

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define INLINE static inline __attribute__((always_inline, unused))

static inline int64_t parts_of(int64_t values, int threads) {
    int64_t parts = values / GRAIN;
    return parts < 1 ? 1 : parts > threads ? threads : parts;
}
#endif

/* BODY twice: for any processor of this architecture, and for one with AVX2 and FMA */
#ifdef BODY
#define NAME(function) function##_any
#include BODY
#undef NAME

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define NAME(function) function##_wide
#include BODY
#undef NAME
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#endif
