/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NVIDIA plug-in on a real device whose memory runs out and whose context is broken by a kernel
 * that writes nowhere: clear errors at once, nothing hangs, and the process lives. Each part in a
 * process of its own. usage: test_device_faults LIBRARY; without one, or a device, it is skipped.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model/harness.h"
#include "myelin/myelin.h"
#include "native/device.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { PROMPT = 9, STEPS = 8, MAX_LEN = 200, VOCAB = 300, MOST_SECONDS = 100, REQUESTS = 5 };

static const char *path;
static char *directory;
static const myelin_plugin *plugin;

static char text[512];
static myelin_error_buffer error = {text, sizeof text};
static int32_t ids[PROMPT] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void write_model(void) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = VOCAB;
    spec.dtype = "BF16";
    directory = builder_write_spec(&spec);
}

/* What is said of a failure that must be one of memory. */
static void expect_shortage(myelin_status status, const char *said) {
    print_message("  %s\n", said);
    assert_int_equal(status, MYELIN_ERROR_MEMORY);
    assert_non_null(strstr(said, "need"));
    assert_non_null(strstr(said, "found"));
    assert_non_null(strstr(said, "GB free"));
}

static myelin_status load(mln_model **model, const mln_checkpoint *checkpoint,
                          myelin_error *failure) {
    mln_model_options options = {.plugin = plugin, .threads = 2};
    myelin_status status = mln_model_probe(checkpoint, &options, failure);
    return status == MYELIN_OK ? mln_model_load(model, checkpoint, &options, failure) : status;
}

/* --- memory runs out --- */

static void too_little_memory(void **state) {
    (void)state;
    assert_true(device_open());
    mln_checkpoint *checkpoint;
    mln_model *model = NULL;
    myelin_error failure = {0};
    assert_int_equal(mln_checkpoint_open(&checkpoint, directory, &failure), MYELIN_OK);
    print_message("  %.3f GB left\n", (double)device_exhaust((size_t)128 << 20) / 1e9);
    expect_shortage(load(&model, checkpoint, &failure), failure.message);
    device_relieve();
    if (load(&model, checkpoint, &failure) != MYELIN_OK)
        fail_msg("%s", failure.message);
    harness h = {checkpoint, model, plugin, VOCAB};
    myelin_plugin_context *context = harness_context(&h, 64, MAX_LEN), *other = NULL;
    myelin_plugin_sequence *sequence = harness_sequence(&h, MAX_LEN), *large = NULL;
    myelin_plugin_pool *pool = NULL;
    harness_append(&h, context, sequence, ids, PROMPT, PROMPT, NULL);
    (void)device_exhaust((size_t)32 << 20);
    uint64_t page = plugin->page_bytes(&model->config);
    int32_t pages = (int32_t)(((uint64_t)8 << 30) / page);
    expect_shortage(plugin->create_pool(model->weights, pages, &pool, &error), text);
    expect_shortage(plugin->create_sequence(model->weights, 1 << 26, &large, &error), text);
    expect_shortage(plugin->create_context(model->weights, 1 << 14, 1 << 20, &other, &error), text);
    assert_true(!pool && !large && !other);
    /* What has its memory goes on: the first chunk, too, which would like a graph. */
    int32_t id = 10, found[STEPS], expected[STEPS];
    assert_int_equal(plugin->decode_greedy(context, &sequence, &id, 1, STEPS, found, &error),
                     MYELIN_OK);
    device_relieve();
    plugin->truncate_sequence(sequence, PROMPT);
    assert_int_equal(plugin->decode_greedy(context, &sequence, &id, 1, STEPS, expected, &error),
                     MYELIN_OK);
    assert_memory_equal(found, expected, sizeof found);
    plugin->free_sequence(sequence);
    plugin->free_context(context);
    harness_close(&h);
}

/* --- a kernel fails --- */

/* Fails as it should, and does not take its time. */
static void expect_end(myelin_status status, double since) {
    assert_int_equal(status, MYELIN_ERROR_DEVICE);
    assert_non_null(strstr(text, "the device cannot go on"));
    assert_true(now() - since < 5);
    text[0] = '\0';
}

static void broken_device(void **state) {
    (void)state;
    assert_true(device_open());
    harness h = harness_open_with(plugin, MYELIN_FUSION_AUTO, directory, 2, MYELIN_DTYPE_AUTO);
    myelin_plugin_context *context = harness_context(&h, 64, MAX_LEN), *other;
    myelin_plugin_sequence *sequence = harness_sequence(&h, MAX_LEN), *more;
    myelin_plugin_pool *pool = harness_pool(&h, 4), *no_pool;
    myelin_plugin_sequence *paged = harness_paged_sequence(&h, pool, MAX_LEN);
    const myelin_plugin_model *weights = h.model->weights;
    const myelin_draw d = {.sampled = 1, .temperature = 1, .top_p = 1};
    myelin_span span = {sequence, ids, PROMPT, 0, NULL};
    int32_t id = 10, out[STEPS];
    harness_append(&h, context, sequence, ids, PROMPT, PROMPT, NULL);
    assert_int_equal(plugin->decode_greedy(context, &sequence, &id, 1, STEPS, out, &error),
                     MYELIN_OK);
    device_break();
    for (int round = 0; round < 2; round++) {
        double since = now();
        expect_end(plugin->forward(context, &span, 1, &error), since);
        print_message("  noticed in %.3f ms\n", 1000 * (now() - since));
        expect_end(plugin->decode_greedy(context, &sequence, &id, 1, STEPS, out, &error), since);
        expect_end(plugin->decode_sample(context, &sequence, &id, &d, 1, STEPS, out, &error),
                   since);
        expect_end(plugin->create_context(weights, 64, MAX_LEN, &other, &error), since);
        expect_end(plugin->create_sequence(weights, MAX_LEN, &more, &error), since);
        expect_end(plugin->create_pool(weights, 4, &no_pool, &error), since);
        expect_end(plugin->create_paged_sequence(pool, MAX_LEN, &more, &error), since);
        plugin->copy_page(pool, 1, 0);
        assert_int_equal(plugin->sequence_length(sequence), PROMPT + STEPS);
    }
    mln_model *model = NULL; /* another model in the same process fares no better */
    myelin_error failure = {0};
    assert_int_equal(load(&model, h.checkpoint, &failure), MYELIN_ERROR_DEVICE);
    print_message("  %s\n", failure.message);
    assert_null(model);
    plugin->free_sequence(sequence);
    plugin->free_sequence(paged);
    plugin->free_pool(pool);
    plugin->free_context(context);
    harness_close(&h);
}

/* --- while it serves --- */

static atomic_int tokens, ended, with_device_error;

static bool note_piece(void *user, const myelin_piece *piece) {
    (void)user;
    atomic_fetch_add(&tokens, (int)piece->num_tokens);
    return true;
}

static bool note_done(void *user, void *tag, myelin_result *result, const myelin_error *failure) {
    (void)user;
    (void)tag;
    if (!result && failure->status == MYELIN_ERROR_DEVICE)
        atomic_fetch_add(&with_device_error, 1);
    atomic_fetch_add(&ended, 1);
    return true;
}

static void submit(myelin_serving *serving, int i) {
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.max_new_tokens = 4000;
    options.max_len = 4090;
    options.stop_ids = ids;
    options.num_stop_ids = 0;
    options.sampler = i % 2 ? MYELIN_SAMPLER_SAMPLED : MYELIN_SAMPLER_GREEDY;
    myelin_request request = {.prompt_ids = ids, .num_prompt_ids = PROMPT, .options = &options};
    myelin_submission submission;
    myelin_submission_init(&submission);
    submission.request = &request;
    submission.emit = note_piece;
    submission.done = note_done;
    myelin_error failure = {0};
    if (myelin_serving_submit(serving, &submission, NULL, &failure) != MYELIN_OK)
        fail_msg("%s", failure.message);
}

static void wait_for(const atomic_int *what, int least) {
    while (atomic_load(what) < least)
        usleep(1000); /* the alarm ends it */
}

static void broken_while_serving(void **state) {
    (void)state;
    assert_true(device_open());
    myelin_model_options options;
    myelin_model_options_init(&options);
    options.plugin = path;
    myelin_model *model;
    myelin_serving *serving;
    myelin_error failure = {0};
    if (myelin_model_open(&model, directory, &options, &failure) != MYELIN_OK ||
        myelin_serving_start(&serving, model, NULL, &failure) != MYELIN_OK)
        fail_msg("%s", failure.message);
    for (int i = 0; i < REQUESTS; i++)
        submit(serving, i);
    wait_for(&tokens, 100);
    assert_int_equal(atomic_load(&ended), 0);
    device_break();
    double since = now();
    wait_for(&ended, REQUESTS);
    print_message("  %d requests ended in %.3f ms\n", REQUESTS, 1000 * (now() - since));
    submit(serving, 0); /* later ones, at once */
    wait_for(&ended, REQUESTS + 1);
    assert_int_equal(atomic_load(&with_device_error), REQUESTS + 1);
    myelin_serving_stats stats = {.size = sizeof stats};
    myelin_serving_get_stats(serving, &stats);
    assert_true(stats.device_failed);
    assert_int_equal(stats.requests_failed, REQUESTS + 1);
    assert_int_equal(stats.running + stats.waiting, 0);
    myelin_serving_free(serving);
    myelin_model_close(model);
}

/* In a process of its own, which an alarm ends when something hangs. */
static int run_apart(CMUnitTestFunction function, const char *name) {
    pid_t child = fork();
    if (child == 0) {
        alarm(MOST_SECONDS);
        plugin = harness_plugin(path);
        const struct CMUnitTest tests[] = {{name, function, NULL, NULL, NULL}};
        int failed = plugin ? cmocka_run_group_tests_name(name, tests, NULL, NULL) : 1;
        fflush(NULL);
        _exit(failed);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    if (WIFSIGNALED(status))
        fprintf(stderr, "%s: ended by signal %d\n", name, WTERMSIG(status));
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* In a child, too: a process that has used CUDA cannot be forked. */
static bool has_device(void) {
    pid_t child = fork();
    if (child == 0)
        _exit(device_open() ? 0 : 1);
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
    if (argc < 2 || !has_device())
        return 77;
    path = argv[1];
    write_model();
    int failed = run_apart(too_little_memory, "too_little_memory") +
                 run_apart(broken_device, "broken_device") +
                 run_apart(broken_while_serving, "broken_while_serving");
    temp_directory_remove(directory);
    return failed > 0;
}
