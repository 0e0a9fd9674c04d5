/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host side of the NVIDIA plug-in when calls of CUDA fail, each in its turn, once and for good:
 * a status that says what, nothing leaked, sequences as they were, and after the end of the device
 * no call of it any more. In host memory (fake_cuda.c): needs neither CUDA nor a GPU.
 */
#include <stdlib.h>
#include <string.h>

#include "fake_cuda/fake_cuda.h"
#include "model/harness.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { PROMPT = 9, STEPS = 5, MAX_LEN = 200, PAGES = 8, VOCAB = 90 };

const myelin_plugin *myelin_plugin_v1(void);

static int32_t devices = 1;
static int32_t pack = MYELIN_PACK_AUTO;
static char *directory;
static mln_checkpoint *checkpoint;
static const myelin_plugin *plugin;

static char text[1024];
static myelin_error_buffer error = {text, sizeof text};

/* Everything a model is used for; what could not be made is NULL. */
typedef struct world {
    mln_model *model;
    myelin_plugin_context *context;
    myelin_plugin_pool *pool;
    myelin_plugin_sequence *plain, *paged;
} world;

/* A call's end: `failed` counts, and the first status that was not MYELIN_OK is kept. */
typedef struct tally {
    int failed;
    myelin_status first;
    bool device; /* one has said that the device cannot go on, */
    bool asked;  /* and a later one has asked it */
    uint64_t calls;
    uint64_t loaded; /* calls of CUDA until there was a model */
} tally;

static void note(tally *t, myelin_status status) {
    if (t->device && (status == MYELIN_OK || fake.calls != t->calls))
        t->asked = true;
    if (status != MYELIN_OK) {
        assert_int_not_equal(text[0], '\0');
        t->first = t->failed++ ? t->first : status;
    }
    if (status == MYELIN_ERROR_DEVICE) {
        t->device = true;
        t->calls = fake.calls;
    }
    text[0] = '\0';
}

static void check_lengths(const world *w, int32_t length) {
    if (w->plain)
        assert_int_equal(plugin->sequence_length(w->plain), length);
    if (w->paged)
        assert_int_equal(plugin->sequence_length(w->paged), length);
}

static myelin_status load(world *w) {
    myelin_error failure = {0};
    mln_model_options options = {
        .plugin = plugin, .pack = pack, .threads = 1, .tensor_parallel = devices};
    myelin_status status = mln_model_probe(checkpoint, &options, &failure);
    if (status == MYELIN_OK)
        status = mln_model_load(&w->model, checkpoint, &options, &failure);
    snprintf(text, sizeof text, "%s", failure.message);
    return status;
}

static void make(world *w, tally *t) {
    const myelin_plugin_model *weights = w->model->weights;
    note(t, plugin->create_context(weights, 64, MAX_LEN, &w->context, &error));
    note(t, plugin->create_pool(weights, PAGES, &w->pool, &error));
    note(t, plugin->create_sequence(weights, MAX_LEN, &w->plain, &error));
    if (w->pool) {
        note(t, plugin->create_paged_sequence(w->pool, MAX_LEN, &w->paged, &error));
        if (w->paged)
            plugin->set_pages(w->paged, (int32_t[]){2, 0, 1}, 3, 0);
    }
}

/* A prompt of both sequences in one call, hidden states, chunks of both kinds. */
static void use(world *w, tally *t) {
    static const int32_t ids[PROMPT] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    float logits[2 * VOCAB], hidden[2 * 256];
    myelin_plugin_sequence *both[] = {w->plain, w->paged};
    myelin_span spans[2];
    myelin_draw draws[2] = {{.sampled = 1, .temperature = 1, .top_p = 1}, {.sampled = 0}};
    int32_t out[2 * STEPS], length = 0;
    for (int i = 0; i < 2; i++)
        spans[i] = (myelin_span){both[i], ids, PROMPT, 1, logits + i * VOCAB};
    for (int call = 0; call < 6; call++) {
        myelin_status status;
        int32_t more = call < 2 ? PROMPT : STEPS;
        for (int i = 0; i < 2; i++)
            spans[i].num_logits = call == 0;
        draws[0].top_k = call == 3 ? 0 : 20; /* from all tokens, and from few */
        if (call == 0)
            status = plugin->forward(w->context, spans, 2, &error);
        else if (call == 1)
            status = plugin->forward_hidden(w->context, spans, 2, hidden, &error);
        else if (call % 2 == 0)
            status = plugin->decode_greedy(w->context, both, ids, 2, STEPS, out, &error);
        else
            status = plugin->decode_sample(w->context, both, ids, draws, 2, STEPS, out, &error);
        note(t, status);
        for (int i = 0; status == MYELIN_OK && call > 1 && i < 2 * STEPS; i++)
            assert_int_equal(out[i], (length + i % STEPS + 1) % FAKE_IDS);
        length += status == MYELIN_OK ? more : 0;
        check_lengths(w, length);
    }
    plugin->copy_page(w->pool, 3, 2);
    spans[0].num_logits = 1;
    note(t, plugin->forward(w->context, spans, 1, &error));
}

static void free_all(world *w) {
    plugin->free_sequence(w->plain);
    plugin->free_sequence(w->paged);
    plugin->free_pool(w->pool);
    plugin->free_context(w->context);
    mln_model_free(w->model);
}

/* The whole of it; everything is freed, and nothing is left. */
static tally run(void) {
    world w = {0};
    tally t = {0};
    note(&t, load(&w));
    t.loaded = fake.calls;
    if (w.model)
        make(&w, &t);
    if (w.context && w.plain && w.paged)
        use(&w, &t);
    free_all(&w);
    assert_int_equal(fake.live, 0);
    return t;
}

static void reset(void) {
    fake_reset();
    fake.devices = devices;
}

static int open_checkpoint(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = VOCAB;
    spec.dtype = "BF16";
    directory = builder_write_spec(&spec);
    plugin = myelin_plugin_v1();
    return mln_checkpoint_open(&checkpoint, directory, NULL) != MYELIN_OK;
}

static int close_checkpoint(void **state) {
    (void)state;
    mln_checkpoint_free(checkpoint);
    temp_directory_remove(directory);
    return 0;
}

static void all_is_well(void **state) {
    (void)state;
    reset();
    tally t = run();
    assert_int_equal(t.failed, 0);
    assert_true(fake.calls > 100);
}

/* One call fails, and the device goes on: so does everything after what failed. */
static void each_call_fails_once(void **state) {
    (void)state;
    static const cudaError_t codes[] = {cudaErrorMemoryAllocation, cudaErrorInvalidValue};
    for (int i = 0; i < 2; i++) {
        for (uint64_t n = 1;; n++) {
            fake_reset();
            fake.failing = n;
            fake.code = codes[i];
            tally t = run();
            if (!fake.failed)
                break;
            /*
             * Without memory for a graph there is none; a page that was not copied ends it; and
             * loading has a few calls that are of no weight.
             */
            bool copying = t.device;
            if (t.failed == 0 && n > t.loaded)
                assert_true(codes[i] == cudaErrorMemoryAllocation &&
                            (strstr(fake.failed, "Graph") || strstr(fake.failed, "Capture") ||
                             strstr(fake.failed, "mln_cuda_")));
            else if (t.failed == 0)
                assert_true(strstr(fake.failed, "cudaGetDevice") ||
                            strstr(fake.failed, "cudaDeviceGetAttribute") ||
                            strstr(fake.failed, "cudaStreamSynchronize"));
            else if (copying)
                assert_int_equal(t.failed, 1);
            else if (codes[i] == cudaErrorMemoryAllocation)
                assert_true(t.first == MYELIN_ERROR_MEMORY || t.first == MYELIN_ERROR_UNSUPPORTED);
            else
                assert_true(t.first == MYELIN_ERROR_INTERNAL ||
                            t.first == MYELIN_ERROR_UNSUPPORTED);
        }
    }
}

/* From some call on all fail: said as such, and the device is not asked again by that model. */
static void the_device_ends_at_each_call(void **state) {
    (void)state;
    for (uint64_t n = 1;; n++) {
        fake_reset();
        fake.failing = n;
        fake.code = cudaErrorIllegalAddress;
        fake.for_good = true;
        tally t = run();
        if (!fake.failed)
            break;
        assert_true(t.failed > 0);
        assert_false(t.asked);
        assert_true(t.first == MYELIN_ERROR_DEVICE || (t.first == MYELIN_ERROR_UNSUPPORTED &&
                                                       !strcmp(fake.failed, "cudaGetDeviceCount")));
    }
}

/* The same with weights that are packed, and with those that turn out not to fit. */
static void packing_fails_at_each_call(void **state) {
    pack = MYELIN_PACK_LOSSLESS;
    for (int full = 0; full < 2; full++) {
        fake_full = full;
        all_is_well(state);
        each_call_fails_once(state);
        the_device_ends_at_each_call(state);
    }
    fake_full = false;
    pack = MYELIN_PACK_AUTO;
}

static void no_device_is_said(void **state) {
    (void)state;
    world w = {0};
    fake_reset();
    fake.devices = 0;
    assert_int_equal(load(&w), MYELIN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(text, "no NVIDIA device"));
}

/* Too little memory is said with how much was needed and how much was there, and harms nothing. */
static void too_little_memory_is_said(void **state) {
    (void)state;
    world w = {0};
    tally t = {0};
    fake_reset();
    size_t all = fake.available;
    fake.available = 200u << 20; /* less than what the driver keeps */
    assert_int_equal(load(&w), MYELIN_ERROR_MEMORY);
    assert_non_null(strstr(text, "the weights need 0.00 GB of device memory"));
    assert_non_null(strstr(text, "found 0.21 GB free of 8.59 GB"));
    fake.available = all;
    assert_int_equal(load(&w), MYELIN_OK);
    all = fake.available;
    fake.available = 4096;
    assert_int_equal(plugin->create_pool(w.model->weights, PAGES, &w.pool, &error),
                     MYELIN_ERROR_MEMORY);
    assert_null(w.pool);
    assert_non_null(strstr(text, "a KV cache needs 0.000 GB"));
    assert_non_null(strstr(text, "found 0.000 GB free of 8.590 GB"));
    assert_int_equal(plugin->create_context(w.model->weights, 64, MAX_LEN, &w.context, &error),
                     MYELIN_ERROR_MEMORY);
    assert_null(w.context);
    assert_non_null(strstr(text, "scratch memory needs "));
    fake.available = all;
    make(&w, &t);
    use(&w, &t);
    assert_int_equal(t.failed, 0);
    free_all(&w);
    assert_int_equal(fake.live, 0);
}

/* Where a kernel gives up waiting for a block, its call fails and the next one need not. */
static void waiting_in_vain_ends_the_call(void **state) {
    (void)state;
    world w = {0};
    tally t = {0};
    int32_t id = 1, out[STEPS];
    fake_reset();
    fake.stays = true;
    assert_int_equal(load(&w), MYELIN_OK);
    make(&w, &t);
    assert_int_equal(t.failed, 0);
    for (int i = 0; i < 3; i++) {
        fake.silent = i == 1;
        myelin_status status =
            plugin->decode_greedy(w.context, &w.plain, &id, 1, STEPS, out, &error);
        assert_int_equal(status, fake.silent ? MYELIN_ERROR_INTERNAL : MYELIN_OK);
        assert_true(!fake.silent || strstr(text, "cudaErrorLaunchTimeout"));
        int32_t length = STEPS * (i < 2 ? 1 : 2);
        assert_int_equal(plugin->sequence_length(w.plain), length);
        assert_int_equal(out[STEPS - 1], length % FAKE_IDS);
    }
    free_all(&w);
    assert_int_equal(fake.live, 0);
}

/*
 * Of several devices one fails, at every fifth call of all, which is another one each time, since
 * they run side by side: nobody waits for it, nothing is leaked, and what has lost a device says so
 * from then on.
 */
static void one_of_several_fails(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++)
        for (uint64_t n = 1;; n += 5) {
            reset();
            fake.failing = n;
            fake.code = i ? cudaErrorIllegalAddress : cudaErrorMemoryAllocation;
            fake.for_good = i;
            tally t = run();
            if (!fake.failed)
                break;
            if (t.failed == 0)
                assert_int_equal(i, 0);
            else
                assert_true(t.first == MYELIN_ERROR_MEMORY || t.first == MYELIN_ERROR_DEVICE ||
                            t.first == MYELIN_ERROR_UNSUPPORTED);
        }
}

/* Where one of several has no memory for a graph, all do without; and where there is next to none.
 */
static void all_do_without_a_graph(void **state) {
    (void)state;
    int without = 0;
    world w = {0};
    tally none = {0};
    reset();
    assert_int_equal(load(&w), MYELIN_OK);
    make(&w, &none);
    fake.available = 1 << 20;
    use(&w, &none);
    assert_int_equal(none.failed, 0);
    free_all(&w);
    assert_int_equal(fake.graphs, 0);
    for (uint64_t n = 1;; n++) {
        reset();
        fake.only = "cudaGraphInstantiate";
        fake.failing = n;
        fake.code = cudaErrorMemoryAllocation;
        tally t = run();
        assert_int_equal(t.failed, 0);
        if (!fake.failed)
            break;
        without++;
    }
    assert_true(without > 0);
}

/*
 * A device fails for itself alone, at every third call of all: the others compute, and wait for it
 * where they would on a GPU; yet every call ends.
 */
static void one_fails_alone(void **state) {
    (void)state;
    for (uint64_t n = 1;; n += 3) {
        reset();
        fake.failing = n;
        fake.code = cudaErrorIllegalAddress;
        fake.for_good = fake.alone = true;
        tally t = run();
        if (!fake.failed)
            break;
        assert_true(t.failed > 0);
        assert_true(t.first == MYELIN_ERROR_DEVICE || t.first == MYELIN_ERROR_UNSUPPORTED);
    }
}

/*
 * The same while a prompt is read by a model of so many layers that a device's queue does not hold
 * all that is to be done.
 */
static void a_full_queue_keeps_nobody(void **state) {
    (void)state;
    static const int32_t ids[40];
    checkpoint_spec spec = checkpoint_spec_default();
    spec.layers = 24;
    mln_checkpoint *former = checkpoint;
    char *deep = builder_write_spec(&spec);
    assert_int_equal(mln_checkpoint_open(&checkpoint, deep, NULL), MYELIN_OK);
    for (uint64_t n = 1; n < 1000; n += 60) {
        world w = {0};
        tally t = {0};
        reset();
        fake.queue = 40;
        assert_int_equal(load(&w), MYELIN_OK);
        make(&w, &t);
        fake.failing = fake.calls + n;
        fake.code = cudaErrorIllegalAddress;
        fake.for_good = fake.alone = true;
        myelin_span span = {w.plain, ids, 40, 0, NULL};
        myelin_status status = plugin->forward(w.context, &span, 1, &error);
        assert_int_equal(status, fake.failed ? MYELIN_ERROR_DEVICE : MYELIN_OK);
        free_all(&w);
        assert_int_equal(fake.live, 0);
    }
    mln_checkpoint_free(checkpoint);
    temp_directory_remove(deep);
    checkpoint = former;
}

/* Devices that do not even end what they are told to give up: calls return all the same. */
static void nobody_waits_for_ever(void **state) {
    (void)state;
    world w = {0};
    tally t = {0};
    int32_t id = 1, out[STEPS];
    if (is_sanitized())
        skip(); /* what cannot be freed is leaked */
    reset();
    assert_int_equal(load(&w), MYELIN_OK);
    make(&w, &t);
    assert_int_equal(t.failed, 0);
    fake.stuck = true;
    fake.code = cudaErrorIllegalAddress;
    fake.failing = fake.calls + 20;
    assert_int_equal(plugin->decode_greedy(w.context, &w.plain, &id, 1, STEPS, out, &error),
                     MYELIN_ERROR_DEVICE);
    assert_non_null(fake.failed);
    assert_int_equal(plugin->decode_greedy(w.context, &w.plain, &id, 1, STEPS, out, &error),
                     MYELIN_ERROR_DEVICE);
    assert_int_equal(plugin->sequence_length(w.plain), 0);
    free_all(&w);
}

static void too_few_devices_are_said(void **state) {
    (void)state;
    world w = {0};
    reset();
    fake.devices = 1;
    assert_int_equal(load(&w), MYELIN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(text, "expected 2 NVIDIA devices, found 1"));
    devices = 3;
    reset();
    assert_int_equal(load(&w), MYELIN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(text, "num_key_value_heads is 2: expected what 3 devices divide"));
    devices = 2;
}

/* usage: test_native_cuda_faults [2], the number of devices */
int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        devices = 2;
        const struct CMUnitTest several[] = {cmocka_unit_test(all_is_well),
                                             cmocka_unit_test(one_of_several_fails),
                                             cmocka_unit_test(all_do_without_a_graph),
                                             cmocka_unit_test(one_fails_alone),
                                             cmocka_unit_test(a_full_queue_keeps_nobody),
                                             cmocka_unit_test(nobody_waits_for_ever),
                                             cmocka_unit_test(too_few_devices_are_said)};
        return cmocka_run_group_tests(several, open_checkpoint, close_checkpoint);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_well),
        cmocka_unit_test(each_call_fails_once),
        cmocka_unit_test(the_device_ends_at_each_call),
        cmocka_unit_test(packing_fails_at_each_call),
        cmocka_unit_test(no_device_is_said),
        cmocka_unit_test(too_little_memory_is_said),
        cmocka_unit_test(waiting_in_vain_ends_the_call),
    };
    return cmocka_run_group_tests(tests, open_checkpoint, close_checkpoint);
}
