/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/turn.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool ends_with(const char *text, size_t length, const char *tag) {
    size_t size = strlen(tag);
    return length >= size && memcmp(text + length - size, tag, size) == 0;
}

mln_chat_thinking mln_turn_thinking_after(const char *rendered, size_t length) {
    while (length && is_space(rendered[length - 1]))
        length--;
    if (ends_with(rendered, length, "<think>"))
        return MLN_CHAT_THINKING_OPEN;
    if (ends_with(rendered, length, "</think>"))
        return MLN_CHAT_THINKING_OFF;
    return MLN_CHAT_THINKING_ALLOWED;
}

/* More of a text: joins the part before when that is of the same text. */
static void add_text(mln_turn_stream *t, myelin_turn_kind kind, size_t begin, size_t end) {
    mln_turn_part *last = t->num_parts ? &t->parts[t->num_parts - 1] : NULL;
    if (last && last->kind == kind && last->end == begin)
        last->end = end;
    else
        t->parts[t->num_parts++] = (mln_turn_part){kind, begin, end};
}

static void add_item(mln_turn_stream *t, myelin_turn_kind kind, size_t index) {
    t->parts[t->num_parts++] = (mln_turn_part){kind, index, index + 1};
}

static myelin_status append_text(mln_turn_stream *t, mln_buffer *text, myelin_turn_kind kind,
                                 const mln_chat_event *event, myelin_error *error) {
    size_t begin = text->length;
    if (!mln_buffer_append(text, event->text, event->length))
        return mln_fail_memory(error, event->length, "a turn");
    add_text(t, kind, begin, text->length);
    return MYELIN_OK;
}

static myelin_status add_call(mln_turn_stream *t, const mln_chat_event *event,
                              myelin_error *error) {
    myelin_tool_call call = {mln_strndup(event->name, strlen(event->name)),
                             mln_strndup(event->text, event->length)};
    if (!call.name || !call.arguments) {
        free(call.name);
        free(call.arguments);
        return mln_fail_memory(error, event->length, "a tool call");
    }
    t->calls[t->num_calls] = call;
    add_item(t, MYELIN_TURN_TOOL_CALL, t->num_calls++);
    return MYELIN_OK;
}

static myelin_status add_warning(mln_turn_stream *t, const mln_chat_event *event,
                                 myelin_error *error) {
    char *text = mln_strndup(event->text, event->length);
    if (!text)
        return mln_fail_memory(error, event->length, "a warning");
    t->warnings[t->num_warnings] = text;
    add_item(t, MYELIN_TURN_WARNING, t->num_warnings++);
    return MYELIN_OK;
}

static myelin_status on_event(void *context, const mln_chat_event *event, myelin_error *error) {
    mln_turn_stream *t = context;
    switch (event->kind) {
    case MLN_CHAT_REASONING:
        return append_text(t, &t->reasoning, MYELIN_TURN_REASONING, event, error);
    case MLN_CHAT_CONTENT:
        return append_text(t, &t->content, MYELIN_TURN_CONTENT, event, error);
    case MLN_CHAT_CALL:
        return add_call(t, event, error);
    case MLN_CHAT_WARNING:
        return add_warning(t, event, error);
    }
    return MYELIN_OK;
}

myelin_status mln_turn_begin(mln_turn_stream *t, const mln_turn_form *form, bool stable,
                             size_t max_bytes, myelin_error *error) {
    *t = (mln_turn_stream){.active = true, .stable = stable};
    mln_chat_options options = {
        .thinking = form->thinking, .tools = form->tools, .handler = on_event, .context = t};
    mln_chat_split_init(&t->split, &options);
    t->calls = mln_calloc(MLN_CHAT_MAX_CALLS, sizeof *t->calls);
    t->warnings = mln_calloc(MLN_CHAT_MAX_WARNINGS, sizeof *t->warnings);
    t->parts = mln_calloc(MLN_TURN_MAX_PARTS, sizeof *t->parts);
    t->events = mln_calloc(MLN_TURN_MAX_PARTS, sizeof *t->events);
    bool texts = mln_buffer_reserve(&t->reasoning, max_bytes + 1) &&
                 mln_buffer_reserve(&t->content, max_bytes + 1);
    if (!t->calls || !t->warnings || !t->parts || !t->events || !texts) {
        mln_turn_free(t);
        return mln_fail_memory(error, 2 * (uint64_t)max_bytes, "a turn");
    }
    t->reasoning.data[0] = t->content.data[0] = '\0';
    return MYELIN_OK;
}

static void free_calls(myelin_tool_call *calls, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(calls[i].name);
        free(calls[i].arguments);
    }
    free(calls);
}

static void free_strings(char **strings, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(strings[i]);
    free(strings);
}

void mln_turn_free(mln_turn_stream *t) {
    if (t->active)
        mln_chat_split_free(&t->split);
    mln_buffer_free(&t->reasoning);
    mln_buffer_free(&t->content);
    free_calls(t->calls, t->num_calls);
    free_strings(t->warnings, t->num_warnings);
    free(t->parts);
    free(t->events);
    *t = (mln_turn_stream){0};
}

myelin_status mln_turn_push(mln_turn_stream *t, const char *text, size_t length,
                            myelin_error *error) {
    return mln_chat_split_push(&t->split, text, length, error);
}

myelin_status mln_turn_finish(mln_turn_stream *t, myelin_error *error) {
    return mln_chat_split_finish(&t->split, error);
}

bool mln_turn_is_reasoning(const mln_turn_stream *t) {
    return mln_chat_split_is_reasoning(&t->split);
}

/* Where a text part may be cut now: before its last whitespace, unless any place will do. */
static size_t certain_end(const mln_turn_stream *t, const mln_turn_part *part, const char *text) {
    size_t end = part->end;
    if (t->stable && part->begin > 0) /* the first piece goes out at once */
        while (end > part->begin && !is_space(text[end]))
            end--;
    return end;
}

static myelin_turn_event event_of(const mln_turn_stream *t, const mln_turn_part *part) {
    myelin_turn_event event = {.kind = part->kind};
    switch (part->kind) {
    case MYELIN_TURN_REASONING:
    case MYELIN_TURN_CONTENT:
        event.text = (part->kind == MYELIN_TURN_CONTENT ? &t->content : &t->reasoning)->data;
        event.text += part->begin;
        event.length = part->end - part->begin;
        break;
    case MYELIN_TURN_TOOL_CALL:
        event.name = t->calls[part->begin].name;
        event.text = t->calls[part->begin].arguments;
        event.length = strlen(event.text);
        break;
    case MYELIN_TURN_WARNING:
        event.text = t->warnings[part->begin];
        event.length = strlen(event.text);
        break;
    }
    return event;
}

static bool is_text(const mln_turn_part *part) {
    return part->kind == MYELIN_TURN_REASONING || part->kind == MYELIN_TURN_CONTENT;
}

size_t mln_turn_release(mln_turn_stream *t, bool finished, const myelin_turn_event **events) {
    size_t count = 0;
    *events = t->events;
    for (size_t i = 0; i < t->num_parts; i++) {
        mln_turn_part part = t->parts[i], rest = part;
        if (i + 1 == t->num_parts && !finished && is_text(&part)) {
            const mln_buffer *text = part.kind == MYELIN_TURN_CONTENT ? &t->content : &t->reasoning;
            rest.begin = part.end = certain_end(t, &part, text->data);
        } else {
            rest.begin = rest.end;
        }
        if (part.begin < part.end)
            t->events[count++] = event_of(t, &part);
        if (i + 1 == t->num_parts && rest.begin < rest.end) {
            t->parts[0] = rest;
            t->num_parts = 1;
            return count;
        }
    }
    t->num_parts = 0;
    return count;
}

void mln_turn_cut(mln_turn_stream *t) {
    for (size_t i = t->num_parts; i-- > 0;) {
        size_t begin = t->parts[i].begin;
        switch (t->parts[i].kind) {
        case MYELIN_TURN_REASONING:
            t->reasoning.data[t->reasoning.length = begin] = '\0';
            break;
        case MYELIN_TURN_CONTENT:
            t->content.data[t->content.length = begin] = '\0';
            break;
        case MYELIN_TURN_TOOL_CALL:
            t->num_calls = begin;
            free(t->calls[begin].name);
            free(t->calls[begin].arguments);
            break;
        case MYELIN_TURN_WARNING:
            t->num_warnings = begin;
            free(t->warnings[begin]);
            break;
        }
    }
    t->num_parts = 0;
}

myelin_status mln_turn_take(mln_turn_stream *t, myelin_turn **out, myelin_error *error) {
    *out = mln_calloc(1, sizeof **out);
    if (!*out)
        return mln_fail_memory(error, sizeof **out, "a turn");
    **out = (myelin_turn){.reasoning = t->reasoning.data,
                          .reasoning_length = t->reasoning.length,
                          .content = t->content.data,
                          .content_length = t->content.length,
                          .tool_calls = t->calls,
                          .num_tool_calls = t->num_calls,
                          .warnings = t->warnings,
                          .num_warnings = t->num_warnings};
    t->reasoning = t->content = (mln_buffer){0};
    t->calls = NULL;
    t->warnings = NULL;
    t->num_calls = t->num_warnings = 0;
    return MYELIN_OK;
}

void mln_turn_clear(myelin_turn *turn) {
    if (!turn)
        return;
    free(turn->reasoning);
    free(turn->content);
    free_calls(turn->tool_calls, turn->num_tool_calls);
    free_strings(turn->warnings, turn->num_warnings);
    free(turn);
}
