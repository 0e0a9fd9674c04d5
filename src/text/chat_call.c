/* SPDX-License-Identifier: Apache-2.0 */
#include "text/chat_call.h"

#include "base/error.h"
#include "base/json.h"

static const char what[] = "tool call"; /* stands for the file in messages */

typedef struct reader {
    mln_chat_call *call;
    const char *text;
    bool has_name, has_arguments;
    int64_t arguments_begin; /* byte of their opening brace */
} reader;

static myelin_status store(mln_buffer *buffer, const char *text, size_t length,
                           myelin_error *error) {
    if (!mln_buffer_append(buffer, text, length))
        return mln_fail_memory(error, length, "a tool call");
    return MYELIN_OK;
}

static myelin_status read_name(reader *r, const mln_json_event *event, myelin_error *error) {
    if (event->kind != MLN_JSON_STRING)
        return mln_fail(error, MYELIN_ERROR_FORMAT, what, event->offset,
                        "expected \"name\" to be a string, found %s",
                        mln_json_kind_name(event->kind));
    size_t length = event->text.length;
    if (length == 0 || length > MLN_CHAT_MAX_NAME)
        return mln_fail(error, MYELIN_ERROR_FORMAT, what, event->offset,
                        "expected \"name\" to have 1 to %d bytes, found %zu", MLN_CHAT_MAX_NAME,
                        length);
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)event->text.data[i];
        if (c < 0x20 || c == 0x7F)
            return mln_fail(error, MYELIN_ERROR_FORMAT, what, event->offset,
                            "expected \"name\" without control characters, found U+%04X", c);
    }
    r->has_name = true;
    return store(&r->call->name, event->text.data, length, error);
}

static myelin_status read_arguments(reader *r, const mln_json_event *event, myelin_error *error) {
    switch (event->kind) {
    case MLN_JSON_STRING:
        r->has_arguments = true;
        return store(&r->call->arguments, event->text.data, event->text.length, error);
    case MLN_JSON_BEGIN_OBJECT:
        r->has_arguments = true;
        r->arguments_begin = event->offset - 1;
        return MYELIN_OK;
    case MLN_JSON_END_OBJECT: /* the offset is just behind the brace */
        return store(&r->call->arguments, r->text + r->arguments_begin,
                     (size_t)(event->offset - r->arguments_begin), error);
    default:
        return mln_fail(error, MYELIN_ERROR_FORMAT, what, event->offset,
                        "expected \"arguments\" to be an object or a string, found %s",
                        mln_json_kind_name(event->kind));
    }
}

static myelin_status visit(void *context, const mln_json_event *event, myelin_error *error) {
    reader *r = context;
    if (event->depth == 0 && event->kind != MLN_JSON_BEGIN_OBJECT &&
        event->kind != MLN_JSON_END_OBJECT)
        return mln_fail(error, MYELIN_ERROR_FORMAT, what, event->offset,
                        "expected an object, found %s", mln_json_kind_name(event->kind));
    if (event->depth != 1)
        return MYELIN_OK;
    if (mln_json_text_is(event->path[0], "name"))
        return read_name(r, event, error);
    if (mln_json_text_is(event->path[0], "arguments"))
        return read_arguments(r, event, error);
    return MYELIN_OK;
}

myelin_status mln_chat_call_parse(mln_chat_call *call, const char *text, size_t length,
                                  myelin_error *error) {
    *call = (mln_chat_call){0};
    reader r = {.call = call, .text = text};
    myelin_status status = mln_json_stream(text, length, what, visit, &r, error);
    if (status == MYELIN_OK && !r.has_name)
        status = mln_fail(error, MYELIN_ERROR_FORMAT, what, -1,
                          "expected an object with \"name\", found none");
    if (status == MYELIN_OK && !r.has_arguments)
        status = store(&call->arguments, "{}", 2, error);
    if (status != MYELIN_OK)
        mln_chat_call_free(call);
    return status;
}

void mln_chat_call_free(mln_chat_call *call) {
    mln_buffer_free(&call->name);
    mln_buffer_free(&call->arguments);
}
