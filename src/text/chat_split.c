/* SPDX-License-Identifier: Apache-2.0 */
#include "text/chat_split.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "text/chat_call.h"

/* Every tag begins with '<' and has no other one: what fails to match holds no second start. */
typedef enum tag { THINK, END_THINK, CALL, END_CALL, NUM_TAGS } tag;

#define TAG(text)                                                                                  \
    { text, sizeof text - 1 }
static const struct {
    const char *text;
    size_t length;
} tags[NUM_TAGS] = {[THINK] = TAG("<think>"),
                    [END_THINK] = TAG("</think>"),
                    [CALL] = TAG("<tool_call>"),
                    [END_CALL] = TAG("</tool_call>")};

/*
 * How many bytes at `text` agree with one of the `wanted` tags (a set of bits), and whether that is
 * all of it: then *found is the tag, else NUM_TAGS.
 */
static size_t match(unsigned wanted, const char *text, size_t length, tag *found) {
    size_t longest = 0;
    *found = NUM_TAGS;
    for (int t = 0; t < NUM_TAGS; t++) {
        if (!(wanted & 1U << t))
            continue;
        size_t n = 0;
        while (n < length && n < tags[t].length && text[n] == tags[t].text[n])
            n++;
        if (n == tags[t].length)
            *found = (tag)t;
        longest = n > longest ? n : longest;
    }
    return longest;
}

/* The tags that mean something where the splitter is. */
static unsigned wanted_tags(const mln_chat_split *s) {
    switch (s->state) {
    case MLN_CHAT_AT_LEAD:
        return 1U << THINK;
    case MLN_CHAT_IN_REASONING:
        return 1U << END_THINK | (s->skip_newlines ? 1U << THINK : 0);
    case MLN_CHAT_IN_CONTENT:
        return s->options.tools ? 1U << CALL : 0;
    case MLN_CHAT_IN_CALL:
        return 1U << CALL | 1U << END_CALL;
    }
    return 0;
}

static myelin_status emit(mln_chat_split *s, const mln_chat_event *event, myelin_error *error) {
    return s->options.handler(s->options.context, event, error);
}

static myelin_status emit_text(mln_chat_split *s, const char *text, size_t length,
                               myelin_error *error) {
    bool reasoning = s->state == MLN_CHAT_IN_REASONING;
    mln_chat_event event = {
        .kind = reasoning ? MLN_CHAT_REASONING : MLN_CHAT_CONTENT, .text = text, .length = length};
    s->has_content = s->has_content || !reasoning;
    return emit(s, &event, error);
}

static myelin_status emit_newlines(mln_chat_split *s, myelin_error *error) {
    static const char newlines[] =
        "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n";
    myelin_status status = MYELIN_OK;
    while (status == MYELIN_OK && s->newlines) {
        size_t n = s->newlines < sizeof newlines - 1 ? s->newlines : sizeof newlines - 1;
        s->newlines -= n;
        status = emit_text(s, newlines, n, error);
    }
    return status;
}

/* Text of reasoning or content: emits it, less the newlines that may turn out to be at an end. */
static myelin_status put(mln_chat_split *s, const char *text, size_t length, myelin_error *error) {
    while (s->skip_newlines && length && *text == '\n') {
        s->newlines = s->has_content; /* behind a call: one parts the content on its two sides */
        text++;
        length--;
    }
    if (length == 0)
        return MYELIN_OK;
    s->skip_newlines = false;
    size_t end = length;
    if (s->state == MLN_CHAT_IN_REASONING || s->options.tools)
        while (end && text[end - 1] == '\n')
            end--;
    if (end) {
        myelin_status status = emit_newlines(s, error);
        if (status == MYELIN_OK)
            status = emit_text(s, text, end, error);
        if (status != MYELIN_OK)
            return status;
    }
    s->newlines += length - end;
    return MYELIN_OK;
}

/* The call being read becomes content. */
static myelin_status return_call(mln_chat_split *s, const char *reason, myelin_error *error) {
    s->state = MLN_CHAT_IN_CONTENT;
    myelin_status status = put(s, s->call.data, s->call.length, error);
    s->call.length = 0;
    if (status != MYELIN_OK || s->num_warnings == MLN_CHAT_MAX_WARNINGS)
        return status;
    s->num_warnings++;
    mln_chat_event event = {.kind = MLN_CHAT_WARNING, .text = reason, .length = strlen(reason)};
    return emit(s, &event, error);
}

static myelin_status append(mln_chat_split *s, const char *text, size_t length,
                            myelin_error *error) {
    if (!mln_buffer_append(&s->call, text, length))
        return mln_fail_memory(error, length, "a tool call");
    return MYELIN_OK;
}

static myelin_status begin_call(mln_chat_split *s, myelin_error *error) {
    s->state = MLN_CHAT_IN_CALL;
    s->json = MLN_CHAT_JSON_START;
    return append(s, tags[CALL].text, tags[CALL].length, error);
}

static size_t call_room(const mln_chat_split *s) {
    return MLN_CHAT_MAX_CALL - (s->call.length - tags[CALL].length);
}

static myelin_status return_long_call(mln_chat_split *s, myelin_error *error) {
    char reason[80];
    snprintf(reason, sizeof reason, "tool call: expected at most %zu bytes, found more",
             MLN_CHAT_MAX_CALL);
    return return_call(s, reason, error);
}

static myelin_status end_call(mln_chat_split *s, myelin_error *error) {
    mln_chat_call call = {0};
    myelin_error problem = {0};
    size_t begin = tags[CALL].length;
    myelin_status status =
        s->num_calls < MLN_CHAT_MAX_CALLS
            ? mln_chat_call_parse(&call, s->call.data + begin, s->call.length - begin, &problem)
            : mln_fail(&problem, MYELIN_ERROR_FORMAT, "tool call", -1,
                       "expected at most %d calls in a turn, found more", MLN_CHAT_MAX_CALLS);
    if (status == MYELIN_ERROR_FORMAT) {
        status = append(s, tags[END_CALL].text, tags[END_CALL].length, error);
        return status == MYELIN_OK ? return_call(s, problem.message, error) : status;
    }
    if (status != MYELIN_OK) {
        if (error)
            *error = problem;
        return status;
    }
    s->state = MLN_CHAT_IN_CONTENT;
    s->call.length = 0;
    s->num_calls++;
    s->newlines = s->has_content && s->newlines;
    s->skip_newlines = true;
    mln_chat_event event = {.kind = MLN_CHAT_CALL,
                            .text = call.arguments.data,
                            .length = call.arguments.length,
                            .name = call.name.data};
    status = emit(s, &event, error);
    mln_chat_call_free(&call);
    return status;
}

static myelin_status on_tag(mln_chat_split *s, tag found, myelin_error *error) {
    if (found == END_CALL)
        return end_call(s, error);
    if (found == CALL) {
        myelin_status status = MYELIN_OK;
        if (s->state == MLN_CHAT_IN_CALL)
            status =
                return_call(s, "tool call: expected </tool_call>, found <tool_call> again", error);
        return status == MYELIN_OK ? begin_call(s, error) : status;
    }
    s->state = found == THINK ? MLN_CHAT_IN_REASONING : MLN_CHAT_IN_CONTENT;
    s->newlines = 0;
    s->skip_newlines = true;
    return MYELIN_OK;
}

static myelin_status feed(mln_chat_split *s, const char *text, size_t length, myelin_error *error);

/* The turn does not begin with a block: what was held back is content, and may begin a call. */
static myelin_status leave_lead(mln_chat_split *s, myelin_error *error) {
    size_t length = s->held_length;
    char held[MLN_CHAT_MAX_TAG];
    memcpy(held, s->held, length);
    s->held_length = 0;
    s->state = MLN_CHAT_IN_CONTENT;
    myelin_status status = feed(s, s->lead, s->lead_length, error);
    return status == MYELIN_OK ? feed(s, held, length, error) : status;
}

/* What was held back is no tag. */
static myelin_status release_held(mln_chat_split *s, myelin_error *error) {
    if (s->state == MLN_CHAT_AT_LEAD)
        return leave_lead(s, error);
    size_t length = s->held_length;
    char held[MLN_CHAT_MAX_TAG];
    memcpy(held, s->held, length);
    s->held_length = 0;
    if (s->state != MLN_CHAT_IN_CALL)
        return put(s, held, length, error);
    if (length > call_room(s)) {
        myelin_status status = return_long_call(s, error);
        return status == MYELIN_OK ? feed(s, held, length, error) : status;
    }
    if (s->json == MLN_CHAT_JSON_START)
        s->json = MLN_CHAT_NOT_JSON;
    return append(s, held, length, error);
}

/*
 * The steps below take some of the text, at least one byte unless they change the state or release
 * what was held back, and tell how much in *used.
 */

static myelin_status step_held(mln_chat_split *s, const char *text, size_t *used,
                               myelin_error *error) {
    tag found;
    s->held[s->held_length] = *text;
    size_t length = s->held_length + 1;
    if (match(wanted_tags(s), s->held, length, &found) < length) {
        *used = 0;
        return release_held(s, error);
    }
    *used = 1;
    s->held_length = found == NUM_TAGS ? length : 0;
    return found == NUM_TAGS ? MYELIN_OK : on_tag(s, found, error);
}

static void hold(mln_chat_split *s, const char *text, size_t length) {
    memcpy(s->held, text, length);
    s->held_length = length;
}

static bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static myelin_status step_lead(mln_chat_split *s, const char *text, size_t *used,
                               myelin_error *error) {
    *used = 1;
    if (*text == '<')
        hold(s, text, 1);
    else if (is_space(*text) && s->lead_length < sizeof s->lead)
        s->lead[s->lead_length++] = *text;
    else {
        *used = 0;
        return leave_lead(s, error);
    }
    return MYELIN_OK;
}

static myelin_status step_text(mln_chat_split *s, const char *text, size_t length, size_t *used,
                               myelin_error *error) {
    size_t i = 0;
    if (s->skip_newlines && *text == '\n') { /* a tag behind them still is at the beginning */
        while (i < length && text[i] == '\n')
            i++;
        *used = i;
        return put(s, text, i, error);
    }
    tag found = NUM_TAGS;
    size_t matched = 0;
    unsigned wanted = wanted_tags(s);
    while (wanted && i < length) {
        const char *start = memchr(text + i, '<', length - i);
        i = start ? (size_t)(start - text) : length;
        unsigned here = i ? wanted & ~(1U << THINK) : wanted;
        matched = match(here, text + i, length - i, &found);
        if (found != NUM_TAGS || matched == length - i)
            break;
        i += matched;
    }
    *used = wanted ? i + matched : length;
    myelin_status status = put(s, text, wanted ? i : length, error);
    if (status != MYELIN_OK)
        return status;
    if (found != NUM_TAGS)
        return on_tag(s, found, error);
    hold(s, text + i, wanted ? matched : 0);
    return MYELIN_OK;
}

/*
 * Follows the strings of the JSON, in which tags are text. A control character, a newline say, is
 * no part of any: a string that never closes does not swallow all that follows.
 */
static void follow_json(mln_chat_split *s, char c) {
    switch (s->json) {
    case MLN_CHAT_JSON_START:
        if (!is_space(c))
            s->json = c == '{' ? MLN_CHAT_JSON : MLN_CHAT_NOT_JSON;
        return;
    case MLN_CHAT_JSON:
        if (c == '"')
            s->json = MLN_CHAT_JSON_STRING;
        return;
    case MLN_CHAT_JSON_STRING:
    case MLN_CHAT_JSON_ESCAPE:
        if ((unsigned char)c < 0x20)
            s->json = MLN_CHAT_NOT_JSON;
        else if (s->json == MLN_CHAT_JSON_ESCAPE)
            s->json = MLN_CHAT_JSON_STRING;
        else if (c == '\\')
            s->json = MLN_CHAT_JSON_ESCAPE;
        else if (c == '"')
            s->json = MLN_CHAT_JSON;
        return;
    case MLN_CHAT_NOT_JSON:
        return;
    }
}

static bool in_string(const mln_chat_split *s) {
    return s->json == MLN_CHAT_JSON_STRING || s->json == MLN_CHAT_JSON_ESCAPE;
}

static myelin_status step_call(mln_chat_split *s, const char *text, size_t length, size_t *used,
                               myelin_error *error) {
    if (*text == '<' && !in_string(s)) {
        hold(s, text, 1);
        *used = 1;
        return MYELIN_OK;
    }
    size_t room = call_room(s), i = 0;
    *used = 0;
    if (room == 0)
        return return_long_call(s, error);
    for (; i < length && i < room && (text[i] != '<' || in_string(s)); i++)
        follow_json(s, text[i]);
    *used = i;
    return append(s, text, i, error);
}

static myelin_status feed(mln_chat_split *s, const char *text, size_t length, myelin_error *error) {
    myelin_status status = MYELIN_OK;
    while (status == MYELIN_OK && length) {
        size_t used = 0;
        if (s->held_length)
            status = step_held(s, text, &used, error);
        else if (s->state == MLN_CHAT_AT_LEAD)
            status = step_lead(s, text, &used, error);
        else if (s->state == MLN_CHAT_IN_CALL)
            status = step_call(s, text, length, &used, error);
        else
            status = step_text(s, text, length, &used, error);
        text += used;
        length -= used;
    }
    return status;
}

void mln_chat_split_init(mln_chat_split *split, const mln_chat_options *options) {
    *split = (mln_chat_split){.options = *options};
    switch (options->thinking) {
    case MLN_CHAT_THINKING_OFF:
        split->state = MLN_CHAT_IN_CONTENT;
        break;
    case MLN_CHAT_THINKING_ALLOWED:
        split->state = MLN_CHAT_AT_LEAD;
        break;
    case MLN_CHAT_THINKING_OPEN:
        split->state = MLN_CHAT_IN_REASONING;
        split->skip_newlines = true;
        break;
    }
}

myelin_status mln_chat_split_push(mln_chat_split *split, const char *text, size_t length,
                                  myelin_error *error) {
    return feed(split, text, length, error);
}

myelin_status mln_chat_split_finish(mln_chat_split *split, myelin_error *error) {
    myelin_status status = MYELIN_OK;
    if (split->state == MLN_CHAT_AT_LEAD)
        status = leave_lead(split, error);
    /* Twice when it makes a call too long, and then looks like the beginning of the next. */
    while (status == MYELIN_OK && split->held_length)
        status = release_held(split, error);
    if (status == MYELIN_OK && split->state == MLN_CHAT_IN_CALL)
        status = return_call(split, "tool call: expected </tool_call>, found the end of the turn",
                             error);
    if (status == MYELIN_OK && split->state == MLN_CHAT_IN_CONTENT && !split->skip_newlines)
        status = emit_newlines(split, error);
    return status;
}

void mln_chat_split_free(mln_chat_split *split) {
    mln_buffer_free(&split->call);
}

bool mln_chat_split_is_reasoning(const mln_chat_split *split) {
    return split->state == MLN_CHAT_IN_REASONING;
}
