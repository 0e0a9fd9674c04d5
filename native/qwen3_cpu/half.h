/* SPDX-License-Identifier: Apache-2.0 */
/* Binary16 and bfloat16 one number at a time, where no instruction does it. */
#ifndef MLN_CPU_HALF_H
#define MLN_CPU_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    float f;
    if ((h & 0x7c00u) == 0x7c00u) {
        uint32_t bits = sign | 0x7f800000u | (rest & 0x7fffffu);
        memcpy(&f, &bits, sizeof f);
        return f;
    }
    memcpy(&f, &rest, sizeof f);
    f *= 0x1p112f; /* moves the bias of the exponent, and makes subnormals normal */
    return sign ? -f : f;
}
INLINE uint16_t float_to_half(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return sign | 0x7e00u;
    if (bits >= 0x47800000u) /* 65536 and more; 65520 to 65536 round up below */
        return sign | 0x7c00u;
    if (bits < 0x38800000u) { /* below 2^-14: count units of 2^-24 */
        float units;
        memcpy(&units, &bits, sizeof units);
        return (uint16_t)(sign | (uint16_t)lrintf(units * 0x1p24f));
    }
    bits += 0xfffu + (bits >> 13 & 1u);
    return (uint16_t)(sign | (uint16_t)((bits - 0x38000000u) >> 13));
}
INLINE float bfloat_to_float(uint16_t b) {
    uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
