/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weights that are packed without loss give the logits and tokens of the same weights as they are,
 * to the last bit: with numbers of all sizes among them, rows of zeros, and matrices of which too
 * little can be packed.
 */
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "native/native.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { TOKENS = 300, STEPS = 12, SEQUENCES = 3, MAX_LEN = TOKENS + STEPS };

static const myelin_plugin *tested;

/* --- numbers that are hard to pack --- */

/* A bfloat16 number times 2^by, where that is one. */
static uint16_t scaled(uint16_t bits, int by) {
    int exponent = (bits >> 7 & 255) + by;
    if (exponent <= 0 || exponent >= 255)
        return bits;
    return (uint16_t)((bits & 0x807f) | exponent << 7);
}

static uint16_t planted(uint16_t bits, int64_t row, uint32_t chance) {
    if (row % 37 == 11)
        return chance % 2 ? 0 : 0x8000; /* a row of nothing but zeros of both signs */
    if (row % 29 == 5)
        bits = scaled(bits, -30);
    switch (chance % 4096) {
    case 0:
        return 0;
    case 1:
        return 0x8000;
    case 2:
        return (uint16_t)(chance >> 12 & 0x80ff); /* subnormal, or the smallest that is not */
    case 3:
        return scaled(bits, 5);
    case 4:
        return scaled(bits, -14);
    case 5:
        return scaled(bits, -20);
    case 6:
        return scaled(bits, -32);
    case 7:
        return scaled(bits, -45);
    default:
        return bits;
    }
}

/* Exponents so far apart that a matrix has more escapes than there is room for. */
static uint16_t scattered(uint16_t bits, uint32_t chance) {
    return scaled(bits, -(int)(chance % 40));
}

static void plant(built_checkpoint *built, const char *all_over) {
    uint32_t seed = 1;
    for (size_t t = 0; t < built->count; t++) {
        built_tensor *tensor = &built->tensors[t];
        if (tensor->rank != 2)
            continue;
        uint16_t *values = (uint16_t *)(void *)tensor->bytes;
        bool scatter = all_over && strstr(tensor->name, all_over);
        for (int64_t i = 0; i < tensor->shape[0] * tensor->shape[1]; i++) {
            seed = seed * 1664525u + 1013904223u;
            values[i] = scatter ? scattered(values[i], seed >> 8)
                                : planted(values[i], i / tensor->shape[1], seed >> 8);
        }
    }
}

/* --- the same model twice --- */

typedef struct both {
    char *directory;
    harness dense, packed;
} both;

static both open_both(const checkpoint_spec *spec, const char *all_over) {
    both b = {.directory = temp_directory_make()};
    built_checkpoint *built = builder_make(spec);
    plant(built, all_over);
    builder_write(built, b.directory);
    builder_free(built);
    harness_pack = MYELIN_PACK_NONE;
    b.dense = harness_open_with(tested, MYELIN_FUSION_AUTO, b.directory, 2, MYELIN_DTYPE_AUTO);
    harness_pack = MYELIN_PACK_LOSSLESS;
    b.packed = harness_open_with(tested, MYELIN_FUSION_AUTO, b.directory, 2, MYELIN_DTYPE_AUTO);
    return b;
}

static void close_both(both *b) {
    harness_close(&b->dense);
    harness_close(&b->packed);
    temp_directory_remove(b->directory);
}

static float *logits_by(const harness *h, const int32_t *ids, int32_t chunk) {
    float *logits = malloc((size_t)TOKENS * (size_t)h->vocab * sizeof *logits);
    myelin_plugin_context *context = harness_context(h, TOKENS, MAX_LEN);
    myelin_plugin_sequence *sequence = harness_sequence(h, MAX_LEN);
    harness_append(h, context, sequence, ids, TOKENS, chunk, logits);
    tested->free_sequence(sequence);
    tested->free_context(context);
    return logits;
}

static void check_logits(const both *b, const int32_t *ids) {
    static const int32_t chunks[] = {1, 8, 14, 30, 40, 150, TOKENS};
    float *expected = logits_by(&b->dense, ids, TOKENS);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        float *found = logits_by(&b->packed, ids, chunks[i]);
        assert_same_floats(expected, found, (size_t)TOKENS * (size_t)b->dense.vocab);
        free(found);
    }
    free(expected);
}

static void decode(const harness *h, const int32_t *ids, int32_t count, int32_t *out) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_context *context = harness_context(h, SEQUENCES, MAX_LEN);
    myelin_plugin_sequence *sequences[SEQUENCES];
    for (int32_t i = 0; i < count; i++)
        sequences[i] = harness_sequence(h, MAX_LEN);
    if (tested->decode_greedy(context, sequences, ids, count, STEPS, out, &error) != MYELIN_OK)
        fail_msg("%s", text);
    for (int32_t i = 0; i < count; i++)
        tested->free_sequence(sequences[i]);
    tested->free_context(context);
}

static void check_greedy(const both *b, const int32_t *ids) {
    int32_t expected[SEQUENCES * STEPS], found[SEQUENCES * STEPS];
    for (int32_t count = 1; tested->decode_greedy && count <= SEQUENCES; count += 2) {
        decode(&b->dense, ids, count, expected);
        decode(&b->packed, ids, count, found);
        assert_memory_equal(expected, found, (size_t)count * STEPS * sizeof *found);
    }
}

static void check(const checkpoint_spec *spec, const char *all_over) {
    both b = open_both(spec, all_over);
    int32_t *ids = random_ids(TOKENS, b.dense.vocab, 7);
    check_logits(&b, ids);
    check_greedy(&b, ids);
    free(ids);
    close_both(&b);
}

/* --- shapes --- */

static checkpoint_spec small(void) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.dtype = "BF16";
    return spec;
}

/* Rows of more than one unit a part, that end within a unit; a vocabulary that ends within a tile.
 */
static checkpoint_spec wide(void) {
    checkpoint_spec spec = small();
    spec.hidden = 520;
    spec.intermediate = 1100;
    spec.vocab = 301;
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 128;
    spec.tie = false;
    spec.layers = 1;
    return spec;
}

static void small_rows(void **state) {
    (void)state;
    checkpoint_spec spec = small();
    check(&spec, NULL);
}

static void wide_rows(void **state) {
    (void)state;
    checkpoint_spec spec = wide();
    check(&spec, NULL);
}

static void long_rows(void **state) {
    (void)state;
    checkpoint_spec spec = small();
    spec.hidden = 96;
    spec.intermediate = 9000;
    spec.layers = 1;
    check(&spec, NULL);
}

static void what_cannot_be_packed(void **state) {
    (void)state;
    static const char *const names[] = {"q_proj", "down_proj", "up_proj", "embed_tokens"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        checkpoint_spec spec = i % 2 ? small() : wide();
        check(&spec, names[i]);
    }
}

/* usage: test_native_packed [KERNELS|PLUGIN], the best of this processor when not named */
int main(int argc, char **argv) {
    tested = argc > 1 ? harness_plugin(argv[1]) : mln_native_plugin();
    if (!tested)
        return 77; /* this processor has no such kernels */
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_rows), cmocka_unit_test(wide_rows),
                                       cmocka_unit_test(long_rows),
                                       cmocka_unit_test(what_cannot_be_packed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
