/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "chat.h"

static const char dim[] = "\033[2m", plain[] = "\033[0m";

static void put(const char *text) {
    cli_output(text, strlen(text));
}

/* Whether two bytes are a C1 control character in UTF-8, which terminals may obey. */
static bool is_c1(const char *text, size_t left) {
    return left > 1 && text[0] == '\xc2' && (unsigned char)text[1] >= 0x80 &&
           (unsigned char)text[1] < 0xa0;
}

/*
 * Text for a terminal: control characters become their pictures (U+2400 on), so that a model cannot
 * move the cursor, set colours or the like.
 */
static void put_safely(const chat_print *p, const char *text, size_t length) {
    if (!p->terminal) {
        cli_output(text, length);
        return;
    }
    size_t from = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        bool c0 = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
        if (!c0 && !is_c1(text + i, length - i))
            continue;
        char picture[] = {'\xe2', '\x90', (char)(0x80 + (c == 0x7f ? 0x21 : c0 ? c : 0x1b)), '\0'};
        cli_output(text + from, i - from);
        put(picture);
        i += !c0;
        from = i + 1;
    }
    cli_output(text + from, length - from);
}

static void end_reasoning(chat_print *p) {
    if (p->last != CHAT_REASONING)
        return;
    if (p->colour)
        put(plain);
    if (p->in_line)
        put("\n");
    p->in_line = false;
}

static void on_reasoning(chat_print *p, const myelin_turn_event *event) {
    bool first = p->last != CHAT_REASONING;
    if (!p->show_reasoning && (!p->terminal || !first))
        return;
    if (first && p->colour)
        put(dim);
    p->last = CHAT_REASONING;
    p->in_line = true;
    if (!p->show_reasoning) {
        put("(thinking)");
        return;
    }
    put_safely(p, event->text, event->length);
    p->in_line = event->text[event->length - 1] != '\n';
}

static void on_content(chat_print *p, const myelin_turn_event *event) {
    end_reasoning(p);
    put_safely(p, event->text, event->length);
    p->last = CHAT_CONTENT;
    p->in_line = event->text[event->length - 1] != '\n';
}

static void on_call(chat_print *p, const myelin_turn_event *event) {
    end_reasoning(p);
    if (p->in_line)
        put("\n");
    put("[call ");
    put_safely(p, event->name, strlen(event->name));
    put("(");
    put_safely(p, event->text, event->length);
    put(")]\n");
    p->last = CHAT_CONTENT;
    p->in_line = false;
}

bool chat_on_piece(void *user, const myelin_piece *piece) {
    chat *c = user;
    for (size_t i = 0; i < piece->num_events; i++) {
        const myelin_turn_event *event = &piece->events[i];
        switch (event->kind) {
        case MYELIN_TURN_REASONING:
            on_reasoning(&c->print, event);
            break;
        case MYELIN_TURN_CONTENT:
            on_content(&c->print, event);
            break;
        case MYELIN_TURN_TOOL_CALL:
            on_call(&c->print, event);
            break;
        case MYELIN_TURN_WARNING:
            cli_message(c->command, "warning: %.*s", (int)event->length, event->text);
            break;
        }
    }
    return !cli_interrupted();
}

void chat_print_begin(chat_print *p) {
    p->last = CHAT_NOTHING;
    p->in_line = false;
}

void chat_print_end(chat_print *p) {
    end_reasoning(p);
    if (p->in_line || p->last == CHAT_NOTHING)
        put("\n");
    p->in_line = false;
}
