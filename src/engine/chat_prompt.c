/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversations to token ids. Only the template may make control tokens: where their written form
 * stands inside a message or a tool, a guard character is put into it before the template is
 * rendered, and the tokenizer sees no token that reaches over a guard.
 */
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "engine/internal.h"

/* Unicode's noncharacters, which no text is meant to hold; one that this text has not is taken. */
enum { FIRST_GUARD = 0xFDD0, LAST_GUARD = 0xFDEF };

typedef struct guard {
    const myelin_tokenizer *tokenizer;
    uint32_t code;
    char bytes[MLN_UTF8_MAX];
    size_t length;
} guard;

/* True when any string of value, keys included, contains the guard. */
static bool holds_guard(const json_t *value, const guard *g) {
    size_t i;
    const char *key;
    json_t *item;
    if (json_is_string(value))
        return memmem(json_string_value(value), json_string_length(value), g->bytes, g->length);
    if (json_is_array(value)) {
        json_array_foreach(value, i, item) if (holds_guard(item, g)) return true;
    }
    if (json_is_object(value)) {
        json_object_foreach((json_t *)value, key, item) {
            if (strstr(key, g->bytes) || holds_guard(item, g))
                return true;
        }
    }
    return false;
}

static bool choose_guard(guard *g, const json_t *messages, const json_t *tools) {
    for (g->code = FIRST_GUARD; g->code <= LAST_GUARD; g->code++) {
        g->length = mln_utf8_encode(g->code, (unsigned char *)g->bytes);
        g->bytes[g->length] = '\0';
        if (!holds_guard(messages, g) && !holds_guard(tools, g))
            return true;
    }
    return false;
}

/* True when a control token is written at the beginning of text. */
static bool begins_control_token(const myelin_tokenizer *tokenizer, const char *text,
                                 size_t length) {
    for (size_t i = 0; i < tokenizer->num_special; i++) {
        const char *token;
        size_t size;
        if (mln_tokenizer_bytes(tokenizer->tokens, tokenizer->special_ids[i], &token, &size) &&
            size > 0 && size <= length && memcmp(text, token, size) == 0)
            return true;
    }
    return false;
}

/* Appends text with a guard after the first character of each control token in it. */
static bool append_guarded(mln_buffer *out, const char *text, size_t length, const guard *g) {
    for (size_t i = 0; i < length;) {
        uint32_t code;
        size_t n = mln_utf8_decode((const unsigned char *)text + i, length - i, &code);
        n = n ? n : 1;
        bool guarded = begins_control_token(g->tokenizer, text + i, length - i);
        if (!mln_buffer_append(out, text + i, n) ||
            (guarded && !mln_buffer_append(out, g->bytes, g->length)))
            return false;
        i += n;
    }
    return true;
}

static json_t *guarded_string(const char *text, size_t length, const guard *g) {
    mln_buffer out = {0};
    json_t *string = NULL;
    if (mln_buffer_reserve(&out, length) && append_guarded(&out, text, length, g))
        string = json_stringn(out.data, out.length);
    mln_buffer_free(&out);
    return string;
}

static json_t *guarded_value(const json_t *value, const guard *g);

static json_t *guarded_array(const json_t *array, const guard *g) {
    json_t *out = json_array(), *item;
    size_t i;
    json_array_foreach(array, i, item) {
        if (json_array_append_new(out, guarded_value(item, g)) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

static json_t *guarded_object(const json_t *object, const guard *g) {
    json_t *out = json_object(), *item;
    const char *key;
    json_object_foreach((json_t *)object, key, item) {
        json_t *name = guarded_string(key, strlen(key), g);
        int failed =
            !name || json_object_set_new(out, json_string_value(name), guarded_value(item, g)) != 0;
        json_decref(name);
        if (failed) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* A copy of value with guards in its strings; a new reference, NULL when out of memory. */
static json_t *guarded_value(const json_t *value, const guard *g) {
    if (json_is_string(value))
        return guarded_string(json_string_value(value), json_string_length(value), g);
    if (json_is_array(value))
        return guarded_array(value, g);
    if (json_is_object(value))
        return guarded_object(value, g);
    return json_incref((json_t *)value);
}

static myelin_status render_guarded(const myelin_model *model, const json_t *messages,
                                    const json_t *tools, const myelin_chat_options *options,
                                    const guard *g, mln_buffer *text, myelin_error *error) {
    json_t *safe_messages = guarded_value(messages, g);
    json_t *safe_tools = tools ? guarded_value(tools, g) : NULL;
    myelin_status status =
        safe_messages && (safe_tools || !tools)
            ? mln_chat_render(model->chat_template, safe_messages, safe_tools, options, text, error)
            : mln_fail_memory(error, sizeof *g, "a conversation");
    json_decref(safe_messages);
    json_decref(safe_tools);
    return status;
}

/* The ids of rendered text in which every written control token is one. */
static myelin_status encode_trusted(const myelin_model *model, json_t *messages, json_t *tools,
                                    const myelin_chat_options *options, mln_buffer *text,
                                    mln_ids *ids, myelin_error *error) {
    myelin_status status =
        mln_chat_render(model->chat_template, messages, tools, options, text, error);
    if (status != MYELIN_OK)
        return status;
    return mln_tokenizer_encode(model->tokenizer->tokens, text->data ? text->data : "",
                                text->length, MLN_ADDED_AS_TOKENS, ids, error);
}

static myelin_status encode_guarded(const myelin_model *model, json_t *messages, json_t *tools,
                                    const myelin_chat_options *options, mln_buffer *text,
                                    mln_ids *ids, myelin_error *error) {
    guard g = {.tokenizer = model->tokenizer};
    if (!choose_guard(&g, messages, tools))
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "the conversation has every noncharacter from U+FDD0 to U+FDEF: expected "
                        "one of them to be free");
    myelin_status status = render_guarded(model, messages, tools, options, &g, text, error);
    if (status != MYELIN_OK)
        return status;
    return mln_tokenizer_encode_guarded(model->tokenizer->tokens, text->data ? text->data : "",
                                        text->length, g.code, ids, error);
}

static myelin_status encode_conversation(const myelin_model *model, json_t *messages, json_t *tools,
                                         const myelin_chat_options *options, mln_ids *ids,
                                         mln_turn_form *form, myelin_error *error) {
    mln_buffer text = {0};
    myelin_status status = options->parse_special
                               ? encode_trusted(model, messages, tools, options, &text, ids, error)
                               : encode_guarded(model, messages, tools, options, &text, ids, error);
    *form = (mln_turn_form){.is_turn = true,
                            .tools = json_array_size(tools) > 0,
                            .thinking = mln_turn_thinking_after(text.data, text.length)};
    mln_buffer_free(&text);
    return status;
}

myelin_status mln_chat_ids(const myelin_model *model, const char *messages, size_t length,
                           const myelin_chat_options *options, mln_ids *ids, mln_turn_form *form,
                           myelin_error *error) {
    myelin_chat_options resolved;
    json_t *parsed = NULL, *tools = NULL;
    if (!model->chat_template) {
        if (error)
            *error = model->chat_error;
        return model->chat_error.status;
    }
    if (!model->tokenizer)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "a conversation needs a tokenizer, and the model has no tokenizer.json");
    myelin_status status = mln_chat_options_resolve(&resolved, options, error);
    if (status == MYELIN_OK)
        status = mln_chat_parse(messages, length, &resolved, &parsed, &tools, error);
    if (status == MYELIN_OK)
        status = encode_conversation(model, parsed, tools, &resolved, ids, form, error);
    json_decref(parsed);
    json_decref(tools);
    return status;
}

myelin_status mln_request_ids(const myelin_model *model, const myelin_request *request,
                              bool parse_special, mln_ids *ids, mln_turn_form *form,
                              myelin_error *error) {
    *form = (mln_turn_form){0};
    if (request->prompt)
        return mln_prompt_ids(model, request->prompt, request->prompt_length, parse_special, ids,
                              error);
    if (request->messages)
        return mln_chat_ids(model, request->messages, request->messages_length, request->chat, ids,
                            form, error);
    size_t count = request->num_prompt_ids;
    ids->data = mln_alloc(count, sizeof *ids->data);
    if (!ids->data)
        return mln_fail_memory(error, count * sizeof *ids->data, "token ids");
    if (count)
        memcpy(ids->data, request->prompt_ids, count * sizeof *ids->data);
    ids->count = ids->capacity = count;
    return MYELIN_OK;
}
