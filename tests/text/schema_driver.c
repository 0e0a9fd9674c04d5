/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What compare_schemas.py talks to: each line of input is {"schema": S, "seed": N, "count": N},
 * each line of output an array of texts drawn under S, or {"refused": MESSAGE}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/walk.h"

enum { MAX_TOKENS = 3000 };

static json_t *answer(const mln_tokenizer *tokenizer, const json_t *request) {
    mln_grammar *grammar;
    myelin_error error = {0};
    if (mln_grammar_from_schema(&grammar, tokenizer, json_object_get(request, "schema"), &error) !=
        MYELIN_OK)
        return json_pack("{s:s}", "refused", error.message);
    json_t *texts = json_array();
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(request, "seed"));
    json_int_t count = json_integer_value(json_object_get(request, "count"));
    for (json_int_t i = 0; i < count; i++) {
        mln_buffer text = {0};
        bool ended = walk_text(tokenizer, grammar, seed * 1000 + (uint64_t)i, MAX_TOKENS, &text);
        if (ended)
            json_array_append_new(texts, json_stringn_nocheck(text.data, text.length));
        else
            json_array_append_new(texts, json_null());
        mln_buffer_free(&text);
    }
    mln_grammar_free(grammar);
    return texts;
}

int main(int argc, char **argv) {
    mln_tokenizer *tokenizer;
    myelin_error error = {0};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    if (argc != 2 || mln_tokenizer_open(&tokenizer, argv[1], &error) != MYELIN_OK) {
        fprintf(stderr, "%s\n", argc == 2 ? error.message : "usage: schema_driver DIRECTORY");
        return 2;
    }
    while ((length = getline(&line, &capacity, stdin)) > 0) {
        json_t *request = json_loadb(line, (size_t)length, 0, NULL);
        json_t *result = request ? answer(tokenizer, request)
                                 : json_pack("{s:s}", "refused", "no JSON that jansson reads");
        json_dumpf(result, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(result);
        json_decref(request);
    }
    free(line);
    mln_tokenizer_free(tokenizer);
    return 0;
}
