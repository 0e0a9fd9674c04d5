/* SPDX-License-Identifier: Apache-2.0 */
#include "generation.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLI_MAX_TOKENS = 1 << 24, /* of a text; no model reads as many */
    CLI_MAX_BIASES = 1 << 20,
    CLI_BIAS_TEXT = 64,
    CLI_MAX_SCHEMA = 1 << 20 /* bytes */
};

/* Rows of the table; bits of cli_generation.given. */
enum {
    ROW_MAX_NEW_TOKENS,
    ROW_MAX_LEN,
    ROW_SAMPLER,
    ROW_TEMPERATURE,
    ROW_TOP_K,
    ROW_TOP_P,
    ROW_MIN_P,
    ROW_REPETITION_PENALTY,
    ROW_PRESENCE_PENALTY,
    ROW_FREQUENCY_PENALTY,
    ROW_LOGIT_BIAS,
    ROW_SEED,
    ROW_STOP,
    ROW_STOP_STRINGS,
    ROW_STOP_ID,
    ROW_STOP_IDS,
    ROW_IGNORE_EOS,
    ROW_SYNC,
    ROW_SYNC_TOKENS,
    ROW_STREAM,
    ROW_LOGPROBS,
    ROW_TOP_LOGPROBS,
    ROW_NO_SPECIAL,
    ROW_THINKING_BUDGET,
    ROW_JSON_SCHEMA,
    ROW_SPECULATE,
    ROW_COUNT
};

static const cli_choice sampler_choices[] = {
    {"greedy", MYELIN_SAMPLER_GREEDY}, {"sampled", MYELIN_SAMPLER_SAMPLED}, {NULL, 0}};
static const cli_choice stream_choices[] = {
    {"token", MYELIN_STREAM_TOKEN}, {"stable", MYELIN_STREAM_STABLE}, {NULL, 0}};

_Static_assert(sizeof(myelin_sampler) == sizeof(int), "a choice is stored as an int");

static bool add_bias(cli_generation *generation, int64_t id, double bias, cli_why *why) {
    if (generation->num_biases == CLI_MAX_BIASES) {
        cli_explain(why, "more than %d", CLI_MAX_BIASES);
        return false;
    }
    generation->biases =
        cli_append(generation->biases, &generation->num_biases, sizeof *generation->biases);
    generation->biases[generation->num_biases - 1] =
        (myelin_logit_bias){.id = (int32_t)id, .bias = (float)bias};
    return true;
}

static bool bias_from_text(const char *text, double *bias) {
    if (strcmp(text, "-inf") == 0) {
        *bias = -INFINITY;
        return true;
    }
    return cli_read_real(text, bias) && fabs(*bias) <= FLT_MAX;
}

static bool read_bias_text(void *base, const char *text, cli_why *why) {
    char id_text[CLI_BIAS_TEXT];
    int64_t id;
    double bias;
    size_t length = strcspn(text, "=");
    if (length < sizeof id_text && text[length] == '=') {
        memcpy(id_text, text, length);
        id_text[length] = '\0';
        if (cli_read_integer(id_text, 0, INT32_MAX, &id) &&
            bias_from_text(text + length + 1, &bias))
            return add_bias(base, id, bias, why);
    }
    cli_explain(why, "expected ID=BIAS, a token id and a number or -inf, found \"%.48s\"", text);
    return false;
}

/* `value` as a bias: a number, or "-inf", which JSON has no number for. */
static bool bias_from_json(const json_t *value, double *bias) {
    if (json_is_string(value))
        return bias_from_text(json_string_value(value), bias);
    *bias = json_number_value(value);
    return json_is_number(value) && fabs(*bias) <= FLT_MAX;
}

/* {"ID": BIAS, ...} or [[ID, BIAS], ...] */
static bool read_bias_json(void *base, const json_t *value, cli_why *why) {
    cli_generation *generation = base;
    const char expected[] = "{\"ID\": BIAS, ...} or [[ID, BIAS], ...]";
    generation->num_biases = 0;
    free(generation->biases);
    generation->biases = NULL;
    int64_t id;
    double bias;
    if (json_is_object(value)) {
        const char *key;
        json_t *member;
        json_object_foreach((json_t *)value, key, member) {
            if (!cli_read_integer(key, 0, INT32_MAX, &id) || !bias_from_json(member, &bias)) {
                cli_explain(why, "expected %s, found \"%.48s\" and its value", expected, key);
                return false;
            }
            if (!add_bias(generation, id, bias, why))
                return false;
        }
        return true;
    }
    if (!json_is_array(value)) {
        cli_explain_json(why, expected, value);
        return false;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *pair = json_array_get(value, i);
        const json_t *first = json_array_get(pair, 0);
        if (json_array_size(pair) != 2 || !json_is_integer(first) ||
            json_integer_value(first) < 0 || json_integer_value(first) > INT32_MAX ||
            !bias_from_json(json_array_get(pair, 1), &bias)) {
            cli_explain_json(why, expected, pair);
            return false;
        }
        if (!add_bias(generation, json_integer_value(first), bias, why))
            return false;
    }
    return true;
}

static bool add_stop_string(cli_generation *generation, const char *text, cli_why *why) {
    if (*text == '\0') {
        cli_explain(why, "expected a string that is not empty, found \"\"");
        return false;
    }
    if (generation->num_stop_strings == MYELIN_MAX_STOP_STRINGS) {
        cli_explain(why, "more than %d", MYELIN_MAX_STOP_STRINGS);
        return false;
    }
    generation->stop_strings = cli_append(generation->stop_strings, &generation->num_stop_strings,
                                          sizeof *generation->stop_strings);
    generation->stop_strings[generation->num_stop_strings - 1] = text;
    return true;
}

static bool read_stop_text(void *base, const char *text, cli_why *why) {
    return add_stop_string(base, text, why);
}

static bool add_stop_json(cli_generation *generation, const json_t *value, cli_why *why) {
    if (!json_is_string(value)) {
        cli_explain_json(why, "a string or an array of strings", value);
        return false;
    }
    if (strlen(json_string_value(value)) != json_string_length(value)) {
        cli_explain(why, "a stop string cannot hold the character U+0000");
        return false;
    }
    return add_stop_string(generation, json_string_value(value), why);
}

static bool read_stop_json(void *base, const json_t *value, cli_why *why) {
    cli_generation *generation = base;
    free(generation->stop_strings);
    generation->stop_strings = NULL;
    generation->num_stop_strings = 0;
    if (!json_is_array(value))
        return add_stop_json(generation, value, why);
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (!add_stop_json(generation, json_array_get(value, i), why))
            return false;
    }
    return true;
}

static bool read_stop_id_text(void *base, const char *text, cli_why *why) {
    cli_generation *generation = base;
    int64_t id;
    if (!cli_read_integer(text, 0, INT32_MAX, &id)) {
        cli_explain(why, "expected a token id, found \"%.48s\"", text);
        return false;
    }
    if (generation->num_stop_ids == MYELIN_MAX_STOP_IDS) {
        cli_explain(why, "more than %d", MYELIN_MAX_STOP_IDS);
        return false;
    }
    generation->stop_ids =
        cli_append(generation->stop_ids, &generation->num_stop_ids, sizeof *generation->stop_ids);
    generation->stop_ids[generation->num_stop_ids - 1] = (int32_t)id;
    return true;
}

static bool read_stop_ids_json(void *base, const json_t *value, cli_why *why) {
    cli_generation *generation = base;
    int32_t *ids;
    size_t count;
    if (!cli_read_ids(value, &ids, &count, why))
        return false;
    if (count > MYELIN_MAX_STOP_IDS) {
        cli_explain(why, "more than %d", MYELIN_MAX_STOP_IDS);
        free(ids);
        return false;
    }
    free(generation->stop_ids);
    generation->stop_ids = ids;
    generation->num_stop_ids = count;
    return true;
}

static bool sync_by_name(cli_generation *generation, const char *name) {
    if (strcmp(name, "token") == 0)
        generation->values.sync = MYELIN_SYNC_TOKEN;
    else if (strcmp(name, "end") == 0)
        generation->values.sync = MYELIN_SYNC_END;
    else if (strcmp(name, "chunk") == 0)
        generation->values.sync = MYELIN_SYNC_CHUNK;
    else
        return false;
    return true;
}

static const char sync_expected[] = "token, end, chunk, or an integer from 1 to 16777216";

static bool sync_by_number(cli_generation *generation, int64_t tokens) {
    if (tokens < 1 || tokens > CLI_MAX_TOKENS)
        return false;
    generation->values.sync = MYELIN_SYNC_CHUNK;
    generation->values.sync_tokens = (int32_t)tokens;
    return true;
}

static bool read_sync_text(void *base, const char *text, cli_why *why) {
    int64_t tokens;
    if (sync_by_name(base, text) ||
        (cli_read_integer(text, 1, CLI_MAX_TOKENS, &tokens) && sync_by_number(base, tokens)))
        return true;
    cli_explain(why, "expected %s, found \"%.48s\"", sync_expected, text);
    return false;
}

static bool read_sync_json(void *base, const json_t *value, cli_why *why) {
    if ((json_is_string(value) && sync_by_name(base, json_string_value(value))) ||
        (json_is_integer(value) && sync_by_number(base, json_integer_value(value))))
        return true;
    cli_explain_json(why, sync_expected, value);
    return false;
}

/* All of a file; NULL, saying why, when it cannot be read. */
static char *read_schema_file(const char *path, cli_why *why) {
    FILE *file = fopen(path, "rbe");
    char *text = cli_allocate(CLI_MAX_SCHEMA + 1);
    size_t length = file ? fread(text, 1, CLI_MAX_SCHEMA + 1, file) : 0;
    bool good = file && !ferror(file) && length <= CLI_MAX_SCHEMA && !memchr(text, 0, length);
    if (!file || ferror(file))
        cli_explain(why, "cannot read %.100s: %s", path, strerror(errno));
    else if (!good)
        cli_explain(why, "expected a text of at most %d bytes in %.100s", CLI_MAX_SCHEMA, path);
    if (file)
        fclose(file);
    if (!good) {
        free(text);
        return NULL;
    }
    text[length] = '\0';
    return text;
}

/* A schema begins with a brace, unless it is true or false; else this is the name of a file. */
static bool read_schema_text(void *base, const char *text, cli_why *why) {
    cli_generation *generation = base;
    bool is_schema = text[strspn(text, " \t\r\n")] == '{' || strcmp(text, "true") == 0;
    free(generation->json_schema);
    generation->json_schema = is_schema ? cli_format("%s", text) : read_schema_file(text, why);
    return generation->json_schema != NULL;
}

static bool read_schema_json(void *base, const json_t *value, cli_why *why) {
    cli_generation *generation = base;
    if (!json_is_object(value) && !json_is_boolean(value)) {
        cli_explain_json(why, "a JSON Schema, an object", value);
        return false;
    }
    free(generation->json_schema);
    generation->json_schema = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (generation->json_schema == NULL)
        cli_explain(why, "out of memory");
    return generation->json_schema != NULL;
}

#define VALUE(member) .offset = offsetof(cli_generation, values.member)

static const cli_option generation_options[ROW_COUNT] = {
    [ROW_MAX_NEW_TOKENS] = {"max-new-tokens", 'n', "max_new_tokens", CLI_INT32, "N",
                            "generate at most N tokens; default 100", VALUE(max_new_tokens),
                            .min = 1, .max = CLI_MAX_TOKENS},
    [ROW_MAX_LEN] = {"max-len", 0, "max_len", CLI_INT32, "N",
                     "room for N tokens of prompt and output; default 2048", VALUE(max_len),
                     .min = 1, .max = CLI_MAX_TOKENS},
    [ROW_SAMPLER] = {"sampler", 0, "sampler", CLI_CHOICE, "NAME",
                     "how a token is chosen; default greedy, or sampled when one of the next four "
                     "options is given",
                     VALUE(sampler), .choices = sampler_choices},
    [ROW_TEMPERATURE] = {"temperature", 't', "temperature", CLI_REAL, "X",
                         "divide the logits by X; 0 means greedy", VALUE(temperature), .min = 0,
                         .max = 1000},
    [ROW_TOP_K] = {"top-k", 0, "top_k", CLI_INT32, "N",
                   "sample from the N most likely tokens; 0 for all", VALUE(top_k), .min = 0,
                   .max = INT32_MAX},
    [ROW_TOP_P] = {"top-p", 0, "top_p", CLI_REAL, "X",
                   "sample from the fewest tokens with a share of X", VALUE(top_p), .min = 0,
                   .max = 1, .above_min = true},
    [ROW_MIN_P] = {"min-p", 0, "min_p", CLI_REAL, "X",
                   "drop tokens less likely than X times the likeliest", VALUE(min_p), .min = 0,
                   .max = 1},
    [ROW_REPETITION_PENALTY] = {"repetition-penalty", 0, "repetition_penalty", CLI_REAL, "X",
                                "make tokens of prompt and output less likely; 1 for off",
                                VALUE(repetition_penalty), .min = 0, .max = 1000,
                                .above_min = true},
    [ROW_PRESENCE_PENALTY] = {"presence-penalty", 0, "presence_penalty", CLI_REAL, "X",
                              "subtract X from tokens of the output", VALUE(presence_penalty),
                              .min = -1000, .max = 1000},
    [ROW_FREQUENCY_PENALTY] = {"frequency-penalty", 0, "frequency_penalty", CLI_REAL, "X",
                               "subtract X for each time a token is in the output",
                               VALUE(frequency_penalty), .min = -1000, .max = 1000},
    [ROW_LOGIT_BIAS] = {"logit-bias", 0, "logit_bias", CLI_CUSTOM, "ID=BIAS",
                        "add BIAS to the logit of a token, -inf to ban it; may be repeated",
                        .read_text = read_bias_text, .read_json = read_bias_json},
    [ROW_SEED] = {"seed", 0, "seed", CLI_UINT64, "N",
                  "where chance starts; the same seed gives the same text; default 0", VALUE(seed)},
    [ROW_STOP] = {"stop", 0, "stop", CLI_CUSTOM, "STRING",
                  "end the text before STRING; may be repeated", .read_text = read_stop_text,
                  .read_json = read_stop_json},
    [ROW_STOP_STRINGS] = {.json = "stop_strings", .kind = CLI_CUSTOM, .read_json = read_stop_json},
    [ROW_STOP_ID] = {"stop-id", 0, NULL, CLI_CUSTOM, "ID",
                     "end the text at this token instead of the model's own; may be repeated",
                     .read_text = read_stop_id_text},
    [ROW_STOP_IDS] = {.json = "stop_ids", .kind = CLI_CUSTOM, .read_json = read_stop_ids_json},
    [ROW_IGNORE_EOS] = {"ignore-eos", 0, "ignore_eos", CLI_FLAG, NULL,
                        "do not end the text at the model's own stop tokens",
                        .offset = offsetof(cli_generation, ignore_eos)},
    [ROW_SYNC] = {"sync", 0, "sync", CLI_CUSTOM, "WHEN",
                  "hand tokens over at each token, at the end, or every N tokens (token, end, "
                  "chunk, or N); the text is the same",
                  .read_text = read_sync_text, .read_json = read_sync_json},
    [ROW_SYNC_TOKENS] = {.json = "sync_tokens",
                         .kind = CLI_INT32,
                         VALUE(sync_tokens),
                         .min = 0,
                         .max = CLI_MAX_TOKENS},
    [ROW_STREAM] = {"stream", 0, "stream_mode", CLI_CHOICE, "MODE",
                    "where streamed text is cut: at any token, or only at whitespace; default "
                    "token",
                    VALUE(stream_mode), .choices = stream_choices},
    [ROW_LOGPROBS] = {"logprobs", 0, "logprobs", CLI_FLAG, NULL,
                      "give the log-probability of each token", VALUE(logprobs)},
    [ROW_TOP_LOGPROBS] = {"top-logprobs", 0, "top_logprobs", CLI_INT32, "N",
                          "give also those of the N most likely tokens", VALUE(top_logprobs),
                          .min = 0, .max = MYELIN_MAX_TOP_LOGPROBS},
    [ROW_NO_SPECIAL] = {"no-special", 0, "parse_special", CLI_FLAG_OFF, NULL,
                        "read <|im_end|> and the like in a prompt as ordinary text",
                        VALUE(parse_special)},
    [ROW_THINKING_BUDGET] = {"thinking-budget", 0, "thinking_budget", CLI_INT32, "N",
                             "in a conversation, end the reasoning after N tokens; default -1: "
                             "never",
                             VALUE(thinking_budget), .min = -1, .max = CLI_MAX_TOKENS},
    [ROW_JSON_SCHEMA] = {"json-schema", 0, "json_schema", CLI_CUSTOM, "FILE|TEXT",
                         "make the text (in a conversation, the answer) JSON that this JSON Schema "
                         "accepts; {} for any",
                         .read_text = read_schema_text, .read_json = read_schema_json},
    [ROW_SPECULATE] = {"speculate", 0, NULL, CLI_FLAG, NULL,
                       "try tokens that followed the last ones before: the same text, faster where "
                       "it repeats the prompt",
                       VALUE(speculate)},
};

void cli_generation_init(cli_generation *generation) {
    memset(generation, 0, sizeof *generation);
    myelin_generation_options_init(&generation->values);
}

void cli_generation_clear(cli_generation *generation) {
    free(generation->biases);
    free(generation->stop_strings);
    free(generation->stop_ids);
    free(generation->json_schema);
    memset(generation, 0, sizeof *generation);
}

/* A copy with room for the power of two cli_append counts on. */
static void *copy_array(const void *items, size_t count, size_t size) {
    size_t capacity = 1;
    if (count == 0)
        return NULL;
    while (capacity < count)
        capacity *= 2;
    return memcpy(cli_allocate(capacity * size), items, count * size);
}

void cli_generation_copy(cli_generation *to, const cli_generation *from) {
    *to = *from;
    to->biases = copy_array(from->biases, from->num_biases, sizeof *from->biases);
    to->stop_strings =
        copy_array(from->stop_strings, from->num_stop_strings, sizeof *from->stop_strings);
    to->stop_ids = copy_array(from->stop_ids, from->num_stop_ids, sizeof *from->stop_ids);
    to->json_schema = from->json_schema ? cli_format("%s", from->json_schema) : NULL;
}

cli_group cli_generation_group(cli_generation *generation) {
    return (cli_group){.title = "Generation",
                       .options = generation_options,
                       .count = ROW_COUNT,
                       .base = generation,
                       .given = &generation->given};
}

bool cli_generation_store(cli_generation *generation, const char *key, const json_t *value,
                          bool *known, cli_why *why) {
    *known = true;
    for (size_t i = 0; i < ROW_COUNT; i++) {
        const cli_option *option = &generation_options[i];
        if (option->json == NULL || strcmp(option->json, key) != 0)
            continue;
        if (json_is_null(value))
            return true;
        generation->given |= UINT64_C(1) << i;
        return cli_store_json(option, generation, value, why);
    }
    *known = false;
    return false;
}

static bool given(const cli_generation *generation, int row) {
    return (generation->given >> row & 1) != 0;
}

void cli_generation_prefer_token_sync(cli_generation *generation) {
    if (!given(generation, ROW_SYNC)) {
        generation->given |= UINT64_C(1) << ROW_SYNC;
        generation->values.sync = MYELIN_SYNC_TOKEN;
    }
}

void cli_generation_prefer_max_new_tokens(cli_generation *generation, int32_t count) {
    if (!given(generation, ROW_MAX_NEW_TOKENS)) {
        generation->given |= UINT64_C(1) << ROW_MAX_NEW_TOKENS;
        generation->values.max_new_tokens = count;
    }
}

void cli_generation_prefer_sampling(cli_generation *generation, const myelin_model *model) {
    myelin_generation_options options;
    myelin_generation_options_from_model(&options, model);
    if (!given(generation, ROW_SAMPLER) && !given(generation, ROW_TEMPERATURE)) {
        generation->given |= UINT64_C(1) << ROW_SAMPLER;
        generation->values.sampler = options.sampler;
    }
}

bool cli_generation_wants_logprobs(const cli_generation *generation) {
    return generation->values.logprobs ||
           (!given(generation, ROW_LOGPROBS) && generation->values.top_logprobs > 0);
}

static bool wants_sampling(const cli_generation *generation) {
    if (given(generation, ROW_TEMPERATURE) && generation->values.temperature == 0)
        return false;
    if (given(generation, ROW_SAMPLER))
        return generation->values.sampler == MYELIN_SAMPLER_SAMPLED;
    return given(generation, ROW_TEMPERATURE) || given(generation, ROW_TOP_K) ||
           given(generation, ROW_TOP_P) || given(generation, ROW_MIN_P);
}

void cli_generation_resolve(const cli_generation *generation, const myelin_model *model,
                            myelin_generation_options *options) {
    static const int32_t no_ids[1] = {0};
    bool sampled = wants_sampling(generation);
    myelin_generation_options_init(options);
    if (sampled)
        myelin_generation_options_from_model(options, model);
    for (int i = 0; i < ROW_COUNT; i++) {
        size_t offset = generation_options[i].offset;
        size_t size = cli_kind_size(generation_options[i].kind);
        if (!given(generation, i) || size == 0 || i == ROW_IGNORE_EOS)
            continue;
        memcpy((char *)options + (offset - offsetof(cli_generation, values)),
               (const char *)generation + offset, size);
    }
    options->sampler = sampled ? MYELIN_SAMPLER_SAMPLED : MYELIN_SAMPLER_GREEDY;
    if (!sampled)
        options->temperature = 1;
    options->parse_special =
        given(generation, ROW_NO_SPECIAL) ? generation->values.parse_special : true;
    options->sync = generation->values.sync;
    options->sync_tokens = generation->values.sync_tokens;
    options->logprobs = cli_generation_wants_logprobs(generation);
    if (!options->logprobs)
        options->top_logprobs = 0;
    options->logit_bias = generation->biases;
    options->num_logit_bias = generation->num_biases;
    options->stop_strings = generation->stop_strings;
    options->num_stop_strings = generation->num_stop_strings;
    if (given(generation, ROW_STOP_ID) || given(generation, ROW_STOP_IDS)) {
        options->stop_ids = generation->num_stop_ids > 0 ? generation->stop_ids : no_ids;
        options->num_stop_ids = generation->num_stop_ids;
    } else if (generation->ignore_eos) {
        options->stop_ids = no_ids;
        options->num_stop_ids = 0;
    }
}

myelin_status cli_generation_constrain(const cli_generation *generation, const myelin_model *model,
                                       myelin_generation_options *options,
                                       myelin_constraint **constraint, myelin_error *error) {
    *constraint = NULL;
    if (generation->json_schema == NULL)
        return MYELIN_OK;
    myelin_status status = myelin_constraint_from_schema(constraint, myelin_model_tokenizer(model),
                                                         generation->json_schema,
                                                         strlen(generation->json_schema), error);
    options->constraint = *constraint;
    return status;
}

bool cli_read_ids(const json_t *value, int32_t **ids, size_t *count, cli_why *why) {
    size_t length = json_array_size(value);
    *ids = NULL;
    *count = 0;
    if (!json_is_array(value)) {
        cli_explain_json(why, "an array of token ids", value);
        return false;
    }
    int32_t *list = cli_allocate(length * sizeof *list);
    for (size_t i = 0; i < length; i++) {
        const json_t *item = json_array_get(value, i);
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > INT32_MAX) {
            cli_explain_json(why, "an array of token ids", item);
            free(list);
            return false;
        }
        list[i] = (int32_t)id;
    }
    *ids = list;
    *count = length;
    return true;
}
