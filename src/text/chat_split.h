/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Splits what a Qwen3-family model generates in one assistant turn into reasoning, content and tool
 * calls while it is being generated. Pieces may be cut anywhere; what the events say, put together,
 * does not depend on where.
 *
 * Reasoning. With MLN_CHAT_THINKING_ALLOWED a <think> at the start of the turn (only whitespace
 * before it, at most MLN_CHAT_MAX_LEAD bytes) opens a block; with MLN_CHAT_THINKING_OPEN the prompt
 * has opened it, and an opener the model writes at its start once more is dropped. The first
 * </think> closes it; when none comes, all of the turn is reasoning. There is one block in a turn:
 * every other <think> and </think> is text, and so is one without an opener, as by then the text
 * before it has been handed out as content. As when the template reads history back, reasoning has
 * no newlines at its ends and content after a block none at its beginning; a turn without a block
 * keeps them.
 *
 * Tool calls. <tool_call> in content begins a call and </tool_call> ends it, except inside a string
 * of its JSON. Newlines next to calls are not content, save for one that stands between content
 * before and content after the call. A call that never ends (the turn does, or another begins), is
 * not what mln_chat_call_parse() reads, or exceeds a limit becomes content exactly as generated,
 * tags included, and a warning follows it.
 */
#ifndef MLN_TEXT_CHAT_SPLIT_H
#define MLN_TEXT_CHAT_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/memory.h"
#include "myelin/status.h"

#define MLN_CHAT_MAX_CALL ((size_t)1 << 20) /* bytes between the tags of a call */
enum {
    MLN_CHAT_MAX_CALLS = 256,   /* in a turn */
    MLN_CHAT_MAX_WARNINGS = 64, /* in a turn; further ones are not reported */
    MLN_CHAT_MAX_LEAD = 64,     /* bytes of whitespace before <think> */
    MLN_CHAT_MAX_TAG = 16
};

typedef enum mln_chat_thinking {
    MLN_CHAT_THINKING_OFF,     /* <think> and </think> are text */
    MLN_CHAT_THINKING_ALLOWED, /* the model may open a block */
    MLN_CHAT_THINKING_OPEN     /* the prompt ends in an open block */
} mln_chat_thinking;

typedef enum mln_chat_event_kind {
    MLN_CHAT_REASONING, /* text: the next piece of it, never empty */
    MLN_CHAT_CONTENT,   /* text: the next piece of it, never empty */
    MLN_CHAT_CALL,      /* name; text: the arguments, usually JSON */
    MLN_CHAT_WARNING    /* text: why a call became content */
} mln_chat_event_kind;

typedef struct mln_chat_event {
    mln_chat_event_kind kind;
    const char *text; /* not NUL-terminated; valid during the call */
    size_t length;
    const char *name; /* of a call, NUL-terminated; else NULL */
} mln_chat_event;

/* Returns MYELIN_OK to go on; anything else ends the splitting and is what _push() returns. */
typedef myelin_status (*mln_chat_handler)(void *context, const mln_chat_event *event,
                                          myelin_error *error);

typedef struct mln_chat_options {
    mln_chat_thinking thinking;
    bool tools; /* false: <tool_call> is text */
    mln_chat_handler handler;
    void *context;
} mln_chat_options;

/* Its fields are for chat_split.c. Holds memory only while and after a call is read. */
typedef struct mln_chat_split {
    mln_chat_options options;
    enum { MLN_CHAT_AT_LEAD, MLN_CHAT_IN_REASONING, MLN_CHAT_IN_CONTENT, MLN_CHAT_IN_CALL } state;
    char
        lead[MLN_CHAT_MAX_LEAD]; /* whitespace at the start of the turn, until what follows shows */
    size_t lead_length;
    char held[MLN_CHAT_MAX_TAG]; /* the beginning of a tag, or of text that looks like one */
    size_t held_length;
    size_t newlines;    /* held back behind the text, until what follows shows */
    bool skip_newlines; /* at the beginning of reasoning, behind a block or a call */
    bool has_content;
    mln_buffer call; /* the call being read, its tag included */
    enum {
        MLN_CHAT_JSON_START,
        MLN_CHAT_JSON,
        MLN_CHAT_JSON_STRING,
        MLN_CHAT_JSON_ESCAPE,
        MLN_CHAT_NOT_JSON
    } json; /* where in the call */
    size_t num_calls, num_warnings;
} mln_chat_split;

void mln_chat_split_init(mln_chat_split *split, const mln_chat_options *options);

/* After a failure only mln_chat_split_free() may follow, after _finish() as well. */
myelin_status mln_chat_split_push(mln_chat_split *split, const char *text, size_t length,
                                  myelin_error *error);
myelin_status mln_chat_split_finish(mln_chat_split *split, myelin_error *error);
void mln_chat_split_free(mln_chat_split *split);

/* Whether a block is open, so that pushing "</think>" would close it (a thinking budget asks). */
bool mln_chat_split_is_reasoning(const mln_chat_split *split);

#endif
