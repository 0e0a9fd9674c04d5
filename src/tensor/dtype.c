/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/dtype.h"

#include <string.h>

size_t mln_dtype_size(int32_t dtype) {
    switch (dtype) {
    case MYELIN_DTYPE_F32:
        return 4;
    case MYELIN_DTYPE_F16:
    case MYELIN_DTYPE_BF16:
        return 2;
    default:
        return 0;
    }
}

const char *mln_dtype_name(int32_t dtype) {
    switch (dtype) {
    case MYELIN_DTYPE_AUTO:
        return "auto";
    case MYELIN_DTYPE_F32:
        return "f32";
    case MYELIN_DTYPE_F16:
        return "f16";
    case MYELIN_DTYPE_BF16:
        return "bf16";
    case MYELIN_DTYPE_AFFINE:
        return "affine";
    default:
        return "unknown";
    }
}

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t select_u32(uint32_t mask, uint32_t yes, uint32_t no) {
    return (yes & mask) | (no & ~mask);
}

/*
 * All ones when a < b, both below 2^31: the sign of the difference. (A comparison would do, but
 * compilers turn one into a branch.)
 */
static inline uint32_t less_mask(uint32_t a, uint32_t b) {
    return 0u - ((a - b) >> 31);
}

/*
 * Binary16: 1 sign, 5 exponent (bias 15), 10 fraction. The conversions have no branches, so that a
 * loop over them becomes vector code.
 *
 * A normal number is moved into place and its exponent raised by 127 - 15. A subnormal one, f *
 * 2^-24, is put into the lowest bits of 0.5, whose unit in the last place is 2^-24, and 0.5 taken
 * away again.
 */
static inline float f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t magnitude = half & 0x7fffu;
    uint32_t normal = (magnitude << 13) + (112u << 23);
    uint32_t subnormal = bits_of(float_of(0x3f000000u | magnitude) - 0.5f);
    uint32_t special = (magnitude << 13) | 0x7f800000u; /* infinity and NaN */
    uint32_t bits = select_u32(less_mask(magnitude, 0x0400u), subnormal, normal);
    bits = select_u32(less_mask(magnitude, 0x7c00u), bits, special);
    return float_of(bits | sign);
}

/* The same ways back; adding 0.5 lets the processor round a subnormal result. */
static inline uint16_t f32_to_f16(float value) {
    uint32_t bits = bits_of(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t even = (magnitude >> 13) & 1u;
    uint32_t normal = (magnitude - (112u << 23) + 0xfffu + even) >> 13; /* carries into infinity */
    uint32_t is_small = less_mask(magnitude, 0x38800000u); /* below 2^-14: not a normal half */
    uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    uint32_t half = select_u32(is_small, subnormal, normal);
    half = select_u32(less_mask(magnitude, 0x47800000u), half, 0x7c00u); /* 2^16 and more */
    half = select_u32(less_mask(0x7f800000u, magnitude), nan, half);
    return (uint16_t)(half | sign);
}

static inline float bf16_to_f32(uint16_t brain) {
    return float_of((uint32_t)brain << 16);
}

static inline uint16_t f32_to_bf16(float value) {
    uint32_t bits = bits_of(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t nan = (bits >> 16) | 0x40u; /* quiet, so that losing the low bits leaves a NaN */
    return (uint16_t)select_u32(less_mask(0x7f800000u, bits & 0x7fffffffu), nan, rounded);
}

void mln_to_f32(float *restrict dst, const void *restrict src, int32_t dtype, size_t count) {
    const uint16_t *restrict halves = src;
    switch (dtype) {
    case MYELIN_DTYPE_F32:
        memcpy(dst, src, count * sizeof *dst);
        break;
    case MYELIN_DTYPE_F16:
        for (size_t i = 0; i < count; i++)
            dst[i] = f16_to_f32(halves[i]);
        break;
    case MYELIN_DTYPE_BF16:
        for (size_t i = 0; i < count; i++)
            dst[i] = bf16_to_f32(halves[i]);
        break;
    default:
        break;
    }
}

void mln_from_f32(void *restrict dst, int32_t dtype, const float *restrict src, size_t count) {
    uint16_t *restrict halves = dst;
    switch (dtype) {
    case MYELIN_DTYPE_F32:
        memcpy(dst, src, count * sizeof *src);
        break;
    case MYELIN_DTYPE_F16:
        for (size_t i = 0; i < count; i++)
            halves[i] = f32_to_f16(src[i]);
        break;
    case MYELIN_DTYPE_BF16:
        for (size_t i = 0; i < count; i++)
            halves[i] = f32_to_bf16(src[i]);
        break;
    default:
        break;
    }
}

/*
 * One group of an AFFINE row. The words are little-endian with the lowest bits first, so their
 * bytes come in the order of the columns, and in a byte of two 4-bit values the low one first.
 */
static void group_to_f32(float *restrict out, const uint8_t *restrict packed, int32_t bits,
                         int64_t count, float scale, float bias) {
    if (bits == 4) {
        for (int64_t i = 0; i < count / 2; i++) {
            out[2 * i] = scale * (float)(packed[i] & 15) + bias;
            out[2 * i + 1] = scale * (float)(packed[i] >> 4) + bias;
        }
    } else {
        for (int64_t i = 0; i < count; i++)
            out[i] = scale * (float)packed[i] + bias;
    }
}

static void affine_row_to_f32(float *out, const myelin_tensor *matrix, int64_t row, int64_t column,
                              int64_t count) {
    int64_t group = matrix->group_size;
    int64_t first = row * (matrix->shape[1] / group) + column / group;
    int64_t group_bytes = group * matrix->bits / 8;
    const uint8_t *packed = (const uint8_t *)matrix->data + first * group_bytes;
    size_t scale_size = mln_dtype_size(matrix->scale_dtype);
    const char *scales = (const char *)matrix->scales + (size_t)first * scale_size;
    const char *biases = (const char *)matrix->biases + (size_t)first * scale_size;
    for (int64_t g = 0; g < count / group; g++) {
        float scale, bias;
        mln_to_f32(&scale, scales + (size_t)g * scale_size, matrix->scale_dtype, 1);
        mln_to_f32(&bias, biases + (size_t)g * scale_size, matrix->scale_dtype, 1);
        group_to_f32(out + g * group, packed + g * group_bytes, matrix->bits, group, scale, bias);
    }
}

void mln_row_to_f32(float *out, const myelin_tensor *matrix, int64_t row, int64_t column,
                    int64_t count) {
    if (matrix->dtype == MYELIN_DTYPE_AFFINE) {
        affine_row_to_f32(out, matrix, row, column, count);
        return;
    }
    size_t first = (size_t)(row * matrix->stride[0] + column) * mln_dtype_size(matrix->dtype);
    mln_to_f32(out, (const char *)matrix->data + first, matrix->dtype, (size_t)count);
}
