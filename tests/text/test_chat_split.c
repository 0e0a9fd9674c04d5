/* SPDX-License-Identifier: Apache-2.0 */
/* Splitting an assistant's turn: what comes out, and that it is the same wherever pieces are cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "text/chat_turn.h"
#include "text/cpu_clock.h"

enum { MANY = 100000 /* allocations no walk reaches */ };

#define OFF     MLN_CHAT_THINKING_OFF
#define ALLOWED MLN_CHAT_THINKING_ALLOWED
#define OPEN    MLN_CHAT_THINKING_OPEN

typedef struct text_case {
    mln_chat_thinking thinking;
    bool tools;
    const char *text;
    /* Reasoning as R[..], content C[..], calls name(arguments), warnings !, in the order they come.
     */
    const char *events;
} text_case;

#define CALL(json) "<tool_call>\n" json "\n</tool_call>"
#define GOOD       CALL("{\"name\": \"f\", \"arguments\": {\"a\": 1}}")

static const text_case cases[] = {
    /* No block. */
    {ALLOWED, true, "", ""},
    {ALLOWED, true, "Hello", "C[Hello]"},
    {ALLOWED, true, "\n\n Hello\n\n", "C[\n\n Hello\n\n]"},
    {ALLOWED, true, " \n", "C[ \n]"},
    {ALLOWED, true, "<", "C[<]"},
    {ALLOWED, true, "\n<thin", "C[\n<thin]"},
    {ALLOWED, true, "<thing>", "C[<thing>]"},
    {ALLOWED, true, "a<think>b</think>c", "C[a<think>b</think>c]"},
    {ALLOWED, true, "a</think>\n\nb", "C[a</think>\n\nb]"},
    {OFF, true, "<think>\nb\n</think>\n\nc", "C[<think>\nb\n</think>\n\nc]"},
    {OFF, false, "a\n\n", "C[a\n\n]"},
    /* The model opens it. */
    {ALLOWED, true, "<think>\nb\n</think>\n\nc", "R[b]C[c]"},
    {ALLOWED, true, " \r\n\t<think>b</think>c\n", "R[b]C[c\n]"},
    {ALLOWED, true, "<think>\n\n</think>\n\nc", "C[c]"},
    {ALLOWED, true, "<think></think>", ""},
    {ALLOWED, true, "<think>\n\n\nb\n\nb\n\n\n</think>\n\n\n c", "R[b\n\nb]C[ c]"},
    {ALLOWED, true, "<think> \n</think>c", "R[ ]C[c]"},
    {ALLOWED, true, "<think>\nb\n\n", "R[b]"},
    {ALLOWED, true, "<think>\nb</thin", "R[b</thin]"},
    {ALLOWED, true, "<think>\nb\n</thin", "R[b\n</thin]"},
    {ALLOWED, true, "<think>\nb<</</think>c", "R[b<</]C[c]"},
    {ALLOWED, true, "<<think>b</think>", "C[<<think>b</think>]"},
    {ALLOWED, true, "<think><think>\nb<think>\n</think>c", "R[b<think>]C[c]"},
    {ALLOWED, true, "<think>b</think>\nc</think>\nd<think>e", "R[b]C[c</think>\nd<think>e]"},
    {ALLOWED, true, "<think>\xC3\xA9\n</think>\xE2\x82\xAC", "R[\xC3\xA9]C[\xE2\x82\xAC]"},
    /* The prompt has opened it. */
    {OPEN, true, "b\n</think>\n\nc", "R[b]C[c]"},
    {OPEN, true, "\nb\n", "R[b]"},
    {OPEN, true, "\n\n</think>\n\nc", "C[c]"},
    {OPEN, true, "</think>c", "C[c]"},
    {OPEN, true, "<think>\nb\n</think>\n\nc", "R[b]C[c]"},
    {OPEN, true, "\n<think>\nb\n</think>\n\nc", "R[b]C[c]"},
    {OPEN, true, " <think>b</think>c", "R[ <think>b]C[c]"},
    {OPEN, true, "<thin", "R[<thin]"},
    {OPEN, true, "", ""},
    /* Calls. */
    {ALLOWED, true, GOOD, "f({\"a\": 1})"},
    {ALLOWED, true, "\n" GOOD "\n", "f({\"a\": 1})"},
    {ALLOWED, true, "A\n\n" GOOD "\n", "C[A]f({\"a\": 1})"},
    {ALLOWED, true, "A\n" GOOD "\n\n" GOOD "\n", "C[A]f({\"a\": 1})f({\"a\": 1})"},
    {ALLOWED, true, "A\n\n" GOOD "\n\nB\n", "C[A]f({\"a\": 1})C[\nB\n]"},
    {ALLOWED, true, "A" GOOD "B", "C[A]f({\"a\": 1})C[B]"},
    {ALLOWED, true, "A" GOOD "\n" GOOD "B", "C[A]f({\"a\": 1})f({\"a\": 1})C[\nB]"},
    {ALLOWED, true, "A\n\n" GOOD "B", "C[A]f({\"a\": 1})C[\nB]"},
    {ALLOWED, true, "\n\n" GOOD "B", "f({\"a\": 1})C[B]"},
    {ALLOWED, true, "\n" GOOD "\n\nB", "f({\"a\": 1})C[B]"},
    {ALLOWED, true, "<think>\nb\n</think>\n\nc\n" GOOD, "R[b]C[c]f({\"a\": 1})"},
    {OPEN, true, "b\n</think>\n\n" GOOD "\n" GOOD, "R[b]f({\"a\": 1})f({\"a\": 1})"},
    {OPEN, true, "b\n" GOOD "\n</think>c", "R[b\n" GOOD "]C[c]"},
    {OFF, false, "A\n" GOOD "\n", "C[A\n" GOOD "\n]"},
    {OFF, true, "<tool_call>{\"name\":\"f\"}</tool_call>", "f({})"},
    {OFF, true, CALL("{\"name\": \"f\", \"arguments\": {}}"), "f({})"},
    {OFF, true, CALL("{\"name\": \"f\", \"arguments\":  { }  }"), "f({ })"},
    {OFF, true,
     CALL("{\"arguments\":\n{\"a\" : [1.50,\n{}],\"b\":\"\\u00e9\"}\n,\"name\":\"g\\u0068\"}"),
     "gh({\"a\" : [1.50,\n{}],\"b\":\"\\u00e9\"})"},
    {OFF, true,
     CALL("{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\", \"id\": [{\"name\": 1}]}"),
     "f({\"a\": 1})"},
    {OFF, true, CALL("{\"name\": \"f\", \"arguments\": \"\"}"), "f()"},
    /* Tags in its strings. */
    {OFF, true, CALL("{\"name\": \"f\", \"arguments\": {\"a\": \"\\\"</tool_call><tool_call>\"}}"),
     "f({\"a\": \"\\\"</tool_call><tool_call>\"})"},
    {OFF, true, "<tool_call>{\"name\": \"f\n</tool_call>c" GOOD,
     "C[<tool_call>{\"name\": \"f\n</tool_call>]!C[c]f({\"a\": 1})"},
    {OFF, true, "<tool_call>it is 5\" long</tool_call>c",
     "C[<tool_call>it is 5\" long</tool_call>]!C[c]"},
    {OFF, true, "<tool_call></{\"</tool_call>c", "C[<tool_call></{\"</tool_call>]!C[c]"},
    /* Malformed ones. */
    {OFF, true, "A\n" CALL("{}") "\n\nB", "C[A\n" CALL("{}") "]!C[\n\nB]"},
    {OFF, true, GOOD "\n" CALL("{]"), "f({\"a\": 1})C[" CALL("{]") "]!"},
    {OFF, true, CALL("{]") "\n\n" GOOD, "C[" CALL("{]") "]!f({\"a\": 1})"},
    {OFF, true, "<tool_call></tool_call>", "C[<tool_call></tool_call>]!"},
    {OFF, true, CALL("[]"), "C[" CALL("[]") "]!"},
    {OFF, true, CALL("\"f\""), "C[" CALL("\"f\"") "]!"},
    {OFF, true, CALL("{\"name\": \"f\"} {}"), "C[" CALL("{\"name\": \"f\"} {}") "]!"},
    {OFF, true, CALL("{\"name\": \"\"}"), "C[" CALL("{\"name\": \"\"}") "]!"},
    {OFF, true, CALL("{\"name\": 1}"), "C[" CALL("{\"name\": 1}") "]!"},
    {OFF, true, CALL("{\"name\": \"a\\u0000\"}"), "C[" CALL("{\"name\": \"a\\u0000\"}") "]!"},
    {OFF, true, CALL("{\"name\": \"a\x7F\"}"), "C[" CALL("{\"name\": \"a\x7F\"}") "]!"},
    {OFF, true, CALL("{\"name\": \"f\", \"arguments\": null}"),
     "C[" CALL("{\"name\": \"f\", \"arguments\": null}") "]!"},
    {OFF, true, CALL("{\"name\": \"f\", \"arguments\": [{}]}"),
     "C[" CALL("{\"name\": \"f\", \"arguments\": [{}]}") "]!"},
    {OFF, true, CALL("{\"name\": \"f\", \"name\": \"g\"}"),
     "C[" CALL("{\"name\": \"f\", \"name\": \"g\"}") "]!"},
    {OFF, true, CALL("{\"name\": \"f\", \"arguments\": {\"a\": {\"b\": 1, \"b\": 2}}}"),
     "C[" CALL("{\"name\": \"f\", \"arguments\": {\"a\": {\"b\": 1, \"b\": 2}}}") "]!"},
    {OFF, true, CALL("{\"name\": \"\xFF\"}"), "C[" CALL("{\"name\": \"\xFF\"}") "]!"},
    {OFF, true, "A\n<tool_call>{\"name\": \"f\"}\n", "C[A\n<tool_call>{\"name\": \"f\"}]!C[\n]"},
    {OFF, true, "<tool_call>{\"name\": \"f\"}</tool_cal",
     "C[<tool_call>{\"name\": \"f\"}</tool_cal]!"},
    {OFF, true, "A\n<tool_cal", "C[A\n<tool_cal]"},
    {OFF, true, "A\n<tool_call", "C[A\n<tool_call]"},
    {OFF, true, "<tool_call>\n" GOOD, "C[<tool_call>]!f({\"a\": 1})"},
    {OFF, true, "<tool_call>\nA\n" GOOD "\n</tool_call>",
     "C[<tool_call>\nA]!f({\"a\": 1})C[\n</tool_call>]"},
    {OFF, true, "</tool_call>\n<tool_call>>", "C[</tool_call>\n<tool_call>>]!"},
};

/* ---- what comes out, written down ---- */

typedef struct record {
    mln_buffer text;
    int last;              /* the kind being written, or -1 */
    uint64_t refuse_after; /* events to take before one is refused; 0: none is */
} record;

static void add(record *r, const void *data, size_t length) {
    assert_true(mln_buffer_append(&r->text, data, length));
}

static void close_piece(record *r) {
    if (r->last == MLN_CHAT_REASONING || r->last == MLN_CHAT_CONTENT)
        add(r, "]", 1);
    r->last = -1;
}

static myelin_status write_down(void *context, const mln_chat_event *event, myelin_error *error) {
    (void)error;
    record *r = context;
    if (r->refuse_after && --r->refuse_after == 0)
        return MYELIN_ERROR_CANCELLED;
    bool text = event->kind == MLN_CHAT_REASONING || event->kind == MLN_CHAT_CONTENT;
    if (r->last != (int)event->kind || !text)
        close_piece(r);
    if (text) {
        assert_true(event->length > 0);
        if (r->last < 0)
            add(r, event->kind == MLN_CHAT_REASONING ? "R[" : "C[", 2);
        r->last = (int)event->kind;
        add(r, event->text, event->length);
    } else if (event->kind == MLN_CHAT_CALL) {
        add(r, event->name, strlen(event->name));
        add(r, "(", 1);
        add(r, event->text, event->length);
        add(r, ")", 1);
    } else {
        assert_int_equal(strncmp(event->text, "tool call: ", 11), 0);
        add(r, "!", 1);
    }
    return MYELIN_OK;
}

/* Splits the text, cut behind each byte where cut[i] (NULL: nowhere). */
static mln_buffer split(mln_chat_thinking thinking, bool tools, const char *text, size_t length,
                        const bool *cut) {
    record r = {.last = -1};
    mln_chat_split s;
    mln_chat_split_init(&s, &(mln_chat_options){thinking, tools, write_down, &r});
    for (size_t i = 0, begin = 0; i < length; i++)
        if ((cut && cut[i]) || i == length - 1) {
            /* A copy of the piece's size: the address sanitizer sees reads beyond it. */
            char *piece = malloc(i + 1 - begin);
            assert_non_null(piece);
            memcpy(piece, text + begin, i + 1 - begin);
            assert_int_equal(mln_chat_split_push(&s, piece, i + 1 - begin, NULL), MYELIN_OK);
            free(piece);
            begin = i + 1;
        }
    assert_int_equal(mln_chat_split_finish(&s, NULL), MYELIN_OK);
    mln_chat_split_free(&s);
    close_piece(&r);
    add(&r, "", 0);
    return r.text;
}

static uint32_t random_below(uint64_t *seed, uint32_t limit) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33) % limit;
}

static void assert_same_cut(mln_chat_thinking thinking, bool tools, const char *text, size_t length,
                            const bool *cut, const mln_buffer *whole) {
    mln_buffer pieces = split(thinking, tools, text, length, cut);
    if (pieces.length != whole->length || memcmp(pieces.data, whole->data, whole->length) != 0)
        fail_msg("'%.*s' whole: %s, in pieces: %s", (int)length, text, whole->data, pieces.data);
    mln_buffer_free(&pieces);
}

/* Every cut in two, every byte alone, and some random ones. */
static void assert_same_however_cut(mln_chat_thinking thinking, bool tools, const char *text,
                                    size_t length, uint64_t *seed) {
    mln_buffer whole = split(thinking, tools, text, length, NULL);
    bool *cut = calloc(length + 1, sizeof *cut);
    assert_non_null(cut);
    for (size_t i = 0; i < length; i++) {
        cut[i] = true;
        assert_same_cut(thinking, tools, text, length, cut, &whole);
        cut[i] = false;
    }
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < length; i++)
            cut[i] = round == 0 || random_below(seed, 1 + (uint32_t)round % 8) == 0;
        assert_same_cut(thinking, tools, text, length, cut, &whole);
    }
    free(cut);
    mln_buffer_free(&whole);
}

/* ---- the tests ---- */

static void events_are_as_documented(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const text_case *c = &cases[i];
        mln_buffer found = split(c->thinking, c->tools, c->text, strlen(c->text), NULL);
        assert_string_equal(found.data, c->events);
        mln_buffer_free(&found);
    }
}

static void cuts_do_not_matter(void **state) {
    (void)state;
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int tools = 0; tools < 2; tools++)
            for (mln_chat_thinking thinking = OFF; thinking <= OPEN; thinking++)
                assert_same_however_cut(thinking, tools, cases[i].text, strlen(cases[i].text),
                                        &seed);
}

/* With nothing recognised, what went in comes out. */
static void assert_kept(const char *text, size_t length) {
    mln_chat_turn turn;
    for (int tools = 0; tools < 2; tools++) {
        assert_int_equal(mln_chat_turn_read(&turn, text, length, OFF, tools, NULL), MYELIN_OK);
        assert_int_equal(turn.reasoning.length, 0);
        if (turn.num_calls == 0) {
            assert_int_equal(turn.content.length, length);
            if (length)
                assert_memory_equal(turn.content.data, text, length);
        }
        assert_true(tools || turn.num_calls + turn.num_warnings == 0);
        mln_chat_turn_free(&turn);
    }
}

static void random_turns_hold_the_properties(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t length;
    } fragments[] = {
#define FRAGMENT(text) {text, sizeof text - 1}
        FRAGMENT("<think>"),
        FRAGMENT("</think>"),
        FRAGMENT("<tool_call>"),
        FRAGMENT("</tool_call>"),
        FRAGMENT("\n"),
        FRAGMENT("\n\n"),
        FRAGMENT("{"),
        FRAGMENT("\""),
        FRAGMENT("{\"name\":\"f\"}"),
        FRAGMENT("{\"name\":\"g\",\"arguments\":{\"a\":\"<tool_call>"),
        FRAGMENT("\"}}"),
        FRAGMENT("x"),
        FRAGMENT(" "),
        FRAGMENT("<"),
        FRAGMENT("</"),
        FRAGMENT("\xC3\xA9"),
        FRAGMENT("\0"),
        FRAGMENT("\xFF"),
        FRAGMENT("\\"),
        FRAGMENT(GOOD)};
    uint64_t seed = 2;
    char text[1024];
    for (int round = 0; round < 600; round++) {
        size_t length = 0;
        for (uint32_t n = random_below(&seed, 12); n; n--) {
            uint32_t f = random_below(&seed, sizeof fragments / sizeof *fragments);
            memcpy(text + length, fragments[f].text, fragments[f].length);
            length += fragments[f].length;
        }
        assert_same_however_cut((mln_chat_thinking)(round % 3), round % 4 != 0, text, length,
                                &seed);
        assert_kept(text, length);
    }
}

/* Text is handed out as soon as it is certain, and a tag's beginning is not. */
static void pieces_come_at_once(void **state) {
    (void)state;
    static const struct {
        const char *piece, *so_far;
        bool reasoning;
    } steps[] = {{"\n", "", false},
                 {"<thi", "", false},
                 {"nk>", "", true},
                 {"\na", "R[a", true},
                 {"b <", "R[ab ", true},
                 {"p>\n", "R[ab <p>", true},
                 {"\n</", "R[ab <p>", true},
                 {"i>", "R[ab <p>\n\n</i>", true},
                 {"\n</think", "R[ab <p>\n\n</i>", true},
                 {">", "R[ab <p>\n\n</i>", false},
                 {"\n\n", "R[ab <p>\n\n</i>", false},
                 {"c", "R[ab <p>\n\n</i>]C[c", false},
                 {"d\n<tool_", "R[ab <p>\n\n</i>]C[cd", false},
                 {"call>{\"name\":\"f\"}</tool_call", "R[ab <p>\n\n</i>]C[cd", false},
                 {">", "R[ab <p>\n\n</i>]C[cd]f({})", false}};
    record r = {.last = -1};
    mln_chat_split s;
    mln_chat_split_init(&s, &(mln_chat_options){ALLOWED, true, write_down, &r});
    add(&r, "", 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const char *piece = steps[i].piece;
        assert_int_equal(mln_chat_split_push(&s, piece, strlen(piece), NULL), MYELIN_OK);
        assert_string_equal(r.text.data, steps[i].so_far);
        assert_int_equal(mln_chat_split_is_reasoning(&s), steps[i].reasoning);
    }
    mln_chat_split_free(&s);

    /* Without tools there is no call for which to hold newlines back. */
    r.text.length = 0;
    r.last = -1;
    mln_chat_split_init(&s, &(mln_chat_options){OFF, false, write_down, &r});
    assert_int_equal(mln_chat_split_push(&s, "a\n", 2, NULL), MYELIN_OK);
    assert_string_equal(r.text.data, "C[a\n");
    mln_chat_split_free(&s);
    mln_buffer_free(&r.text);
}

static void warnings_say_why(void **state) {
    (void)state;
    static const struct {
        const char *body, *warning;
    } wrong[] = {
        {"[]</tool_call>", "tool call: expected an object, found an array (byte 1)"},
        {"{}</tool_call>", "tool call: expected an object with \"name\", found none"},
        {"{\"name\":7}</tool_call>",
         "tool call: expected \"name\" to be a string, found a number (byte 9)"},
        {"{\"name\":\"f\",\"arguments\":[]}</tool_call>",
         "tool call: expected \"arguments\" to be an object or a string, found an array (byte 25)"},
        {"{\"name\":\"f\",\"name\":\"f\"}</tool_call>",
         "tool call: duplicate key \"name\" (byte 18)"},
        {"{", "tool call: expected </tool_call>, found the end of the turn"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[128];
        int length = snprintf(text, sizeof text, "<tool_call>%s", wrong[i].body);
        mln_chat_turn turn;
        assert_int_equal(mln_chat_turn_read(&turn, text, (size_t)length, OFF, true, NULL), 0);
        assert_int_equal(turn.num_warnings, 1);
        assert_string_equal(turn.warnings[0], wrong[i].warning);
        assert_string_equal(turn.content.data, text);
        mln_chat_turn_free(&turn);
    }
}

static void arguments_may_hold_nul_and_depth_has_a_limit(void **state) {
    (void)state;
    mln_chat_turn turn;
    static const char nul[] = CALL("{\"name\": \"f\", \"arguments\": \"a\\u0000b\"}");
    assert_int_equal(mln_chat_turn_read(&turn, nul, sizeof nul - 1, OFF, true, NULL), MYELIN_OK);
    assert_int_equal(turn.num_calls, 1);
    assert_int_equal(turn.calls[0].arguments.length, 3);
    assert_memory_equal(turn.calls[0].arguments.data, "a\0b", 3);
    mln_chat_turn_free(&turn);

    for (int depth = 60; depth < 70; depth++) {
        mln_buffer text = {0};
        static const char head[] = "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":";
        mln_buffer_append(&text, head, sizeof head - 1);
        for (int i = 2; i < depth; i++)
            mln_buffer_append(&text, "[", 1);
        for (int i = 2; i < depth; i++)
            mln_buffer_append(&text, "]", 1);
        mln_buffer_append(&text, "}}</tool_call>", 14);
        assert_int_equal(mln_chat_turn_read(&turn, text.data, text.length, OFF, true, NULL), 0);
        assert_int_equal(turn.num_calls, depth <= 64);
        assert_int_equal(turn.num_warnings, depth > 64);
        mln_chat_turn_free(&turn);
        mln_buffer_free(&text);
    }
}

static void limits_are_kept(void **state) {
    (void)state;
    /* One call more than there may be. */
    mln_buffer text = {0};
    for (int i = 0; i <= MLN_CHAT_MAX_CALLS; i++)
        mln_buffer_append(&text, GOOD, sizeof GOOD - 1);
    mln_chat_turn turn;
    assert_int_equal(mln_chat_turn_read(&turn, text.data, text.length, OFF, true, NULL), 0);
    assert_int_equal(turn.num_calls, MLN_CHAT_MAX_CALLS);
    assert_int_equal(turn.num_warnings, 1);
    assert_string_equal(turn.content.data, GOOD);
    mln_chat_turn_free(&turn);

    /* Warnings. */
    text.length = 0;
    for (int i = 0; i < 2 * MLN_CHAT_MAX_WARNINGS; i++)
        mln_buffer_append(&text, "<tool_call>", 11);
    assert_int_equal(mln_chat_turn_read(&turn, text.data, text.length, OFF, true, NULL), 0);
    assert_int_equal(turn.num_warnings, MLN_CHAT_MAX_WARNINGS);
    assert_string_equal(turn.content.data, text.data);
    mln_chat_turn_free(&turn);

    /* Whitespace before a block. */
    char lead[MLN_CHAT_MAX_LEAD + 20];
    for (int spaces = MLN_CHAT_MAX_LEAD; spaces <= MLN_CHAT_MAX_LEAD + 1; spaces++) {
        int length = snprintf(lead, sizeof lead, "%*s<think>a", spaces, "");
        assert_int_equal(mln_chat_turn_read(&turn, lead, (size_t)length, ALLOWED, true, NULL), 0);
        assert_int_equal(turn.reasoning.length, spaces == MLN_CHAT_MAX_LEAD);
        mln_chat_turn_free(&turn);
    }

    /* The name. */
    for (int size = MLN_CHAT_MAX_NAME; size <= MLN_CHAT_MAX_NAME + 1; size++) {
        char call[MLN_CHAT_MAX_NAME + 64];
        int length = snprintf(call, sizeof call, CALL("{\"name\": \"%0*d\"}"), size, 0);
        assert_int_equal(mln_chat_turn_read(&turn, call, (size_t)length, OFF, true, NULL), 0);
        assert_int_equal(turn.num_calls, size == MLN_CHAT_MAX_NAME);
        mln_chat_turn_free(&turn);
    }
    mln_buffer_free(&text);
}

/* What looks like a tag is in the way of the limit; at the end of the turn as well. */
static void limits_hold_beside_tags(void **state) {
    (void)state;
    mln_buffer text = {0};
    char *filling = malloc(MLN_CHAT_MAX_CALL);
    assert_non_null(filling);
    memset(filling, 'x', MLN_CHAT_MAX_CALL);
    for (size_t room = 0; room < 12; room++)
        for (int closed = 0; closed < 2; closed++) {
            text.length = 0;
            mln_buffer_append(&text, "<tool_call>", 11);
            mln_buffer_append(&text, filling, MLN_CHAT_MAX_CALL - room);
            mln_buffer_append(&text, "<tool_c", 7);
            if (closed)
                mln_buffer_append(&text, "</tool_call>", 12);
            mln_chat_turn turn;
            assert_int_equal(mln_chat_turn_read(&turn, text.data, text.length, OFF, true, NULL), 0);
            assert_int_equal(turn.num_warnings, 1);
            const char *reason = room < 7 ? "at most 1048576 bytes, found more"
                                 : closed ? "invalid JSON"
                                          : "found the end of the turn";
            assert_non_null(strstr(turn.warnings[0], reason));
            assert_int_equal(turn.content.length, text.length);
            assert_memory_equal(turn.content.data, text.data, text.length);
            mln_chat_turn_free(&turn);
        }
    free(filling);
    mln_buffer_free(&text);
}

/* A call of the largest size, and one byte more: at every cut near the limit. */
static void long_calls_become_text(void **state) {
    (void)state;
    static const char head[] = "{\"name\":\"f\",\"arguments\":{\"a\":\"", tail[] = "\"}}";
    for (size_t extra = 0; extra < 3; extra++) {
        mln_buffer text = {0};
        mln_buffer_append(&text, "A\n<tool_call>", 13);
        mln_buffer_append(&text, head, sizeof head - 1);
        while (text.length < 13 + MLN_CHAT_MAX_CALL + extra - (sizeof tail - 1))
            mln_buffer_append(&text, "x", 1);
        mln_buffer_append(&text, tail, sizeof tail - 1);
        /* What looks like a tag where the limit is; then a call that fits. */
        if (extra == 2)
            memcpy(text.data + text.length - 9, "\"}}<tool_", 9);
        mln_buffer_append(&text, "</tool_call>\n" GOOD, 13 + sizeof GOOD - 1);
        mln_buffer whole = split(OFF, true, text.data, text.length, NULL);
        bool *cut = calloc(text.length, sizeof *cut);
        assert_non_null(cut);
        for (size_t i = MLN_CHAT_MAX_CALL; i < MLN_CHAT_MAX_CALL + 40; i += 3) {
            cut[i] = true;
            assert_same_cut(OFF, true, text.data, text.length, cut, &whole);
        }
        free(cut);
        mln_buffer_free(&whole);

        mln_chat_turn turn;
        assert_int_equal(mln_chat_turn_read(&turn, text.data, text.length, OFF, true, NULL), 0);
        assert_int_equal(turn.num_calls, extra ? 1 : 2);
        assert_int_equal(turn.num_warnings, extra ? 1 : 0);
        size_t kept = text.length - (sizeof GOOD - 1) - 1;
        assert_int_equal(turn.content.length, extra ? kept : 1);
        assert_memory_equal(turn.content.data, text.data, turn.content.length);
        mln_chat_turn_free(&turn);
        mln_buffer_free(&text);
    }
}

static void a_handler_may_end_it(void **state) {
    (void)state;
    static const char text[] = "<think>\na\n\nb</think>c\n" GOOD "\nd" CALL("{]") "e\n";
    uint64_t n = 0;
    myelin_status status = MYELIN_ERROR_CANCELLED;
    while (status != MYELIN_OK) {
        record r = {.last = -1, .refuse_after = ++n};
        mln_chat_split s;
        mln_chat_split_init(&s, &(mln_chat_options){ALLOWED, true, write_down, &r});
        status = MYELIN_OK;
        for (size_t i = 0; i < sizeof text - 1 && status == MYELIN_OK; i++)
            status = mln_chat_split_push(&s, text + i, 1, NULL);
        if (status == MYELIN_OK)
            status = mln_chat_split_finish(&s, NULL);
        assert_true(status == MYELIN_OK || status == MYELIN_ERROR_CANCELLED);
        mln_chat_split_free(&s);
        mln_buffer_free(&r.text);
    }
    assert_in_range(n, 8, 100);
}

static void splitting_survives_every_failure(void **state) {
    (void)state;
    static const char text[] =
        "<think>\na\n</think>c\n" GOOD "\n" GOOD "\n" CALL("{\"name\": \"f\", \"a\": [1]]") "d";
    for (int sticky = 0; sticky < 2; sticky++) {
        myelin_status status = MYELIN_ERROR_MEMORY;
        uint64_t n = 0;
        while (status != MYELIN_OK && n < MANY) {
            mln_chat_turn turn;
            myelin_error error = {0};
            mln_fail_allocation(++n, sticky);
            status = mln_chat_turn_read(&turn, text, sizeof text - 1, ALLOWED, true, &error);
            mln_fail_allocation(0, false);
            if (status == MYELIN_OK) {
                assert_int_equal(turn.num_calls, 2);
                assert_int_equal(turn.num_warnings, 1);
            } else {
                assert_int_equal(status, MYELIN_ERROR_MEMORY);
                assert_int_equal(error.status, MYELIN_ERROR_MEMORY);
                assert_int_equal(turn.num_calls + turn.content.length, 0);
            }
            mln_chat_turn_free(&turn);
        }
        assert_in_range(n, 15, MANY - 1);
    }
}

static int64_t time_repeated(const char *fragment, size_t size, bool bytewise) {
    mln_buffer text = {0};
    while (text.length < size)
        assert_true(mln_buffer_append(&text, fragment, strlen(fragment)));
    bool *cut = calloc(text.length, sizeof *cut);
    assert_non_null(cut);
    memset(cut, bytewise, text.length * sizeof *cut);
    int64_t begin = cpu_ms();
    for (mln_chat_thinking thinking = OFF; thinking <= OPEN; thinking++) {
        mln_buffer found = split(thinking, true, text.data, text.length, cut);
        assert_true(found.length >= text.length);
        mln_buffer_free(&found);
    }
    int64_t took = cpu_ms() - begin;
    free(cut);
    mln_buffer_free(&text);
    return took;
}

/* Four times the text takes about four times as long; quadratic time would take sixteen times. */
static void hostile_text_takes_linear_time(void **state) {
    (void)state;
    static const char *const fragments[] = {"<",
                                            "</think",
                                            "<tool_call",
                                            "\n<",
                                            "a\n\n",
                                            "<tool_call><",
                                            "<tool_call",
                                            "<tool_call>{\"</tool_call>a\n</tool_call>",
                                            "<tool_call>{\"a\":"};
    for (size_t i = 0; i < sizeof fragments / sizeof *fragments; i++)
        for (int bytewise = 0; bytewise < 2; bytewise++) {
            int64_t small = time_repeated(fragments[i], 1 << 18, bytewise);
            int64_t large = time_repeated(fragments[i], 1 << 20, bytewise);
            if (large > 8 * small + 200)
                fail_msg("'%s': 256 KiB took %d ms, 1 MiB %d ms", fragments[i], (int)small,
                         (int)large);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_are_as_documented),
        cmocka_unit_test(cuts_do_not_matter),
        cmocka_unit_test(random_turns_hold_the_properties),
        cmocka_unit_test(pieces_come_at_once),
        cmocka_unit_test(warnings_say_why),
        cmocka_unit_test(arguments_may_hold_nul_and_depth_has_a_limit),
        cmocka_unit_test(limits_are_kept),
        cmocka_unit_test(limits_hold_beside_tags),
        cmocka_unit_test(long_calls_become_text),
        cmocka_unit_test(a_handler_may_end_it),
        cmocka_unit_test(splitting_survives_every_failure),
        cmocka_unit_test(hostile_text_takes_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
