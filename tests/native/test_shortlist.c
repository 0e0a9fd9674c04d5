/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The narrow copy of the LM head: its bounds hold for every set of kernels and all kinds of
 * numbers, and what is found with it are the tokens found without, ties included.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "native/native.h"
#include "native/qwen3_cpu/internal.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { ROWS = 75, PANELS = 3 };

static const char *const sets[] = {"portable", "avx2", "avx512",   "avx512_vnni", "avx512_bf16",
                                   "amx",      "neon", "neon_dot", "neon_i8mm"};
static uint64_t random_state = 5;

static float random_float(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(random_state >> 32) * 0x1p-31f;
}

/* --- bounds --- */

typedef enum numbers { PLAIN, WIDE, LONE, TINY, HUGE_ONES, BROKEN, NUM_NUMBERS } numbers;

static float number(numbers kind, int64_t i) {
    float x = random_float();
    switch (kind) {
    case PLAIN:
        return x;
    case WIDE:
        return ldexpf(x, (int)(random_state % 30) - 20);
    case LONE: /* one large number in each group's worth */
        return i % 32 == 7 ? 50.0f * x : 0.001f * x;
    case TINY:
        return ldexpf(x, -120 - (int)(random_state % 25));
    case HUGE_ONES:
        return ldexpf(x, 100 + (int)(random_state % 20));
    default:
        return random_state % 97 == 0 ? NAN : random_state % 89 == 0 ? INFINITY : x;
    }
}

static void serial(void *self, int64_t count, myelin_task task, void *context) {
    (void)self;
    for (int64_t i = 0; i < count; i++)
        task(context, i);
}

/* A model of a float head alone. */
static void make_head(myelin_plugin_model *model, const mln_cpu_kernels *kernels, int64_t columns,
                      numbers kind) {
    *model = (myelin_plugin_model){.kernels = kernels, .host.parallel_for = serial};
    model->lm_head = (mln_cpu_matrix){.kind = MLN_CPU_F32,
                                      .rows = ROWS,
                                      .columns = columns,
                                      .panels = PANELS,
                                      .panel_bytes = columns * 4 * MLN_CPU_PANEL};
    float *data = aligned_alloc(64, (size_t)(PANELS * model->lm_head.panel_bytes));
    assert_non_null(data);
    memset(data, 0, (size_t)(PANELS * model->lm_head.panel_bytes));
    for (int64_t row = 0; row < ROWS; row++)
        for (int64_t c = 0; c < columns; c++)
            data[(row / MLN_CPU_PANEL * columns + c) * MLN_CPU_PANEL + row % MLN_CPU_PANEL] =
                number(row == 3 ? BROKEN : kind, c);
    model->lm_head.data = (unsigned char *)data;
    assert_int_equal(mln_cpu_make_shortlist(model, NULL), MYELIN_OK);
    assert_int_equal(model->shortlist.narrow.panels, PANELS);
}

/* out[PANELS * 32] = the matrix times x */
static void times(const mln_cpu_kernels *kernels, const mln_cpu_matrix *m, const float *x,
                  float *out) {
    void *block = aligned_alloc(64, (kernels->packed_bytes(m, 1) + 63) / 64 * 64);
    assert_non_null(block);
    kernels->pack(block, m, x, 0, 1, 0, m->columns);
    for (int64_t panel = 0; panel < PANELS; panel++)
        kernels->panel(out + panel * MLN_CPU_PANEL, m, panel, block, 1);
    free(block);
}

/* Every exact product lies where the narrow one says; how wide that is, over the exact length. */
static double check_bounds(const myelin_plugin_model *model, numbers kind, float *x) {
    const mln_cpu_shortlist *list = &model->shortlist;
    float exact[PANELS * MLN_CPU_PANEL], narrow[PANELS * MLN_CPU_PANEL];
    double widest = 0;
    for (int64_t c = 0; c < list->narrow.columns; c++)
        x[c] = number(kind, c);
    times(model->kernels, &model->lm_head, x, exact);
    times(model->kernels, &list->narrow, x, narrow);
    float length = mln_cpu_length(list, x);
    for (int64_t row = 0; row < PANELS * MLN_CPU_PANEL; row++) {
        float off = list->bounds[row] * length + MLN_CPU_TINY;
        float high = narrow[row] + off, low = narrow[row] - off;
        if (row >= ROWS) {
            assert_true(!(low > -INFINITY)); /* never what others are held to */
            continue;
        }
        if (isnan(exact[row]))
            continue; /* never the best */
        if (exact[row] > high || exact[row] < low)
            fail_msg("%s, kinds of numbers %d: row %lld is %a, outside of %a to %a",
                     model->kernels->name, (int)kind, (long long)row, (double)exact[row],
                     (double)low, (double)high);
        if (isfinite(high) && length > 0)
            widest = fmax(widest, (double)(off / length) / (double)list->sizes[row]);
    }
    return widest;
}

static void bounds_hold(void **state) {
    (void)state;
    static const int64_t sizes[] = {32, 64, 96, 128, 1024};
    for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
        const mln_cpu_kernels *kernels = mln_cpu_choose(sets[k]);
        double plain = 0;
        for (size_t s = 0; kernels && s < sizeof sizes / sizeof *sizes; s++)
            for (int of = 0; of < NUM_NUMBERS; of++) {
                myelin_plugin_model model;
                float x[1024];
                make_head(&model, kernels, sizes[s], (numbers)of);
                for (int kind = 0; kind < NUM_NUMBERS; kind++)
                    for (int round = 0; round < 5; round++) {
                        double wide = check_bounds(&model, (numbers)kind, x);
                        plain = of == PLAIN && kind == PLAIN ? fmax(plain, wide) : plain;
                    }
                mln_region_unmap(&model.shortlist.region);
                free(model.lm_head.data);
            }
        if (kernels) {
            printf("%s: bounds within %.4f of |w| |x| for numbers of one size\n", sets[k], plain);
            assert_in_range((int)(1e4 * plain), 1, 100);
        }
    }
}

/* --- tokens --- */

static harness open_with(const myelin_plugin *plugin, const char *directory, int32_t dtype,
                         int32_t pack, bool shortlist) {
    harness h = {.plugin = plugin};
    mln_model_options options = {.plugin = plugin,
                                 .dtype = dtype,
                                 .fusion = MYELIN_FUSION_CHUNK,
                                 .pack = pack,
                                 .shortlist = shortlist,
                                 .activations = harness_activations,
                                 .threads = 2};
    assert_int_equal(mln_checkpoint_open(&h.checkpoint, directory, NULL), MYELIN_OK);
    assert_int_equal(mln_model_load(&h.model, h.checkpoint, &options, NULL), MYELIN_OK);
    h.vocab = h.checkpoint->config.model.vocab_size;
    return h;
}

/* More sequences than a block at the end: then the head goes without the list. */
enum { SEQUENCES = MLN_CPU_BLOCK + 3, STEPS = 8, PROMPT = 9 };

/* out[count][STEPS], from prompts of their own. */
static void decode(const harness *h, int32_t count, int32_t *out) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_context *context = harness_context(h, SEQUENCES, PROMPT + STEPS);
    myelin_plugin_sequence *all[SEQUENCES];
    int32_t last[SEQUENCES];
    for (int32_t i = 0; i < count; i++) {
        int32_t *ids = random_ids(PROMPT, h->vocab, (uint32_t)i + 1);
        all[i] = harness_sequence(h, PROMPT + STEPS);
        harness_append(h, context, all[i], ids, PROMPT - 1, PROMPT, NULL);
        last[i] = ids[PROMPT - 1];
        free(ids);
    }
    assert_int_equal(h->plugin->decode_greedy(context, all, last, count, STEPS, out, &error),
                     MYELIN_OK);
    for (int32_t i = 0; i < count; i++)
        h->plugin->free_sequence(all[i]);
    h->plugin->free_context(context);
}

static void same_tokens_of(const char *directory, int32_t dtype, int32_t pack, bool kept) {
    for (size_t k = 0; k < sizeof sets / sizeof *sets; k++) {
        const myelin_plugin *plugin = mln_native_plugin_for(sets[k]);
        if (!plugin)
            continue;
        int32_t expected[SEQUENCES * STEPS], found[SEQUENCES * STEPS];
        harness without = open_with(plugin, directory, dtype, pack, false);
        harness with = open_with(plugin, directory, dtype, pack, true);
        assert_int_equal(without.model->weights->shortlist.narrow.panels, 0);
        assert_true((with.model->weights->shortlist.narrow.panels > 0) == kept);
        static const int32_t counts[] = {1, 2, 7, SEQUENCES};
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            decode(&without, counts[i], expected);
            decode(&with, counts[i], found);
            assert_memory_equal(expected, found, (size_t)(counts[i] * STEPS) * sizeof *found);
        }
        harness_close(&without);
        harness_close(&with);
    }
}

static void same_tokens(void **state) {
    (void)state;
    same_tokens_of(MYELIN_DEMO_MODEL, MYELIN_DTYPE_AUTO, MYELIN_PACK_NONE, true);
    same_tokens_of(MYELIN_DEMO_MODEL, MYELIN_DTYPE_F16, MYELIN_PACK_NONE, true);
    same_tokens_of(MYELIN_TEST_DATA "/models/tied-bf16", MYELIN_DTYPE_AUTO, MYELIN_PACK_LOSSLESS,
                   true);
    same_tokens_of(MYELIN_TEST_DATA "/models/untied-f16", MYELIN_DTYPE_F32, MYELIN_PACK_NONE, true);
}

/* The head is read with exact activations, also where all else rounds them. */
static void same_tokens_of_rounded(void **state) {
    (void)state;
    harness_activations = MYELIN_ACTIVATIONS_BF16;
    same_tokens_of(MYELIN_DEMO_MODEL, MYELIN_DTYPE_AUTO, MYELIN_PACK_NONE, true);
    harness_activations = MYELIN_ACTIVATIONS_AUTO;
}

/* Every row of the head three times, at places far apart: the first of each is the token. */
static void ties_go_to_the_lowest(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = 300;
    spec.dtype = "BF16";
    built_checkpoint *built = builder_make(&spec);
    built_tensor *head = builder_find(built, "model.embed_tokens.weight");
    memcpy(head->bytes + head->size / 3, head->bytes, head->size / 3);
    memcpy(head->bytes + 2 * (head->size / 3), head->bytes, head->size / 3);
    char *directory = temp_directory_make();
    builder_write(built, directory);
    builder_free(built);
    same_tokens_of(directory, MYELIN_DTYPE_AUTO, MYELIN_PACK_NONE, true);
    harness h =
        open_with(mln_native_plugin(), directory, MYELIN_DTYPE_AUTO, MYELIN_PACK_NONE, true);
    int32_t found[STEPS];
    decode(&h, 1, found);
    for (int32_t i = 0; i < STEPS; i++)
        assert_in_range(found[i], 0, 99);
    harness_close(&h);
    temp_directory_remove(directory);
}

/* Codes would be no narrower than what is there. */
static void quantised_heads_have_none(void **state) {
    (void)state;
    char *directory = builder_write_published();
    same_tokens_of(directory, MYELIN_DTYPE_AUTO, MYELIN_PACK_NONE, false);
    temp_directory_remove(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(same_tokens),
        cmocka_unit_test(same_tokens_of_rounded),
        cmocka_unit_test(ties_go_to_the_lowest),
        cmocka_unit_test(quantised_heads_have_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
