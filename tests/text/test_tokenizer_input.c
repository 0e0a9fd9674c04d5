/* SPDX-License-Identifier: Apache-2.0 */
/* What a tokenizer.json that is wrong, or asks for something else, gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "text/small.h"

#define FLAGS SMALL_FLAGS(false, false, false, false, false)
#define BYTE_LEVEL(more)                                                                           \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true" more "}"
#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":" pattern           \
    ",\"behavior\":\"" behavior "\",\"invert\":" invert                                            \
    "}," BYTE_LEVEL(",\"use_regex\":false") "]}"
#define REGEX(text) SPLIT("{\"Regex\":\"" text "\"}", "Isolated", "false")
#define MODEL(more) "{\"type\":\"BPE\"" more "}"
#define F           MYELIN_ERROR_FORMAT
#define U           MYELIN_ERROR_UNSUPPORTED

typedef struct refusal {
    small_parts parts;
    myelin_status status;
    const char *message; /* what it begins with, after "tokenizer.json: " */
} refusal;

static const refusal documents[] = {
    {{.top = "\"version\":\"2.0\","}, U, "version: expected \"1.0\", found \"2.0\""},
    {{.top = "\"version\":\"1.0\",\"version\":\"1.0\","}, F, "duplicate key \"version\""},
    {{.top = "\"x\":\"\xFF\","}, F, "expected UTF-8, found byte 0xff"},
    {{.top = "\"x\" 1,"}, F, "invalid JSON"},
    {{.normalizer = "{\"type\":\"NFKC\"}"}, U, "normalizer.type: expected \"NFC\", found \"NFKC\""},
    {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
                    "\"Lowercase\"}]}"},
     U,
     "normalizer.normalizers.1.type: expected \"NFC\", found \"Lowercase\""},
    {{.normalizer = "{\"type\":\"Sequence\"}"}, F, "expected the key normalizer.normalizers"},
    {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":{}}"},
     F,
     "normalizer.normalizers: expected an array, found an object"},
    {{.normalizer = "{}"}, F, "expected the key normalizer.type"},
    {{.normalizer = "\"NFC\""}, F, "normalizer: expected an object, found a string"},
    {{.normalizer = "{\"type\":7}"}, F, "normalizer.type: expected a string, found a number"},
    {{.pre_tokenizer = "null"}, U, "pre_tokenizer: expected ByteLevel or"},
    {{.pre_tokenizer = ""}, U, "pre_tokenizer: expected ByteLevel or"},
    {{.pre_tokenizer = "{\"type\":\"Whitespace\"}"},
     U,
     "pre_tokenizer.type: expected \"ByteLevel\", found \"Whitespace\""},
    {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[]}"},
     U,
     "pre_tokenizer.pretokenizers: expected Split and ByteLevel, found 0 steps"},
    {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[1,2,3,4,5,6,7,8,9]}"},
     U,
     "pre_tokenizer.pretokenizers: expected Split and ByteLevel, found 8 or more steps"},
    {{.pre_tokenizer =
          "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}," BYTE_LEVEL("") "]}"},
     U,
     "pre_tokenizer.pretokenizers.0.type: expected \"Split\", found \"Digits\""},
    {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"},
     U,
     "pre_tokenizer.add_prefix_space: expected false, found true"},
    {{.pre_tokenizer = "{\"type\":\"ByteLevel\"}"},
     F,
     "expected the key pre_tokenizer.add_prefix_space"},
    {{.pre_tokenizer = BYTE_LEVEL(",\"use_regex\":1")},
     F,
     "pre_tokenizer.use_regex: expected true or false, found a number"},
    {{.pre_tokenizer =
          "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{"
          "\"Regex\":\"a\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL("") "]}"},
     U,
     "pre_tokenizer.pretokenizers.1.use_regex: expected false after a Split, found true"},
    {{.pre_tokenizer = SPLIT("{\"Regex\":\"a\"}", "Removed", "false")},
     U,
     "pre_tokenizer.pretokenizers.0.behavior: expected \"Isolated\", found \"Removed\""},
    {{.pre_tokenizer = SPLIT("{\"Regex\":\"a\"}", "Isolated", "true")},
     U,
     "pre_tokenizer.pretokenizers.0.invert: expected false, found true"},
    {{.pre_tokenizer = SPLIT("{}", "Isolated", "false")},
     F,
     "expected the key pre_tokenizer.pretokenizers.0.pattern.Regex"},
    {{.pre_tokenizer = SPLIT("{\"Regex\":[]}", "Isolated", "false")},
     F,
     "pre_tokenizer.pretokenizers.0.pattern.Regex: expected a string, found an array"},
    {{.decoder = "null"}, U, "decoder: expected ByteLevel, found none"},
    {{.decoder = "{\"type\":\"Metaspace\"}"},
     U,
     "decoder.type: expected \"ByteLevel\", found \"Metaspace\""},
    {{.post_processor = "{\"type\":\"BertProcessing\"}"},
     U,
     "post_processor.type: expected \"ByteLevel\", found \"BertProcessing\""},
    {{.post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{}},{"
                        "\"Sequence\":{}}]}"},
     U,
     "post_processor.single.1: expected a template that adds no tokens, found an object"},
    {{.post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{}}]}"},
     U,
     "post_processor.single.0: expected a template that adds no tokens, found an object"},
    {{.post_processor = "{\"type\":\"TemplateProcessing\"}"},
     F,
     "expected the key post_processor.single"},
};

static const refusal patterns[] = {
    {{.pre_tokenizer = REGEX("(a")}, F, "pre_tokenizer: expected a regular expression, found"},
    {{.pre_tokenizer = REGEX("^a")}, U, "pre_tokenizer: the pattern has ^ or $ at its byte 0"},
    {{.pre_tokenizer = REGEX("a\\\\b")}, U, "pre_tokenizer: the pattern has an escape other than"},
    {{.pre_tokenizer = REGEX("a\\\\")}, U, "pre_tokenizer: the pattern has a lone backslash"},
    {{.pre_tokenizer = REGEX("\\\\p{Han}")}, U, "pre_tokenizer: the pattern has a property other"},
    {{.pre_tokenizer = REGEX("(?<=a)b")}, U, "pre_tokenizer: the pattern has a group other than"},
    {{.pre_tokenizer = REGEX("(*FAIL)")}, U, "pre_tokenizer: the pattern has a group other than"},
    {{.pre_tokenizer = REGEX("[a[b]]")}, U, "pre_tokenizer: the pattern has a class inside"},
    {{.pre_tokenizer = REGEX("[a&&b]")}, U, "pre_tokenizer: the pattern has a class inside"},
    {{.pre_tokenizer = REGEX("[]a]")}, U, "pre_tokenizer: the pattern has an empty class"},
    {{.pre_tokenizer = REGEX("[a")}, U, "pre_tokenizer: the pattern has a class without end"},
    {{.pre_tokenizer = REGEX("+a")}, U, "pre_tokenizer: the pattern has a quantifier with nothing"},
    {{.pre_tokenizer = REGEX("a{2}+")}, U, "pre_tokenizer: the pattern has a quantifier after"},
    {{.pre_tokenizer = REGEX("a{,2}")}, U, "pre_tokenizer: the pattern has a brace that begins"},
    {{.pre_tokenizer = REGEX("a{2")}, U, "pre_tokenizer: the pattern has a count without end"},
    {{.pre_tokenizer = REGEX("\xEA\x9F\x8B")},
     U,
     "pre_tokenizer: the pattern has a character newer"},
};

static const refusal models[] = {
    {{.model = ""}, F, "expected the key model"},
    {{.model = "null"}, F, "model: expected an object, found null"},
    {{.model = "[]"}, F, "model: expected an object, found an array"},
    {{.model = "{\"type\":\"Unigram\"}"}, U, "model.type: expected \"BPE\", found \"Unigram\""},
    {{.model = MODEL(",\"merges\":[]")}, F, "expected the key model.vocab"},
    {{.model = MODEL(",\"vocab\":{}")}, F, "expected the key model.merges"},
    {{.model = MODEL(",\"vocab\":[]")}, F, "model.vocab: expected an object, found an array"},
    {{.model = MODEL(",\"merges\":{}")}, F, "model.merges: expected an array, found an object"},
    {{.model_options = "\"dropout\":0.1,"}, U, "model.dropout: expected null or 0, found 0.1"},
    {{.model_options = "\"unk_token\":\"<unk>\","},
     U,
     "model.unk_token: expected null, found \"<unk>\""},
    {{.model_options = "\"byte_fallback\":true,"},
     U,
     "model.byte_fallback: expected false, found true"},
    {{.model_options = "\"ignore_merges\":\"no\","},
     F,
     "model.ignore_merges: expected true or false, found a string"},
    {{.model_options = "\"continuing_subword_prefix\":\"##\","},
     U,
     "model.continuing_subword_prefix: expected null or \"\", found \"##\""},
    {{.model_options = "\"end_of_word_suffix\":\"</w>\","},
     U,
     "model.end_of_word_suffix: expected null or \"\", found \"</w>\""},
    {{.vocab = ",\"ab\":256,\"abc\":256"},
     F,
     "token \"abc\" has the id 256, which token \"ab\" has already"},
    {{.vocab = ",\"ab\":256,\"ab\":257"}, F, "duplicate key \"ab\""},
    {{.vocab = ",\"ab\":-1"}, F, "model.vocab: expected an id from 0 to 4194303, found -1"},
    {{.vocab = ",\"ab\":1.5"}, F, "model.vocab: expected an id from 0 to 4194303, found 1.5"},
    {{.vocab = ",\"ab\":1e3"}, F, "model.vocab: expected an id from 0 to 4194303, found 1e3"},
    {{.vocab = ",\"ab\":4194304"}, F, "model.vocab: expected an id from 0 to 4194303, found 4"},
    {{.vocab = ",\"ab\":99999999999999999999"}, F, "model.vocab: expected an id from 0 to"},
    {{.vocab = ",\"ab\":\"256\""}, F, "model.vocab[\"ab\"]: expected an id, found a string"},
    {{.vocab = ",\"ab\":{\"x\":1}"}, F, "model.vocab[\"ab\"]: expected an id, found an object"},
    {{.merges = "[\"a b c\"]"}, F, "model.merges[0]: expected two tokens and one space between"},
    {{.merges = "[\"ab\"]"}, F, "model.merges[0]: expected two tokens and one space between them"},
    {{.merges = "[[\"a\"]]"}, F, "model.merges[0]: expected two tokens, found fewer"},
    {{.merges = "[[\"a\",\"b\",\"c\"]]"}, F, "model.merges[0]: expected two tokens, found more"},
    {{.merges = "[[\"a\",1]]"}, F, "model.merges[0]: expected two strings, found a number"},
    {{.merges = "[[\"a\",[\"b\"]]]"}, F, "model.merges[0]: expected two strings, found an array"},
    {{.merges = "[7]"},
     F,
     "model.merges[0]: expected \"left right\" or [\"left\", \"right\"], found"},
    {{.merges = "[\"a b\",[\"ab\",\"c\"]]"}, F, "model.merges[1]: expected the form of the merges"},
    {{.merges = "[[\"xy\",\"b\"]]"},
     F,
     "model.merges[0]: expected tokens of the vocabulary, found \"xy\""},
    {{.merges = "[[\"a\",\"xy\"]]"},
     F,
     "model.merges[0]: expected tokens of the vocabulary, found \"xy\""},
    {{.merges = "[[\"a\",\"b\"],[\"a\",\"c\"]]"},
     F,
     "model.merges[1]: expected tokens of the vocabulary, found \"ac\""},
    {{.merges = "[[\"a\",\"b\"],[\"a\",\"b\"]]"},
     F,
     "model.merges[1]: expected a new pair, found that of merge 0"},
};

static const refusal added[] = {
    {{.added_tokens = "{}"}, F, "added_tokens: expected an array, found an object"},
    {{.added_tokens = "null"}, F, "added_tokens: expected an array, found null"},
    {{.added_tokens = "[7]"}, F, "added_tokens: expected objects, found a number"},
    {{.added_tokens = "[" SMALL_ADDED(258, "", FLAGS) "]"},
     F,
     "added_tokens[0].content: expected at least one byte, found none"},
    {{.added_tokens = "[" SMALL_ADDED(-3, "x<", FLAGS) "]"},
     F,
     "added_tokens[0].id: expected an id from 0 to 4194303, found -3"},
    {{.added_tokens = "[" SMALL_ADDED("1", "x<", FLAGS) "]"},
     F,
     "added_tokens[0].id: expected an id, found a string"},
    {{.added_tokens = "[{\"id\":258,\"content\":7," FLAGS "}]"},
     F,
     "added_tokens[0].content: expected a string, found a number"},
    {{.added_tokens = "[{\"content\":\"x<\"," FLAGS "}]"},
     F,
     "added_tokens[0]: expected the key \"id\""},
    {{.added_tokens = "[{\"id\":258," FLAGS "}]"},
     F,
     "added_tokens[0]: expected the key \"content\""},
    {{.added_tokens = "[" SMALL_ADDED(258, "y<", FLAGS) "," SMALL_ADDED(
          259, "x<",
          "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"special\":true") "]"},
     F,
     "added_tokens[1]: expected the key \"normalized\""},
    {{.added_tokens = "[" SMALL_ADDED(258, "x<", "\"lstrip\":1") "]"},
     F,
     "added_tokens[0].lstrip: expected true or false, found a number"},
    {{.added_tokens = "[" SMALL_ADDED(97, "x<", FLAGS) "]"},
     F,
     "added_tokens[0]: expected a free id for \"x<\", found 97, which \"a\" has"},
    {{.added_tokens = "[" SMALL_ADDED(258, "ab", FLAGS) "]"},
     F,
     "added_tokens[0]: expected \"ab\" to have the id 256 of model.vocab, found 258"},
    {{.added_tokens = "[" SMALL_ADDED(256, "ab", FLAGS) "," SMALL_ADDED(256, "ab", FLAGS) "]"},
     F,
     "added_tokens[1]: \"ab\" is there twice"},
    {{.added_tokens = "[" SMALL_ADDED(258, "x<", FLAGS) "," SMALL_ADDED(259, "x<", FLAGS) "]"},
     F,
     "token \"x<\" is there twice, with the ids 258 and 259"},
    {{.added_tokens = "[" SMALL_ADDED(258, "x<", FLAGS) "," SMALL_ADDED(258, "y<", FLAGS) "]"},
     F,
     "added_tokens[1]: expected a free id for \"y<\", found 258, which \"x<\" has"},
    {{.added_tokens = "[" SMALL_ADDED(
          258, "e\\u030c",
          SMALL_FLAGS(false, false, false, true,
                      true)) "," SMALL_ADDED(259, "\xC4\x9B\xCC\x80",
                                             SMALL_FLAGS(
                                                 false, false, false, true,
                                                 true)) "," SMALL_ADDED(260, "e\\u030c\\u0300",
                                                                        SMALL_FLAGS(false, false,
                                                                                    false, true,
                                                                                    true)) "]"},
     F,
     "added_tokens: expected different tokens, found"},
};

static void expect_refusal(const refusal *r) {
    static const char name[] = "tokenizer.json: ";
    mln_buffer json = small_document(&r->parts);
    mln_tokenizer *t;
    myelin_error error = {0};
    myelin_status status =
        mln_tokenizer_parse(&t, json.data, json.length, "dir/tokenizer.json", &error);
    if (status != r->status)
        fail_msg("expected %s and `%s`, found %s: %s", myelin_status_name(r->status), r->message,
                 myelin_status_name(status), error.message);
    assert_null(t);
    assert_string_equal(error.file, "dir/tokenizer.json");
    if (strncmp(error.message, name, sizeof name - 1) != 0 ||
        strncmp(error.message + sizeof name - 1, r->message, strlen(r->message)) != 0)
        fail_msg("expected `%s%s`, found `%s`", name, r->message, error.message);
    mln_buffer_free(&json);
}

static void settings_are_checked(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++)
        expect_refusal(&documents[i]);
}

static void patterns_are_checked(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        expect_refusal(&patterns[i]);
}

static void models_are_checked(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        expect_refusal(&models[i]);
}

static void added_tokens_are_checked(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof added / sizeof *added; i++)
        expect_refusal(&added[i]);
}

static void errors_tell_the_byte(void **state) {
    (void)state;
    small_parts parts = {.merges = "[[\"a\",\"b\"],[\"q\",\"zz\"]]"};
    mln_buffer json = small_document(&parts);
    mln_tokenizer *t;
    myelin_error error;
    assert_int_equal(mln_tokenizer_parse(&t, json.data, json.length, NULL, &error), F);
    const char *at = strstr(json.data, "[\"q\"");
    assert_non_null(at);
    assert_in_range(error.offset, at - json.data, at - json.data + 16);
    mln_buffer_free(&json);
}

/* A string of `count` times `unit` between `first` and `last`; to be freed. */
static char *repeated(const char *first, const char *unit, size_t count, const char *last) {
    mln_buffer out = {0};
    mln_buffer_append(&out, first, strlen(first));
    for (size_t i = 0; i < count; i++)
        mln_buffer_append(&out, unit, strlen(unit));
    mln_buffer_append(&out, last, strlen(last));
    return out.data;
}

static void what_is_too_much_is_refused(void **state) {
    (void)state;
    char *token = repeated(",\"", "x", MLN_TOKENIZER_MAX_TOKEN_BYTES + 1, "\":300");
    char *content = repeated("[{\"content\":\"", "x", MLN_TOKENIZER_MAX_TOKEN_BYTES + 1, "\"}]");
    char *merge = repeated("[\"a ", "x", MLN_TOKENIZER_MAX_TOKEN_BYTES + 1, "\"]");
    char *pattern = repeated("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                             "\"pattern\":{\"Regex\":\"",
                             "x", MLN_TOKENIZER_MAX_PATTERN_BYTES + 1,
                             "\"}},{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]}");
    char *deep = repeated("", "[", 100, "");
    char *many = repeated("{\"type\":[", "1,", 5000, "1]}");
    char *key = repeated("{\"", "k", 300, "\":1}");
    char *tokens =
        repeated("[", SMALL_ADDED(258, "x", FLAGS) ",", MLN_TOKENIZER_MAX_ADDED + 1, "1]");
    const refusal cases[] = {
        {{.vocab = token}, F, "model.vocab: expected tokens of at most 4096 bytes, found 4097"},
        {{.added_tokens = content}, F, "added_tokens[0].content: expected tokens of at most 4096"},
        {{.merges = merge}, F, "model.merges: expected tokens of at most 4096 bytes, found 4097"},
        {{.pre_tokenizer = pattern},
         F,
         "pre_tokenizer.pretokenizers.0.pattern.Regex: expected at most 4096 bytes, found 4097"},
        {{.decoder = deep}, F, "expected at most 64 levels of nesting, found more"},
        {{.decoder = many}, F, "expected at most 4096 settings, found more"},
        {{.decoder = key}, F, "expected keys whose path has less than 256 bytes, found"},
        {{.added_tokens = tokens}, F, "added_tokens: expected at most 65536, found more"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refusal(&cases[i]);
    char *const all[] = {token, content, merge, pattern, deep, many, key, tokens};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* Every document that ends early is refused, and an array or nothing at all. */
static void cut_off_documents_are_refused(void **state) {
    (void)state;
    mln_buffer json = small_document(&(small_parts){0});
    mln_tokenizer *t;
    myelin_error error;
    for (size_t n = 0; n < json.length; n++) {
        assert_int_equal(mln_tokenizer_parse(&t, json.data, n, NULL, &error), F);
        assert_null(t);
    }
    assert_int_equal(mln_tokenizer_parse(&t, "[]", 2, NULL, &error), F);
    assert_string_equal(error.message, "the document: expected an object, found an array (byte 1)");
    mln_buffer_free(&json);
}

static void a_missing_file_is_named(void **state) {
    (void)state;
    mln_tokenizer *t;
    myelin_error error;
    assert_int_equal(mln_tokenizer_open(&t, MYELIN_TEST_DATA "/tokenizer", &error),
                     MYELIN_ERROR_NOT_FOUND);
    assert_null(t);
    assert_string_equal(error.message, "tokenizer.json: cannot open: No such file or directory");
}

/* Patterns that backtrack without end are an error, and soon. */
static void a_hostile_pattern_ends(void **state) {
    (void)state;
    small_parts parts = {.pre_tokenizer = REGEX("(?:(?:a+)+)+[bd]")};
    mln_buffer json = small_document(&parts);
    mln_tokenizer *t;
    myelin_error error;
    assert_int_equal(mln_tokenizer_parse(&t, json.data, json.length, NULL, &error), MYELIN_OK);
    char *text = repeated("", "a", 4000, "c");
    mln_ids ids = {0};
    assert_int_equal(mln_tokenizer_encode(t, text, strlen(text), MLN_ADDED_AS_TOKENS, &ids, &error),
                     U);
    assert_non_null(strstr(error.message, "splitting the text failed at byte 0"));
    assert_int_equal(ids.count, 0);
    mln_ids_free(&ids);
    free(text);
    mln_tokenizer_free(t);
    mln_buffer_free(&json);
}

/* What is odd but harmless. */
static void odd_documents_are_accepted(void **state) {
    (void)state;
    static const small_parts cases[] = {
        {.top = "\"unknown\":{\"a\":[1,{\"b\":null}]},"},
        {.top = "\"truncation\":{\"max_length\":5},"},
        {.normalizer = "null"},
        {.normalizer = ""},
        {.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[]}"},
        {.pre_tokenizer = BYTE_LEVEL("")},
        {.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL("") "]}"},
        {.pre_tokenizer =
             REGEX("(?i:'s|'T)|[^\\\\r\\\\n\\\\p{L}\\\\-]?+\\\\P{Nd}{1,3}|(?>.)|\\\\s*?\\\\d")},
        {.post_processor = BYTE_LEVEL("")},
        {.post_processor = "{\"type\":\"Sequence\",\"processors\":[" BYTE_LEVEL("") "]}"},
        {.model_options = "\"dropout\":0.0,\"unk_token\":null,\"fuse_unk\":true,"},
        {.model_options = "\"dropout\":null,\"ignore_merges\":null,\"later\":{\"x\":[]},"},
        {.merges = "[]"},
        {.merges = "[\"#version: 0.2\",\"a b\"]"},
        {.vocab = ",\"abc\":257,\"ab\":256"},
        {.vocab = ",\"ab\":4194303,\"abc\":300"},
        {.added_tokens = ""},
        {.added_tokens =
             "[{\"x\":[[{\"id\":7}]],\"id\":258,\"content\":\"<\\u0000>\"," FLAGS "}]"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_buffer json = small_document(&cases[i]);
        mln_tokenizer *t;
        myelin_error error;
        if (mln_tokenizer_parse(&t, json.data, json.length, NULL, &error) != MYELIN_OK)
            fail_msg("case %zu: %s", i, error.message);
        mln_ids ids = {0};
        assert_int_equal(mln_tokenizer_encode(t, "xab", 3, MLN_ADDED_AS_TOKENS, &ids, NULL), 0);
        assert_true(ids.count >= 2);
        assert_int_equal(ids.data[0], 'x');
        mln_ids_free(&ids);
        mln_tokenizer_free(t);
        mln_buffer_free(&json);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(settings_are_checked),
                                       cmocka_unit_test(patterns_are_checked),
                                       cmocka_unit_test(models_are_checked),
                                       cmocka_unit_test(added_tokens_are_checked),
                                       cmocka_unit_test(errors_tell_the_byte),
                                       cmocka_unit_test(what_is_too_much_is_refused),
                                       cmocka_unit_test(cut_off_documents_are_refused),
                                       cmocka_unit_test(a_missing_file_is_named),
                                       cmocka_unit_test(a_hostile_pattern_ends),
                                       cmocka_unit_test(odd_documents_are_accepted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
