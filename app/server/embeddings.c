/* SPDX-License-Identifier: Apache-2.0 */
/* POST /v1/embeddings. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_INPUTS = 2048 };

/* What is asked for, and what has been written. */
typedef struct request {
    const json_t *input;
    bool many; /* input is an array of inputs */
    bool base64;
    int32_t hidden, dimensions;
    int32_t end_id; /* appended to texts, or -1 */
    size_t tokens;
    float *embedding; /* [hidden] */
} request;

static bool read_request(answer *a, request *q, problem *p) {
    const json_t *body = a->json;
    const char *encoding = "float";
    int64_t dimensions = q->hidden;
    const char *user = NULL;
    size_t length;
    if (!answer_check_model(a, body, p) ||
        !body_string(body, "", "encoding_format", &encoding, NULL, p) ||
        !body_int(body, "", "dimensions", 1, q->hidden, &dimensions, p) ||
        !body_string(body, "", "user", &user, &length, p))
        return false;
    q->base64 = strcmp(encoding, "base64") == 0;
    q->dimensions = (int32_t)dimensions;
    if (!q->base64 && strcmp(encoding, "float") != 0)
        return problem_set(p, 400, "encoding_format", "invalid_value",
                           "encoding_format: expected \"float\" or \"base64\", found \"%.40s\"",
                           encoding);
    q->input = json_object_get(body, "input");
    const json_t *first = json_array_get(q->input, 0);
    q->many = json_is_string(first) || json_is_array(first);
    if (!json_is_string(q->input) && first == NULL)
        return body_unexpected(p, "input", "a string or an array, not empty", q->input);
    if (q->many && json_array_size(q->input) > MAX_INPUTS)
        return problem_set(p, 400, "input", "invalid_value",
                           "input: expected at most %d inputs, found %zu", MAX_INPUTS,
                           json_array_size(q->input));
    return true;
}

/* The token that Qwen3-Embedding's tokenizer puts behind a text, or -1. */
static int32_t end_token(const myelin_tokenizer *tokenizer) {
    static const char text[] = "<|endoftext|>";
    int32_t *ids, id = -1;
    size_t count;
    if (myelin_tokenize(tokenizer, text, sizeof text - 1, true, &ids, &count, NULL) != MYELIN_OK)
        return -1;
    if (count == 1)
        id = ids[0];
    myelin_free(ids);
    return id;
}

/* The ids of one input, released with free(). */
static bool input_ids(const answer *a, const request *q, const json_t *input, const char *at,
                      int32_t **ids, size_t *count, problem *p) {
    int32_t *found, *list;
    myelin_error error;
    if (!json_is_string(input))
        return body_ids(input, at, myelin_model_config(a->r->model)->vocab_size, BODY_MAX_VALUES,
                        ids, count, p);
    if (myelin_tokenize(answer_tokenizer(a), json_string_value(input), json_string_length(input),
                        false, &found, count, &error) != MYELIN_OK)
        return problem_set(p, 400, at, NULL, "%s: %s", at, error.message);
    list = malloc((*count + 1) * sizeof *list);
    if (list != NULL && *count > 0)
        memcpy(list, found, *count * sizeof *list);
    myelin_free(found);
    if (list == NULL)
        return problem_set(p, 500, NULL, NULL, "out of memory");
    if (q->end_id >= 0 && *count > 0)
        list[(*count)++] = q->end_id;
    *ids = list;
    return true;
}

/* Keeps the first dimensions, divided by their length. */
static void shorten(const request *q) {
    double sum = 0;
    if (q->dimensions == q->hidden)
        return;
    for (int32_t i = 0; i < q->dimensions; i++)
        sum += (double)q->embedding[i] * (double)q->embedding[i];
    for (int32_t i = 0; i < q->dimensions && sum > 0; i++)
        q->embedding[i] = (float)((double)q->embedding[i] / sqrt(sum));
}

/* Little-endian floats, whatever the machine's order. */
static void write_base64(const request *q, out *body) {
    unsigned char *bytes = malloc((size_t)q->dimensions * 4);
    if (bytes == NULL) {
        body->failed = true;
        return;
    }
    for (int32_t i = 0; i < q->dimensions; i++) {
        uint32_t bits;
        memcpy(&bits, &q->embedding[i], sizeof bits);
        for (int j = 0; j < 4; j++)
            bytes[4 * i + j] = (unsigned char)(bits >> 8 * j & 255);
    }
    out_base64(body, bytes, (size_t)q->dimensions * 4);
    free(bytes);
}

static void write_embedding(const request *q, size_t index, out *body) {
    out_format(body, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":%s",
               index > 0 ? "," : "", index, q->base64 ? "\"" : "[");
    if (q->base64)
        write_base64(q, body);
    for (int32_t i = 0; !q->base64 && i < q->dimensions; i++) {
        out_text(body, i > 0 ? "," : "");
        out_real(body, (double)q->embedding[i], "0");
    }
    out_text(body, q->base64 ? "\"}" : "]}");
}

static bool embed_one(answer *a, request *q, size_t index, out *body, problem *p) {
    char at[BODY_PATH_SIZE] = "input";
    const json_t *input = q->many ? json_array_get(q->input, index) : q->input;
    int32_t *ids = NULL;
    size_t count = 0;
    myelin_error error;
    if (q->many)
        body_path_index(at, "input", index);
    if (!input_ids(a, q, input, at, &ids, &count, p))
        return false;
    bool fits = count > 0 && count <= (size_t)a->r->max_len;
    if (count == 0)
        problem_set(p, 400, at, "invalid_value", "%s: expected at least one token", at);
    else if (!fits)
        problem_set(p, 400, at, "context_length_exceeded",
                    "%s: this server's context is %d tokens, the input has %zu", at,
                    (int)a->r->max_len, count);
    myelin_status status =
        fits ? myelin_embed(a->r->model, ids, count, q->embedding, &error) : MYELIN_OK;
    free(ids);
    if (status != MYELIN_OK)
        answer_failed(a->r, at, at, &error, p);
    if (status != MYELIN_OK || !fits)
        return false;
    q->tokens += count;
    shorten(q);
    write_embedding(q, index, body);
    return true;
}

static bool embed_all(answer *a, request *q, out *body, problem *p) {
    size_t count = q->many ? json_array_size(q->input) : 1;
    out_text(body, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < count; i++) {
        if (atomic_load(&a->gone) || atomic_load(&a->r->stopping))
            return problem_set(p, 503, NULL, "cancelled", "the server is about to stop");
        if (!embed_one(a, q, i, body, p))
            return false;
    }
    out_text(body, "],\"model\":");
    out_string_or_null(body, a->r->options.names[0]);
    out_format(body, ",\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", q->tokens,
               q->tokens);
    metrics_embedding(&a->r->metrics, q->tokens);
    return true;
}

bool route_embeddings(answer *a, out *body, problem *p) {
    request q = {.hidden = myelin_model_config(a->r->model)->hidden_size,
                 .end_id = end_token(answer_tokenizer(a))};
    if (!read_request(a, &q, p))
        return false;
    q.embedding = malloc((size_t)q.hidden * sizeof *q.embedding);
    if (q.embedding == NULL)
        return problem_set(p, 500, NULL, NULL, "out of memory");
    bool good = embed_all(a, &q, body, p);
    free(q.embedding);
    return good;
}
