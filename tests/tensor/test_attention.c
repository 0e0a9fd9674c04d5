/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/numbers.h"
#include "tensor/ops.h"

typedef struct setup {
    mln_attention_shape shape;
    int64_t capacity, length; /* positions of the cache, and how many are filled in the end */
    float *q;                 /* [length, heads, D] */
    float *keys, *values;     /* [kv_heads, capacity, D]; NaN behind `length` */
    int32_t *pages;           /* each in its place */
} setup;

static int64_t pages_of(int64_t positions) {
    return (positions + MYELIN_PAGE_POSITIONS - 1) / MYELIN_PAGE_POSITIONS;
}

static setup setup_make(int64_t heads, int64_t kv_heads, int64_t dim, int64_t length,
                        int64_t capacity) {
    setup s = {.shape = {heads, kv_heads, dim}, .capacity = capacity, .length = length};
    s.q = random_floats((size_t)(length * heads * dim), 1);
    s.keys = random_floats((size_t)(kv_heads * capacity * dim), 2);
    s.values = random_floats((size_t)(kv_heads * capacity * dim), 3);
    s.pages = room((size_t)pages_of(capacity), sizeof *s.pages);
    for (int32_t i = 0; i < pages_of(capacity); i++)
        s.pages[i] = i;
    for (int64_t i = 0; i < length * heads * dim; i++)
        s.q[i] *= 8; /* so that the softmax is not flat */
    for (int64_t g = 0; g < kv_heads; g++)
        for (int64_t i = length * dim; i < capacity * dim; i++)
            s.keys[g * capacity * dim + i] = s.values[g * capacity * dim + i] = NAN;
    return s;
}

static void setup_free(setup *s) {
    free(s->q);
    free(s->keys);
    free(s->values);
    free(s->pages);
}

/* All `length` tokens, in calls of `chunk` tokens: [length, heads, D]. */
static float *run(const setup *s, int32_t threads, int64_t chunk) {
    myelin_host host = host_make(threads);
    int64_t width = s->shape.heads * s->shape.head_dim;
    float *out = room((size_t)(s->length * width), sizeof *out);
    float *scores = room((size_t)(s->shape.heads * s->length), sizeof *scores);
    mln_kv_view cache = {s->keys, s->values, s->capacity, s->pages};
    for (int64_t past = 0; past < s->length; past += chunk) {
        int64_t tokens = s->length - past < chunk ? s->length - past : chunk;
        mln_attention(&host, out + past * width, s->q + past * width, &cache, s->shape, tokens,
                      past, scores);
    }
    free(scores);
    host_free(&host);
    return out;
}

/* The formula for one token and head, in double. */
static void check_one(const setup *s, const float *found, int64_t token, int64_t head) {
    int64_t dim = s->shape.head_dim, group = head / (s->shape.heads / s->shape.kv_heads);
    const float *q = s->q + (token * s->shape.heads + head) * dim;
    double *p = room((size_t)token + 1, sizeof *p), sum = 0;
    for (int64_t j = 0; j <= token; j++) {
        double dot = 0;
        for (int64_t i = 0; i < dim; i++)
            dot += (double)q[i] * (double)s->keys[(group * s->capacity + j) * dim + i];
        p[j] = exp(dot / sqrt((double)dim));
        sum += p[j];
    }
    for (int64_t i = 0; i < dim; i++) {
        double expected = 0;
        for (int64_t j = 0; j <= token; j++)
            expected += p[j] / sum * (double)s->values[(group * s->capacity + j) * dim + i];
        assert_close(expected, (double)found[i], 1e-5);
    }
    free(p);
}

static void against_the_formula(void **state) {
    (void)state;
    const int64_t shapes[][5] = {/* heads, kv_heads, D, length, capacity */
                                 {1, 1, 2, 1, 1},    {6, 3, 10, 40, 47},  {4, 4, 16, 33, 33},
                                 {8, 2, 64, 70, 80}, {5, 1, 128, 17, 18}, {3, 1, 34, 100, 100}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        setup s = setup_make(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], shapes[i][4]);
        float *out = run(&s, 2, s.length);
        for (int64_t t = 0; t < s.length; t++)
            for (int64_t h = 0; h < s.shape.heads; h++)
                check_one(&s, out + (t * s.shape.heads + h) * s.shape.head_dim, t, h);
        free(out);
        setup_free(&s);
    }
}

static void same_with_any_chunks_and_threads(void **state) {
    (void)state;
    setup s = setup_make(6, 2, 24, 150, 160);
    float *expected = run(&s, 1, s.length);
    const int64_t chunks[] = {1, 7, 64, 150};
    const int32_t threads[] = {1, 2, 5};
    for (int c = 0; c < 4; c++)
        for (int t = 0; t < 3; t++) {
            float *found = run(&s, threads[t], chunks[c]);
            assert_same(expected, found, (size_t)(s.length * 6 * 24));
            free(found);
        }
    free(expected);
    setup_free(&s);
}

/* Keys and values moved page by page, the free page before them full of NaN. */
static void same_with_any_pages(void **state) {
    (void)state;
    enum { PAGES = 4, SLOTS = (PAGES + 1) * MYELIN_PAGE_POSITIONS, LENGTH = 200 };
    static const int32_t pages[PAGES] = {3, 1, 4, 2};
    setup s = setup_make(4, 2, 18, LENGTH, PAGES * MYELIN_PAGE_POSITIONS);
    setup moved = setup_make(4, 2, 18, LENGTH, SLOTS);
    size_t page = MYELIN_PAGE_POSITIONS * 18;
    for (size_t g = 0; g < 2; g++)
        for (size_t i = 0; i < PAGES; i++) {
            size_t from = (g * PAGES + i) * page, to = (g * (PAGES + 1) + (size_t)pages[i]) * page;
            memcpy(moved.keys + to, s.keys + from, page * sizeof(float));
            memcpy(moved.values + to, s.values + from, page * sizeof(float));
        }
    for (size_t i = 0; i < page; i++)
        moved.keys[i] = moved.values[i] = NAN;
    memcpy(moved.pages, pages, sizeof pages);
    float *expected = run(&s, 2, 50), *found = run(&moved, 2, 33);
    assert_same(expected, found, LENGTH * 4 * 18);
    free(expected);
    free(found);
    setup_free(&s);
    setup_free(&moved);
}

/* Scores of several thousand: without taking the largest away, exp() would be infinite. */
static void large_scores(void **state) {
    (void)state;
    setup s = setup_make(2, 1, 8, 5, 5);
    for (int i = 0; i < 5 * 2 * 8; i++)
        s.q[i] *= 1000;
    float *out = run(&s, 1, 5);
    for (int i = 0; i < 5 * 2 * 8; i++)
        assert_true(fabsf(out[i]) <= 1);
    free(out);
    setup_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_the_formula),
        cmocka_unit_test(same_with_any_chunks_and_threads),
        cmocka_unit_test(same_with_any_pages),
        cmocka_unit_test(large_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
