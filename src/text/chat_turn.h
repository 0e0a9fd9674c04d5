/* SPDX-License-Identifier: Apache-2.0 */
/* A whole assistant turn: what the splitter's events put together are. */
#ifndef MLN_TEXT_CHAT_TURN_H
#define MLN_TEXT_CHAT_TURN_H

#include "text/chat_call.h"
#include "text/chat_split.h"

/* Zero-initialise to make one. */
typedef struct mln_chat_turn {
    mln_buffer reasoning, content;
    mln_chat_call *calls; /* in the order they were made */
    size_t num_calls;
    char **warnings;
    size_t num_warnings;
} mln_chat_turn;

/* An mln_chat_handler: adds an event to the turn that is its context. */
myelin_status mln_chat_turn_add(void *turn, const mln_chat_event *event, myelin_error *error);

/* Splits a text that is there as a whole. *turn need not be initialised; zeroed on failure. */
myelin_status mln_chat_turn_read(mln_chat_turn *turn, const char *text, size_t length,
                                 mln_chat_thinking thinking, bool tools, myelin_error *error);
void mln_chat_turn_free(mln_chat_turn *turn); /* accepts a zeroed one, leaves it zeroed */

#endif
