/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NVIDIA plug-in on a real device whose memory runs out and whose context is broken by a kernel
 * that writes nowhere: clear errors at once, nothing hangs, and the process lives. With several
 * devices one of them is broken while all compute. Each part in a process of its own. usage:
 * test_device_faults LIBRARY[:DEVICES] [PART]; without one, or so many devices, it is skipped.
 */
#include <inttypes.h>
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

static const char *path; /* as the harness takes it */
static const char *only; /* the part to run, or NULL for all */
static char *library;    /* without the number of devices, */
static int32_t devices = 1;
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
    assert_true(device_open(0));
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
    assert_true(device_open(0));
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

/* --- one of several devices, or the only one, fails while it computes --- */

enum { LONG_STEPS = 400, LONG_LEN = 600, SEVERAL_SECONDS = 25, MOST_WAIT = 5, READ = 64 };

/* What a thread does again and again until it fails. */
typedef struct worker {
    const harness *h;
    myelin_plugin_context *context;
    myelin_plugin_sequence *sequence;
    bool reads; /* prompts, by launches; else chunks of tokens, by graphs */
    atomic_int calls;
    atomic_bool ended;
    myelin_status status;
    char text[512];
} worker;

static myelin_status compute(const worker *w, myelin_error_buffer *failure) {
    static const int32_t long_prompt[READ] = {1, 2, 3};
    int32_t id = 10, out[LONG_STEPS];
    if (!w->reads)
        return plugin->decode_greedy(w->context, &w->sequence, &id, 1, LONG_STEPS, out, failure);
    myelin_span span = {w->sequence, long_prompt, READ, 0, NULL};
    return plugin->forward(w->context, &span, 1, failure);
}

static void *work(void *argument) {
    worker *w = argument;
    myelin_error_buffer failure = {w->text, sizeof w->text};
    while ((w->status = compute(w, &failure)) == MYELIN_OK) {
        plugin->truncate_sequence(w->sequence, PROMPT);
        atomic_fetch_add(&w->calls, 1);
    }
    atomic_store(&w->ended, true);
    return NULL;
}

/*
 * The call under way when a device broke: an error that names one, and soon. Which one it names may
 * be either: the others of a process see that error, too.
 */
static void expect_broken(worker *w) {
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, work, w), 0);
    while (atomic_load(&w->calls) < 3 && !atomic_load(&w->ended))
        usleep(1000);
    assert_false(atomic_load(&w->ended));
    usleep(3000);
    device_break();
    double since = now();
    while (!atomic_load(&w->ended))
        usleep(200);
    print_message("  ended after %.3f ms: %s\n", 1000 * (now() - since), w->text);
    assert_true(now() - since < MOST_WAIT);
    pthread_join(thread, NULL);
    assert_int_equal(w->status, MYELIN_ERROR_DEVICE);
    if (devices > 1) {
        char name[32];
        snprintf(name, sizeof name, " of %" PRId32 ": ", devices);
        assert_int_equal(strncmp(w->text, "device ", 7), 0);
        assert_non_null(strstr(w->text, name));
    }
    assert_int_equal(plugin->sequence_length(w->sequence), PROMPT);
}

/* All calls after it: errors without asking a device. */
static void expect_refused(const worker *w, myelin_plugin_pool *pool) {
    const myelin_plugin_model *weights = w->h->model->weights;
    myelin_plugin_context *context;
    myelin_plugin_sequence *sequence;
    myelin_plugin_pool *other;
    double since = now();
    assert_int_equal(compute(w, &error), MYELIN_ERROR_DEVICE);
    assert_int_equal(plugin->create_context(weights, 64, MAX_LEN, &context, &error),
                     MYELIN_ERROR_DEVICE);
    assert_int_equal(plugin->create_sequence(weights, MAX_LEN, &sequence, &error),
                     MYELIN_ERROR_DEVICE);
    assert_int_equal(plugin->create_pool(weights, 4, &other, &error), MYELIN_ERROR_DEVICE);
    assert_int_equal(plugin->create_paged_sequence(pool, MAX_LEN, &sequence, &error),
                     MYELIN_ERROR_DEVICE);
    plugin->copy_page(pool, 1, 0);
    print_message("  later calls refused in %.3f ms: %s\n", 1000 * (now() - since), text);
    assert_true(now() - since < 1);
}

/*
 * A process that crashes does so: of what the test's library does then, which is to leave by
 * exit(), some other library's end may wait for a lock that the thread holds.
 */
static void let_crashes_end_it(void) {
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
}

static void break_one_of(int device, bool reads) {
    let_crashes_end_it();
    assert_true(device_open(device));
    harness h = harness_open_with(plugin, MYELIN_FUSION_AUTO, directory, 2, MYELIN_DTYPE_AUTO);
    worker w = {.h = &h, .reads = reads};
    w.context = harness_context(&h, READ, LONG_LEN);
    w.sequence = harness_sequence(&h, LONG_LEN);
    myelin_plugin_pool *pool = harness_pool(&h, 4);
    harness_append(&h, w.context, w.sequence, ids, PROMPT, PROMPT, NULL);
    expect_broken(&w);
    expect_refused(&w, pool);
    double since = now();
    plugin->free_sequence(w.sequence);
    plugin->free_pool(pool);
    print_message("  freeing the context\n");
    plugin->free_context(w.context);
    print_message("  freeing the model\n");
    harness_close(&h);
    print_message("  all freed after %.3f ms\n", 1000 * (now() - since));
    assert_true(now() - since < MOST_WAIT);
}

static void first_device_decoding(void **state) {
    (void)state;
    break_one_of(0, false);
}

static void last_device_decoding(void **state) {
    (void)state;
    break_one_of(devices - 1, false);
}

static void last_device_reading(void **state) {
    (void)state;
    break_one_of(devices - 1, true);
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
    let_crashes_end_it();
    assert_true(device_open(devices - 1));
    myelin_model_options options;
    myelin_model_options_init(&options);
    options.plugin = library;
    options.tensor_parallel = devices;
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
    if (only && strcmp(only, name) != 0)
        return 0;
    pid_t child = fork();
    if (child == 0) {
        alarm(devices > 1 ? SEVERAL_SECONDS : MOST_SECONDS);
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
        _exit(device_open(devices - 1) ? 0 : 1);
    int status = 1;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 0;
}

static int with_one(void) {
    return run_apart(too_little_memory, "too_little_memory") +
           run_apart(broken_device, "broken_device") +
           run_apart(first_device_decoding, "first_device_decoding") +
           run_apart(last_device_reading, "last_device_reading") +
           run_apart(broken_while_serving, "broken_while_serving");
}

static int with_several(void) {
    return run_apart(last_device_decoding, "last_device_decoding") +
           run_apart(first_device_decoding, "first_device_decoding") +
           run_apart(last_device_reading, "last_device_reading") +
           run_apart(broken_while_serving, "broken_while_serving");
}

int main(int argc, char **argv) {
    if (argc < 2)
        return 77;
    setvbuf(stdout, NULL, _IONBF, 0); /* an alarm leaves nothing unsaid */
    path = argv[1];
    only = argc > 2 ? argv[2] : NULL;
    library = strdup(path);
    assert_non_null(library);
    char *colon = strrchr(library, ':');
    if (colon) {
        *colon = '\0';
        devices = atoi(colon + 1);
    }
    if (!has_device())
        return 77;
    write_model();
    int failed = devices > 1 ? with_several() : with_one();
    temp_directory_remove(directory);
    free(library);
    return failed > 0;
}
