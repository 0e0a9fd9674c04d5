/* SPDX-License-Identifier: Apache-2.0 */
/* POST /tokenize, /detokenize and /apply-template: what becomes of a text before a model sees it.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* A status of the library that the request is to blame for, or not. */
static bool fail(problem *p, const char *param, const myelin_error *error) {
    bool mistake = error->status == MYELIN_ERROR_ARGUMENT ||
                   error->status == MYELIN_ERROR_UNSUPPORTED ||
                   error->status == MYELIN_ERROR_NOT_FOUND;
    return problem_set(p, mistake ? 400 : 500, param, NULL, "%s", error->message);
}

/* The first of the names that the body has, as text. */
static bool read_text(const json_t *body, const char *const names[], const char **text,
                      size_t *length, problem *p) {
    for (size_t i = 0; names[i] != NULL; i++) {
        if (!body_string(body, "", names[i], text, length, p))
            return false;
        if (*text != NULL)
            return true;
    }
    return body_unexpected(p, names[0], "a string", NULL);
}

bool route_tokenize(answer *a, out *body, problem *p) {
    static const char *const names[] = {"prompt", "content", "text", NULL};
    const char *text = NULL;
    size_t length = 0, count = 0;
    bool special = true;
    int32_t *ids = NULL;
    myelin_error error;
    if (!answer_check_model(a, a->json, p) || !read_text(a->json, names, &text, &length, p) ||
        !body_bool(a->json, "", "parse_special", &special, p))
        return false;
    if (myelin_tokenize(answer_tokenizer(a), text, length, special, &ids, &count, &error) !=
        MYELIN_OK)
        return fail(p, "prompt", &error);
    out_format(body, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", count, (int)a->r->max_len);
    for (size_t i = 0; i < count; i++)
        out_format(body, "%s%d", i > 0 ? "," : "", (int)ids[i]);
    out_text(body, "]}");
    myelin_free(ids);
    return true;
}

bool route_detokenize(answer *a, out *body, problem *p) {
    const json_t *tokens = json_object_get(a->json, "tokens");
    const myelin_tokenizer *tokenizer = answer_tokenizer(a);
    int32_t *ids = NULL;
    size_t count, length;
    bool skip = false;
    char *text = NULL;
    myelin_error error;
    if (!answer_check_model(a, a->json, p) ||
        !body_bool(a->json, "", "skip_special_tokens", &skip, p) ||
        !body_ids(tokens, "tokens", myelin_tokenizer_size(tokenizer), BODY_MAX_VALUES, &ids, &count,
                  p))
        return false;
    myelin_status status = myelin_detokenize(tokenizer, ids, count, skip, &text, &length, &error);
    free(ids);
    if (status != MYELIN_OK)
        return fail(p, "tokens", &error);
    out_text(body, "{\"prompt\":");
    out_string(body, text, length);
    out_text(body, ",\"content\":");
    out_string(body, text, length);
    out_text(body, "}");
    myelin_free(text);
    return true;
}

bool route_apply_template(answer *a, out *body, problem *p) {
    const routes *r = a->r;
    const json_t *variables = NULL;
    json_t *tools = NULL, *messages = NULL;
    tool_choice allowed;
    bool add_prompt = true;
    char *text = NULL;
    size_t length = 0;
    myelin_error error;
    if (!answer_check_model(a, a->json, p) ||
        !params_read(&a->params, a->json, PARAMS_CHAT, r->model, &r->options, r->max_len, p) ||
        !body_object(a->json, "", "chat_template_kwargs", &variables, p) ||
        !body_bool(a->json, "", "add_generation_prompt", &add_prompt, p) ||
        !tools_read(a->json, false, &tools, &allowed, p))
        return false;
    messages = messages_from_chat(json_object_get(a->json, "messages"), "messages", p);
    bool good = messages != NULL && route_set_conversation(a, messages, tools, variables, p);
    json_decref(tools);
    if (!good)
        return false;
    if (myelin_model_chat_template(r->model) == NULL)
        return problem_set(p, 400, NULL, NULL, "the model has no chat template that can be used");
    a->chat.add_generation_prompt = add_prompt;
    if (myelin_chat_render(myelin_model_chat_template(r->model), a->messages, strlen(a->messages),
                           &a->chat, &text, &length, &error) != MYELIN_OK)
        return fail(p, "messages", &error);
    out_text(body, "{\"prompt\":");
    out_string(body, text, length);
    out_text(body, "}");
    myelin_free(text);
    return true;
}
