/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An assistant's turn being taken apart while it is generated: the splitter of text/chat_split.h,
 * what it has found so far, and which of that the caller has been handed.
 */
#ifndef MLN_ENGINE_TURN_H
#define MLN_ENGINE_TURN_H

#include "myelin/myelin.h"
#include "text/chat_split.h"

/* How the prompt leaves the turn: what its text is to be read as. */
typedef struct mln_turn_form {
    bool is_turn; /* the prompt is a conversation; else nothing is split */
    bool tools;   /* it has tools, so calls are looked for */
    mln_chat_thinking thinking;
} mln_turn_form;

/* What rendered text leaves: an open block of reasoning, one already closed, or neither. */
mln_chat_thinking mln_turn_thinking_after(const char *rendered, size_t length);

/* Something found and not yet handed out: a part of a text, or one of the calls or warnings. */
typedef struct mln_turn_part {
    myelin_turn_kind kind;
    size_t begin, end; /* of a text: bytes of it; else begin is the index */
} mln_turn_part;

/* Between two parts of a text stands a call or a warning; reasoning adds one part. */
enum { MLN_TURN_MAX_PARTS = 2 * (MLN_CHAT_MAX_CALLS + MLN_CHAT_MAX_WARNINGS) + 2 };

/* Zero-initialise; idle until begun. Must not move while in use: the splitter points to it. */
typedef struct mln_turn_stream {
    bool active;
    bool stable; /* hand out whole words only */
    mln_chat_split split;
    mln_buffer reasoning, content;
    myelin_tool_call *calls; /* [MLN_CHAT_MAX_CALLS] */
    size_t num_calls;
    char **warnings; /* [MLN_CHAT_MAX_WARNINGS] */
    size_t num_warnings;
    mln_turn_part *parts;      /* [MLN_TURN_MAX_PARTS], not yet handed out, in order */
    myelin_turn_event *events; /* [MLN_TURN_MAX_PARTS] */
    size_t num_parts;
} mln_turn_stream;

/* Takes memory for a turn of at most max_bytes of text; only a tool call will take more. */
myelin_status mln_turn_begin(mln_turn_stream *turn, const mln_turn_form *form, bool stable,
                             size_t max_bytes, myelin_error *error);
void mln_turn_free(mln_turn_stream *turn);

myelin_status mln_turn_push(mln_turn_stream *turn, const char *text, size_t length,
                            myelin_error *error);
/* No more text. */
myelin_status mln_turn_finish(mln_turn_stream *turn, myelin_error *error);
bool mln_turn_is_reasoning(const mln_turn_stream *turn);

/* Hands out what may be shown now, `finished`: all there is; valid until the stream changes. */
size_t mln_turn_release(mln_turn_stream *turn, bool finished, const myelin_turn_event **events);
/* Forgets what was not handed out. */
void mln_turn_cut(mln_turn_stream *turn);

/* Moves what was found into a new *out. */
myelin_status mln_turn_take(mln_turn_stream *turn, myelin_turn **out, myelin_error *error);
void mln_turn_clear(myelin_turn *turn); /* frees it; accepts NULL */

#endif
