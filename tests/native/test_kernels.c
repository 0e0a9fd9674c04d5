/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel of every set this processor can run, bit for bit against a scalar model of it, and
 * within a derived bound of the same in double precision: odd sizes, up to a whole block of tokens,
 * arrays aligned to no more than their elements, subnormal and huge numbers, infinities and NaN.
 * A plain program of the native and base rooms alone, so that it can be built for any processor.
 *
 * usage: test_kernels [SET], all sets when none is named; 77 when the processor does not have it
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "myelin/tensor.h"
#include "native/qwen3_cpu/half.h"
#include "native/qwen3_cpu/internal.h"
#include "scalar_model.h"

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        printf("%s:%d: %s: ", __FILE__, __LINE__, tested->name);                                   \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        exit(1);                                                                                   \
    } while (0)

enum {
    PANELS = 2,
    MAX_COLUMNS = 1024,
    BLOCK_FLOATS = 128 + MLN_CPU_SLACK / 4 /* of a token of 128 columns, packed */
};

static const mln_cpu_kernels *tested;
static uint64_t checked; /* numbers compared */

/* --- numbers --- */

static uint64_t random_state;

static uint32_t random_bits(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

/* -1 to 1 */
static float random_float(void) {
    return (float)(int32_t)random_bits() * 0x1p-31f;
}

/* What inputs are made of. */
typedef enum numbers { PLAIN, WIDE, TINY, BROKEN, NUM_NUMBERS } numbers;

/* PLAIN about 1; WIDE over many powers of two, zeros; TINY subnormal; BROKEN some NaN, infinity */
static float random_number(numbers kind) {
    float x = random_float();
    uint32_t pick = random_bits() % 64;
    switch (kind) {
    case PLAIN:
        return x;
    case WIDE:
        return pick == 0 ? 0.0f : ldexpf(x, (int)(pick % 40) - 24);
    case TINY:
        return ldexpf(x, -126 - (int)(pick % 24));
    default:
        return pick == 0 ? NAN : pick == 1 ? INFINITY : pick == 2 ? -INFINITY : x;
    }
}

static void same_float(float expected, float found, const char *what, int64_t size, int64_t at) {
    checked++;
    if (isnan(expected) && isnan(found))
        return;
    if (memcmp(&expected, &found, sizeof found) != 0)
        FAIL("%s of %lld: number %lld is %a, expected %a", what, (long long)size, (long long)at,
             (double)found, (double)expected);
}

static void near(double expected, double bound, float found, const char *what, int64_t at) {
    if (!(fabs((double)found - expected) <= bound))
        FAIL("%s: number %lld is %.9g, expected %.9g within %.3g", what, (long long)at,
             (double)found, expected, bound);
}

/* Heap memory of `bytes` aligned to `alignment` and no better; freed through *base. */
static void *misaligned(unsigned char **base, size_t bytes, size_t alignment) {
    *base = malloc(bytes + 128);
    if (!*base)
        abort();
    uintptr_t at = ((uintptr_t)*base + 63) / 64 * 64 + alignment;
    return (void *)at;
}

/* --- weights --- */

static uint16_t to_bfloat(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16 | (isnan(x) ? 1u : 0u));
}

/* x as a dtype has it; its bytes go to `to` */
static float store_number(void *to, int32_t dtype, float x) {
    uint16_t half = dtype == MYELIN_DTYPE_BF16 ? to_bfloat(x) : float_to_half(x);
    if (dtype == MYELIN_DTYPE_F32) {
        memcpy(to, &x, sizeof x);
        return x;
    }
    memcpy(to, &half, sizeof half);
    return dtype == MYELIN_DTYPE_BF16 ? bfloat_to_float(half) : half_to_float(half);
}

static size_t size_of(int32_t dtype) {
    return dtype == MYELIN_DTYPE_F32 ? 4 : 2;
}

static int32_t dtype_of(int32_t kind) {
    return kind == MLN_CPU_F32   ? MYELIN_DTYPE_F32
           : kind == MLN_CPU_F16 ? MYELIN_DTYPE_F16
                                 : MYELIN_DTYPE_BF16;
}

static void make_panels(scalar_panel *p, mln_cpu_matrix matrix) {
    matrix.rows = PANELS * MLN_CPU_PANEL;
    matrix.panels = PANELS;
    for (int i = 0; i < 3; i++)
        matrix.fetch[i] = (int32_t)(random_bits() % (MLN_CPU_FETCH_FAR + 1));
    matrix.data = aligned_alloc(64, ((size_t)(PANELS * matrix.panel_bytes) + 63) / 64 * 64);
    size_t weights = (size_t)(MLN_CPU_PANEL * matrix.columns);
    *p = (scalar_panel){.matrix = matrix, .weights = calloc(weights, sizeof(float))};
    if (!matrix.data || !p->weights)
        abort();
    memset(matrix.data, 0xff, (size_t)(PANELS * matrix.panel_bytes));
}

static void free_panels(scalar_panel *p) {
    free(p->matrix.data);
    free(p->matrix.starts);
    free(p->weights);
    free(p->codes);
    free(p->scales);
    free(p->biases);
}

/* Random rows in the second of two panels, laid out by the kernels under test. */
static scalar_panel dense_panels(int32_t kind, int64_t columns, numbers how) {
    scalar_panel p;
    int32_t dtype = dtype_of(kind);
    size_t element = size_of(dtype);
    int64_t wide = kind == MLN_CPU_BF16 ? (columns + 1) / 2 * 2 : columns;
    mln_cpu_matrix matrix = {
        .kind = kind, .columns = columns, .panel_bytes = wide * (int64_t)element * MLN_CPU_PANEL};
    make_panels(&p, matrix);
    unsigned char *rows = malloc((size_t)(MLN_CPU_PANEL * columns) * element);
    if (!rows)
        abort();
    for (int64_t i = 0; i < MLN_CPU_PANEL * columns; i++)
        p.weights[i] = store_number(rows + (size_t)i * element, dtype, random_number(how));
    tested->interleave(p.matrix.data + p.matrix.panel_bytes, rows, &p.matrix);
    free(rows);
    return p;
}

/* The layout kernels.h describes, number by number. */
static void check_interleaved(const scalar_panel *p) {
    const unsigned char *data = p->matrix.data + p->matrix.panel_bytes;
    int32_t dtype = dtype_of(p->matrix.kind);
    int64_t columns = p->matrix.columns;
    for (int64_t r = 0; r < MLN_CPU_PANEL; r++)
        for (int64_t c = 0; c < columns; c++) {
            int64_t at = c * MLN_CPU_PANEL + r;
            if (p->matrix.kind == MLN_CPU_BF16)
                at = (c / 2 * MLN_CPU_PANEL + r) * 2 + c % 2;
            unsigned char expected[4];
            store_number(expected, dtype, p->weights[r * columns + c]);
            if (memcmp(expected, data + at * (int64_t)size_of(dtype), size_of(dtype)) != 0)
                FAIL("interleave: row %lld, column %lld of %lld", (long long)r, (long long)c,
                     (long long)columns);
        }
    for (int64_t r = 0; p->matrix.kind == MLN_CPU_BF16 && columns % 2 && r < MLN_CPU_PANEL; r++) {
        const unsigned char *pair = data + (columns / 2 * MLN_CPU_PANEL + r) * 4;
        if (pair[2] || pair[3])
            FAIL("interleave: row %lld is not padded with zero", (long long)r);
    }
}

static unsigned char *lay_affine(unsigned char *to, const scalar_panel *p, float *parts, int64_t g,
                                 numbers how) {
    int64_t groups = p->matrix.columns / p->matrix.group;
    for (int64_t r = 0; r < MLN_CPU_PANEL; r++, to += size_of(p->matrix.scale_dtype))
        parts[r * groups + g] =
            store_number(to, p->matrix.scale_dtype, random_number(how) * 0.125f);
    return to;
}

/* Random codes in the second of two panels. */
static scalar_panel code_panels(int32_t kind, int32_t group, int64_t groups, int32_t dtype,
                                numbers how) {
    scalar_panel p;
    int64_t columns = group * groups;
    int64_t bytes =
        columns * (kind == MLN_CPU_Q4 ? 16 : 32) + groups * 64 * (int64_t)size_of(dtype);
    make_panels(&p, (mln_cpu_matrix){.kind = kind,
                                     .group = group,
                                     .scale_dtype = dtype,
                                     .columns = columns,
                                     .panel_bytes = bytes});
    p.codes = calloc((size_t)(MLN_CPU_PANEL * columns), 1);
    p.scales = calloc((size_t)(MLN_CPU_PANEL * groups), sizeof(float));
    p.biases = calloc((size_t)(MLN_CPU_PANEL * groups), sizeof(float));
    unsigned char *to = p.matrix.data + bytes;
    if (!p.codes || !p.scales || !p.biases)
        abort();
    for (int64_t g = 0; g < groups; g++) {
        to = lay_affine(to, &p, p.scales, g, how);
        to = lay_affine(to, &p, p.biases, g, how);
        memset(to, 0, (size_t)group * (kind == MLN_CPU_Q4 ? 16 : 32));
        for (int32_t i = 0; i < group; i++)
            for (int r = 0; r < MLN_CPU_PANEL; r++) {
                uint32_t code = random_bits() >> (kind == MLN_CPU_Q4 ? 28 : 24);
                int tile = r / 16, lane = r % 16;
                p.codes[r * columns + g * group + i] = (uint8_t)code;
                if (kind == MLN_CPU_Q4)
                    to[i / 4 * 64 + 4 * lane + i % 4] |= (unsigned char)(code << 4 * tile);
                else
                    to[i / 4 * 128 + 64 * tile + 4 * lane + i % 4] = (unsigned char)code;
            }
        to += group * (kind == MLN_CPU_Q4 ? 16 : 32);
    }
    return p;
}

/* --- pack and panel --- */

/* Of broken numbers only the second token has any. */
static void random_tokens(float *x, int32_t count, int64_t columns, numbers how) {
    for (int64_t i = 0; i < count * columns; i++)
        x[i] = random_number(how == BROKEN && i / columns != 1 ? PLAIN : how);
}

/*
 * out[count, 32] = tokens, packed last token first and in two runs of columns, times the second
 * panel. Of `block` there are 16 bytes more than `bytes`, of `out` a token more, which stay as they
 * are.
 */
static void multiply(float *out, const scalar_panel *p, const float *x, unsigned char *block,
                     size_t bytes, int32_t count) {
    int64_t columns = p->matrix.columns, some = columns / MLN_CPU_PACKED / 2 * MLN_CPU_PACKED;
    memset(block, 0xee, bytes + 16);
    for (int32_t t = count - 1; t >= 0; t--) {
        tested->pack(block, &p->matrix, x + t * columns, t, count, some, columns);
        tested->pack(block, &p->matrix, x + t * columns, t, count, 0, some);
    }
    for (size_t i = 0; i < 16; i++)
        if (block[bytes + i] != 0xee)
            FAIL("pack wrote behind %zu bytes", bytes);
    for (int i = 0; i < MLN_CPU_PANEL; i++)
        out[count * MLN_CPU_PANEL + i] = 42.0f;
    tested->panel(out, &p->matrix, 1, block, count);
    for (int i = 0; i < MLN_CPU_PANEL; i++)
        if (out[count * MLN_CPU_PANEL + i] != 42.0f)
            FAIL("panel wrote behind %d tokens", (int)count);
}

static void check_panel(const scalar_panel *p, int32_t count, numbers how) {
    unsigned char *bases[3];
    int64_t columns = p->matrix.columns;
    size_t bytes = tested->packed_bytes(&p->matrix, count);
    float *x = misaligned(&bases[0], (size_t)(count * columns) * sizeof *x, sizeof *x);
    void *block = misaligned(&bases[1], bytes, sizeof(float));
    float *out = misaligned(&bases[2], (size_t)(count + 1) * MLN_CPU_PANEL * sizeof *out, 4);
    random_tokens(x, count, columns, how);
    multiply(out, p, x, block, bytes, count);
    for (int32_t t = 0; t < count; t++) {
        float expected[MLN_CPU_PANEL];
        double exact[MLN_CPU_PANEL], bound[MLN_CPU_PANEL];
        scalar_times(expected, exact, bound, p, x + t * columns);
        for (int r = 0; r < MLN_CPU_PANEL; r++) {
            float found = out[t * MLN_CPU_PANEL + r];
            same_float(expected[r], found, "a panel", columns, t * MLN_CPU_PANEL + r);
            if (isfinite(found))
                near(exact[r], bound[r], found, "a panel", t * MLN_CPU_PANEL + r);
            else if (how != BROKEN)
                FAIL("a panel of finite numbers gave %g", (double)found);
        }
    }
    for (int i = 0; i < 3; i++)
        free(bases[i]);
}

/* Tokens that need every tile of every set of kernels, alone and beside others. */
static void check_counts(const scalar_panel *p, numbers how) {
    static const int32_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 19, 24};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        check_panel(p, counts[i], how);
    if (tested->block > 24) {
        check_panel(p, tested->block - 9, how);
        check_panel(p, tested->block, how);
    }
}

static void dense(void) {
    static const int64_t sizes[] = {1, 2, 3, 15, 16, 17, 31, 64, 101, 258};
    for (int32_t kind = MLN_CPU_F32; kind <= MLN_CPU_BF16; kind++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int how = 0; how < NUM_NUMBERS; how++) {
                scalar_panel p = dense_panels(kind, sizes[s], (numbers)how);
                check_interleaved(&p);
                check_counts(&p, (numbers)how);
                free_panels(&p);
            }
}

/* The second of two BF16 panels as a BF16P one; every `rare`-th weight first made rare, if any. */
static scalar_panel packed_panels(int64_t columns, numbers how, int64_t rare) {
    scalar_panel p = dense_panels(MLN_CPU_BF16, columns, how);
    mln_cpu_matrix matrix = p.matrix;
    uint16_t *weights = (uint16_t *)(void *)(p.matrix.data + p.matrix.panel_bytes);
    for (int64_t i = 0; rare > 0 && i < MLN_CPU_PANEL * columns; i += rare) {
        int64_t r = i % MLN_CPU_PANEL, c = i / MLN_CPU_PANEL;
        float x = ldexpf(p.weights[r * columns + c], -30 - (int)(i / rare % 60));
        p.weights[r * columns + c] =
            store_number(&weights[(c / 2 * MLN_CPU_PANEL + r) * 2 + c % 2], MYELIN_DTYPE_BF16, x);
    }
    matrix.kind = MLN_CPU_BF16P;
    matrix.panel_bytes += (int64_t)sizeof(mln_cpu_packed_head);
    matrix.data = aligned_alloc(64, (size_t)(PANELS * matrix.panel_bytes + 63) / 64 * 64);
    matrix.starts = calloc(PANELS, sizeof *matrix.starts);
    if (!matrix.data || !matrix.starts)
        abort();
    matrix.starts[1] = (uint64_t)(matrix.panel_bytes + 63) / 64 * 64 - 64;
    tested->pack_weights(matrix.data + matrix.starts[1], (unsigned char *)weights, columns);
    free(p.matrix.data);
    p.matrix = matrix;
    return p;
}

/* Every weight comes back; returns whether the panel was packed. */
static bool check_packed(const scalar_panel *p) {
    int64_t columns = p->matrix.columns;
    const unsigned char *panel = p->matrix.data + p->matrix.starts[1];
    mln_cpu_packed_head head;
    memcpy(&head, panel, sizeof head);
    if (head.bytes > (uint64_t)p->matrix.panel_bytes)
        FAIL("a packed panel of %lld columns takes %llu bytes", (long long)columns,
             (unsigned long long)head.bytes);
    float *row = calloc((size_t)columns, sizeof *row);
    for (int64_t r = 0; r < MLN_CPU_PANEL; r++) {
        mln_cpu_packed_row(row, panel, columns, r);
        for (int64_t c = 0; c < columns; c++)
            same_float(p->weights[r * columns + c], row[c], "a packed row", columns, c);
    }
    free(row);
    return head.packed != 0;
}

/* Weights that the sample of columns does not show get codes too, once they turn out to be many. */
static void packed_beside_sample(void) {
    enum { COLUMNS = 256 };
    scalar_panel p = dense_panels(MLN_CPU_BF16, COLUMNS, PLAIN);
    unsigned char *dense = p.matrix.data + p.matrix.panel_bytes;
    uint16_t *weights = (uint16_t *)(void *)dense;
    for (int i = 0; i < MLN_CPU_PANEL * COLUMNS; i++)
        weights[i] = i / 64 % 4 == 0 ? 0x3f80 : 0x3580; /* 1, 2^-20 */
    unsigned char *to = aligned_alloc(64, (size_t)p.matrix.panel_bytes + 64);
    mln_cpu_packed_head head;
    size_t bytes = tested->pack_weights(to, dense, COLUMNS);
    memcpy(&head, to, sizeof head);
    if (!head.packed || head.escapes > 0 || head.bytes != bytes)
        FAIL("two kinds of weights: packed %u, %u escapes, %zu bytes", head.packed, head.escapes,
             bytes);
    free(to);
    free_panels(&p);
}

static void packed(void) {
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 30, 127, 258, 515};
    static const int64_t rare[] = {0, 1000, 3 * MLN_CPU_PANEL * 16 / 2, 40};
    int64_t made[2] = {0, 0};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int how = 0; how < NUM_NUMBERS; how++)
            for (size_t k = 0; k < sizeof rare / sizeof *rare; k++) {
                scalar_panel p = packed_panels(sizes[s], (numbers)how, rare[k]);
                made[check_packed(&p)]++;
                for (int32_t count = 1; count <= tested->block; count += count < 3 ? 1 : 7)
                    check_panel(&p, count, (numbers)how);
                free_panels(&p);
            }
    if (made[0] < 20 || made[1] < 20)
        FAIL("%lld panels packed, %lld dense", (long long)made[1], (long long)made[0]);
}

/* --- activations cut in bfloat16 numbers --- */

static bool tiles(void) {
    return tested->most_pieces == 2;
}

/* One weight of 1 shows what an activation became. */
static void roundings(int32_t pieces) {
    scalar_panel p = dense_panels(MLN_CPU_BF16, 1, PLAIN);
    unsigned char *base;
    uint16_t *weights = (uint16_t *)(void *)(p.matrix.data + p.matrix.panel_bytes);
    for (int r = 0; r < MLN_CPU_PANEL; r++)
        weights[2 * r] = 0x3f80;
    p.matrix.pieces = pieces;
    void *block = misaligned(&base, tested->packed_bytes(&p.matrix, 1), sizeof(float));
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t bits = i % 2 ? random_bits() : (random_bits() & 0xffff0000u) | 0x8000u;
        float x, expected, out[MLN_CPU_PANEL];
        memcpy(&x, &bits, sizeof x);
        tested->pack(block, &p.matrix, &x, 0, 1, 0, 1);
        tested->panel(out, &p.matrix, 1, block, 1);
        expected = scalar_piece(x, pieces, 0) + 0.0f;
        if (pieces == 2)
            expected += scalar_piece(x, pieces, 1);
        if (pieces == 2 && isfinite(x))
            near((double)x, fabs((double)x) * 0x1p-16 + 0x1p-126, expected, "two pieces", i);
        for (int r = 0; r < MLN_CPU_PANEL; r++)
            same_float(expected, out[r], "an activation in pieces", 1, r);
    }
    free(base);
    free_panels(&p);
}

/*
 * out[32] of a token alone: within rounding errors of the products with all pieces, of which two
 * may leave out 2^-16 of each.
 */
static void check_cut(float *out, const scalar_panel *p, const float *x) {
    float expected[MLN_CPU_PANEL], rounded[MAX_COLUMNS];
    double exact[MLN_CPU_PANEL], bound[MLN_CPU_PANEL];
    int64_t columns = p->matrix.columns;
    int32_t pieces = p->matrix.pieces;
    unsigned char *base;
    void *block = misaligned(&base, tested->packed_bytes(&p->matrix, 1), sizeof(float));
    for (int64_t i = 0; i < columns; i++)
        rounded[i] = pieces == 1 ? scalar_piece(x[i], 1, 0) : x[i];
    tested->pack(block, &p->matrix, x, 0, 1, 0, columns);
    tested->panel(out, &p->matrix, 1, block, 1);
    free(base);
    scalar_times(expected, exact, bound, p, rounded);
    for (int r = 0; r < MLN_CPU_PANEL; r++) {
        double lost = pieces == 1 ? 0 : bound[r] / (double)(2 * columns + 2) * 0x1p9;
        checked++;
        if (isfinite(expected[r])) /* subnormal numbers, and sums of that size, become zeros */
            near(exact[r], 2 * bound[r] + lost + (double)columns * 0x1p-110, out[r],
                 "a panel of pieces", r);
        else if (isfinite(out[r]) || (isnan(expected[r]) && !isnan(out[r])))
            FAIL("a panel of pieces: number %d is %g, expected %g", r, (double)out[r],
                 (double)expected[r]);
    }
    if (!tiles())
        return;
    scalar_tiles(expected, p, x, pieces);
    for (int r = 0; r < MLN_CPU_PANEL; r++)
        same_float(expected[r], out[r], "a panel by tiles", columns, r);
}

/* Each of `count` tokens gives the bits that it gives alone. */
static void check_cut_count(const scalar_panel *p, int32_t count, numbers how) {
    static float x[MLN_CPU_BLOCK * MAX_COLUMNS], out[(MLN_CPU_BLOCK + 1) * MLN_CPU_PANEL];
    int64_t columns = p->matrix.columns;
    unsigned char *base;
    size_t bytes = tested->packed_bytes(&p->matrix, count);
    unsigned char *block = misaligned(&base, bytes, sizeof(float));
    random_tokens(x, count, columns, how);
    multiply(out, p, x, block, bytes, count);
    for (int32_t t = 0; t < count; t++) {
        float alone[MLN_CPU_PANEL];
        check_cut(alone, p, x + t * columns);
        for (int r = 0; r < MLN_CPU_PANEL; r++)
            same_float(alone[r], out[t * MLN_CPU_PANEL + r], "a panel of pieces", columns, r);
    }
    free(base);
}

static void cut(int32_t pieces) {
    static const int64_t sizes[] = {1, 2, 3, 31, 32, 33, 63, 101, 127, 128, 130, 258, 515};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int how = 0; how < NUM_NUMBERS; how++)
            for (int packed = 0; packed < 2; packed++) {
                scalar_panel p = packed ? packed_panels(sizes[s], (numbers)how, 1000)
                                        : dense_panels(MLN_CPU_BF16, sizes[s], (numbers)how);
                p.matrix.pieces = pieces;
                for (int32_t count = 1; count <= tested->block; count += count < 18 ? 1 : 5)
                    check_cut_count(&p, count, (numbers)how);
                check_cut_count(&p, tested->block, (numbers)how);
                free_panels(&p);
            }
}

/* Kernels that cannot multiply with bytes go on with 16 bits. */
static void ask_for_bytes(scalar_panel *p, int32_t pieces) {
    p->matrix.pieces = pieces;
    p->bytes = pieces == 1 && tested->least_bytes == 1;
}

static void codes(void) {
    static const int32_t dtypes[] = {MYELIN_DTYPE_BF16, MYELIN_DTYPE_F16, MYELIN_DTYPE_F32};
    for (int32_t kind = MLN_CPU_Q4; kind <= MLN_CPU_Q8; kind++)
        for (int32_t group = 32; group <= 128; group *= 2)
            for (int d = 0; d < 3; d++)
                for (int how = 0; how < NUM_NUMBERS; how++) {
                    scalar_panel p = code_panels(kind, group, 1 + how % 3, dtypes[d],
                                                 how == BROKEN ? PLAIN : (numbers)how);
                    for (int32_t pieces = 0; pieces < 2; pieces++) {
                        ask_for_bytes(&p, pieces);
                        check_counts(&p, (numbers)how);
                    }
                    free_panels(&p);
                }
}

/* The largest codes times the largest activations: the sums of whole numbers do not overflow. */
static void largest_codes(int32_t pieces) {
    for (int32_t kind = MLN_CPU_Q4; kind <= MLN_CPU_Q8; kind++)
        for (int sign = -1; sign <= 1; sign += 2) {
            scalar_panel p = code_panels(kind, 128, 1, MYELIN_DTYPE_F32, PLAIN);
            ask_for_bytes(&p, pieces);
            unsigned char *at = p.matrix.data + p.matrix.panel_bytes + 256;
            memset(at, 0xff, (size_t)p.matrix.panel_bytes - 256);
            memset(p.codes, kind == MLN_CPU_Q4 ? 15 : 255, MLN_CPU_PANEL * 128);
            float x[128], out[MLN_CPU_PANEL], expected[MLN_CPU_PANEL], block[BLOCK_FLOATS];
            double exact[MLN_CPU_PANEL], bound[MLN_CPU_PANEL];
            for (int i = 0; i < 128; i++)
                x[i] = 7.0f * (float)sign;
            tested->pack(block, &p.matrix, x, 0, 1, 0, p.matrix.columns);
            tested->panel(out, &p.matrix, 1, block, 1);
            scalar_times(expected, exact, bound, &p, x);
            for (int r = 0; r < MLN_CPU_PANEL; r++) {
                same_float(expected[r], out[r], "the largest codes", 128, r);
                near(exact[r], bound[r], out[r], "the largest codes", r);
            }
            free_panels(&p);
        }
}

/* --- rows --- */

static void check_rms_norm(int64_t n, numbers how) {
    unsigned char *bases[3];
    float *x = misaligned(&bases[0], (size_t)n * sizeof *x, sizeof *x);
    float *weight = misaligned(&bases[1], (size_t)n * sizeof *x, 3 * sizeof *x);
    float *out = misaligned(&bases[2], (size_t)(n + 1) * sizeof *x, sizeof *x);
    float expected[MAX_COLUMNS];
    const float eps = 1e-6f;
    double squares = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = random_number(how);
        weight[i] = random_number(PLAIN);
        squares += (double)x[i] * (double)x[i];
    }
    scalar_rms_norm(expected, x, weight, n, eps);
    out[n] = 42.0f;
    tested->rms_norm(out, x, weight, n, eps);
    for (int64_t i = 0; i < n; i++) {
        double exact = (double)x[i] / sqrt(squares / (double)n + (double)eps) * (double)weight[i];
        same_float(expected[i], out[i], "rms_norm", n, i);
        if (how != BROKEN)
            near(exact, fabs(exact) * (double)(n / 16 + 24) * 0x1p-24 + 0x1p-149, out[i],
                 "rms_norm", i);
    }
    if (out[n] != 42.0f)
        FAIL("rms_norm wrote behind %lld numbers", (long long)n);
    tested->rms_norm(x, x, weight, n, eps);
    for (int64_t i = 0; i < n; i++)
        same_float(out[i], x[i], "rms_norm in place", n, i);
    for (int i = 0; i < 3; i++)
        free(bases[i]);
}

static void check_silu_mul(int64_t n, numbers how) {
    unsigned char *bases[3];
    float *gate = misaligned(&bases[0], (size_t)n * sizeof *gate, sizeof *gate);
    float *up = misaligned(&bases[1], (size_t)n * sizeof *gate, 3 * sizeof *gate);
    float *out = misaligned(&bases[2], (size_t)(n + 1) * sizeof *gate, sizeof *gate);
    for (int64_t i = 0; i < n; i++) {
        gate[i] = random_number(how) * (how == TINY ? 1.0f : 100.0f);
        up[i] = random_number(how);
    }
    out[n] = 42.0f;
    tested->silu_mul(out, gate, up, n);
    for (int64_t i = 0; i < n; i++) {
        double exact = (double)gate[i] / (1 + exp(-(double)gate[i])) * (double)up[i];
        same_float(scalar_silu_mul(gate[i], up[i]), out[i], "silu_mul", n, i);
        if (how != BROKEN) /* e^88 is the largest power computed: 6e-39 is left below -88 */
            near(exact,
                 fabs(exact) * 12 * 0x1p-24 + fabs((double)gate[i] * (double)up[i]) * 7e-39 +
                     0x1p-149,
                 out[i], "silu_mul", i);
    }
    if (out[n] != 42.0f)
        FAIL("silu_mul wrote behind %lld numbers", (long long)n);
    for (int i = 0; i < 3; i++)
        free(bases[i]);
}

/* Three rows of a panel's products to rows further apart, which are otherwise left alone. */
static void check_put(int32_t valid, int32_t add) {
    enum { COUNT = 3, STRIDE = 70 };
    unsigned char *bases[2];
    float *tile = misaligned(&bases[0], sizeof(float[COUNT * MLN_CPU_PANEL]), 4);
    float *out = misaligned(&bases[1], sizeof(float[COUNT * STRIDE]), 4);
    for (int i = 0; i < COUNT * MLN_CPU_PANEL; i++)
        tile[i] = random_number(PLAIN);
    for (int i = 0; i < COUNT * STRIDE; i++)
        out[i] = (float)i;
    tested->put(out, STRIDE, tile, COUNT, valid, add);
    for (int i = 0; i < COUNT * STRIDE; i++) {
        float before = (float)i, product = tile[i / STRIDE * MLN_CPU_PANEL + i % STRIDE % 32];
        float after = add ? before + product : product;
        same_float(i % STRIDE < valid ? after : before, out[i], "put", valid, i);
    }
    free(bases[0]);
    free(bases[1]);
}

static void rows(void) {
    for (int32_t valid = 1; valid <= MLN_CPU_PANEL; valid++)
        for (int32_t add = 0; add < 2; add++)
            check_put(valid, add);
    for (int how = 0; how < NUM_NUMBERS; how++)
        for (int64_t n = 1; n <= MAX_COLUMNS; n = n < 70 ? n + 1 : 2 * n + 1) {
            check_rms_norm(n, (numbers)how);
            check_silu_mul(n, (numbers)how);
        }
}

/* --- the cache --- */

typedef struct cache {
    int32_t head_dim, width, capacity;
    mln_cpu_cell cell;
    mln_cpu_kv kv;
    int32_t *pages;       /* [capacity / MLN_CPU_PAGE], the last one first */
    float *keys, *values; /* [capacity][head_dim] as they are stored */
} cache;

static int32_t slot_of(const cache *c, int32_t position) {
    return c->pages[position / MLN_CPU_PAGE] * MLN_CPU_PAGE + position % MLN_CPU_PAGE;
}

static size_t cache_bytes(const cache *c) {
    return (size_t)(c->capacity * c->width * mln_cpu_cell_bytes(c->cell));
}

/* All of it NaN, so that what must not be read would be seen. */
static cache make_cache(int32_t head_dim, int32_t capacity, mln_cpu_cell cell) {
    cache c = {.head_dim = head_dim,
               .width = (head_dim + MLN_CPU_LANES - 1) / MLN_CPU_LANES * MLN_CPU_LANES,
               .capacity = (capacity + MLN_CPU_PAGE - 1) / MLN_CPU_PAGE * MLN_CPU_PAGE,
               .cell = cell};
    c.kv.keys = aligned_alloc(64, cache_bytes(&c));
    c.kv.values = aligned_alloc(64, cache_bytes(&c));
    c.kv.key_scales = calloc((size_t)c.capacity, sizeof(float));
    c.kv.value_scales = calloc((size_t)c.capacity, sizeof(float));
    c.keys = calloc((size_t)(c.capacity * head_dim), sizeof(float));
    c.values = calloc((size_t)(c.capacity * head_dim), sizeof(float));
    int32_t num_pages = c.capacity / MLN_CPU_PAGE;
    c.pages = calloc((size_t)num_pages, sizeof *c.pages);
    if (!c.kv.keys || !c.kv.values || !c.kv.key_scales || !c.kv.value_scales || !c.keys ||
        !c.values || !c.pages)
        abort();
    for (int32_t i = 0; i < num_pages; i++)
        c.pages[i] = num_pages - 1 - i;
    c.kv.pages = c.pages;
    memset(c.kv.keys, 0xff, cache_bytes(&c));
    memset(c.kv.values, 0xff, cache_bytes(&c));
    memset(c.kv.key_scales, 0xff, (size_t)c.capacity * sizeof(float));
    memset(c.kv.value_scales, 0xff, (size_t)c.capacity * sizeof(float));
    return c;
}

static void free_cache(cache *c) {
    free(c->kv.keys);
    free(c->kv.values);
    free(c->kv.key_scales);
    free(c->kv.value_scales);
    free(c->pages);
    free(c->keys);
    free(c->values);
}

/* A row as the cache can hold it: binary16 has no infinity there, and no NaN; codes are all NaN
 * where a number is not finite. */
static void as_cached(const cache *c, float *to, const float *x) {
    float most = 0.0f;
    bool finite = true;
    for (int32_t d = 0; d < c->head_dim; d++) {
        float bounded = x[d] < 65504.0f ? x[d] : 65504.0f;
        bounded = bounded > -65504.0f ? bounded : -65504.0f;
        to[d] = c->cell == MLN_CPU_CELL_F16 ? half_to_float(float_to_half(bounded)) : x[d];
        most = fmaxf(most, fabsf(x[d]));
        finite = finite && isfinite(x[d]);
    }
    if (c->cell != MLN_CPU_CELL_I8)
        return;
    bool none = most == 0.0f || 127.0f / most > 3e38f;
    for (int32_t d = 0; d < c->head_dim; d++)
        to[d] = !finite ? NAN
                : none  ? 0.0f
                        : (float)(int)rintf(x[d] * (127.0f / most)) * (most / 127.0f);
}

/* The number at a place of a slot; `scales` are of the keys or of the values. */
static float cached(const cache *c, const unsigned char *from, int64_t at, const float *scales,
                    int64_t slot) {
    uint16_t half;
    float x;
    if (c->cell == MLN_CPU_CELL_I8)
        return (float)(int8_t)from[at] * scales[slot];
    memcpy(&half, from + 2 * at, sizeof half);
    if (c->cell == MLN_CPU_CELL_F16)
        return half_to_float(half);
    memcpy(&x, from + 4 * at, sizeof x);
    return x;
}

static void store(cache *c, int32_t position, numbers how) {
    unsigned char *bases[2];
    int32_t dim = c->head_dim;
    float *key = misaligned(&bases[0], (size_t)dim * sizeof *key, sizeof *key);
    float *value = misaligned(&bases[1], (size_t)dim * sizeof *key, 3 * sizeof *key);
    for (int32_t d = 0; d < dim; d++) {
        key[d] = random_number(how);
        value[d] = random_number(how);
    }
    as_cached(c, c->keys + position * dim, key);
    as_cached(c, c->values + position * dim, value);
    tested->store_key(&c->kv, key, slot_of(c, position), dim, c->width, c->cell);
    tested->store_value(&c->kv, value, slot_of(c, position), dim, c->width, c->cell);
    free(bases[0]);
    free(bases[1]);
}

/* What was stored, zeros beside it, and the rest of the cache untouched. */
static void check_store(int32_t head_dim, mln_cpu_cell cell, numbers how) {
    enum { POSITIONS = 70 };
    cache c = make_cache(head_dim, POSITIONS, cell);
    for (int32_t p = 0; p < POSITIONS; p += 3)
        store(&c, p, how);
    for (int32_t p = 0; p < c.capacity; p++)
        for (int32_t d = 0; d < c.width; d++) {
            bool stored = p % 3 == 0 && p < POSITIONS, inside = d < head_dim;
            int64_t slot = slot_of(&c, p), key = (slot / 16 * c.width + d) * 16 + slot % 16;
            int64_t value = slot * c.width + d;
            float k = !stored ? NAN : inside ? c.keys[p * head_dim + d] : 0.0f;
            float v = !stored ? NAN : inside ? c.values[p * head_dim + d] : 0.0f;
            float found_k = cached(&c, c.kv.keys, key, c.kv.key_scales, slot);
            float found_v = cached(&c, c.kv.values, value, c.kv.value_scales, slot);
            if (cell == MLN_CPU_CELL_I8 && !inside) { /* NaN as a scale: 0 times it */
                found_k = stored && isnan(found_k) ? 0.0f : found_k;
                found_v = stored && isnan(found_v) ? 0.0f : found_v;
            }
            same_float(k, found_k, "store_key", head_dim, d);
            same_float(v, found_v, "store_value", head_dim, d);
        }
    free_cache(&c);
}

static void stores(void) {
    static const int32_t dims[] = {2, 10, 16, 18, 34, 64, 128};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (int cell = 0; cell < MLN_CPU_CELLS; cell++)
            for (int how = 0; how < NUM_NUMBERS; how++)
                check_store(dims[i], (mln_cpu_cell)cell, (numbers)how);
}

/* --- attention --- */

typedef struct question {
    int32_t rows;
    int32_t limits[MLN_CPU_ATTEND_ROWS];
    float *q; /* [rows][head_dim] */
} question;

/* Rows first .. first+count-1 of the question: out[count][width], heap memory */
static float *ask(const cache *c, const question *of, int32_t first, int32_t count) {
    unsigned char *bases[2];
    size_t floats = (size_t)(count * c->width);
    float *q = misaligned(&bases[0], floats * sizeof *q, sizeof *q);
    float *scratch =
        misaligned(&bases[1], (size_t)mln_cpu_attend_scratch(c->width) * sizeof *q, sizeof *q);
    float *out = malloc((size_t)(count * c->width) * sizeof *out);
    if (!out)
        abort();
    for (int32_t r = 0; r < count; r++)
        for (int32_t d = 0; d < c->head_dim; d++)
            q[d / MLN_CPU_LANES * MLN_CPU_LANES * count + r * MLN_CPU_LANES + d % MLN_CPU_LANES] =
                of->q[(first + r) * c->head_dim + d];
    mln_cpu_attention attention = {.kv = c->kv,
                                   .rows = count,
                                   .head_dim = c->head_dim,
                                   .width = c->width,
                                   .limits = of->limits + first,
                                   .q = q,
                                   .out = out,
                                   .scratch = scratch};
    tested->attend[c->cell](&attention);
    free(bases[0]);
    free(bases[1]);
    return out;
}

/* Row r of the answer against softmax(q k) v in double precision. */
static void check_answer(const cache *c, const question *of, int32_t r, const float *out) {
    int32_t dim = c->head_dim, limit = of->limits[r];
    double *p = calloc((size_t)limit, sizeof *p), most = -INFINITY, sum = 0, off = 0, largest = 0;
    if (!p)
        abort();
    for (int32_t j = 0; j < limit; j++) {
        double magnitude = 0;
        for (int32_t d = 0; d < dim; d++) {
            double product = (double)of->q[r * dim + d] * (double)c->keys[j * dim + d];
            p[j] += product;
            magnitude += fabs(product);
            largest = fmax(largest, fabs((double)c->values[j * dim + d]));
        }
        most = fmax(most, p[j]);
        off = fmax(off, magnitude * (2 * dim + 4) * 0x1p-24);
    }
    for (int32_t j = 0; j < limit; j++)
        sum += p[j] = exp(p[j] - most);
    for (int32_t d = 0; d < dim; d++) {
        double exact = 0;
        for (int32_t j = 0; j < limit; j++)
            exact += p[j] / sum * (double)c->values[j * dim + d];
        near(exact, largest * (2 * off + (2 * MLN_CPU_SPLIT + 64) * 0x1p-24), out[d], "attend", d);
        checked++;
    }
    free(p);
}

/* Rows with limits of their own: each as if it were alone, to the last bit. */
static void check_attend(int32_t head_dim, int32_t rows_at_once, int32_t length,
                         mln_cpu_cell cell) {
    cache c = make_cache(head_dim, length, cell);
    question of = {.rows = rows_at_once};
    of.q = calloc((size_t)(rows_at_once * head_dim), sizeof *of.q);
    if (!of.q)
        abort();
    for (int32_t p = 0; p < length; p++)
        store(&c, p, PLAIN);
    for (int32_t i = 0; i < rows_at_once * head_dim; i++)
        of.q[i] = random_number(PLAIN);
    for (int32_t r = 0; r < rows_at_once; r++) {
        int32_t limit = length - (rows_at_once - 1 - r) / 2;
        of.limits[r] = limit < 1 ? 1 : limit;
    }
    float *all = ask(&c, &of, 0, rows_at_once);
    for (int32_t r = 0; r < rows_at_once; r++) {
        float *one = ask(&c, &of, r, 1);
        for (int32_t d = 0; d < head_dim; d++)
            same_float(one[d], all[r * c.width + d], "attend", length, d);
        check_answer(&c, &of, r, one);
        free(one);
    }
    free(all);
    free(of.q);
    free_cache(&c);
}

static void attention(void) {
    static const int32_t dims[] = {2, 10, 18, 64, 128}, lengths[] = {1, 15, 33, 255, 257, 530};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++)
            for (int32_t n = 1; n <= MLN_CPU_ATTEND_ROWS; n += n > 26 ? 33 : k < 4 ? 1 : 5)
                for (int cell = 0; cell < MLN_CPU_CELLS; cell++)
                    check_attend(dims[i], n, lengths[k], (mln_cpu_cell)cell);
    for (int cell = 0; cell < MLN_CPU_CELLS; cell++)
        check_attend(34, MLN_CPU_ATTEND_ROWS, 300, (mln_cpu_cell)cell);
}

/* A NaN in a query or in a value seen reaches that row's answer, and no other row's. */
static void check_broken(int32_t rows, mln_cpu_cell cell) {
    enum { DIM = 18, LENGTH = 40 };
    cache c = make_cache(DIM, LENGTH, cell);
    question of = {.rows = rows};
    float q[MLN_CPU_ATTEND_ROWS * DIM], broken[DIM] = {0};
    of.q = q;
    for (int i = 0; i < rows * DIM; i++)
        q[i] = random_number(PLAIN);
    for (int32_t r = 0; r < rows; r++)
        of.limits[r] = r + 1 < rows ? LENGTH - 1 : LENGTH;
    for (int32_t p = 0; p < LENGTH; p++)
        store(&c, p, PLAIN);
    broken[3] = NAN;
    for (int part = cell == MLN_CPU_CELL_F16; part < 2; part++) { /* halves are never NaN */
        if (part == 0)
            tested->store_value(&c.kv, broken, slot_of(&c, LENGTH - 1), DIM, c.width, c.cell);
        else
            q[(rows - 1) * DIM + 7] = NAN;
        float *out = ask(&c, &of, 0, rows);
        for (int32_t r = 0; r < rows; r++)
            if (isfinite(out[r * c.width + 3]) != (r + 1 < rows))
                FAIL("a NaN in row %d of %d gave %g in row %d", (int)rows - 1, (int)rows,
                     (double)out[r * c.width + 3], (int)r);
        free(out);
    }
    free_cache(&c);
}

static void broken_attention(void) {
    for (int cell = 0; cell < MLN_CPU_CELLS; cell++)
        for (int32_t rows = 2; rows <= 50; rows += 24)
            check_broken(rows, (mln_cpu_cell)cell);
}

/* norm_rotate() against the formulas one number at a time, and store_query(). */
static void check_query(int32_t dim) {
    enum { STRIDE = 3 * MLN_CPU_LANES };
    int32_t width = (dim + MLN_CPU_LANES - 1) / MLN_CPU_LANES * MLN_CPU_LANES, half = dim / 2;
    float x[128], weight[128], cos[64], sin[64], normed[128], out[128];
    float to[128 / MLN_CPU_LANES * STRIDE];
    for (int32_t d = 0; d < dim; d++) {
        x[d] = random_number(PLAIN);
        weight[d] = random_number(PLAIN);
        cos[d % half] = random_number(PLAIN);
        sin[d % half] = random_number(PLAIN);
    }
    tested->rms_norm(normed, x, weight, dim, 1e-6f);
    tested->norm_rotate(out, x, weight, cos, sin, dim, 1e-6f);
    for (int32_t d = 0; d < half; d++) {
        float a = normed[d], b = normed[d + half], first = a * cos[d], second = b * cos[d];
        same_float(first - b * sin[d], out[d], "norm_rotate", dim, d);
        same_float(second + a * sin[d], out[d + half], "norm_rotate", dim, d + half);
    }
    tested->store_query(to, STRIDE, out, dim, 0.3f);
    for (int32_t d = 0; d < width; d++)
        same_float(d < dim ? out[d] * 0.3f : 0.0f,
                   to[d / MLN_CPU_LANES * STRIDE + d % MLN_CPU_LANES], "store_query", dim, d);
}

static void queries(void) {
    static const int32_t dims[] = {2, 10, 18, 32, 34, 64, 80, 128};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        check_query(dims[i]);
}

/* --- all of them --- */

/* 1 + 2^-23 squared is 1 + 2^-22 + 2^-46: minus 1 + 2^-22 only a fused product leaves something. */
static bool fuses(void) {
    float x[2] = {1.0f, 1.0f + 0x1p-23f}, block[BLOCK_FLOATS], out[MLN_CPU_PANEL];
    scalar_panel p = dense_panels(MLN_CPU_F32, 2, PLAIN);
    float *w = (float *)(void *)(p.matrix.data + p.matrix.panel_bytes);
    for (int r = 0; r < MLN_CPU_PANEL; r++) {
        w[r] = -1.0f - 0x1p-22f;
        w[MLN_CPU_PANEL + r] = x[1];
    }
    tested->pack(block, &p.matrix, x, 0, 1, 0, p.matrix.columns);
    tested->panel(out, &p.matrix, 1, block, 1);
    free_panels(&p);
    return out[0] != 0.0f;
}

static bool test_set(const char *name) {
    tested = mln_cpu_choose(name);
    if (!tested)
        return false;
    random_state = 20;
    checked = 0;
    scalar_fused = fuses();
    if (!scalar_fused && strcmp(name, "portable") != 0)
        FAIL("products are not fused with their sums");
    dense();
    packed();
    packed_beside_sample();
    for (int32_t pieces = 1; pieces <= tested->most_pieces; pieces++) {
        roundings(pieces);
        cut(pieces);
    }
    codes();
    largest_codes(0);
    largest_codes(1);
    rows();
    stores();
    queries();
    attention();
    broken_attention();
    printf("%s: %llu numbers, %s\n", name, (unsigned long long)checked,
           scalar_fused ? "fused" : "not fused");
    return true;
}

int main(int argc, char **argv) {
    static const char *const sets[] = {"portable", "avx2", "avx512",   "avx512_vnni", "avx512_bf16",
                                       "amx",      "neon", "neon_dot", "neon_i8mm"};
    if (argc > 1)
        return test_set(argv[1]) ? 0 : 77;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        test_set(sets[i]);
    return 0;
}
