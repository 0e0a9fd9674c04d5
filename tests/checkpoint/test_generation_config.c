/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint/config.h"
#include "checkpoint/expect.h"

static myelin_status parse(mln_generation_config *config, const char *text, myelin_error *error) {
    return mln_generation_config_parse(config, text, strlen(text), "/m/generation_config.json",
                                       error);
}

static void test_published(void **state) {
    (void)state;
    mln_generation_config c;
    assert_int_equal(parse(&c,
                           "{\"bos_token_id\": 151643, \"do_sample\": true, \"eos_token_id\": "
                           "[151645, 151643], \"pad_token_id\": 151643, \"temperature\": 0.6, "
                           "\"top_k\": 20, \"top_p\": 0.95, \"transformers_version\": \"4.51.0\"}",
                           NULL),
                     MYELIN_OK);
    assert_int_equal(c.num_stop_ids, 2);
    assert_int_equal(c.stop_ids[0], 151645);
    assert_int_equal(c.stop_ids[1], 151643);
    assert_true(c.do_sample);
    assert_true(c.has_temperature && c.temperature == 0.6);
    assert_true(c.has_top_k && c.top_k == 20);
    assert_true(c.has_top_p && c.top_p == 0.95);
    assert_false(c.has_min_p || c.has_repetition_penalty);
}

static void test_says_nothing(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{}", "{\"eos_token_id\": null, \"do_sample\": null, \"temperature\": null, \"top_k\": "
              "null, \"top_p\": null, \"min_p\": null, \"repetition_penalty\": null}"};
    for (size_t i = 0; i < 2; i++) {
        mln_generation_config c;
        assert_int_equal(parse(&c, texts[i], NULL), MYELIN_OK);
        assert_int_equal(c.num_stop_ids, 0);
        assert_false(c.do_sample || c.has_temperature || c.has_top_k || c.has_top_p || c.has_min_p);
        assert_false(c.has_repetition_penalty);
    }
}

static void test_edges(void **state) {
    (void)state;
    mln_generation_config c;
    assert_int_equal(parse(&c,
                           "{\"eos_token_id\": 0, \"do_sample\": false, \"temperature\": 0, "
                           "\"top_k\": 0, \"top_p\": 1, \"min_p\": 0.0, "
                           "\"repetition_penalty\": 1.05}",
                           NULL),
                     MYELIN_OK);
    assert_int_equal(c.num_stop_ids, 1);
    assert_true(c.has_temperature && c.has_top_k && c.has_top_p && c.has_min_p);
    assert_true(c.has_repetition_penalty && c.repetition_penalty == 1.05);
}

static void test_bad(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "invalid JSON"},
        {"[]", "expected an object, found an array"},
        {"{\"temperature\": -0.1}",
         "generation_config.json: temperature: expected a number from 0 to 1e+06, found -0.1"},
        {"{\"temperature\": \"hot\"}", "temperature"},
        {"{\"temperature\": 1e999}", "invalid JSON"},
        {"{\"top_p\": 1.5}", "top_p: expected a number from 0 to 1, found 1.5"},
        {"{\"top_p\": -1}", "top_p"},
        {"{\"min_p\": 2}", "min_p"},
        {"{\"min_p\": [0.1]}", "min_p"},
        {"{\"top_k\": -1}", "top_k"},
        {"{\"top_k\": 2.5}", "top_k"},
        {"{\"top_k\": 3000000000}", "top_k"},
        {"{\"repetition_penalty\": 0}", "repetition_penalty: expected a number above 0"},
        {"{\"do_sample\": \"yes\"}", "do_sample: expected true or false, found \"yes\""},
        {"{\"eos_token_id\": [-5]}", "eos_token_id"},
        {"{\"eos_token_id\": {}}", "eos_token_id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_generation_config c;
        myelin_error error = {0};
        expect_failure(cases[i].text, parse(&c, cases[i].text, &error), &error, MYELIN_ERROR_FORMAT,
                       cases[i].message);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_published),
                                       cmocka_unit_test(test_says_nothing),
                                       cmocka_unit_test(test_edges), cmocka_unit_test(test_bad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
