/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source to tokens, with Jinja's white space rules for trim_blocks and lstrip_blocks: a newline
 * after a block or a comment is dropped, and so is white space between a line's start and a block
 * or comment; "-" at either end of a tag takes all white space there, "+" keeps it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/template_ast.h"
#include "text/template_run.h"

static bool at_text(const mln_parser *p, size_t at, const char *text) {
    size_t length = strlen(text);
    return p->length - at >= length && memcmp(p->source + at, text, length) == 0;
}

static size_t space_at(const mln_parser *p, size_t at) {
    uint32_t code;
    if (at >= p->length)
        return 0;
    size_t size = mln_utf8_decode((const unsigned char *)p->source + at, p->length - at, &code);
    return size && mln_is_space(code) ? size : 0;
}

static size_t skip_space(const mln_parser *p, size_t at) {
    for (size_t n; (n = space_at(p, at)) != 0;)
        at += n;
    return at;
}

/* Where the white space that ends text[start .. end) begins. */
static size_t trim_right(const mln_parser *p, size_t start, size_t end) {
    while (end > start) {
        size_t at = end - 1;
        while (at > start && ((unsigned char)p->source[at] & 0xC0) == 0x80)
            at--;
        if (space_at(p, at) == 0)
            break;
        end = at;
    }
    return end;
}

static void move_to(mln_parser *p, size_t at) {
    for (; p->at < at; p->at++)
        p->line += p->source[p->at] == '\n';
}

bool mln_lexer_open(mln_parser *p, const char *source, size_t length) {
    if (length > MLN_TEMPLATE_MAX_SOURCE)
        return mln_parse_fail(p, 1, "the template has %zu bytes, more than the limit of %llu",
                              length, (unsigned long long)MLN_TEMPLATE_MAX_SOURCE);
    size_t valid = mln_utf8_valid_prefix(source, length);
    if (valid != length)
        return mln_parse_fail(p, 1, "the template is not UTF-8 at byte %zu", valid);
    char *text = mln_parse_alloc(p, length + 1, 1);
    if (!text)
        return false;
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        if (source[i] == '\r' && i + 1 < length && source[i + 1] == '\n')
            continue;
        text[n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (n && text[n - 1] == '\n')
        n--;
    p->source = text;
    p->length = n;
    p->line = 1;
    p->root = true;
    return true;
}

/* Past the end of a tag: its mark ("%}", "#}", "}}") with what it takes along; 0: not here. */
static size_t tag_end(const mln_parser *p, size_t at, const char *mark, bool block) {
    if (at < p->length && p->source[at] == '-' && at_text(p, at + 1, mark))
        return skip_space(p, at + 3);
    if (block && at < p->length && p->source[at] == '+' && at_text(p, at + 1, mark))
        return at + 3;
    if (!at_text(p, at, mark))
        return 0;
    at += 2;
    return block && at < p->length && p->source[at] == '\n' ? at + 1 : at;
}

/* Past "{% raw %}" or its like that begins here; 0: something else is here. */
static size_t raw_tag(const mln_parser *p, size_t at, const char *word, bool trims) {
    at += 2;
    if (at < p->length && (p->source[at] == '-' || p->source[at] == '+'))
        at++;
    at = skip_space(p, at);
    if (!at_text(p, at, word))
        return 0;
    at = skip_space(p, at + strlen(word));
    if (trims)
        return tag_end(p, at, "%}", true);
    if (at_text(p, at, "-%}"))
        return skip_space(p, at + 3);
    return at_text(p, at, "%}") ? at + 2 : 0;
}

/* The end of the text [start, tag) when a tag of the given sign follows it. */
static size_t text_end(const mln_parser *p, size_t start, size_t tag, char sign, bool variable) {
    if (sign == '-')
        return trim_right(p, start, tag);
    if (sign == '+' || variable)
        return tag;
    size_t line = tag;
    while (line > start && p->source[line - 1] != '\n')
        line--;
    bool begins_line = line > start || start == 0 || p->source[start - 1] == '\n';
    return begins_line && skip_space(p, line) >= tag ? line : tag;
}

static void data_token(const mln_parser *p, size_t start, size_t end, mln_token *token) {
    *token = (mln_token){
        .kind = MLN_T_DATA, .line = p->line, .text = p->source + start, .length = end - start};
}

static bool skip_comment(mln_parser *p, size_t at) {
    if (at == p->length)
        return true;
    for (; at < p->length; at++) {
        size_t end = tag_end(p, at, "#}", true);
        if (end) {
            move_to(p, end);
            return true;
        }
    }
    return mln_parse_fail(p, p->line, "missing end of comment tag");
}

static bool raw_text(mln_parser *p, mln_token *token) {
    size_t start = p->at;
    if (start == p->length) { /* nothing that could be raw: not an error to Jinja */
        token->kind = MLN_T_END;
        return true;
    }
    for (size_t at = start; at < p->length; at++) {
        size_t end = at_text(p, at, "{%") ? raw_tag(p, at, "endraw", true) : 0;
        if (end) {
            data_token(p, start, text_end(p, start, at, p->source[at + 2], false), token);
            move_to(p, end);
            return true;
        }
    }
    return mln_parse_fail(p, p->line, "missing end of raw directive");
}

/* The next tag's place, or the end. */
static size_t find_tag(const mln_parser *p, size_t at) {
    while (at < p->length) {
        const char *brace = memchr(p->source + at, '{', p->length - at);
        if (!brace)
            break;
        at = (size_t)(brace - p->source);
        if (at + 1 < p->length && strchr("{%#", p->source[at + 1]) && p->source[at + 1])
            return at;
        at++;
    }
    return p->length;
}

/* Outside of tags: a piece of text, or the beginning of a tag when there is none before it. */
static bool root_token(mln_parser *p, mln_token *token) {
    for (;;) {
        size_t start = p->at, tag = find_tag(p, start);
        if (tag == p->length) {
            data_token(p, start, tag, token);
            token->kind = tag > start ? MLN_T_DATA : MLN_T_END;
            move_to(p, tag);
            return true;
        }
        char kind = p->source[tag + 1], sign = tag + 2 < p->length ? p->source[tag + 2] : '\0';
        size_t end = text_end(p, start, tag, sign, kind == '{');
        if (end > start) { /* the white space cut off is passed over, and the tag is next */
            data_token(p, start, end, token);
            move_to(p, tag);
            return true;
        }
        size_t raw = kind == '%' ? raw_tag(p, tag, "raw", false) : 0;
        move_to(p, raw ? raw : tag + 2 + (sign == '-' || sign == '+'));
        if (raw)
            return raw_text(p, token);
        if (kind == '#') {
            if (!skip_comment(p, p->at))
                return false;
            continue;
        }
        p->root = false;
        p->ends_block = kind == '%';
        *token = (mln_token){.kind = kind == '%' ? MLN_T_BLOCK_BEGIN : MLN_T_VARIABLE_BEGIN,
                             .line = p->line};
        return true;
    }
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
static bool is_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

/* Past digits with single underscores between them; `at` itself when there is no digit. */
static size_t skip_digits(const mln_parser *p, size_t at) {
    size_t end = at;
    while (at < p->length && is_digit(p->source[at])) {
        end = ++at;
        if (at < p->length && p->source[at] == '_')
            at++;
    }
    return end;
}

static size_t float_end(const mln_parser *p, size_t at) {
    if (at > 0 && p->source[at - 1] == '.')
        return 0;
    size_t end = skip_digits(p, at), whole = end;
    if (end < p->length && p->source[end] == '.' && skip_digits(p, end + 1) > end + 1)
        end = skip_digits(p, end + 1);
    if (end < p->length && (p->source[end] == 'e' || p->source[end] == 'E')) {
        size_t exponent = end + 1;
        if (exponent < p->length && (p->source[exponent] == '+' || p->source[exponent] == '-'))
            exponent++;
        if (skip_digits(p, exponent) > exponent)
            end = skip_digits(p, exponent);
    }
    return end > whole ? end : 0;
}

static int digit_value(char c) {
    if (is_digit(c))
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* Digits of a base with underscores; true when the number fits. */
static bool read_integer(mln_parser *p, size_t at, size_t end, int base, int64_t *out) {
    int64_t value = 0;
    for (; at < end; at++) {
        if (p->source[at] == '_')
            continue;
        if (__builtin_mul_overflow(value, (int64_t)base, &value) ||
            __builtin_add_overflow(value, (int64_t)digit_value(p->source[at]), &value))
            return mln_parse_fail(p, p->line, "an integer does not fit in 64 bits");
    }
    *out = value;
    return true;
}

static bool number_token(mln_parser *p, mln_token *token) {
    size_t at = p->at, end = float_end(p, at);
    if (end) {
        char text[64];
        size_t n = 0;
        for (size_t i = at; i < end; i++) {
            if (p->source[i] != '_' && n < sizeof text - 1)
                text[n++] = p->source[i];
            else if (p->source[i] != '_')
                return mln_parse_fail(p, p->line, "a number has too many digits");
        }
        token->kind = MLN_T_FLOAT;
        json_t *number; /* jansson reads numbers whatever the locale; it wants no leading zeros */
        size_t zeros = 0;
        while (zeros + 1 < n && text[zeros] == '0' && is_digit(text[zeros + 1]))
            zeros++;
        number = json_loadb(text + zeros, n - zeros, JSON_DECODE_ANY, NULL);
        if (!number)
            return mln_parse_fail(p, p->line, "a number is out of range");
        token->real = json_number_value(number);
        json_decref(number);
        move_to(p, end);
        return true;
    }
    int base = 10;
    if (p->source[at] == '0' && at + 2 < p->length) {
        char mark = (char)(p->source[at + 1] | 0x20);
        base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
        size_t first = at + 2 + (p->source[at + 2] == '_');
        if (base != 10 && (first >= p->length || digit_value(p->source[first]) >= base))
            base = 10;
    }
    end = base == 10 ? at : at + 2;
    bool zero = base == 10 && p->source[at] == '0';
    while (end < p->length) {
        size_t next = end + (p->source[end] == '_' && end > at);
        if (next >= p->length || digit_value(p->source[next]) >= (zero ? 1 : base))
            break;
        end = next + 1;
    }
    token->kind = MLN_T_INTEGER;
    if (!read_integer(p, base == 10 ? at : at + 2, end, base, &token->integer))
        return false;
    move_to(p, end);
    return true;
}

typedef struct unescape {
    char *out;
    size_t n;
} unescape;

static void put_code(unescape *u, uint32_t code) {
    u->n += mln_utf8_encode(code, (unsigned char *)u->out + u->n);
}

/* \xhh, \uhhhh, \Uhhhhhhhh. */
static bool hex_escape(mln_parser *p, size_t *at, size_t end, unescape *u) {
    char kind = p->source[*at];
    size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
    uint32_t code = 0;
    for (size_t i = 1; i <= digits; i++) {
        if (*at + i >= end || digit_value(p->source[*at + i]) > 15)
            return mln_parse_fail(p, p->line, "a string has a truncated \\%c escape", kind);
        code = code << 4 | (uint32_t)digit_value(p->source[*at + i]);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return mln_parse_fail(p, p->line, "a string escape names no character (U+%04X)", code);
    put_code(u, code);
    *at += digits + 1;
    return true;
}

/* After a backslash, as Python's unicode-escape has it. */
static bool string_escape(mln_parser *p, size_t *at, size_t end, unescape *u) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = p->source[*at];
    if (c == 'x' || c == 'u' || c == 'U')
        return hex_escape(p, at, end, u);
    if (c == 'N')
        return mln_parse_fail(p, p->line, "\\N escapes are not supported");
    const char *known = c ? strchr(from, c) : NULL;
    if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        for (int i = 0; i < 3 && *at < end && p->source[*at] >= '0' && p->source[*at] <= '7'; i++)
            code = code << 3 | (uint32_t)(p->source[(*at)++] - '0');
        put_code(u, code);
        return true;
    }
    if (known) {
        u->out[u->n++] = to[known - from];
    } else if ((unsigned char)c >= 0x80) { /* Python has made \xhh or \uhhhh of it by now */
        uint32_t code;
        size_t size = mln_utf8_decode((const unsigned char *)p->source + *at, end - *at, &code);
        u->n += (size_t)sprintf(u->out + u->n,
                                code < 0x100     ? "\\x%02x"
                                : code < 0x10000 ? "\\u%04x"
                                                 : "\\U%08x",
                                code);
        *at += size;
        return true;
    } else if (c != '\n') {
        u->out[u->n++] = '\\';
        u->out[u->n++] = c;
    }
    (*at)++;
    return true;
}

static bool string_token(mln_parser *p, mln_token *token) {
    char quote = p->source[p->at];
    size_t start = p->at + 1, end = start;
    while (end < p->length && p->source[end] != quote)
        end += p->source[end] == '\\' ? 2 : 1;
    if (end >= p->length)
        return mln_parse_fail(p, p->line, "unexpected char %s: a string is not closed",
                              quote == '"' ? "'\"'" : "\"'\"");
    /* The longest growth: a backslash and a 2-byte character (3 bytes) become 5 or 6. */
    unescape u = {mln_parse_alloc(p, 4 * (end - start) + 8, 1), 0};
    if (!u.out)
        return false;
    for (size_t at = start; at < end;) {
        if (p->source[at] != '\\') {
            u.out[u.n++] = p->source[at++];
            continue;
        }
        at++;
        if (!string_escape(p, &at, end, &u))
            return false;
    }
    token->kind = MLN_T_STRING;
    token->text = u.out;
    token->length = u.n;
    move_to(p, end + 1);
    return true;
}

static bool check_balance(mln_parser *p, char c) {
    static const char open[] = "([{", close[] = ")]}";
    const char *opens = strchr(open, c), *closes = strchr(close, c);
    if (opens) {
        if (p->balanced == (int)sizeof p->balance)
            return mln_parse_fail(p, p->line, "brackets are nested more than %d levels deep",
                                  (int)sizeof p->balance);
        p->balance[p->balanced++] = close[opens - open];
    } else if (closes) {
        if (p->balanced == 0)
            return mln_parse_fail(p, p->line, "unexpected '%c'", c);
        char expected = p->balance[--p->balanced];
        if (expected != c)
            return mln_parse_fail(p, p->line, "unexpected '%c', expected '%c'", c, expected);
    }
    return true;
}

static bool operator_token(mln_parser *p, mln_token *token) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t length = 0;
    for (size_t i = 0; i < sizeof two / sizeof *two && !length; i++)
        length = at_text(p, p->at, two[i]) ? 2 : 0;
    char c = p->source[p->at];
    if (!length && c && strchr("+-/*%~[](){}><=.:|,;", c))
        length = 1;
    if (!length)
        return mln_parse_fail(p, p->line, "unexpected character '%.*s'",
                              (unsigned char)c < 0x80 ? 1 : 4, p->source + p->at);
    if (length == 1 && !check_balance(p, c))
        return false;
    token->kind = MLN_T_OPERATOR;
    token->text = p->source + p->at;
    token->length = length;
    move_to(p, p->at + length);
    return true;
}

static bool tag_token(mln_parser *p, mln_token *token) {
    for (;;) {
        size_t end =
            p->balanced ? 0 : tag_end(p, p->at, p->ends_block ? "%}" : "}}", p->ends_block);
        *token = (mln_token){.line = p->line};
        if (end) {
            token->kind = p->ends_block ? MLN_T_BLOCK_END : MLN_T_VARIABLE_END;
            p->root = true;
            move_to(p, end);
            return true;
        }
        size_t space = skip_space(p, p->at);
        if (space == p->at)
            break;
        move_to(p, space);
    }
    if (p->at >= p->length) {
        token->kind = MLN_T_END;
        return true;
    }
    char c = p->source[p->at];
    if (is_digit(c))
        return number_token(p, token);
    if (is_name(c)) {
        size_t end = p->at;
        while (end < p->length && is_name(p->source[end]))
            end++;
        token->kind = MLN_T_NAME;
        token->text = p->source + p->at;
        token->length = end - p->at;
        move_to(p, end);
        return true;
    }
    return c == '"' || c == '\'' ? string_token(p, token) : operator_token(p, token);
}

bool mln_lexer_next(mln_parser *p, mln_token *token) {
    if (p->failed)
        return false;
    return p->root ? root_token(p, token) : tag_token(p, token);
}
