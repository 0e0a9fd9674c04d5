/* SPDX-License-Identifier: Apache-2.0 */
/* Opening models and checkpoints: what is missing, progress, casts, sizes, warnings. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/support.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

static char *directory;
static myelin_error error;

static int make(void **state) {
    (void)state;
    directory = make_tiny_directory();
    return 0;
}

static int clean(void **state) {
    (void)state;
    temp_directory_remove(directory);
    return 0;
}

static myelin_status open_with(myelin_model **model, const myelin_model_options *options) {
    memset(&error, 0, sizeof error);
    return myelin_model_open(model, directory, options, &error);
}

static void test_missing_directory(void **state) {
    (void)state;
    char *path = temp_path(directory, "no such directory");
    myelin_model *model = (void *)1;
    myelin_checkpoint *checkpoint = (void *)1;
    myelin_tokenizer *tokenizer = (void *)1;
    assert_int_equal(myelin_model_open(&model, path, NULL, &error), MYELIN_ERROR_NOT_FOUND);
    assert_null(model);
    assert_non_null(strstr(error.message, "no such directory"));
    assert_int_equal(myelin_checkpoint_open(&checkpoint, path, &error), MYELIN_ERROR_NOT_FOUND);
    assert_null(checkpoint);
    assert_int_equal(myelin_tokenizer_open(&tokenizer, path, &error), MYELIN_ERROR_NOT_FOUND);
    assert_null(tokenizer);
    assert_int_equal(myelin_model_open(&model, path, NULL, NULL), MYELIN_ERROR_NOT_FOUND);
    free(path);
    myelin_model_close(NULL);
    myelin_checkpoint_close(NULL);
    myelin_tokenizer_close(NULL);
    myelin_free(NULL);
}

static void test_without_a_tokenizer(void **state) {
    (void)state;
    static const int32_t prompt[] = {5, 6, 7};
    static const char *const stop = "x";
    checkpoint_spec spec = checkpoint_spec_default();
    char *bare = builder_write_spec(&spec);
    myelin_model *model = open_tiny(bare);
    assert_null(myelin_model_tokenizer(model));
    myelin_generation_options options = options_for(10, 1);
    myelin_result result;
    piece_log *log = calloc(1, sizeof *log);
    myelin_session *session = session_with(model, 50, prompt, COUNT(prompt));
    assert_ok(myelin_session_generate(session, log_piece, log, &options, &result, &error), error);
    assert_null(result.text);
    assert_int_equal(result.text_length, 0);
    assert_int_equal(log->num_tokens, result.num_tokens);
    assert_memory_equal(log->ids, result.token_ids, log->num_tokens * sizeof(int32_t));
    myelin_result_clear(&result);
    assert_int_equal(myelin_session_append_text(session, "a", 1, true, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "tokenizer.json"));
    assert_int_equal(myelin_run(model, "a", NULL, &result, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "tokenizer.json"));
    options.stop_strings = &stop;
    options.num_stop_strings = 1;
    assert_int_equal(myelin_session_generate(session, NULL, NULL, &options, &result, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "tokenizer.json"));
    /* A cancelling emit ends it too. */
    memset(log, 0, sizeof *log);
    log->stop_at = 1;
    options.num_stop_strings = 0;
    options.stop_ids = prompt;
    assert_ok(myelin_session_generate(session, log_piece, log, &options, &result, &error), error);
    assert_int_equal(result.finish_reason, MYELIN_FINISH_CANCELLED);
    assert_int_equal(result.num_tokens, 1);
    myelin_result_clear(&result);
    myelin_session_close(session);
    myelin_model_close(model);
    temp_directory_remove(bare);
    free(log);
}

static void test_bad_tokenizer(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    char *bad = builder_write_spec(&spec);
    temp_write(bad, "tokenizer.json", "{}", 2);
    for (int32_t threads = 1; threads <= 4; threads *= 2) { /* read first, or beside the weights */
        myelin_model *model = (void *)1;
        myelin_model_options options;
        myelin_model_options_init(&options);
        options.threads = threads;
        memset(&error, 0, sizeof error);
        assert_int_equal(myelin_model_open(&model, bad, &options, &error), MYELIN_ERROR_FORMAT);
        assert_null(model);
        assert_non_null(strstr(error.message, "tokenizer.json"));
    }
    temp_directory_remove(bad);
}

/* ---- progress ---- */

typedef struct progress_log {
    int calls, stop_at;
    int wrong; /* counted, not asserted: any thread may call */
    uint64_t done, total;
    pthread_mutex_t inside;
} progress_log;

static bool log_progress(void *user, uint64_t done, uint64_t total) {
    progress_log *log = user;
    if (pthread_mutex_trylock(&log->inside) != 0) { /* two calls at once */
        log->wrong++;
        return false;
    }
    log->calls++;
    log->wrong += done <= log->done || done > total;
    log->wrong += log->total != 0 && log->total != total;
    log->done = done;
    log->total = total;
    bool go_on = log->calls != log->stop_at;
    pthread_mutex_unlock(&log->inside);
    return go_on;
}

static void test_progress(void **state) {
    (void)state;
    for (int32_t threads = 1; threads <= 4; threads += 3) {
        progress_log log = {.inside = PTHREAD_MUTEX_INITIALIZER};
        myelin_model_options options;
        myelin_model_options_init(&options);
        options.threads = threads;
        options.progress = log_progress;
        options.user = &log;
        myelin_model *model;
        assert_ok(open_with(&model, &options), error);
        assert_int_equal(log.wrong, 0);
        assert_true(log.calls > 1);
        assert_int_equal(log.done, log.total);
        myelin_model_info info = {.size = sizeof info};
        myelin_model_get_info(model, &info);
        assert_int_equal(info.weight_bytes, log.total);
        myelin_model_close(model);
        int calls = log.calls;
        for (int stop_at = 1; stop_at <= calls; stop_at += 7) {
            log = (progress_log){.stop_at = stop_at, .inside = PTHREAD_MUTEX_INITIALIZER};
            assert_int_equal(open_with(&model, &options), MYELIN_ERROR_CANCELLED);
            assert_null(model);
            assert_int_equal(log.wrong, 0);
            assert_int_equal(log.calls, stop_at); /* not called again */
            assert_int_equal(error.status, MYELIN_ERROR_CANCELLED);
        }
    }
}

/* ---- warnings ---- */

typedef struct warning_log {
    int calls;
    char last[512];
} warning_log;

static void log_warning(void *user, const char *message) {
    warning_log *log = user;
    log->calls++;
    snprintf(log->last, sizeof log->last, "%s", message);
}

static void test_warning_past_max_position_embeddings(void **state) {
    (void)state;
    warning_log log = {0};
    int32_t ids[120] = {0};
    float logprobs[120];
    myelin_model_options options;
    myelin_model_options_init(&options);
    options.warning = log_warning;
    options.user = &log;
    myelin_model *model;
    assert_ok(open_with(&model, &options), error);
    assert_int_equal(myelin_model_config(model)->max_position_embeddings, 100);
    assert_int_equal(log.calls, 0);
    myelin_generation_options generation = options_for(10, 0);
    static const int32_t none[1];
    generation.stop_ids = none;
    myelin_result result;
    run_ids(model, ids, 90, &generation, &result); /* 100 tokens */
    assert_int_equal(result.num_tokens, 10);
    assert_int_equal(log.calls, 0);
    myelin_result_clear(&result);
    run_ids(model, ids, 95, &generation, &result);
    assert_int_equal(result.num_tokens, 10);
    assert_int_equal(log.calls, 1); /* once, not for each token */
    assert_non_null(strstr(log.last, "max_position_embeddings (100)"));
    myelin_result_clear(&result);
    run_ids(model, ids, 120, &generation, &result);
    assert_int_equal(log.calls, 2);
    myelin_result_clear(&result);
    assert_ok(myelin_score(model, ids, 100, logprobs, 0, NULL, NULL, &error), error);
    assert_int_equal(log.calls, 2);
    assert_ok(myelin_score(model, ids, 101, logprobs, 0, NULL, NULL, &error), error);
    assert_int_equal(log.calls, 3);
    myelin_model_close(model);
}

/* ---- device, fusion, casts ---- */

static void test_device_and_fusion(void **state) {
    (void)state;
    myelin_model_options options;
    myelin_model *model;
    myelin_model_info info = {.size = sizeof info};
    myelin_model_options_init(&options);
    options.device = MYELIN_DEVICE_CUDA;
    assert_int_equal(open_with(&model, &options), MYELIN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "cuda"));
    options.device = MYELIN_DEVICE_CPU;
    for (int rung = MYELIN_FUSION_AUTO; rung <= MYELIN_FUSION_CHUNK; rung++) {
        options.fusion = (myelin_fusion)rung;
        assert_ok(open_with(&model, &options), error);
        myelin_model_get_info(model, &info);
        assert_string_equal(info.plugin, rung == MYELIN_FUSION_COMPOSED ? "composed" : "qwen3_cpu");
        myelin_model_close(model);
    }
    options.fusion = MYELIN_FUSION_COMPOSED;
    options.threads = 3;
    assert_ok(open_with(&model, &options), error);
    myelin_model_get_info(model, &info);
    assert_string_equal(info.plugin, "composed");
    assert_int_equal(info.threads, 3);
    assert_int_equal(info.size, sizeof info);
    assert_true(info.load_ms > 0);
    assert_int_equal(info.step_tokens, 128);
    myelin_model_info older = {.size = offsetof(myelin_model_info, weight_bytes), .load_ms = -1};
    myelin_model_get_info(model, &older);
    assert_string_equal(older.plugin, "composed");
    assert_true(older.weight_bytes == 0 && older.load_ms < 0);
    myelin_model_close(model);
}

static void test_casts(void **state) {
    (void)state;
    static const myelin_dtype dtypes[] = {MYELIN_DTYPE_AUTO, MYELIN_DTYPE_F32, MYELIN_DTYPE_F16,
                                          MYELIN_DTYPE_BF16};
    myelin_checkpoint *checkpoint;
    assert_ok(myelin_checkpoint_open(&checkpoint, directory, &error), error);
    uint64_t stored = 0;
    myelin_result plain = {0}, found;
    for (size_t i = 0; i < myelin_checkpoint_num_tensors(checkpoint); i++) {
        myelin_tensor_info info;
        myelin_checkpoint_tensor(checkpoint, i, &info);
        assert_int_equal(info.dtype, MYELIN_DTYPE_BF16);
        stored += info.bytes;
    }
    for (size_t i = 0; i < COUNT(dtypes); i++) {
        myelin_model_options options;
        myelin_model *model;
        myelin_model_info info = {.size = sizeof info};
        myelin_model_options_init(&options);
        options.dtype = dtypes[i];
        options.fusion = MYELIN_FUSION_COMPOSED; /* native code computes as the dtype suggests */
        assert_ok(open_with(&model, &options), error);
        myelin_model_get_info(model, &info);
        assert_int_equal(info.weight_bytes, dtypes[i] == MYELIN_DTYPE_F32 ? 2 * stored : stored);
        assert_int_equal(info.weight_bytes, myelin_checkpoint_weight_bytes(checkpoint, dtypes[i]));
        myelin_generation_options generation = options_for(20, 0);
        generation.logprobs = true;
        assert_ok(myelin_run(model, "a b c", &generation, &found, &error), error);
        if (i == 0)
            plain = found;
        else if (dtypes[i] != MYELIN_DTYPE_F16) /* widening changes no value */
            assert_same_result(&plain, &found);
        if (i > 0)
            myelin_result_clear(&found);
        myelin_model_close(model);
    }
    myelin_result_clear(&plain);
    myelin_checkpoint_close(checkpoint);
}

static void test_session_bytes(void **state) {
    (void)state;
    myelin_checkpoint *checkpoint;
    myelin_model *model = open_tiny(directory);
    assert_ok(myelin_checkpoint_open(&checkpoint, directory, &error), error);
    const myelin_config *config = myelin_checkpoint_config(checkpoint);
    uint64_t kv = 2 * 2 * 2 * 16 * 2; /* a token's: K and V, layers, heads, head_dim, 16 bits */
    assert_memory_equal(config, myelin_model_config(model), sizeof *config);
    static const int32_t lengths[] = {1, 64, 1000, 100000, 1 << 28};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        uint64_t bytes = myelin_model_session_bytes(model, lengths[i]);
        uint64_t one = (uint64_t)lengths[i];
        assert_int_equal(bytes, myelin_checkpoint_session_bytes(checkpoint, lengths[i]));
        /* Logits, sampler and scratch, then for each token its keys, values, id and scores. */
        assert_true(bytes > one * kv + 6282 * sizeof(float));
        assert_true(bytes < one * (kv + 64) + (8 << 20));
    }
    /* Linear but for rounding to pages of 64 positions. */
    uint64_t step =
        myelin_model_session_bytes(model, 2000) - myelin_model_session_bytes(model, 1000);
    uint64_t steps =
        myelin_model_session_bytes(model, 12000) - myelin_model_session_bytes(model, 2000);
    uint64_t rounding = 10 * 64 * kv;
    assert_true(steps <= 10 * step + rounding && steps + rounding >= 10 * step);
    static const int32_t bad[] = {0, -1, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_int_equal(myelin_model_session_bytes(model, bad[i]), 0);
    myelin_checkpoint_close(checkpoint);
    myelin_model_close(model);
}

static void test_tensor_infos(void **state) {
    (void)state;
    myelin_checkpoint *checkpoint;
    myelin_tensor_info info;
    assert_ok(myelin_checkpoint_open(&checkpoint, directory, &error), error);
    size_t count = myelin_checkpoint_num_tensors(checkpoint);
    assert_int_equal(count, 1 + 2 * 11 + 1);
    myelin_checkpoint_tensor(checkpoint, 0, &info);
    assert_string_equal(info.name, "model.embed_tokens.weight");
    assert_string_equal(info.file, "model.safetensors");
    assert_int_equal(info.rank, 2);
    assert_int_equal(info.shape[0], 6282);
    assert_int_equal(info.shape[1], 32);
    assert_int_equal(info.bytes, 6282 * 32 * 2);
    assert_int_equal(info.bits, 0);
    assert_true(info.offset > 8);
    myelin_checkpoint_tensor(checkpoint, count - 1, &info);
    assert_string_equal(info.name, "model.norm.weight");
    myelin_checkpoint_close(checkpoint);
}

static void test_version(void **state) {
    (void)state;
    char expected[32];
    snprintf(expected, sizeof expected, "%d.%d.%d", MYELIN_VERSION_MAJOR, MYELIN_VERSION_MINOR,
             MYELIN_VERSION_PATCH);
    assert_string_equal(myelin_version(), expected);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_directory),
        cmocka_unit_test(test_without_a_tokenizer),
        cmocka_unit_test(test_bad_tokenizer),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_warning_past_max_position_embeddings),
        cmocka_unit_test(test_device_and_fusion),
        cmocka_unit_test(test_casts),
        cmocka_unit_test(test_session_bytes),
        cmocka_unit_test(test_tensor_infos),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
