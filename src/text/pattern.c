/* SPDX-License-Identifier: Apache-2.0 */
#include "text/pattern.h"

#include <ctype.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/stand_in.h"

typedef struct scanner {
    const char *text;
    size_t length, at;
    const char *file;
    myelin_error *error;
} scanner;

static bool starts(const scanner *s, const char *literal) {
    size_t n = strlen(literal);
    return s->length - s->at >= n && memcmp(s->text + s->at, literal, n) == 0;
}

static bool is_digit(const scanner *s, size_t at) {
    return at < s->length && s->text[at] >= '0' && s->text[at] <= '9';
}

static myelin_status refuse(const scanner *s, const char *what) {
    return mln_fail(s->error, MYELIN_ERROR_UNSUPPORTED, s->file, -1,
                    "pre_tokenizer: the pattern has %s at its byte %zu, which Myelin does not "
                    "read as the reference does",
                    what, s->at);
}

/* \p{L}, \P{Nd}: general categories only. */
static myelin_status check_property(scanner *s) {
    static const char *const categories[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc",
                                             "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
                                             "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So",
                                             "Z",  "Zs", "Zl", "Zp", "Cc", "Cf"};
    for (size_t i = 0; i < sizeof categories / sizeof *categories; i++) {
        size_t n = strlen(categories[i]), open = s->at + 2;
        if (s->length - open >= n + 2 && s->text[open] == '{' && s->text[open + n + 1] == '}' &&
            memcmp(s->text + open + 1, categories[i], n) == 0) {
            s->at = open + n + 2;
            return MYELIN_OK;
        }
    }
    return refuse(s, "a property other than a general category");
}

static myelin_status check_escape(scanner *s) {
    if (s->length - s->at < 2)
        return refuse(s, "a lone backslash");
    unsigned char c = (unsigned char)s->text[s->at + 1];
    if (c == 'p' || c == 'P')
        return check_property(s);
    if ((isascii(c) && ispunct(c)) || (c && strchr("rnftsSdD", c))) {
        s->at += 2;
        return MYELIN_OK;
    }
    return refuse(s, "an escape other than \\r \\n \\f \\t \\s \\S \\d \\D \\p{} \\P{}");
}

/* A character that is itself. One that has a stand-in could not be found in a text. */
static myelin_status check_literal(scanner *s) {
    uint32_t code;
    size_t size = mln_utf8_decode((const unsigned char *)s->text + s->at, s->length - s->at, &code);
    if (mln_stand_in(code) != code)
        return refuse(s, "a character newer than PCRE2 knows");
    s->at += size;
    return MYELIN_OK;
}

static myelin_status check_class(scanner *s) {
    s->at++;
    if (starts(s, "^"))
        s->at++;
    if (starts(s, "]"))
        return refuse(s, "an empty class");
    while (s->at < s->length && s->text[s->at] != ']') {
        if (s->text[s->at] == '[' || starts(s, "&&"))
            return refuse(s, "a class inside a class");
        myelin_status status = s->text[s->at] == '\\' ? check_escape(s) : check_literal(s);
        if (status != MYELIN_OK)
            return status;
    }
    if (s->at == s->length)
        return refuse(s, "a class without end");
    s->at++;
    return MYELIN_OK;
}

static myelin_status check_open(scanner *s) {
    static const char *const groups[] = {"(?i:", "(?:", "(?=", "(?!", "(?>"};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (starts(s, groups[i])) {
            s->at += strlen(groups[i]);
            return MYELIN_OK;
        }
    }
    s->at++;
    if (starts(s, "?") || starts(s, "*"))
        return refuse(s, "a group other than ( (?: (?i: (?= (?! (?>");
    return MYELIN_OK;
}

/* After one item: ? * + {n} {n,} {n,m}, and ? or + after one of the first three. */
static myelin_status check_quantifier(scanner *s) {
    if (s->at == s->length)
        return MYELIN_OK;
    bool counted = s->text[s->at] == '{';
    if (!counted && !strchr("?*+", s->text[s->at]))
        return MYELIN_OK;
    if (s->text[s->at] == '\0')
        return MYELIN_OK;
    size_t i = s->at + 1;
    if (counted) {
        if (!is_digit(s, i))
            return refuse(s, "a brace that begins no count");
        while (is_digit(s, i) || (i < s->length && s->text[i] == ','))
            i++;
        if (i == s->length || s->text[i] != '}')
            return refuse(s, "a count without end");
        i++;
    } else if (i < s->length && (s->text[i] == '?' || s->text[i] == '+')) {
        i++;
    }
    s->at = i;
    if (i < s->length && s->text[i] && strchr("?*+{", s->text[i]))
        return refuse(s, "a quantifier after a quantifier");
    return MYELIN_OK;
}

/* One item of the pattern and the quantifier after it. */
static myelin_status check_item(scanner *s) {
    myelin_status status;
    switch (s->text[s->at]) {
    case '(':
        return check_open(s);
    case '|':
        s->at++;
        return MYELIN_OK;
    case '^':
    case '$':
        return refuse(s, "^ or $");
    case '\\':
        status = check_escape(s);
        return status == MYELIN_OK ? check_quantifier(s) : status;
    case '[':
        status = check_class(s);
        return status == MYELIN_OK ? check_quantifier(s) : status;
    case '?':
    case '*':
    case '+':
    case '{':
        return refuse(s, "a quantifier with nothing to repeat");
    default: /* a literal, a dot, a closing parenthesis */
        status = check_literal(s);
        return status == MYELIN_OK ? check_quantifier(s) : status;
    }
}

myelin_status mln_pattern_check(mln_json_text pattern, const char *file, myelin_error *error) {
    scanner s = {pattern.data, pattern.length, 0, file, error};
    myelin_status status = MYELIN_OK;
    while (s.at < s.length && status == MYELIN_OK)
        status = check_item(&s);
    return status;
}
