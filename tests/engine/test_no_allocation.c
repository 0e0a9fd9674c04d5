/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing allocates between the first token and the last, on any thread: this program's own malloc,
 * calloc, realloc and mmap count the calls on their way to the C library.
 */
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/support.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static atomic_int calls;

void *malloc(size_t size) {
    atomic_fetch_add(&calls, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    atomic_fetch_add(&calls, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    atomic_fetch_add(&calls, 1);
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    atomic_fetch_add(&calls, 1);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    atomic_fetch_add(&calls, 1);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12;
}

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset) {
    atomic_fetch_add(&calls, 1);
    return (void *)syscall(SYS_mmap, address, length, protection, flags, file, offset);
}

static myelin_model *demo;

static int open_model(void **state) {
    (void)state;
    demo = open_demo(3);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(demo);
    return 0;
}

/* The count of calls when the first and when the newest piece came. */
typedef struct watch {
    int pieces, at_first, at_last;
} watch;

static bool note(void *user, const myelin_piece *piece) {
    watch *w = user;
    (void)piece;
    w->at_last = atomic_load(&calls);
    if (w->pieces++ == 0)
        w->at_first = w->at_last;
    return true;
}

static const char *const stops[] = {"never found", " the end of all", "\n\n\n\n"};
static const myelin_logit_bias bias[] = {{300, 1}, {6258, -1000}};

static void check(myelin_generation_options options) {
    watch w = {0};
    myelin_result result;
    myelin_error error = {0};
    static const int32_t none[1];
    options.stop_ids = none;
    options.sync = MYELIN_SYNC_TOKEN;
    int before = atomic_load(&calls);
    assert_ok(myelin_stream(demo, "Once upon a time", note, &w, &options, &result, &error), error);
    assert_true(w.at_first > before); /* the counting works */
    assert_int_equal(result.num_tokens, 100);
    assert_true(w.pieces >= 100);
    assert_int_equal(w.at_last, w.at_first);
    myelin_result_clear(&result);
}

static sem_t ended;

static bool note_end(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    (void)tag;
    *(size_t *)user = error ? 0 : result->num_tokens;
    sem_post(&ended);
    return true;
}

/* What emit and done() share. */
typedef struct served {
    size_t num_tokens; /* the first member */
    watch watch;
} served;

static bool note_served(void *user, const myelin_piece *piece) {
    return note(&((served *)user)->watch, piece);
}

static void test_serving(void **state) {
    (void)state;
    myelin_serving *serving;
    myelin_error error = {0};
    served one = {0};
    myelin_generation_options options = options_for(100, 7);
    static const int32_t none[1];
    options.stop_ids = none;
    options.sync = MYELIN_SYNC_TOKEN;
    assert_ok(myelin_serving_start(&serving, demo, NULL, &error), error);
    assert_int_equal(sem_init(&ended, 0, 0), 0);
    myelin_request request = {.prompt = "Once upon a time", .prompt_length = 16};
    request.options = &options;
    myelin_submission submission;
    myelin_submission_init(&submission);
    submission.request = &request;
    submission.emit = note_served;
    submission.done = note_end;
    submission.user = &one;
    assert_ok(myelin_serving_submit(serving, &submission, NULL, &error), error);
    while (sem_wait(&ended) != 0)
        ;
    assert_int_equal(one.num_tokens, 100);
    assert_int_equal(one.watch.at_last, one.watch.at_first);
    myelin_serving_free(serving);
}

static void test_greedy(void **state) {
    (void)state;
    check(options_for(100, 0));
}

static void test_with_everything(void **state) {
    (void)state;
    myelin_generation_options options = options_for(100, 7);
    options.top_k = 200;
    options.top_p = 0.9;
    options.min_p = 0.001;
    options.repetition_penalty = 1.1;
    options.presence_penalty = 0.1;
    options.frequency_penalty = 0.1;
    options.logit_bias = bias;
    options.num_logit_bias = COUNT(bias);
    options.stop_strings = stops;
    options.num_stop_strings = COUNT(stops);
    options.logprobs = true;
    options.top_logprobs = 20;
    options.stream_mode = MYELIN_STREAM_STABLE;
    check(options);
}

static void test_held_to_a_schema(void **state) {
    (void)state;
    static const char schema[] =
        "{\"type\":\"array\",\"minItems\":200,\"items\":{\"type\":[\"null\","
        "\"integer\",\"array\"],\"maxItems\":3}}";
    myelin_constraint *constraint;
    myelin_error error = {0};
    assert_ok(myelin_constraint_from_schema(&constraint, myelin_model_tokenizer(demo), schema,
                                            sizeof schema - 1, &error),
              error);
    myelin_generation_options options = options_for(100, 3);
    options.constraint = constraint;
    check(options);
    myelin_constraint_free(constraint);
}

static void test_a_growing_allocation_is_seen(void **state) {
    (void)state;
    int before = atomic_load(&calls);
    void *volatile kept = malloc(10);
    kept = realloc(kept, 100000);
    free(kept);
    assert_int_equal(atomic_load(&calls), before + 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_growing_allocation_is_seen),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_with_everything),
        cmocka_unit_test(test_held_to_a_schema),
        cmocka_unit_test(test_serving),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
