/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/support.h"

#include "base/utf8.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

uint32_t next_random(uint32_t *state, uint32_t below) {
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)*state * below >> 32);
}

myelin_model *open_demo(int32_t threads) {
    myelin_model *model = NULL;
    myelin_error error = {0};
    myelin_model_options options;
    myelin_model_options_init(&options);
    options.threads = threads;
    assert_ok(myelin_model_open(&model, MYELIN_DEMO_MODEL, &options, &error), error);
    return model;
}

char *make_tiny_directory(void) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = 6282; /* what the tokenizer knows */
    spec.hidden = 32;
    spec.intermediate = 48;
    spec.dtype = "BF16";
    built_checkpoint *built = builder_make(&spec);
    json_object_set_new(built->config, "max_position_embeddings", json_integer(100));
    char *directory = temp_directory_make();
    builder_write(built, directory);
    builder_free(built);
    size_t length;
    char *tokenizer = temp_read(MYELIN_DEMO_MODEL "/tokenizer.json", &length);
    temp_write(directory, "tokenizer.json", tokenizer, length);
    free(tokenizer);
    return directory;
}

myelin_model *open_tiny(const char *directory) {
    myelin_model *model = NULL;
    myelin_error error = {0};
    assert_ok(myelin_model_open(&model, directory, NULL, &error), error);
    return model;
}

myelin_generation_options options_for(int32_t max_new_tokens, uint64_t seed) {
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.max_new_tokens = max_new_tokens;
    options.seed = seed;
    options.sampler = seed ? MYELIN_SAMPLER_SAMPLED : MYELIN_SAMPLER_GREEDY;
    return options;
}

myelin_session *session_with(myelin_model *model, int32_t max_len, const int32_t *ids,
                             size_t count) {
    myelin_session *session = NULL;
    myelin_error error = {0};
    assert_ok(myelin_session_open(&session, model, max_len, &error), error);
    assert_ok(myelin_session_append(session, ids, count, &error), error);
    return session;
}

void run_ids(myelin_model *model, const int32_t *ids, size_t count,
             const myelin_generation_options *options, myelin_result *result) {
    myelin_error error = {0};
    int32_t wanted = (int32_t)count + options->max_new_tokens;
    int32_t max_len = wanted < options->max_len ? wanted : options->max_len;
    myelin_session *session = session_with(model, max_len, ids, count);
    assert_ok(myelin_session_generate(session, NULL, NULL, options, result, &error), error);
    myelin_session_close(session);
}

static void assert_same_floats(const float *a, const float *b, size_t count) {
    assert_int_equal(a == NULL, b == NULL);
    if (a && count)
        assert_memory_equal(a, b, count * sizeof *a);
}

void assert_same_result(const myelin_result *a, const myelin_result *b) {
    assert_int_equal(a->num_tokens, b->num_tokens);
    if (a->num_tokens)
        assert_memory_equal(a->token_ids, b->token_ids, a->num_tokens * sizeof *a->token_ids);
    assert_int_equal(a->finish_reason, b->finish_reason);
    assert_int_equal(a->input_tokens, b->input_tokens);
    assert_int_equal(a->text == NULL, b->text == NULL);
    if (a->text) {
        assert_string_equal(a->text, b->text);
        assert_int_equal(a->text_length, b->text_length);
    }
    assert_int_equal(a->num_top, b->num_top);
    size_t top = a->num_tokens * (size_t)a->num_top;
    assert_same_floats(a->logprobs, b->logprobs, a->num_tokens);
    assert_same_floats(a->top_logprobs, b->top_logprobs, top);
    if (a->top_ids && top)
        assert_memory_equal(a->top_ids, b->top_ids, top * sizeof *a->top_ids);
}

bool log_piece(void *user, const myelin_piece *piece) {
    piece_log *log = user;
    assert_true(piece->text_length > 0 || piece->num_tokens > 0);
    assert_true(log->text_length + piece->text_length < LOG_TEXT);
    assert_true(log->num_tokens + piece->num_tokens <= LOG_TOKENS && log->num_pieces < LOG_TOKENS);
    if (piece->text) {
        assert_int_equal(piece->text[piece->text_length], '\0');
        assert_int_equal(mln_utf8_valid_prefix(piece->text, piece->text_length),
                         piece->text_length);
        memcpy(log->text + log->text_length, piece->text, piece->text_length);
    }
    if (piece->num_tokens)
        memcpy(log->ids + log->num_tokens, piece->token_ids,
               piece->num_tokens * sizeof *piece->token_ids);
    log->text_length += piece->text_length;
    log->num_tokens += piece->num_tokens;
    log->piece_tokens[log->num_pieces] = piece->num_tokens;
    log->piece_end[log->num_pieces++] = log->text_length;
    return log->num_pieces != log->stop_at;
}

void assert_log_is_result(const piece_log *log, const myelin_result *result) {
    assert_int_equal(log->num_tokens, result->num_tokens);
    if (result->num_tokens)
        assert_memory_equal(log->ids, result->token_ids, log->num_tokens * sizeof *log->ids);
    assert_int_equal(log->text_length, result->text_length);
    assert_memory_equal(log->text, result->text, log->text_length + 1);
}
