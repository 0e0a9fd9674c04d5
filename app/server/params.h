/* SPDX-License-Identifier: Apache-2.0 */
/* How to generate, as a request says it: the members that the routes of OpenAI's API share. */
#ifndef MLN_SERVER_PARAMS_H
#define MLN_SERVER_PARAMS_H

#include "body.h"
#include "myelin/myelin.h"
#include "routes.h"

/* Which route's names count. */
typedef enum params_form { PARAMS_CHAT, PARAMS_COMPLETIONS, PARAMS_RESPONSES } params_form;

enum {
    PARAMS_MAX_LOGPROBS = 20,
    PARAMS_MAX_STOPS = 16,
    PARAMS_MAX_BIAS = 1024,
    PARAMS_DEFAULT_MAX_TOKENS = 8192, /* of an answer whose request names no number */
    /* Tokens of reasoning that an effort allows; "high" has no bound. */
    PARAMS_EFFORT_LOW = 1024,
    PARAMS_EFFORT_MEDIUM = 4096,
};

/* Strings are borrowed from the body. */
typedef struct params {
    myelin_generation_options options; /* points to what follows */
    myelin_logit_bias *bias;
    const char *stops[PARAMS_MAX_STOPS];
    myelin_thinking thinking;
    int64_t choices;    /* "n" */
    int64_t max_tokens; /* as asked for; 0: not said */
    int64_t priority;
    bool stream, include_usage;
    bool prefix_cache;
    bool parallel_tool_calls;
    const char *effort; /* as given, or NULL */
} params;

/* To be cleared, also when this fails. */
bool params_read(params *p, const json_t *body, params_form form, const myelin_model *model,
                 const routes_options *limits, int32_t max_len, problem *why);
void params_clear(params *p);

#endif
