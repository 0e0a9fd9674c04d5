/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holding text to a schema adds to a token: the time a token takes with and without, in turns,
 * medians over rounds of the same prompt, sampled.
 *   measure_constraint MODEL [ROUNDS]     a directory of a model with its tokenizer; default: 5
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "myelin/myelin.h"
#include "support/measure.h"

enum { TOKENS = 96, MOST_ROUNDS = 100 };

/* Ones that go on for some time, whatever the model: no bounds on what repeats. */
static const struct {
    const char *name, *schema;
} schemas[] = {
    {"any JSON value", "{}"},
    {"a record",
     "{\"type\": \"object\", \"additionalProperties\": false,"
     " \"required\": [\"title\", \"kind\", \"score\", \"tags\"], \"properties\": {"
     " \"title\": {\"type\": \"string\"}, \"kind\": {\"enum\": [\"note\", \"task\", \"event\"]},"
     " \"score\": {\"type\": \"number\"},"
     " \"tags\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}}}}"},
    {"an array of records",
     "{\"type\": \"array\", \"minItems\": 20, \"items\": {\"type\": \"object\","
     " \"additionalProperties\": false, \"required\": [\"name\", \"age\", \"email\"],"
     " \"properties\": {\"name\": {\"type\": \"string\", \"minLength\": 3, \"maxLength\": 20},"
     " \"age\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 150},"
     " \"email\": {\"type\": \"string\", \"pattern\": \"^[a-z]{1,12}@[a-z]{1,12}\\\\.com$\"}}}}"},
    {"a tree", "{\"$ref\": \"#/$defs/node\", \"$defs\": {\"node\": {\"type\": \"object\","
               " \"additionalProperties\": false, \"required\": [\"value\", \"children\"],"
               " \"properties\": {\"value\": {\"anyOf\": [{\"type\": \"string\"},"
               " {\"type\": \"number\"}]}, \"children\": {\"type\": \"array\","
               " \"items\": {\"$ref\": \"#/$defs/node\"}}}}}}"},
};

static void fail(const myelin_error *error) {
    fprintf(stderr, "measure_constraint: %s\n", error->message);
    exit(1);
}

/* Milliseconds of a token after the first; *tokens is how many there were. */
static double per_token(myelin_model *model, const myelin_constraint *constraint, uint64_t seed,
                        size_t *tokens) {
    static const int32_t none[1];
    myelin_error error = {0};
    myelin_result result;
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.max_new_tokens = TOKENS;
    options.sampler = MYELIN_SAMPLER_SAMPLED;
    options.top_k = 20;
    options.seed = seed;
    options.constraint = constraint;
    options.stop_ids = constraint ? NULL : none; /* none of them: free text goes on */
    if (myelin_run(model, "Describe a few things as JSON:\n", &options, &result, &error) !=
        MYELIN_OK)
        fail(&error);
    double ms = result.per_token_ms;
    *tokens = result.num_tokens;
    myelin_result_clear(&result);
    return ms;
}

static void measure(myelin_model *model, const char *name, const char *schema, int rounds) {
    double with[MOST_ROUNDS], without[MOST_ROUNDS], ratios[MOST_ROUNDS];
    size_t total = 0, tokens;
    for (int i = 0; i < rounds; i++) {
        myelin_constraint *constraint;
        myelin_error error = {0};
        if (myelin_constraint_from_schema(&constraint, myelin_model_tokenizer(model), schema,
                                          strlen(schema), &error) != MYELIN_OK)
            fail(&error);
        without[i] = per_token(model, NULL, (uint64_t)i, &tokens);
        with[i] = per_token(model, constraint, (uint64_t)i, &tokens);
        ratios[i] = with[i] / without[i];
        total += tokens;
        myelin_constraint_free(constraint);
    }
    printf("%-20s %6zu tokens, a token %7.3f ms, free %7.3f ms: %+.1f%%\n", name, total,
           median(with, rounds), median(without, rounds), 100 * (median(ratios, rounds) - 1));
}

int main(int argc, char **argv) {
    myelin_model *model;
    myelin_error error = {0};
    long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 5;
    if (argc < 2 || rounds < 1 || rounds > MOST_ROUNDS) {
        fprintf(stderr, "usage: measure_constraint MODEL [ROUNDS]\n");
        return 2;
    }
    if (myelin_model_open(&model, argv[1], NULL, &error) != MYELIN_OK)
        fail(&error);
    if (!myelin_model_tokenizer(model)) {
        fprintf(stderr, "measure_constraint: %s has no tokenizer\n", argv[1]);
        return 1;
    }
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
        measure(model, schemas[i].name, schemas[i].schema, (int)rounds);
    myelin_model_close(model);
    return 0;
}
