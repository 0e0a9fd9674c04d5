/* SPDX-License-Identifier: Apache-2.0 */
/* Which texts schemas accept, byte by byte, and which schemas are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/memory.h"
#include "text/constraint.h"
#include "text/small.h"

static mln_tokenizer *bytes; /* token b is byte b */

static int open_bytes(void **state) {
    (void)state;
    mln_buffer document = small_document(&(small_parts){0});
    myelin_status status =
        mln_tokenizer_parse(&bytes, document.data, document.length, "small", NULL);
    mln_buffer_free(&document);
    return status == MYELIN_OK ? 0 : -1;
}

static int close_bytes(void **state) {
    (void)state;
    mln_tokenizer_free(bytes);
    return 0;
}

static myelin_status compile(const char *schema, mln_grammar **grammar, myelin_error *error) {
    json_t *parsed = NULL;
    myelin_status status = mln_json_load(&parsed, schema, strlen(schema), NULL, error);
    if (status == MYELIN_OK)
        status = mln_grammar_from_schema(grammar, bytes, parsed, error);
    json_decref(parsed);
    return status;
}

/* How many bytes of the text are accepted, and whether that may be the end. */
static size_t accepted(const mln_grammar *grammar, mln_grammar_start start, const char *text,
                       size_t length, bool *complete) {
    mln_constraint *c;
    assert_int_equal(mln_constraint_create(&c, grammar, mln_tokenizer_size(bytes), start, NULL),
                     MYELIN_OK);
    size_t n = 0;
    while (n < length && mln_constraint_accept(c, (unsigned char)text[n]))
        n++;
    *complete = mln_constraint_complete(c);
    mln_constraint_free(c);
    return n;
}

static bool accepts(const mln_grammar *grammar, const char *text) {
    bool complete;
    return accepted(grammar, MLN_START_ANSWER, text, strlen(text), &complete) == strlen(text) &&
           complete;
}

typedef struct schema_case {
    const char *schema;
    const char *good[12], *bad[12];
} schema_case;

static const schema_case cases[] = {
    {"{}",
     {"null", "true", "-0.5e+10", "\"\"", "[]", "{}", "[1, [2,{\"a\": null}]]", "{\n  \"a\":1\n}",
      "1.25", "\"\\u00e9\\n\""},
     {"nul", "01", "-", "[1,]", "{\"a\"}", "{\"a\":1,}", " 1", "1 ", "'a'", "[1 ,2]", "tru e",
      "1.e5"}},
    {"true", {"1"}, {"", "x"}},
    {"{\"type\":\"null\"}", {"null"}, {"0", "false"}},
    {"{\"type\":[\"boolean\",\"null\"]}", {"true", "false", "null"}, {"1", "\"true\""}},
    {"{\"enum\":[1,\"a\\\"\",null,[1,{\"b\":2}],2.5]}",
     {"1", "\"a\\\"\"", "null", "[1, {\"b\": 2}]", "2.5"},
     {"2", "\"a\"", "[]", "1.0"}},
    {"{\"const\":\"\\u00e9\"}", {"\"\xC3\xA9\""}, {"\"e\"", "\"\\u00e9\""}},
    {"{\"type\":\"string\",\"enum\":[\"a\",1,\"bcd\"],\"maxLength\":2}",
     {"\"a\""},
     {"1", "\"bcd\""}},
    /* integers */
    {"{\"type\":\"integer\"}",
     {"0", "-1", "9223372036854775807", "-9223372036854775808", "1000000000000000000"},
     {"-0", "1.0", "1e3", "9223372036854775808", "-9223372036854775809", "00", "+1"}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"exclusiveMaximum\":105}",
     {"-12", "-1", "0", "9", "99", "100", "104"},
     {"-13", "-20", "-100", "105", "110", "200", "1000"}},
    {"{\"type\":\"integer\",\"minimum\":0.5,\"maximum\":2.5}", {"1", "2"}, {"0", "3", "-1"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":-10,\"maximum\":-5}",
     {"-9", "-5"},
     {"-10", "-4", "0", "5", "-50"}},
    /* numbers */
    {"{\"type\":\"number\"}",
     {"0", "-0", "12.5", "1e5", "-1.25E-07", "100000000000000000"},
     {".5", "1.", "1e", "1e100", "1234567890123456789", "--1"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"0", "0.0", "0.5", "0.999999", "1", "1.0", "1.000"},
     {"-0.1", "1.1", "1.0001", "2", "10", "1e0", "-0"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":-1.5,\"exclusiveMaximum\":2.25}",
     {"-1.49", "-1", "0", "2.2", "2.249", "2", "-0.001"},
     {"-1.5", "-1.50", "-1.6", "-2", "2.25", "2.3", "3"}},
    /* strings */
    {"{\"type\":\"string\"}",
     {"\"\"", "\"\xF0\x9F\x98\x80\"", "\"\\ud83d\\ude00\"", "\"\\u0001\\uFFFF\\/\"", "\"\x7F\""},
     {"\"", "\"\n\"", "\"\\u0000\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83dx\"",
      "\"\\ud83d\\u0041\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\xFF\"", "\"\\x\"",
      "\"\xF4\x90\x80\x80\""}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\"", "\"\\n\\ud83d\\ude00\\u00e9\""},
     {"\"\"", "\"a\"", "\"abcd\"", "\"\\n\""}},
    {"{\"type\":\"string\",\"pattern\":\"^a[b-d]{1,2}(x|yz)?$\"}",
     {"\"ab\"", "\"acd\"", "\"abyz\"", "\"adx\""},
     {"\"a\"", "\"abcd\"", "\"abb\\u0062\"", "\"bab\"", "\"aby\""}},
    {"{\"type\":\"string\",\"pattern\":\"b\",\"maxLength\":3}",
     {"\"b\"", "\"abc\"", "\"\\\"b\\n\""},
     {"\"\"", "\"aac\"", "\"aaab\"", "\"abcd\""}},
    {"{\"type\":\"string\",\"pattern\":\"^(?:a|b$)\"}",
     {"\"b\"", "\"a\"", "\"ax\""},
     {"\"bx\"", "\"xa\"", "\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\\d+\\\\.\\\\w*\\\\s[^a-c\\\\d]$\"}",
     {"\"12.ab_ d\"", "\"1. \xC3\xA9\"", "\"1.\\tz\""},
     {"\".a d\"", "\"1.a a\"", "\"1.a 5\"", "\"1.a\xC3\xA9 d\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-02-29\"", "\"2023-12-31\"", "\"2000-02-29\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"0000-01-01\""}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"\"2024-02-29T23:59:59Z\"", "\"2024-01-01T00:00:00.5+01:00\""},
     {"\"2024-02-29\"", "\"2024-02-29T24:00:00Z\"", "\"2024-02-29T00:00:00\""}},
    {"{\"type\":\"string\",\"format\":\"uri\"}", {"\"anything\""}, {"1"}},
    /* objects */
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"},"
     "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
     {"{\"b\":null}", "{\"a\": null, \"b\": null}", "{\"b\":null,\"c\":null}",
      "{\n  \"a\": null,\n  \"b\": null,\n  \"c\": null\n}"},
     {"{}", "{\"a\":null}", "{\"b\":null,\"a\":null}", "{\"b\":null,}", "{\"b\":null,\"d\":1}",
      "{\"b\":null,\"b\":null}", "{\"b\":1}", "{,\"b\":null}"}},
    {"{\"properties\":{\"a\":true},\"additionalProperties\":{\"type\":\"boolean\"},"
     "\"type\":\"object\"}",
     {"{}", "{\"a\":1}", "{\"x\":true}", "{\"a\":1,\"b\":true,\"aa\":false}", "{\"\":true}"},
     {"{\"x\":1}", "{\"x\":true,\"a\":1}", "{\"\\u0061\":true}", "{\"x\":true,\"a\":true}"}},
    {"{\"type\":\"object\",\"required\":[\"z\"],\"additionalProperties\":{\"type\":\"null\"}}",
     {"{\"z\":null}", "{\"z\":null,\"y\":null}"},
     {"{}", "{\"y\":null}", "{\"z\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\":false,\"b\":{}}}",
     {"{}", "{\"b\":1}"},
     {"{\"a\":1}"}},
    {"{\"type\":\"object\",\"properties\":{\"a\\n\\u00e9/\":{}},\"required\":[\"a\\n\\u00e9/\"]}",
     {"{\"a\\n\xC3\xA9/\":1}"},
     {"{}"}},
    /* arrays */
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"},\"minItems\":1,\"maxItems\":3}",
     {"[null]", "[null,null]", "[null, null,\n    null]"},
     {"[]", "[null,null,null,null]", "[1]", "[null,]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3},"
     "\"minItems\":1,\"maxItems\":4}",
     {"[1]", "[1,2]", "[1,2,3]", "[1,2,3,3]"},
     {"[]", "[2]", "[1,3]", "[1,2,3,3,3]", "[1,2,2]"}},
    {"{\"type\":\"array\",\"prefixItems\":[{\"const\":1}],\"items\":false}",
     {"[]", "[1]"},
     {"[1,1]", "[2]"}},
    {"{\"type\":\"array\",\"maxItems\":0}", {"[]"}, {"[1]"}},
    /* together */
    {"{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"object\",\"properties\":{\"t\":{\"const\":1}},"
     "\"required\":[\"t\"]},{\"type\":\"object\",\"properties\":{\"t\":{\"const\":12}},"
     "\"required\":[\"t\"]}]}",
     {"null", "{\"t\":1}", "{\"t\":12}"},
     {"{\"t\":2}", "{}"}},
    {"{\"type\":\"integer\",\"anyOf\":[{\"minimum\":10},{\"maximum\":-10}]}",
     {"10", "-10", "11"},
     {"0", "9", "\"a\""}},
    {"{\"oneOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", {"1", "\"a\""}, {"1.5"}},
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"a\"}},\"required\":["
     "\"k\"]}"
     ",{\"type\":\"object\",\"properties\":{\"k\":{\"const\":\"b\"},\"n\":{\"type\":\"null\"}},"
     "\"required\":[\"k\"]}]}",
     {"{\"k\":\"a\"}", "{\"k\":\"b\",\"n\":null}"},
     {"{\"k\":\"a\",\"n\":null}", "{\"k\":\"c\"}"}},
    /* a tag that may be left out, as pydantic writes one with a default: it is written */
    {"{\"oneOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"},{\"type\":\"null\"}],"
     "\"$defs\":{\"a\":{\"type\":\"object\",\"properties\":{\"x\":{},\"k\":{\"const\":\"a\"}}},"
     "\"b\":{\"type\":\"object\",\"properties\":{\"k\":{\"enum\":[\"b\",\"c\"]}}}}}",
     {"{\"k\":\"a\"}", "{\"x\":1,\"k\":\"a\"}", "{\"k\":\"c\"}", "null"},
     {"{}", "{\"x\":1}", "{\"k\":\"d\"}", "{\"x\":1,\"k\":\"b\"}"}},
    {"{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":["
     "\"a\"]},{\"type\":\"object\",\"properties\":{\"a\":{\"minimum\":5},\"b\":{}}}]}",
     {"{\"a\":5}", "{\"a\":5,\"b\":[]}"},
     {"{\"a\":4}", "{}", "{\"b\":1}"}},
    {"{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"next\":{"
     "\"anyOf\":[{\"$ref\":\"#/$defs/n\"},{\"type\":\"null\"}]}},\"required\":[\"next\"]}}}",
     {"{\"next\":null}", "{\"next\":{\"next\":{\"next\":null}}}"},
     {"{}", "{\"next\":{}}"}},
    {"{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}", {"[]", "[[],[[]]]"}, {"[1]"}},
    {"{\"$ref\":\"#/definitions/a~1b%20c\",\"definitions\":{\"a/b c\":{\"const\":1}}}",
     {"1"},
     {"2"}},
    {"{\"title\":\"t\",\"description\":\"d\",\"default\":1,\"examples\":[1],\"$schema\":\"s\","
     "\"$id\":\"i\",\"$comment\":\"c\",\"deprecated\":true,\"readOnly\":true,\"writeOnly\":true,"
     "\"x-mine\":{},\"type\":\"null\"}",
     {"null"},
     {"1"}}};

static void texts_are_accepted_or_not(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_grammar *grammar;
        myelin_error error = {0};
        if (compile(cases[i].schema, &grammar, &error) != MYELIN_OK)
            fail_msg("%s: %s", cases[i].schema, error.message);
        for (size_t n = 0; n < 12 && cases[i].good[n]; n++)
            if (!accepts(grammar, cases[i].good[n]))
                fail_msg("%s refuses %s", cases[i].schema, cases[i].good[n]);
        for (size_t n = 0; n < 12 && cases[i].bad[n]; n++)
            if (accepts(grammar, cases[i].bad[n]))
                fail_msg("%s accepts %s", cases[i].schema, cases[i].bad[n]);
        mln_grammar_free(grammar);
    }
}

static const struct {
    const char *schema, *message; /* a part of it */
} refused[] = {
    {"1", "expected a schema, found an integer"},
    {"false", "nothing satisfies"},
    {"{\"type\":\"strin\"}", "\"type\" at #/type"},
    {"{\"properties\":{\"a/b\":{\"items\":{\"multipleOf\":2}}}}",
     "\"multipleOf\" at #/properties/a~1b/items/multipleOf: not supported"},
    {"{\"patternProperties\":{}}", "\"patternProperties\" at #/patternProperties"},
    {"{\"not\":{}}", "\"not\" at #/not"},
    {"{\"uniqueItems\":true}", "\"uniqueItems\""},
    {"{\"minProperties\":1}", "\"minProperties\""},
    {"{\"enum\":[]}", "nothing satisfies"},
    {"{\"type\":\"string\",\"enum\":[1]}", "nothing satisfies"},
    {"{\"type\":\"integer\",\"minimum\":2,\"maximum\":1}", "nothing satisfies"},
    {"{\"type\":\"integer\",\"minimum\":1.2,\"maximum\":1.8}", "nothing satisfies"},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":1}", "nothing satisfies"},
    {"{\"type\":\"string\",\"pattern\":\"^a{3}$\",\"maxLength\":2}", "nothing satisfies"},
    {"{\"type\":\"array\",\"minItems\":2,\"maxItems\":1}", "nothing satisfies"},
    {"{\"type\":\"array\",\"minItems\":1,\"items\":false}", "nothing satisfies"},
    {"{\"type\":\"object\",\"required\":[\"a\"],\"additionalProperties\":false}",
     "nothing satisfies"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
     "nothing satisfies"},
    {"{\"type\":\"string\",\"minLength\":-1}", "\"minLength\" at #/minLength: expected a count"},
    {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", "\"pattern\" at #/pattern: a group with ?"},
    {"{\"type\":\"string\",\"pattern\":\"\\\\bx\"}", "\\b or \\B"},
    {"{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}", "a backreference"},
    {"{\"type\":\"string\",\"pattern\":\"[a\"}", "a class without end"},
    {"{\"type\":\"string\",\"pattern\":\"a)\"}", "a parenthesis that closes nothing"},
    {"{\"type\":\"string\",\"pattern\":\"(((a{99}){99}){99}){99}\"}", "too large"},
    {"{\"type\":\"string\",\"pattern\":\"(.*a.{20})\"}", "too large"},
    {"{\"$ref\":\"http://x\"}", "\"$ref\" at #/$ref"},
    {"{\"$ref\":\"#/nowhere\"}", "\"$ref\" at #/$ref"},
    {"{\"$ref\":\"#\"}", "leads back"},
    {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "leads back"},
    {"{\"anyOf\":[]}", "\"anyOf\" at #/anyOf"},
    {"{\"oneOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}",
     "\"oneOf\" at #/oneOf: branches 0 and 1 may hold at once"},
    {"{\"oneOf\":[{\"properties\":{\"k\":{\"const\":1}}},{\"properties\":{\"k\":{\"enum\":[2,1]}}}]"
     "}",
     "\"oneOf\" at #/oneOf: branches 0 and 1 may hold at once"},
    {"{\"items\":[{}]}", "prefixItems"},
    {"{\"required\":\"a\"}", "\"required\" at #/required"}};

static void schemas_are_refused_by_name(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        mln_grammar *grammar = (mln_grammar *)8;
        myelin_error error = {0};
        if (compile(refused[i].schema, &grammar, &error) != MYELIN_ERROR_ARGUMENT)
            fail_msg("%s: %s", refused[i].schema, error.message);
        assert_null(grammar);
        if (!strstr(error.message, refused[i].message))
            fail_msg("%s: %s", refused[i].schema, error.message);
    }
}

static void append(mln_buffer *out, const char *text) {
    assert_true(mln_buffer_append(out, text, strlen(text)));
}

/* `open` `depth` times around null, then `close`. */
static mln_buffer nest(const char *open, const char *close, int depth) {
    mln_buffer out = {0};
    for (int i = 0; i < depth; i++)
        append(&out, open);
    append(&out, "{\"type\":\"null\"}");
    for (int i = 0; i < depth; i++)
        append(&out, close);
    return out;
}

static void nesting_is_bounded(void **state) {
    (void)state;
    static const int depths[] = {40, 500, 2000, 3000, 100000};
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        mln_buffer schema = nest("{\"type\":\"array\",\"minItems\":1,\"items\":", "}", depths[i]);
        mln_grammar *grammar = NULL;
        myelin_status status = compile(schema.data, &grammar, NULL);
        assert_int_equal(status == MYELIN_OK, depths[i] == 40);
        mln_grammar_free(grammar);
        mln_buffer_free(&schema);
    }
    mln_grammar *any;
    bool complete;
    assert_int_equal(compile("{}", &any, NULL), MYELIN_OK);
    char deep[100];
    memset(deep, '[', sizeof deep);
    size_t most = accepted(any, MLN_START_ANSWER, deep, sizeof deep, &complete);
    assert_in_range(most, 60, 66);
    mln_grammar_free(any);
}

/* Each of these would take hours if it were compiled or compared without limits. */
static void hostile_schemas_are_refused_in_bounded_time(void **state) {
    (void)state;
    mln_buffer patterns = {0}, choices = {0};
    append(&patterns, "{\"anyOf\":[");
    append(&choices, "{\"allOf\":[");
    for (int i = 0; i < 400; i++) {
        char one[200];
        snprintf(one, sizeof one, "%s{\"type\":\"string\",\"pattern\":\"(.*a.{9}%d){3}\"}",
                 i ? "," : "", i);
        append(&patterns, one);
    }
    for (int i = 0; i < 12; i++) {
        append(&choices, i ? "," : "");
        append(&choices, "{\"anyOf\":[{\"minimum\":1},{\"minimum\":2},{\"minimum\":3},{"
                         "\"minimum\":4},{\"minimum\":5},{\"minimum\":6}]}");
    }
    append(&patterns, "]}");
    append(&choices, "]}");
    static const char compared[] =
        "{\"oneOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/b\"}],\"$defs\":{\"a\":{"
        "\"type\":\"object\",\"required\":[\"x\",\"y\",\"z\"],\"properties\":{\"x\":{\"$ref\":"
        "\"#/$defs/a\"},\"y\":{\"$ref\":\"#/$defs/a\"},\"z\":{\"$ref\":\"#/$defs/a\"}}},\"b\":{"
        "\"type\":\"object\",\"required\":[\"x\",\"y\",\"z\"],\"properties\":{\"x\":{\"$ref\":"
        "\"#/$defs/b\"},\"y\":{\"$ref\":\"#/$defs/b\"},\"z\":{\"$ref\":\"#/$defs/b\"}}}}}";
    const char *const schemas[] = {patterns.data, choices.data, compared};
    for (size_t i = 0; i < 3; i++) {
        mln_grammar *grammar;
        assert_int_equal(compile(schemas[i], &grammar, NULL), MYELIN_ERROR_ARGUMENT);
    }
    mln_buffer_free(&patterns);
    mln_buffer_free(&choices);
}

static void reasoning_comes_first_where_it_may(void **state) {
    (void)state;
    static const struct {
        mln_grammar_start start;
        const char *text;
        bool good;
    } texts[] = {{MLN_START_ANSWER, "<think>", false},
                 {MLN_START_EITHER, "null", true},
                 {MLN_START_EITHER, "<think>\nx</think>\n\nnull", true},
                 {MLN_START_EITHER, "<think>\nx</think>null", true},
                 {MLN_START_EITHER, "<think>\nx</think>\n\n\nnull", false},
                 {MLN_START_EITHER, "x</think>\n\nnull", false},
                 {MLN_START_REASONING, "a < b</thin</</think>\nnull", true},
                 {MLN_START_REASONING, "\xFF</think>null", true},
                 {MLN_START_REASONING, "</think>\n\nx", false},
                 {MLN_START_REASONING, "null", false}};
    mln_grammar *grammar;
    assert_int_equal(compile("{\"type\":\"null\"}", &grammar, NULL), MYELIN_OK);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        bool complete;
        size_t length = strlen(texts[i].text);
        size_t n = accepted(grammar, texts[i].start, texts[i].text, length, &complete);
        assert_int_equal(n == length && complete, texts[i].good);
    }
    mln_grammar_free(grammar);
}

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"$ref\":\"#/$defs/n\"}},\"required\":[\"a\"],\"$defs\":{\"n\":{"
    "\"type\":\"integer\"}}}}},{\"name\":\"addition\"}]";

static bool tools_accept(const char *name, bool required, bool parallel, const char *text) {
    json_t *list = NULL;
    mln_grammar *grammar = NULL;
    myelin_error error = {0};
    assert_int_equal(mln_json_load(&list, tools, strlen(tools), NULL, NULL), MYELIN_OK);
    if (mln_grammar_from_tools(&grammar, bytes, list, name, required, parallel, &error))
        fail_msg("%s", error.message);
    bool good = accepts(grammar, text);
    mln_grammar_free(grammar);
    json_decref(list);
    return good;
}

#define ADD      "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>"
#define ADDITION "<tool_call>\n{\"name\": \"addition\", \"arguments\": {\"x\": []}}\n</tool_call>"

static void tools_are_called(void **state) {
    (void)state;
    assert_true(tools_accept(NULL, true, true, ADD));
    assert_true(tools_accept(NULL, true, true, ADDITION "\n" ADD));
    assert_false(tools_accept(NULL, true, false, ADD "\n" ADD));
    assert_false(tools_accept(NULL, true, true, ADD ADD));
    assert_false(tools_accept(NULL, true, true, "Hello"));
    assert_false(tools_accept("add", true, true, ADDITION));
    assert_true(tools_accept("addition", true, true, ADDITION));
    assert_true(tools_accept(NULL, false, true, "Hello <tool_cal"));
    assert_true(tools_accept(NULL, false, false, "I will.\n" ADD));
    assert_false(tools_accept(NULL, false, true, "I will.\n<tool_call>"));
    assert_false(tools_accept(NULL, false, true, ADD " and more"));
}

static void tools_are_checked(void **state) {
    (void)state;
    static const char *const wrong[] = {"{}",
                                        "[]",
                                        "[1]",
                                        "[{\"function\":{}}]",
                                        "[{\"name\":\"f\",\"parameters\":{\"not\":{}}}]",
                                        "[{\"name\":\"f\",\"parameters\":{\"type\":\"string\"}}]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        json_t *list = NULL;
        mln_grammar *grammar;
        assert_int_equal(mln_json_load(&list, wrong[i], strlen(wrong[i]), NULL, NULL), MYELIN_OK);
        assert_int_equal(mln_grammar_from_tools(&grammar, bytes, list, NULL, true, true, NULL),
                         MYELIN_ERROR_ARGUMENT);
        json_decref(list);
    }
    json_t *list = NULL;
    mln_grammar *grammar;
    assert_int_equal(mln_json_load(&list, tools, strlen(tools), NULL, NULL), MYELIN_OK);
    assert_int_equal(mln_grammar_from_tools(&grammar, bytes, list, "sub", true, true, NULL),
                     MYELIN_ERROR_ARGUMENT);
    json_decref(list);
}

static void failing_memory_is_an_error(void **state) {
    (void)state;
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"^a+\","
        "\"maxLength\":5},\"b\":{\"type\":\"number\",\"minimum\":1},\"c\":{\"type\":\"array\"}},"
        "\"additionalProperties\":true}";
    json_t *parsed = NULL;
    assert_int_equal(mln_json_load(&parsed, schema, strlen(schema), NULL, NULL), MYELIN_OK);
    uint64_t n = 0;
    for (bool done = false; !done;) {
        mln_grammar *grammar = NULL;
        mln_constraint *c = NULL;
        n++;
        mln_fail_allocation(n, n % 2 == 0);
        myelin_status status = mln_grammar_from_schema(&grammar, bytes, parsed, NULL);
        if (status == MYELIN_OK)
            status = mln_constraint_create(&c, grammar, 300, MLN_START_ANSWER, NULL);
        done = mln_fail_allocation(0, false) < n;
        assert_int_equal(status, done ? MYELIN_OK : MYELIN_ERROR_MEMORY);
        mln_constraint_free(c);
        mln_grammar_free(grammar);
    }
    assert_in_range(n, 20, 2000);
    json_decref(parsed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_accepted_or_not),
        cmocka_unit_test(schemas_are_refused_by_name),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(hostile_schemas_are_refused_in_bounded_time),
        cmocka_unit_test(reasoning_comes_first_where_it_may),
        cmocka_unit_test(tools_are_called),
        cmocka_unit_test(tools_are_checked),
        cmocka_unit_test(failing_memory_is_an_error)};
    return cmocka_run_group_tests(tests, open_bytes, close_bytes);
}
