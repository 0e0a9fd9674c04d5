/* SPDX-License-Identifier: Apache-2.0 */
#include "params.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* Bounds of what has none by nature; a typing error is more than these. */
enum { MAX_TEMPERATURE = 100, MAX_PENALTY = 100, MAX_BIAS = 1000, MAX_PRIORITY = 100 };

/* What chance begins with in a request that does not say. */
static uint64_t random_seed(void) {
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
        seed = (uint64_t)time(NULL);
    return seed;
}

static bool read_temperature(params *p, const json_t *body, problem *why) {
    double temperature = -1;
    if (!body_real(body, "", "temperature", 0, MAX_TEMPERATURE, &temperature, why))
        return false;
    if (temperature < 0)
        return true;
    p->options.sampler = temperature > 0 ? MYELIN_SAMPLER_SAMPLED : MYELIN_SAMPLER_GREEDY;
    p->options.temperature = temperature > 0 ? temperature : 1;
    return true;
}

static bool read_sampling(params *p, const json_t *body, problem *why) {
    myelin_generation_options *o = &p->options;
    int64_t top_k = o->top_k, seed = 0;
    bool seeded = json_is_number(json_object_get(body, "seed"));
    static const double least = 1e-9; /* of what must be above 0 */
    if (!read_temperature(p, body, why) ||
        !body_int(body, "", "top_k", -1, INT32_MAX, &top_k, why) ||
        !body_real(body, "", "top_p", least, 1, &o->top_p, why) ||
        !body_real(body, "", "min_p", 0, 1, &o->min_p, why) ||
        !body_int(body, "", "seed", INT64_MIN, INT64_MAX, &seed, why) ||
        !body_real(body, "", "repetition_penalty", least, MAX_PENALTY, &o->repetition_penalty,
                   why) ||
        !body_real(body, "", "presence_penalty", -MAX_PENALTY, MAX_PENALTY, &o->presence_penalty,
                   why) ||
        !body_real(body, "", "frequency_penalty", -MAX_PENALTY, MAX_PENALTY, &o->frequency_penalty,
                   why))
        return false;
    o->top_k = top_k > 0 ? (int32_t)top_k : 0;
    o->seed = seeded ? (uint64_t)seed : random_seed();
    return true;
}

static bool read_bias(params *p, const json_t *body, int32_t vocabulary, problem *why) {
    const json_t *object = NULL, *value;
    const char *key;
    if (!body_object(body, "", "logit_bias", &object, why))
        return false;
    size_t count = json_object_size(object);
    if (count > PARAMS_MAX_BIAS)
        return problem_set(why, 400, "logit_bias", "invalid_value",
                           "logit_bias: expected at most %d tokens, found %zu", PARAMS_MAX_BIAS,
                           count);
    p->bias = count > 0 ? calloc(count, sizeof *p->bias) : NULL;
    if (count > 0 && p->bias == NULL)
        return problem_set(why, 500, NULL, NULL, "out of memory");
    json_object_foreach((json_t *)object, key, value) {
        char *end;
        double bias = json_number_value(value);
        long id = key[0] >= '0' && key[0] <= '9' ? strtol(key, &end, 10) : -1;
        if (id < 0 || *end != '\0' || id >= vocabulary)
            return problem_set(why, 400, "logit_bias", "invalid_value",
                               "logit_bias: expected token ids from 0 to %d, found \"%.20s\"",
                               (int)vocabulary - 1, key);
        if (!json_is_number(value) || bias < -MAX_BIAS || bias > MAX_BIAS)
            return body_unexpected(why, "logit_bias", "numbers from -1000 to 1000", value);
        p->bias[p->options.num_logit_bias++] = (myelin_logit_bias){(int32_t)id, (float)bias};
    }
    p->options.logit_bias = p->bias;
    return true;
}

static bool add_stop(params *p, const json_t *value, problem *why) {
    const char *text = json_string_value(value);
    if (text == NULL || text[0] == '\0' || strlen(text) != json_string_length(value))
        return body_unexpected(why, "stop", "a string that is not empty, or an array of them",
                               value);
    p->stops[p->options.num_stop_strings++] = text;
    return true;
}

static bool read_stops(params *p, const json_t *body, problem *why) {
    static const int32_t none[1] = {0};
    const json_t *stop = json_object_get(body, "stop");
    bool ignore_eos = false;
    if (!body_bool(body, "", "ignore_eos", &ignore_eos, why))
        return false;
    if (ignore_eos) {
        p->options.stop_ids = none;
        p->options.num_stop_ids = 0;
    }
    p->options.stop_strings = p->stops;
    if (stop == NULL || json_is_null(stop))
        return true;
    if (!json_is_array(stop))
        return add_stop(p, stop, why);
    if (json_array_size(stop) > PARAMS_MAX_STOPS)
        return problem_set(why, 400, "stop", "invalid_value",
                           "stop: expected at most %d strings, found %zu", PARAMS_MAX_STOPS,
                           json_array_size(stop));
    for (size_t i = 0; i < json_array_size(stop); i++) {
        if (!add_stop(p, json_array_get(stop, i), why))
            return false;
    }
    return true;
}

/* max_completion_tokens counts before max_tokens, its old name. */
static bool read_length(params *p, const json_t *body, params_form form,
                        const routes_options *limits, int32_t max_len, problem *why) {
    int64_t old = 0, wanted = 0;
    const char *name = form == PARAMS_RESPONSES ? "max_output_tokens" : "max_completion_tokens";
    if (!body_int(body, "", name, 1, INT32_MAX, &wanted, why) ||
        (form != PARAMS_RESPONSES && !body_int(body, "", "max_tokens", 1, INT32_MAX, &old, why)))
        return false;
    p->max_tokens = wanted > 0 ? wanted : old;
    int32_t usual = limits->max_tokens > 0 ? limits->max_tokens : PARAMS_DEFAULT_MAX_TOKENS;
    int64_t most = p->max_tokens > 0 ? p->max_tokens : usual;
    p->options.max_new_tokens = (int32_t)(most < max_len ? most : max_len);
    p->options.max_len = max_len;
    return true;
}

static bool read_logprobs(params *p, const json_t *body, params_form form, problem *why) {
    int64_t top = 0;
    if (form == PARAMS_RESPONSES)
        return true;
    if (form == PARAMS_COMPLETIONS) {
        if (!body_int(body, "", "logprobs", 0, PARAMS_MAX_LOGPROBS, &top, why))
            return false;
        p->options.logprobs = json_is_number(json_object_get(body, "logprobs"));
    } else {
        if (!body_bool(body, "", "logprobs", &p->options.logprobs, why) ||
            !body_int(body, "", "top_logprobs", 0, PARAMS_MAX_LOGPROBS, &top, why))
            return false;
        if (top > 0 && !p->options.logprobs)
            return problem_set(why, 400, "top_logprobs", "invalid_value",
                               "top_logprobs: expected \"logprobs\": true beside it");
    }
    p->options.top_logprobs = (int32_t)top;
    return true;
}

/* What an effort means for a model that thinks or does not. */
static bool read_effort(params *p, const json_t *object, const char *at, const char *name,
                        problem *why) {
    static const struct {
        const char *name;
        myelin_thinking thinking;
        int32_t budget;
    } efforts[] = {{"none", MYELIN_THINKING_OFF, -1},
                   {"minimal", MYELIN_THINKING_OFF, -1},
                   {"low", MYELIN_THINKING_ON, PARAMS_EFFORT_LOW},
                   {"medium", MYELIN_THINKING_ON, PARAMS_EFFORT_MEDIUM},
                   {"high", MYELIN_THINKING_ON, -1},
                   {"xhigh", MYELIN_THINKING_ON, -1}};
    char path[BODY_PATH_SIZE];
    if (!body_string(object, at, name, &p->effort, NULL, why))
        return false;
    if (p->effort == NULL)
        return true;
    for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++) {
        if (strcmp(p->effort, efforts[i].name) != 0)
            continue;
        p->thinking = efforts[i].thinking;
        p->options.thinking_budget = efforts[i].budget;
        return true;
    }
    body_path(path, at, name);
    return problem_set(why, 400, path, "invalid_value",
                       "%s: expected \"none\", \"minimal\", \"low\", \"medium\" or \"high\", found "
                       "\"%.40s\"",
                       path, p->effort);
}

static bool read_thinking(params *p, const json_t *body, params_form form, problem *why) {
    const json_t *variables = NULL, *reasoning = NULL;
    bool responses = form == PARAMS_RESPONSES, think = false;
    if (responses && !body_object(body, "", "reasoning", &reasoning, why))
        return false;
    if (!read_effort(p, responses ? reasoning : body, responses ? "reasoning" : "",
                     responses ? "effort" : "reasoning_effort", why))
        return false;
    if (!body_object(body, "", "chat_template_kwargs", &variables, why))
        return false;
    const json_t *holders[] = {variables, body};
    static const char *const paths[] = {"chat_template_kwargs", ""};
    for (size_t i = 0; i < 2; i++) {
        if (!body_bool(holders[i], paths[i], "enable_thinking", &think, why))
            return false;
        if (json_is_boolean(json_object_get(holders[i], "enable_thinking")))
            p->thinking = think ? MYELIN_THINKING_ON : MYELIN_THINKING_OFF;
    }
    int64_t budget = p->options.thinking_budget;
    if (!body_int(body, "", "thinking_budget", -1, INT32_MAX, &budget, why))
        return false;
    p->options.thinking_budget = (int32_t)budget;
    return true;
}

static bool read_rest(params *p, const json_t *body, const routes_options *limits, problem *why) {
    const json_t *stream_options = NULL;
    const char *user = NULL;
    size_t length;
    if (!body_bool(body, "", "stream", &p->stream, why) ||
        !body_object(body, "", "stream_options", &stream_options, why) ||
        !body_bool(stream_options, "stream_options", "include_usage", &p->include_usage, why) ||
        !body_int(body, "", "n", 1, limits->max_choices, &p->choices, why) ||
        !body_int(body, "", "priority", -MAX_PRIORITY, MAX_PRIORITY, &p->priority, why) ||
        !body_bool(body, "", "cache_prompt", &p->prefix_cache, why) ||
        !body_bool(body, "", "parallel_tool_calls", &p->parallel_tool_calls, why) ||
        !body_string(body, "", "user", &user, &length, why))
        return false;
    return true;
}

bool params_read(params *p, const json_t *body, params_form form, const myelin_model *model,
                 const routes_options *limits, int32_t max_len, problem *why) {
    *p = (params){.choices = 1, .prefix_cache = true, .parallel_tool_calls = true};
    myelin_generation_options_from_model(&p->options, model);
    p->options.sync = MYELIN_SYNC_TOKEN;
    return read_rest(p, body, limits, why) && read_sampling(p, body, why) &&
           read_bias(p, body, myelin_model_config(model)->vocab_size, why) &&
           read_stops(p, body, why) && read_length(p, body, form, limits, max_len, why) &&
           read_logprobs(p, body, form, why) && read_thinking(p, body, form, why);
}

void params_clear(params *p) {
    free(p->bias);
    *p = (params){0};
}
