/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Masks are what trying each token would give, on a small vocabulary, the demo's and, where it lies
 * beside the repository, the published one, for which the time they take is printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "text/constraint.h"
#include "text/small.h"
#include "text/walk.h"

#define PUBLISHED MYELIN_SHARED "/qwen3-tokenizer"

enum { MAX_STEPS = 40, SAMPLES = 25, MAX_MEAN_US = 2000 };

static mln_tokenizer *small, *demo;

static const char *const schemas[] = {
    "{}",
    "{\"type\":\"string\",\"maxLength\":9}",
    "{\"type\":\"string\",\"minLength\":3}",
    "{\"type\":\"string\",\"pattern\":\"^[a-c]+( [a-z]{2,5}){1,3}$\"}",
    "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":4},\"maxItems\":3}",
    "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":6},{\"type\":\"string\",\"pattern\":\"^ab\"}]}",
    "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":3},{\"type\":\"string\",\"maxLength\":8}]}",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
    "\"integer\","
    "\"minimum\":0,\"maximum\":120},\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"ab\"]"
    "}}},"
    "\"required\":[\"name\"],\"additionalProperties\":{\"type\":\"boolean\"}}",
    "{\"$ref\":\"#/$defs/t\",\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":"
    "\"number\"},\"c\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
    "t\"}}},\"required\":[\"c\"]}}}"};

enum { NUM_SCHEMAS = sizeof schemas / sizeof *schemas };

static int open_all(void **state) {
    (void)state;
    static const char added[] = "[" SMALL_ADDED(
        300, "<|end|>",
        SMALL_FLAGS(false, false, false, false,
                    true)) "," SMALL_ADDED(301, "<tool_call>",
                                           SMALL_FLAGS(false, false, false, false, false)) "]";
    mln_buffer document = small_document(&(small_parts){
        .added_tokens = added,
        .vocab = ",\"ab\":256,\"abc\":257,\"\\\":\":258,\"{\\\"\":259,\"a\\\"\":260,"
                 "\"x\xC4\xA0\":261,\"\xC3\x83\xC2\xA9\":262,\"\xC3\xA6\xC4\xB9\":263,"
                 "\"\xC4\xA0\\\"\":264,\"]}\":265,\"null\":266,\"12\":267,\"abab\":268,"
                 "\"\xC4\x8A\xC4\xA0\xC4\xA0\":269"});
    myelin_error error;
    myelin_status status =
        mln_tokenizer_parse(&small, document.data, document.length, "small", &error);
    if (status == MYELIN_OK)
        status = mln_tokenizer_open(&demo, MYELIN_DEMO_MODEL, &error);
    mln_buffer_free(&document);
    if (status != MYELIN_OK)
        print_error("%s\n", error.message);
    return status == MYELIN_OK ? 0 : -1;
}

static int close_all(void **state) {
    (void)state;
    mln_tokenizer_free(small);
    mln_tokenizer_free(demo);
    return 0;
}

static mln_grammar *compile(const mln_tokenizer *tokenizer, const char *schema) {
    json_t *parsed = NULL;
    mln_grammar *grammar = NULL;
    myelin_error error = {0};
    if (mln_json_load(&parsed, schema, strlen(schema), NULL, &error) != MYELIN_OK ||
        mln_grammar_from_schema(&grammar, tokenizer, parsed, &error) != MYELIN_OK)
        fail_msg("%s: %s", schema, error.message);
    json_decref(parsed);
    return grammar;
}

static mln_constraint *begin(const mln_grammar *grammar, int32_t size) {
    mln_constraint *c;
    assert_int_equal(mln_constraint_create(&c, grammar, size, MLN_START_ANSWER, NULL), MYELIN_OK);
    return c;
}

/* Whether the token can follow these, found out by a state that has made no mask. */
static bool can_follow(const mln_grammar *grammar, int32_t size, const int32_t *ids, int count,
                       int32_t id) {
    mln_constraint *c = begin(grammar, size);
    for (int i = 0; i < count; i++)
        assert_true(mln_constraint_accept(c, ids[i]));
    bool good = mln_constraint_accept(c, id);
    mln_constraint_free(c);
    return good;
}

/* All that the mask leaves out is refused; of what it allows, samples are tried. */
static void check_mask(const mln_grammar *grammar, mln_constraint *c, int32_t size,
                       const int32_t *ids, int count, uint64_t *random) {
    const uint32_t *mask = mln_constraint_allowed(c);
    uint32_t allowed = 0;
    for (int32_t id = 0; id < size; id++) {
        allowed += walk_allows(mask, id);
        if (!walk_allows(mask, id))
            assert_false(mln_constraint_accept(c, id));
    }
    assert_true(allowed > 0 || mln_constraint_complete(c));
    for (int32_t id = 0; id < size; id++)
        if (walk_allows(mask, id) && (allowed <= SAMPLES || walk_random(random, allowed) < SAMPLES))
            assert_true(can_follow(grammar, size, ids, count, id));
}

static void check_walk(const mln_tokenizer *tokenizer, const char *schema, uint64_t seed) {
    int32_t size = mln_tokenizer_size(tokenizer), ids[MAX_STEPS];
    mln_grammar *grammar = compile(tokenizer, schema);
    mln_constraint *c = begin(grammar, size + 37);
    uint64_t random = seed;
    for (int count = 0; count < MAX_STEPS; count++) {
        check_mask(grammar, c, size, ids, count, &random);
        const uint32_t *mask = mln_constraint_allowed(c);
        for (int32_t id = size; id < size + 37; id++)
            assert_false(walk_allows(mask, id));
        int32_t id = -1;
        for (int tries = 0; tries < 20000 && id < 0; tries++) {
            int32_t one = (int32_t)walk_random(&random, (uint32_t)size);
            id = walk_allows(mask, one) ? one : -1;
        }
        if (id < 0)
            break;
        assert_true(mln_constraint_accept(c, id));
        ids[count] = id;
    }
    mln_constraint_free(c);
    mln_grammar_free(grammar);
}

static void masks_are_what_trying_gives(void **state) {
    (void)state;
    for (size_t i = 0; i < NUM_SCHEMAS; i++) {
        for (uint64_t seed = 1; seed <= 2; seed++)
            check_walk(small, schemas[i], seed);
        check_walk(demo, schemas[i], 7 * i);
    }
}

static void control_tokens_are_never_allowed(void **state) {
    (void)state;
    mln_grammar *grammar = compile(small, "{\"type\":\"string\"}");
    mln_constraint *c = begin(grammar, 400);
    assert_true(mln_constraint_accept(c, '"'));
    assert_false(walk_allows(mln_constraint_allowed(c), 300));
    assert_false(mln_constraint_accept(c, 300));
    assert_true(walk_allows(mln_constraint_allowed(c), 301)); /* has a text like others */
    assert_false(walk_allows(mln_constraint_allowed(c), 302));
    assert_false(mln_constraint_accept(c, -1));
    assert_false(mln_constraint_accept(c, 1000000));
    assert_true(mln_constraint_accept(c, 301));
    mln_constraint_free(c);
    myelin_error error;
    assert_int_equal(mln_constraint_create(&c, grammar, 200, MLN_START_ANSWER, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_null(c);
    mln_grammar_free(grammar);
}

/* A tail of states far longer than what is kept of them. */
static void memory_is_emptied_when_full(void **state) {
    (void)state;
    mln_grammar *grammar =
        compile(demo, "{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":"
                      "{\"type\":\"string\",\"maxLength\":100000}}}");
    mln_constraint *c = begin(grammar, mln_tokenizer_size(demo));
    int32_t quote = mln_tokenizer_find(demo, "\"", 1), letter = mln_tokenizer_find(demo, "a", 1);
    int32_t open = mln_tokenizer_find(demo, "[", 1), close = mln_tokenizer_find(demo, "]", 1);
    assert_true(mln_constraint_accept(c, open) && mln_constraint_accept(c, open) &&
                mln_constraint_accept(c, quote));
    for (int i = 0; i < 100000; i++) {
        assert_true(mln_constraint_accept(c, letter));
        if (i % 5000 == 0)
            assert_true(walk_allows(mln_constraint_allowed(c), letter));
    }
    assert_false(walk_allows(mln_constraint_allowed(c), letter));
    assert_false(mln_constraint_accept(c, letter));
    assert_true(mln_constraint_accept(c, quote) && mln_constraint_accept(c, close));
    assert_false(mln_constraint_complete(c));
    assert_true(mln_constraint_accept(c, close));
    assert_true(mln_constraint_complete(c));
    mln_constraint_free(c);
    mln_grammar_free(grammar);
}

static void texts_drawn_are_json(void **state) {
    (void)state;
    int ended = 0;
    for (size_t i = 0; i < NUM_SCHEMAS; i++) {
        mln_grammar *grammar = compile(demo, schemas[i]);
        for (uint64_t seed = 1; seed <= 10; seed++) {
            mln_buffer text = {0};
            json_t *value = NULL;
            if (walk_text(demo, grammar, seed, 600, &text)) {
                ended++;
                /* a schema without named properties may draw one name twice */
                value = json_loadb(text.data, text.length, JSON_DECODE_ANY, NULL);
                if (!value)
                    fail_msg("%s: %s", schemas[i], text.data);
            }
            json_decref(value);
            mln_buffer_free(&text);
        }
        mln_grammar_free(grammar);
    }
    assert_in_range(ended, 70, 10 * NUM_SCHEMAS);
}

/* Places in step with each other, and many of them: time is bounded, and something always fits. */
static void hostile_schemas_take_bounded_time(void **state) {
    (void)state;
    mln_buffer schema = {0};
    static const char head[] = "{\"anyOf\":[";
    assert_true(mln_buffer_append(&schema, head, sizeof head - 1));
    for (int i = 0; i < 60; i++) {
        char one[120];
        int n = snprintf(one, sizeof one,
                         "%s{\"type\":\"string\",\"pattern\":\"^(?:.*[a-%c].{%d})?.*x$\"}",
                         i ? "," : "", 'b' + i % 20, 1 + i % 5);
        assert_true(mln_buffer_append(&schema, one, (size_t)n));
    }
    assert_true(mln_buffer_append(&schema, "]}", 2));
    mln_grammar *grammar = compile(demo, schema.data);
    mln_constraint *c = begin(grammar, mln_tokenizer_size(demo));
    assert_true(mln_constraint_accept(c, mln_tokenizer_find(demo, "\"", 1)));
    uint64_t random = 3;
    for (int i = 0; i < 30; i++) {
        const uint32_t *mask = mln_constraint_allowed(c);
        int32_t letter = mln_tokenizer_find(demo, (const char[]){(char)('a' + i % 26)}, 1);
        assert_true(walk_allows(mask, letter));
        assert_true(mln_constraint_accept(c, letter));
        walk_random(&random, 2);
    }
    mln_constraint_free(c);
    mln_grammar_free(grammar);
    mln_buffer_free(&schema);
}

/* Of this thread's processor: what else runs does not count. */
static int64_t cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void print_times(const mln_tokenizer *tokenizer, const char *schema) {
    int64_t start = cpu_ns();
    mln_grammar *grammar = compile(tokenizer, schema);
    double compile_ms = mln_ms_between(start, cpu_ns()), total = 0, worst = 0;
    int32_t size = mln_tokenizer_size(tokenizer);
    int steps = 0;
    uint64_t random = 1;
    for (int run = 0; run < 10; run++) {
        mln_constraint *c = begin(grammar, size);
        for (int i = 0; i < 200; i++, steps++) {
            start = cpu_ns();
            const uint32_t *mask = mln_constraint_allowed(c);
            double ms = mln_ms_between(start, cpu_ns());
            total += ms;
            worst = ms > worst ? ms : worst;
            int32_t id = -1;
            for (int tries = 0; tries < 400000 && id < 0; tries++) {
                int32_t one = (int32_t)walk_random(&random, (uint32_t)size);
                id = walk_allows(mask, one) ? one : -1;
            }
            if (id < 0 || !mln_constraint_accept(c, id))
                break;
        }
        mln_constraint_free(c);
    }
    print_message("%6.2f ms to compile, %5d masks: %.3f ms on average, %.3f at most: %.60s\n",
                  compile_ms, steps, total / (steps ? steps : 1), worst, schema);
    assert_true(total * 1000 < (double)MAX_MEAN_US * (steps ? steps : 1));
    mln_grammar_free(grammar);
}

static void masks_of_the_published_vocabulary_are_quick(void **state) {
    (void)state;
    mln_tokenizer *published;
    if (!mln_path_exists(PUBLISHED "/tokenizer.json"))
        skip();
    assert_int_equal(mln_tokenizer_open(&published, PUBLISHED, NULL), MYELIN_OK);
    mln_grammar_free(compile(published, "{}")); /* the first makes the tree of tokens */
    for (size_t i = 0; i < NUM_SCHEMAS; i++)
        print_times(published, schemas[i]);
    check_walk(published, schemas[7], 5);
    mln_tokenizer_free(published);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_are_what_trying_gives),
        cmocka_unit_test(control_tokens_are_never_allowed),
        cmocka_unit_test(memory_is_emptied_when_full),
        cmocka_unit_test(texts_drawn_are_json),
        cmocka_unit_test(hostile_schemas_take_bounded_time),
        cmocka_unit_test(masks_of_the_published_vocabulary_are_quick)};
    return cmocka_run_group_tests(tests, open_all, close_all);
}
