/* SPDX-License-Identifier: Apache-2.0 */
#include "text/chat_turn.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* Room for one more in an array of `count`: it is doubled whenever the count is a power of two. */
static bool grow(void **array, size_t count, size_t size) {
    if (count & (count - 1))
        return true;
    void *larger = mln_realloc(*array, count ? 2 * count : 1, size);
    *array = larger ? larger : *array;
    return larger != NULL;
}

static bool add_call(mln_chat_turn *turn, const mln_chat_event *event) {
    void *calls = turn->calls;
    bool good = grow(&calls, turn->num_calls, sizeof *turn->calls);
    turn->calls = calls;
    if (!good)
        return false;
    mln_chat_call *call = &turn->calls[turn->num_calls++];
    *call = (mln_chat_call){0};
    return mln_buffer_append(&call->name, event->name, strlen(event->name)) &&
           mln_buffer_append(&call->arguments, event->text, event->length);
}

static bool add_warning(mln_chat_turn *turn, const mln_chat_event *event) {
    void *warnings = turn->warnings;
    bool good = grow(&warnings, turn->num_warnings, sizeof *turn->warnings);
    turn->warnings = warnings;
    if (!good)
        return false;
    char *text = mln_strndup(event->text, event->length);
    if (text)
        turn->warnings[turn->num_warnings++] = text;
    return text != NULL;
}

myelin_status mln_chat_turn_add(void *turn, const mln_chat_event *event, myelin_error *error) {
    mln_chat_turn *t = turn;
    bool good = false;
    switch (event->kind) {
    case MLN_CHAT_REASONING:
        good = mln_buffer_append(&t->reasoning, event->text, event->length);
        break;
    case MLN_CHAT_CONTENT:
        good = mln_buffer_append(&t->content, event->text, event->length);
        break;
    case MLN_CHAT_CALL:
        good = add_call(t, event);
        break;
    case MLN_CHAT_WARNING:
        good = add_warning(t, event);
        break;
    }
    return good ? MYELIN_OK : mln_fail_memory(error, event->length, "an assistant's turn");
}

myelin_status mln_chat_turn_read(mln_chat_turn *turn, const char *text, size_t length,
                                 mln_chat_thinking thinking, bool tools, myelin_error *error) {
    *turn = (mln_chat_turn){0};
    mln_chat_split split;
    mln_chat_options options = {thinking, tools, mln_chat_turn_add, turn};
    mln_chat_split_init(&split, &options);
    myelin_status status = mln_chat_split_push(&split, text, length, error);
    if (status == MYELIN_OK)
        status = mln_chat_split_finish(&split, error);
    mln_chat_split_free(&split);
    if (status != MYELIN_OK)
        mln_chat_turn_free(turn);
    return status;
}

void mln_chat_turn_free(mln_chat_turn *turn) {
    mln_buffer_free(&turn->reasoning);
    mln_buffer_free(&turn->content);
    for (size_t i = 0; i < turn->num_calls; i++)
        mln_chat_call_free(&turn->calls[i]);
    for (size_t i = 0; i < turn->num_warnings; i++)
        free(turn->warnings[i]);
    free(turn->calls);
    free(turn->warnings);
    *turn = (mln_chat_turn){0};
}
