/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "checkpoint/config.h"
#include "checkpoint/expect.h"
#include "myelin/tensor.h"

/* Qwen3-0.6B's published numbers, each member on its own so that a test can replace one. */
static const struct {
    const char *key, *value;
} members[] = {
    {"architectures", "[\"Qwen3ForCausalLM\"]"},
    {"attention_bias", "false"},
    {"attention_dropout", "0.0"},
    {"bos_token_id", "151643"},
    {"eos_token_id", "151645"},
    {"head_dim", "128"},
    {"hidden_act", "\"silu\""},
    {"hidden_size", "1024"},
    {"intermediate_size", "3072"},
    {"max_position_embeddings", "40960"},
    {"max_window_layers", "28"},
    {"model_type", "\"qwen3\""},
    {"num_attention_heads", "16"},
    {"num_hidden_layers", "28"},
    {"num_key_value_heads", "8"},
    {"rms_norm_eps", "1e-06"},
    {"rope_scaling", "null"},
    {"rope_theta", "1000000"},
    {"sliding_window", "null"},
    {"tie_word_embeddings", "true"},
    {"torch_dtype", "\"bfloat16\""},
    {"use_cache", "true"},
    {"use_sliding_window", "false"},
    {"vocab_size", "151936"},
};

/*
 * The members with some replaced, added or (value "") left out. `changes` is a list of
 * `key`, `value`, ..., NULL. Heap memory.
 */
static char *document(const char *const *changes) {
    mln_buffer out = {0};
    char text[2048];
    mln_buffer_append(&out, "{\"unknown\": {\"key\": [1]}", 24);
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        bool changed = false;
        for (const char *const *c = changes; *c; c += 2)
            changed = changed || strcmp(*c, members[i].key) == 0;
        snprintf(text, sizeof text, ",\n\"%s\": %s", members[i].key, members[i].value);
        if (!changed)
            mln_buffer_append(&out, text, strlen(text));
    }
    for (const char *const *c = changes; *c; c += 2) {
        snprintf(text, sizeof text, ",\n\"%s\": %s", c[0], c[1]);
        if (*c[1])
            mln_buffer_append(&out, text, strlen(text));
    }
    mln_buffer_append(&out, "}", 1);
    return out.data;
}

static myelin_status parse(mln_model_config *config, const char *const *changes,
                           myelin_error *error) {
    char *text = document(changes);
    myelin_status status = mln_config_parse(config, text, strlen(text), "/m/config.json", error);
    free(text);
    return status;
}

static void parse_ok(mln_model_config *config, const char *const *changes) {
    myelin_error error = {0};
    if (parse(config, changes, &error) != MYELIN_OK)
        fail_msg("%s: %s", changes[0] ? changes[0] : "published", error.message);
}

#define CHANGES(...) ((const char *const[]){__VA_ARGS__, NULL})
static const char *const unchanged[] = {NULL};

static void test_published(void **state) {
    (void)state;
    mln_model_config c;
    parse_ok(&c, unchanged);
    assert_int_equal(c.model.vocab_size, 151936);
    assert_int_equal(c.model.hidden_size, 1024);
    assert_int_equal(c.model.intermediate_size, 3072);
    assert_int_equal(c.model.num_hidden_layers, 28);
    assert_int_equal(c.model.num_attention_heads, 16);
    assert_int_equal(c.model.num_key_value_heads, 8);
    assert_int_equal(c.model.head_dim, 128);
    assert_int_equal(c.model.tie_word_embeddings, 1);
    assert_int_equal(c.model.max_position_embeddings, 40960);
    assert_int_equal(c.model.torch_dtype, MYELIN_DTYPE_BF16);
    assert_true(c.model.rms_norm_eps == 1e-6);
    assert_int_equal(c.model.rope.type, MYELIN_ROPE_DEFAULT);
    assert_true(c.model.rope.theta == 1e6);
    assert_true(c.model.rope.attention_factor == 1);
    assert_int_equal(c.model.quantization_bits, 0);
    assert_int_equal(c.num_stop_ids, 1);
    assert_int_equal(c.stop_ids[0], 151645);
    mln_config_free(&c);
}

static void test_transformers_5_spelling(void **state) {
    (void)state;
    mln_model_config c;
    parse_ok(&c, CHANGES("rope_theta", "", "rope_scaling", "", "torch_dtype", "", "dtype",
                         "\"float16\"", "rope_parameters",
                         "{\"rope_theta\": 500000.0, \"rope_type\": \"default\"}"));
    assert_true(c.model.rope.theta == 500000);
    assert_int_equal(c.model.torch_dtype, MYELIN_DTYPE_F16);
    mln_config_free(&c);
}

static void test_defaults(void **state) {
    (void)state;
    mln_model_config c;
    parse_ok(&c, CHANGES("head_dim", "", "num_key_value_heads", "null", "rms_norm_eps", "",
                         "rope_theta", "", "rope_scaling", "", "tie_word_embeddings", "",
                         "max_position_embeddings", "", "eos_token_id", "null", "torch_dtype", "",
                         "model_type", "", "attention_bias", "", "hidden_act", ""));
    assert_int_equal(c.model.head_dim, 128);
    assert_int_equal(c.model.num_key_value_heads, 16);
    assert_true(c.model.rms_norm_eps == 1e-6);
    assert_true(c.model.rope.theta == 10000);
    assert_int_equal(c.model.tie_word_embeddings, 0);
    assert_int_equal(c.model.max_position_embeddings, 32768);
    assert_int_equal(c.model.torch_dtype, 0);
    assert_int_equal(c.num_stop_ids, 0);
    mln_config_free(&c);
    parse_ok(&c, CHANGES("architectures", "", "eos_token_id", "[5, 7, 2147483647]"));
    assert_int_equal(c.num_stop_ids, 3);
    assert_int_equal(c.stop_ids[2], 2147483647);
    mln_config_free(&c);
}

static void test_harmless(void **state) {
    (void)state;
    static const char *const changes[][3] = {
        {"sliding_window", "4096"},
        {"mlp_bias", "false"},
        {"attention_bias", "null"},
        {"rope_scaling", "{}"},
        {"partial_rotary_factor", "1.0"},
        {"rms_norm_eps", "0.5"},
        {"torch_dtype", "\"float64\""},
        {"rope_scaling", "{\"type\": \"default\"}"},
        {"rope_scaling", "{\"rope_type\": null, \"rope_theta\": 7}"},
        {"architectures", "[\"Other\", \"Qwen3ForCausalLM\"]"},
        {"quantization", "null"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        mln_model_config c;
        parse_ok(&c, changes[i]);
        mln_config_free(&c);
    }
}

/* factor 4: what transformers 5.17 computes, 0.1 ln(4) + 1 and so on. */
static void test_yarn(void **state) {
    (void)state;
    static const struct {
        const char *key, *section;
        double attention_factor, factor, beta_fast, beta_slow;
        int64_t original;
        int32_t truncate;
    } cases[] = {
        {"rope_scaling",
         "{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}",
         1.1386294361119891, 4, 32, 1, 32768, 1},
        {"rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":4,\"rope_theta\":1000000}",
         1.1386294361119891, 4, 32, 1, 40960, 1},
        {"rope_scaling", "{\"rope_type\":\"yarn\",\"type\":\"linear\",\"factor\":1}", 1, 1, 32, 1,
         40960, 1},
        {"rope_scaling",
         "{\"rope_type\":\"yarn\",\"factor\":2,\"attention_factor\":0.75,\"beta_fast\":16,"
         "\"beta_slow\":2.5,\"truncate\":false}",
         0.75, 2, 16, 2.5, 40960, 0},
        {"rope_scaling",
         "{\"rope_type\":\"yarn\",\"factor\":null,\"beta_fast\":0,\"beta_slow\":null,"
         "\"original_max_position_embeddings\":10240}",
         1.1386294361119891, 4, 32, 1, 10240, 1},
        {"rope_scaling",
         "{\"rope_type\":\"yarn\",\"factor\":40,\"mscale\":0.707,\"mscale_all_dim\":1.0}",
         (0.1 * 0.707 * 3.6888794541139363 + 1) / (0.1 * 3.6888794541139363 + 1), 40, 32, 1, 40960,
         1},
        {"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":40,\"mscale\":0.707}",
         0.1 * 3.6888794541139363 + 1, 40, 32, 1, 40960, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_model_config c;
        parse_ok(&c, CHANGES(cases[i].key, cases[i].section));
        const myelin_rope_config *r = &c.model.rope;
        assert_int_equal(r->type, MYELIN_ROPE_YARN);
        assert_true(fabs(r->attention_factor - cases[i].attention_factor) < 1e-15);
        assert_true(r->theta == 1e6 && r->factor == cases[i].factor);
        assert_true(r->beta_fast == cases[i].beta_fast && r->beta_slow == cases[i].beta_slow);
        assert_int_equal(r->original_max_position_embeddings, cases[i].original);
        assert_int_equal(r->truncate, cases[i].truncate);
        mln_config_free(&c);
    }
}

static void test_quantization(void **state) {
    (void)state;
    static const char section[] =
        "{\"group_size\": 32, \"bits\": 8, \"mode\": \"affine\", \"m.c\": true, \"m.b\": false, "
        "\"m.a\": {\"bits\": 4, \"group_size\": 128}, \"m.d\": {}, \"other\": 3}";
    mln_model_config c;
    parse_ok(&c, CHANGES("quantization", section, "quantization_config", section));
    assert_int_equal(c.model.quantization_bits, 8);
    assert_int_equal(c.model.quantization_group_size, 32);
    assert_int_equal(c.num_overrides, 4);
    static const struct {
        const char *module;
        int32_t bits, group_size;
    } expected[] = {{"m.a", 4, 128}, {"m.b", 0, 0}, {"m.c", 8, 32}, {"m.d", 4, 64}};
    for (size_t i = 0; i < 4; i++) {
        const mln_quantization_override *o = mln_config_override(&c, expected[i].module);
        assert_non_null(o);
        assert_int_equal(o->bits, expected[i].bits);
        assert_int_equal(o->group_size, expected[i].group_size);
    }
    assert_null(mln_config_override(&c, "m.e"));
    mln_config_free(&c);
}

/* Every number, and every value no number may have. */
static void test_bad_numbers(void **state) {
    (void)state;
    static const char *const keys[] = {"vocab_size",
                                       "hidden_size",
                                       "intermediate_size",
                                       "num_hidden_layers",
                                       "num_attention_heads",
                                       "num_key_value_heads",
                                       "head_dim",
                                       "rms_norm_eps",
                                       "rope_theta",
                                       "max_position_embeddings"};
    static const char *const values[] = {
        "0",   "-1",   "64.5", "64.0",  "1000000000",          "1e999", "NaN", "\"8\"",
        "[8]", "true", "-0.5", "1e300", "99999999999999999999"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            /* rope_theta is any positive number. */
            if (strcmp(keys[k], "rope_theta") == 0 && strchr("61", *values[v]) && v != 5)
                continue;
            mln_model_config c;
            myelin_error error = {0};
            char name[96];
            snprintf(name, sizeof name, "%s: %s", keys[k], values[v]);
            bool bad_json = v == 5 || v == 6 || v == 12;
            expect_failure(name, parse(&c, CHANGES(keys[k], values[v]), &error), &error,
                           MYELIN_ERROR_FORMAT, bad_json ? "invalid JSON" : keys[k]);
            if (!bad_json && !strstr(error.message, "expected"))
                fail_msg("%s: %s", name, error.message);
        }
    }
}

static void test_bad(void **state) {
    (void)state;
    static const struct {
        const char *key, *value;
        myelin_status status;
        const char *message;
    } cases[] = {
        {"vocab_size", "", MYELIN_ERROR_FORMAT,
         "config.json: vocab_size: expected an integer from 1 to 16777216, found nothing"},
        {"hidden_size", "null", MYELIN_ERROR_FORMAT, "hidden_size: expected"},
        {"hidden_size", "64.0", MYELIN_ERROR_FORMAT, "found 64.0"},
        {"hidden_size", "-3", MYELIN_ERROR_FORMAT, "found -3"},
        {"head_dim", "null", MYELIN_ERROR_FORMAT, "head_dim: expected"},
        {"head_dim", "127", MYELIN_ERROR_FORMAT, "head_dim: expected an even number, found 127"},
        {"num_key_value_heads", "5", MYELIN_ERROR_FORMAT,
         "num_attention_heads (16) is not a multiple of num_key_value_heads (5)"},
        {"model_type", "\"llama\"", MYELIN_ERROR_UNSUPPORTED,
         "model_type: expected \"qwen3\", found \"llama\""},
        {"model_type", "\"qwen3_moe\"", MYELIN_ERROR_UNSUPPORTED, "found \"qwen3_moe\""},
        {"model_type", "3", MYELIN_ERROR_FORMAT, "model_type: expected a string, found 3"},
        {"architectures", "[\"LlamaForCausalLM\"]", MYELIN_ERROR_UNSUPPORTED,
         "expected \"Qwen3ForCausalLM\", found \"LlamaForCausalLM\""},
        {"architectures", "[]", MYELIN_ERROR_UNSUPPORTED, "found nothing"},
        {"architectures", "\"Qwen3ForCausalLM\"", MYELIN_ERROR_FORMAT, "a list of strings"},
        {"architectures", "[1]", MYELIN_ERROR_FORMAT, "found an integer in it"},
        {"attention_bias", "true", MYELIN_ERROR_UNSUPPORTED, "attention_bias"},
        {"attention_bias", "0", MYELIN_ERROR_FORMAT, "attention_bias: expected true or false"},
        {"mlp_bias", "true", MYELIN_ERROR_UNSUPPORTED, "mlp_bias"},
        {"use_sliding_window", "true", MYELIN_ERROR_UNSUPPORTED, "use_sliding_window"},
        {"hidden_act", "\"gelu\"", MYELIN_ERROR_UNSUPPORTED, "expected \"silu\", found \"gelu\""},
        {"layer_types", "[\"full_attention\"]", MYELIN_ERROR_FORMAT,
         "expected 28 entries (num_hidden_layers), found 1"},
        {"layer_types", "\"full_attention\"", MYELIN_ERROR_FORMAT, "a list of strings"},
        {"tie_word_embeddings", "1", MYELIN_ERROR_FORMAT, "tie_word_embeddings"},
        {"torch_dtype", "16", MYELIN_ERROR_FORMAT, "torch_dtype: expected a string"},
        {"rms_norm_eps", "0.0", MYELIN_ERROR_FORMAT, "rms_norm_eps: expected a number above 0"},
        {"eos_token_id", "-1", MYELIN_ERROR_FORMAT, "eos_token_id"},
        {"eos_token_id", "2147483648", MYELIN_ERROR_FORMAT, "found 2147483648"},
        {"eos_token_id", "[1, 2.5]", MYELIN_ERROR_FORMAT, "found 2.5"},
        {"eos_token_id", "\"</s>\"", MYELIN_ERROR_FORMAT, "found \"</s>\""},
        {"partial_rotary_factor", "0.5", MYELIN_ERROR_UNSUPPORTED, "partial_rotary_factor"},
        {"rope_scaling", "3", MYELIN_ERROR_FORMAT, "rope_scaling: expected an object"},
        {"rope_scaling", "{\"rope_type\": \"linear\", \"factor\": 2}", MYELIN_ERROR_UNSUPPORTED,
         "rope_scaling.rope_type: expected \"default\" or \"yarn\", found \"linear\""},
        {"rope_scaling", "{\"type\": \"dynamic\"}", MYELIN_ERROR_UNSUPPORTED, "\"dynamic\""},
        {"rope_parameters", "{\"rope_type\": \"llama3\"}", MYELIN_ERROR_UNSUPPORTED,
         "rope_parameters.rope_type"},
        {"rope_scaling", "{\"type\": \"longrope\"}", MYELIN_ERROR_UNSUPPORTED, "\"longrope\""},
        {"rope_scaling", "{\"type\": 5}", MYELIN_ERROR_FORMAT, "rope_scaling.type"},
        {"rope_scaling", "{\"partial_rotary_factor\": 0.25}", MYELIN_ERROR_UNSUPPORTED, "0.25"},
        {"rope_parameters", "{\"full_attention\": {\"rope_type\": \"yarn\"}}",
         MYELIN_ERROR_UNSUPPORTED, "full_attention"},
        {"rope_scaling", "{\"type\": \"yarn\"}", MYELIN_ERROR_FORMAT,
         "rope_scaling.factor: expected a number from 1 to 1e+06, found nothing"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 0.5}", MYELIN_ERROR_FORMAT, "factor"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": \"4\"}", MYELIN_ERROR_FORMAT, "factor"},
        {"rope_scaling",
         "{\"type\": \"yarn\", \"factor\": 4, \"original_max_position_embeddings\": 0}",
         MYELIN_ERROR_FORMAT, "original_max_position_embeddings"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"beta_fast\": -1}",
         MYELIN_ERROR_FORMAT, "beta_fast"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"beta_slow\": 64}",
         MYELIN_ERROR_FORMAT, "beta_fast (32) is less than beta_slow (64)"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"attention_factor\": 0}",
         MYELIN_ERROR_FORMAT, "attention_factor"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"truncate\": 1}",
         MYELIN_ERROR_FORMAT, "truncate"},
        {"rope_scaling", "{\"type\": \"yarn\", \"factor\": 4, \"rope_theta\": 1}",
         MYELIN_ERROR_FORMAT, "rope_theta: expected a number above 1 for yarn"},
        {"quantization", "4", MYELIN_ERROR_FORMAT, "quantization: expected an object"},
        {"quantization", "{\"bits\": 4}", MYELIN_ERROR_FORMAT, "quantization.group_size"},
        {"quantization", "{\"group_size\": 64}", MYELIN_ERROR_FORMAT, "quantization.bits"},
        {"quantization", "{\"group_size\": 64, \"bits\": 3}", MYELIN_ERROR_UNSUPPORTED,
         "quantization.bits: expected 4 or 8, found 3"},
        {"quantization", "{\"group_size\": 16, \"bits\": 4}", MYELIN_ERROR_UNSUPPORTED,
         "quantization.group_size: expected 32, 64 or 128, found 16"},
        {"quantization", "{\"group_size\": 32, \"bits\": 4, \"mode\": \"mxfp4\"}",
         MYELIN_ERROR_UNSUPPORTED, "quantization.mode: expected \"affine\", found \"mxfp4\""},
        {"quantization",
         "{\"group_size\": 64, \"bits\": 4, \"model.x\": {\"bits\": 6, \"group_size\": 64}}",
         MYELIN_ERROR_UNSUPPORTED, "quantization.model.x.bits: expected 4 or 8, found 6"},
        {"quantization",
         "{\"group_size\": 64, \"bits\": 4, \"x\": {\"mode\": \"nvfp4\", \"bits\": 4}}",
         MYELIN_ERROR_UNSUPPORTED, "quantization.x.mode"},
        {"quantization_config", "{\"quant_method\": \"gptq\", \"bits\": 4}",
         MYELIN_ERROR_UNSUPPORTED, "found \"gptq\""},
        {"quantization_config", "{\"quant_method\": \"fp8\"}", MYELIN_ERROR_UNSUPPORTED, "\"fp8\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_model_config c;
        myelin_error error = {0};
        char name[256];
        snprintf(name, sizeof name, "%s: %s", cases[i].key, cases[i].value);
        expect_failure(name, parse(&c, CHANGES(cases[i].key, cases[i].value), &error), &error,
                       cases[i].status, cases[i].message);
    }
}

static void test_bad_documents(void **state) {
    (void)state;
    static const char *const texts[] = {
        "", "{", "[]", "3", "null", "{} {}", "{\"vocab_size\": 1, \"vocab_size\": 1}", "\xff"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        mln_model_config c;
        myelin_error error = {0};
        expect_failure(texts[i],
                       mln_config_parse(&c, texts[i], strlen(texts[i]), "config.json", &error),
                       &error, MYELIN_ERROR_FORMAT, "config.json: ");
    }
    mln_model_config c;
    myelin_error error = {0};
    expect_failure("{}", mln_config_parse(&c, "{}", 2, "config.json", &error), &error,
                   MYELIN_ERROR_UNSUPPORTED, "model_type: expected \"qwen3\", found nothing");
    expect_failure("layer_types",
                   parse(&c,
                         CHANGES("num_hidden_layers", "2", "layer_types",
                                 "[\"full_attention\", \"sliding_attention\"]"),
                         &error),
                   &error, MYELIN_ERROR_UNSUPPORTED,
                   "layer_types[1]: expected \"full_attention\", found \"sliding_attention\"");
    /* 65 ids, one more than there is room for. */
    char ids[256] = "[1";
    for (int i = 1; i <= MLN_CONFIG_MAX_STOP_IDS; i++)
        strcat(ids, ",1");
    strcat(ids, "]");
    expect_failure("ids", parse(&c, CHANGES("eos_token_id", ids), &error), &error,
                   MYELIN_ERROR_FORMAT, "at most 64 token ids, found 65");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),    cmocka_unit_test(test_transformers_5_spelling),
        cmocka_unit_test(test_defaults),     cmocka_unit_test(test_harmless),
        cmocka_unit_test(test_yarn),         cmocka_unit_test(test_quantization),
        cmocka_unit_test(test_bad_numbers),  cmocka_unit_test(test_bad),
        cmocka_unit_test(test_bad_documents)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
