/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the engine share. Any failure here ends the test. */
#ifndef TESTS_ENGINE_SUPPORT_H
#define TESTS_ENGINE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* cmocka needs the headers above */
#include <cmocka.h>

#include "myelin/myelin.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Fails the test with the error's own words. */
#define assert_ok(call, error)                                                                     \
    do {                                                                                           \
        if ((call) != MYELIN_OK)                                                                   \
            fail_msg("%s: %s", #call, (error).message);                                            \
    } while (0)

/* A small generator, the same everywhere: what it returns is below `below`. */
uint32_t next_random(uint32_t *state, uint32_t below);

/* The demo model on `threads` threads. */
myelin_model *open_demo(int32_t threads);

/*
 * A directory with a tiny model of random weights (2 layers; vocabulary, tokenizer and therefore
 * text of the demo): any token can follow any, at a fraction of the demo's time. Its stop ids are 1
 * and 2, its max_position_embeddings 100.
 */
char *make_tiny_directory(void);
myelin_model *open_tiny(const char *directory);

/* The defaults with max_new_tokens and, when seed is not 0, sampling with that seed. */
myelin_generation_options options_for(int32_t max_new_tokens, uint64_t seed);

/* A session holding ids. */
myelin_session *session_with(myelin_model *model, int32_t max_len, const int32_t *ids,
                             size_t count);
/* One generation on a session of its own, as large as the options' max_len says. */
void run_ids(myelin_model *model, const int32_t *ids, size_t count,
             const myelin_generation_options *options, myelin_result *result);

/* Everything but the timing and the count of cached tokens, to the last bit. */
void assert_same_result(const myelin_result *a, const myelin_result *b);

/* What emit was handed. Zero-initialise; `stop_at` pieces cancel (0: never). */
enum { LOG_TEXT = 16384, LOG_TOKENS = 2048 };
typedef struct piece_log {
    size_t stop_at;
    size_t num_pieces;
    char text[LOG_TEXT];
    size_t text_length;
    int32_t ids[LOG_TOKENS];
    size_t num_tokens;
    size_t piece_tokens[LOG_TOKENS]; /* tokens of each piece */
    size_t piece_end[LOG_TOKENS];    /* text_length after each */
} piece_log;

/* A myelin_emit with a piece_log for `user`; checks that no piece ends inside a character. */
bool log_piece(void *user, const myelin_piece *piece);
/* The pieces put together are the result. */
void assert_log_is_result(const piece_log *log, const myelin_result *result);

#endif
