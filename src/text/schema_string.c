/* SPDX-License-Identifier: Apache-2.0 */
/* Strings: any characters between bounds of their number, or what patterns and formats accept. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "text/char_automaton.h"
#include "text/schema.h"

#define YEAR      "(?:[1-9]\\d{3}|0[1-9]\\d\\d|00[1-9]\\d|000[1-9])"
#define LEAP_YEAR "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                       \
    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|"  \
    "30)|02-(?:0[1-9]|1\\d|2[0-8]))|" LEAP_YEAR "-02-29)"
#define TIME                                                                                       \
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define OCTET "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"

/* Formats that are held to; all others say something about the string and are not enforced. */
static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
    {"email", "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,15})?@" LABEL "(?:\\." LABEL "){1,3}$"},
    {"ipv4", "^" OCTET "(?:\\." OCTET "){3}$"}};

static const char *pattern_of_format(const char *name) {
    for (size_t i = 0; name && i < sizeof formats / sizeof *formats; i++)
        if (strcmp(name, formats[i].name) == 0)
            return formats[i].pattern;
    return NULL;
}

/* Narrows *chars, which may be empty as yet, to what the pattern accepts. */
static void narrow(mln_schema_compiler *c, const mln_schema_item *item, const char *keyword,
                   const char *pattern, size_t length, mln_chars *chars) {
    mln_chars one;
    myelin_error error = {0};
    myelin_status status = mln_chars_pattern(&one, pattern, length, &c->pattern_work, &error);
    if (status == MYELIN_OK && chars->num_states == 0) {
        *chars = one;
        return;
    }
    if (status == MYELIN_OK) {
        status = mln_chars_intersect(chars, &one, &c->pattern_work, &error);
        mln_chars_free(&one);
    }
    if (status == MYELIN_ERROR_MEMORY)
        mln_schema_no_memory(c);
    else if (status != MYELIN_OK)
        mln_schema_refuse(c, item, keyword, "%s", error.message);
}

/* What patterns and formats accept; without states when there are none. */
static void find_patterns(mln_schema_compiler *c, const mln_schema_rule *rule, mln_chars *chars) {
    *chars = (mln_chars){0};
    for (size_t i = 0; i < rule->count && c->status == MYELIN_OK; i++) {
        const mln_schema_item *item = &rule->items[i];
        const json_t *pattern = mln_schema_get(item, "pattern");
        const json_t *format = mln_schema_get(item, "format");
        const char *known = pattern_of_format(json_string_value(format));
        if (pattern && !json_is_string(pattern))
            mln_schema_refuse(c, item, "pattern", "expected a string, found %s",
                              mln_json_type_name(pattern));
        else if (pattern)
            narrow(c, item, "pattern", json_string_value(pattern), json_string_length(pattern),
                   chars);
        if (known && c->status == MYELIN_OK)
            narrow(c, item, "format", known, strlen(known), chars);
    }
}

static size_t characters(const json_t *text) {
    size_t count = 0;
    const char *bytes = json_string_value(text);
    for (size_t i = 0; i < json_string_length(text); i++)
        count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return count;
}

bool mln_schema_string_fits(mln_schema_compiler *c, const mln_schema_rule *rule,
                            const json_t *text) {
    mln_chars chars;
    uint32_t least = mln_schema_count(c, rule->items, rule->count, "minLength", true, 0);
    uint32_t most = mln_schema_count(c, rule->items, rule->count, "maxLength", false, MLN_NO_LIMIT);
    size_t length = characters(text);
    find_patterns(c, rule, &chars);
    bool fits = length >= least && length <= most;
    if (fits && chars.num_states > 0)
        fits = mln_chars_accept(&chars, json_string_value(text), json_string_length(text));
    mln_chars_free(&chars);
    return fits;
}

static void hex(mln_graph *g, uint32_t from, char low, char high, uint32_t to) {
    if (low <= '9')
        mln_graph_bytes(g, from, (unsigned)low, high < '9' ? (unsigned)high : '9', to);
    unsigned a = low > 'A' ? (unsigned)low : 'A', b = (unsigned)high;
    if (a > b)
        return;
    mln_graph_bytes(g, from, a, b, to);
    mln_graph_bytes(g, from, a + 'a' - 'A', b + 'a' - 'A', to);
}

/* \uXXXX of any character but U+0000, which many readers of JSON refuse; pairs of surrogates. */
static void add_unicode_escape(mln_graph *g, uint32_t from, uint32_t to) {
    uint32_t d[4] = {0}, zero[4] = {0}, high = mln_graph_node(g), low = mln_graph_node(g);
    for (int i = 1; i < 4; i++) {
        d[i] = mln_graph_node(g);
        zero[i] = mln_graph_node(g);
    }
    /* d[i]: i digits were read, not all of them 0; zero[i]: all of them 0. */
    mln_graph_bytes(g, from, '0', '0', zero[1]);
    for (int i = 1; i < 4; i++) {
        uint32_t next = i < 3 ? d[i + 1] : to;
        hex(g, d[i], '0', 'F', next);
        hex(g, zero[i], '1', 'F', next);
        if (i < 3)
            mln_graph_bytes(g, zero[i], '0', '0', zero[i + 1]);
    }
    hex(g, from, '1', 'C', d[1]);
    hex(g, from, 'E', 'F', d[1]);
    uint32_t after_d = mln_graph_node(g), pair = mln_graph_node(g), pair_end = mln_graph_node(g);
    hex(g, from, 'D', 'D', after_d);
    hex(g, after_d, '0', '7', d[2]);
    hex(g, after_d, '8', 'B', pair); /* the first half, and the second must follow */
    hex(g, pair, '0', 'F', pair_end);
    hex(g, pair_end, '0', 'F', high);
    uint32_t second = mln_graph_word(g, high, "\\u", 2), third = mln_graph_node(g);
    hex(g, second, 'D', 'D', third);
    hex(g, third, 'C', 'F', low);
    uint32_t last = mln_graph_node(g);
    hex(g, low, '0', 'F', last);
    hex(g, last, '0', 'F', to);
}

/* One character of a string in any of the ways JSON has. */
static void add_any_character(mln_graph *g, uint32_t from, uint32_t to) {
    uint32_t escape = mln_graph_node(g), unicode = mln_graph_node(g);
    mln_graph_utf8(g, from, 0x20, '"' - 1, to);
    mln_graph_utf8(g, from, '"' + 1, '\\' - 1, to);
    mln_graph_utf8(g, from, '\\' + 1, 0x10FFFF, to);
    mln_graph_bytes(g, from, '\\', '\\', escape);
    for (const char *p = "\"\\/bfnrt"; *p; p++)
        mln_graph_bytes(g, escape, (unsigned char)*p, (unsigned char)*p, to);
    mln_graph_bytes(g, escape, 'u', 'u', unicode);
    add_unicode_escape(g, unicode, to);
}

static uint32_t make_string(mln_graph *g, uint32_t least, uint32_t most) {
    uint32_t start = mln_graph_node(g), between = mln_graph_node(g), one = mln_graph_node(g);
    uint32_t close = mln_graph_node(g);
    mln_graph_bytes(g, start, '"', '"', between);
    mln_graph_more(g, between, most, least, one);
    mln_graph_done(g, between, least, close);
    mln_graph_bytes(g, close, '"', '"', g->end);
    add_any_character(g, one, between);
    if (one)
        g->nodes[one].plain = most;
    return start;
}

static void add_bounded(mln_schema_compiler *c, uint32_t from, uint32_t least, uint32_t most) {
    for (size_t i = 0; i < c->num_strings; i++)
        if (c->strings[i].least == least && c->strings[i].most == most) {
            mln_graph_call(&c->graph, from, c->strings[i].node, c->graph.end);
            return;
        }
    if (c->num_strings == c->string_capacity) {
        size_t capacity = c->string_capacity ? 2 * c->string_capacity : 8;
        mln_schema_string *strings = mln_realloc(c->strings, capacity, sizeof *strings);
        if (!strings) {
            mln_schema_no_memory(c);
            return;
        }
        c->strings = strings;
        c->string_capacity = capacity;
    }
    uint32_t node = make_string(&c->graph, least, most);
    c->strings[c->num_strings++] = (mln_schema_string){least, most, node};
    mln_graph_call(&c->graph, from, node, c->graph.end);
}

/* A pattern and bounds together: the bounds become an automaton too. */
static void bound_pattern(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t least,
                          uint32_t most, mln_chars *chars) {
    mln_chars length = {0};
    myelin_error error = {0};
    if (least == 0 && most == MLN_NO_LIMIT)
        return;
    myelin_status status = mln_chars_length(&length, least, most, &error);
    if (status == MYELIN_OK)
        status = mln_chars_intersect(chars, &length, &c->pattern_work, &error);
    mln_chars_free(&length);
    if (status == MYELIN_ERROR_MEMORY)
        mln_schema_no_memory(c);
    else if (status != MYELIN_OK)
        mln_schema_refuse(c, &rule->items[0], "pattern", "with these lengths, %s", error.message);
}

void mln_schema_string_value(mln_schema_compiler *c, const mln_schema_rule *rule, uint32_t from) {
    mln_chars chars;
    uint32_t least = mln_schema_count(c, rule->items, rule->count, "minLength", true, 0);
    uint32_t most = mln_schema_count(c, rule->items, rule->count, "maxLength", false, MLN_NO_LIMIT);
    find_patterns(c, rule, &chars);
    if (c->status == MYELIN_OK && least <= most && chars.num_states == 0)
        add_bounded(c, from, least, most);
    if (c->status == MYELIN_OK && least <= most && chars.num_states > 0) {
        bound_pattern(c, rule, least, most, &chars);
        if (c->status == MYELIN_OK)
            mln_chars_write(&chars, &c->graph, from, c->graph.end);
    }
    mln_chars_free(&chars);
}
