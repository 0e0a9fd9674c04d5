/* SPDX-License-Identifier: Apache-2.0 */
/* What Python's str does, on code points. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"
#include "text/template_run.h"

bool mln_is_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static uint32_t decode(const char *data, size_t length, size_t *size) {
    uint32_t code;
    *size = mln_utf8_decode((const unsigned char *)data, length, &code);
    if (*size == 0) {
        *size = 1;
        return 0xFFFD;
    }
    return code;
}

static bool add_point(mln_run *run, mln_buffer *text, int32_t code) {
    unsigned char bytes[MLN_UTF8_MAX];
    size_t size = mln_utf8_encode((uint32_t)code, bytes);
    return mln_text_add(run, text, (const char *)bytes, size);
}

static bool is_cased(uint32_t code) {
    int32_t c = (int32_t)code;
    utf8proc_category_t category = utf8proc_category(c);
    return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
           category == UTF8PROC_CATEGORY_LT;
}

/* Upper case of the characters whose full mapping is longer than one, the common ones. */
static const char *long_upper(uint32_t code, bool title) {
    switch (code) {
    case 0xDF:
        return title ? "Ss" : "SS";
    case 0xFB01:
        return title ? "Fi" : "FI";
    case 0xFB02:
        return title ? "Fl" : "FL";
    case 0x149:
        return "\xCA\xBC"
               "N";
    default:
        return NULL;
    }
}

static bool letter_after(const mln_string *s, size_t at) {
    while (at < s->length) {
        size_t size;
        uint32_t code = decode(s->data + at, s->length - at, &size);
        utf8proc_category_t category = utf8proc_category((int32_t)code);
        bool ignored = category == UTF8PROC_CATEGORY_MN || code == '\'' || code == '.';
        if (!ignored)
            return is_cased(code);
        at += size;
    }
    return false;
}

static bool put_upper(mln_run *run, mln_buffer *text, uint32_t code, bool title) {
    const char *longer = long_upper(code, title);
    if (longer)
        return mln_text_add(run, text, longer, strlen(longer));
    return add_point(run, text,
                     title ? utf8proc_totitle((int32_t)code) : utf8proc_toupper((int32_t)code));
}

static bool put_lower(mln_run *run, mln_buffer *text, uint32_t code, bool final_sigma) {
    if (code == 0x130)
        return mln_text_add(run, text, "i\xCC\x87", 3);
    if (code == 0x3A3 && final_sigma)
        return add_point(run, text, 0x3C2);
    return add_point(run, text, utf8proc_tolower((int32_t)code));
}

static bool change_case(mln_run *run, const mln_string *s, mln_case to, mln_buffer *text) {
    bool cased = false; /* the character before is a cased letter */
    for (size_t i = 0; i < s->length;) {
        size_t size;
        uint32_t code = decode(s->data + i, s->length - i, &size);
        bool first = to == MLN_TITLE ? !cased : i == 0;
        bool fine;
        if (to == MLN_UPPER || (first && to != MLN_LOWER))
            fine = put_upper(run, text, code, to != MLN_UPPER);
        else
            fine = put_lower(run, text, code, cased && !letter_after(s, i + size));
        if (!fine)
            return false;
        cased = is_cased(code);
        i += size;
    }
    return true;
}

bool mln_change_case(mln_run *run, const mln_string *s, mln_case to, mln_value *out) {
    mln_buffer text = {0};
    if (change_case(run, s, to, &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}

static bool strips(uint32_t code, const char *at, size_t size, const mln_string *chars) {
    if (!chars)
        return mln_is_space(code);
    return mln_find_bytes(chars->data, chars->length, at, size, 0) != SIZE_MAX;
}

bool mln_strip(mln_run *run, const mln_string *s, const mln_string *chars, bool left, bool right,
               mln_value *out) {
    size_t start = 0, end = s->length, size;
    if (!mln_run_spend(run, s->length / 64 * (chars ? 1 + chars->length / 16 : 1)))
        return false;
    while (left && start < end) {
        uint32_t code = decode(s->data + start, end - start, &size);
        if (!strips(code, s->data + start, size, chars))
            break;
        start += size;
    }
    while (right && end > start) {
        size_t at = end - 1;
        while (at > start && ((unsigned char)s->data[at] & 0xC0) == 0x80)
            at--;
        uint32_t code = decode(s->data + at, end - at, &size);
        if (!strips(code, s->data + at, end - at, chars))
            break;
        end = at;
    }
    return mln_string_view(run, s->data + start, end - start, out);
}

static bool replace_each(mln_run *run, const mln_string *s, const mln_string *new, int64_t count,
                         mln_buffer *text) {
    size_t i = 0;
    for (; count != 0; count--) { /* between all characters, and at both ends */
        if (!mln_text_add(run, text, new->data, new->length))
            return false;
        if (i == s->length)
            return true;
        size_t size;
        decode(s->data + i, s->length - i, &size);
        if (!mln_text_add(run, text, s->data + i, size))
            return false;
        i += size;
    }
    return mln_text_add(run, text, s->data + i, s->length - i);
}

static bool replace(mln_run *run, const mln_string *s, const mln_string *old, const mln_string *new,
                    int64_t count, mln_buffer *text) {
    if (old->length == 0)
        return replace_each(run, s, new, count, text);
    size_t i = 0;
    for (; count != 0; count--) {
        size_t found = mln_find_bytes(s->data, s->length, old->data, old->length, i);
        if (found == SIZE_MAX)
            break;
        if (!mln_text_add(run, text, s->data + i, found - i) ||
            !mln_text_add(run, text, new->data, new->length))
            return false;
        i = found + old->length;
    }
    return mln_text_add(run, text, s->data + i, s->length - i);
}

bool mln_replace(mln_run *run, const mln_string *s, const mln_string *old, const mln_string *new,
                 int64_t count, mln_value *out) {
    mln_buffer text = {0};
    if (replace(run, s, old, new, count, &text))
        return mln_text_finish(run, &text, out);
    mln_buffer_free(&text);
    return false;
}

static bool breaks_line(uint32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
}

bool mln_splitlines(mln_run *run, const mln_string *s, bool keep_ends, mln_value *out) {
    mln_sequence *lines = mln_sequence_new(run, MLN_LIST, 0);
    size_t start = 0, size;
    for (size_t i = 0; lines && i < s->length; i += size) {
        uint32_t code = decode(s->data + i, s->length - i, &size);
        if (!breaks_line(code))
            continue;
        if (code == '\r' && i + 1 < s->length && s->data[i + 1] == '\n')
            size = 2;
        mln_value line;
        if (!mln_string_view(run, s->data + start, (keep_ends ? i + size : i) - start, &line) ||
            !mln_sequence_push(run, lines, line))
            return false;
        start = i + size;
    }
    mln_value line;
    if (!lines ||
        (start < s->length && (!mln_string_view(run, s->data + start, s->length - start, &line) ||
                               !mln_sequence_push(run, lines, line))))
        return false;
    *out = mln_of_sequence(lines);
    return true;
}

static int digit_of(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
}

/* int(text, base): *ok tells whether the text is a number. */
bool mln_parse_int(mln_run *run, const mln_string *s, int64_t base, int64_t *out, bool *ok) {
    mln_value stripped;
    *ok = false;
    if (!mln_strip(run, s, NULL, true, true, &stripped))
        return false;
    const char *text = stripped.string->data;
    size_t length = stripped.string->length, i = 0;
    bool negative = length && text[0] == '-', digit = false;
    i += (size_t)(length && (text[0] == '-' || text[0] == '+'));
    char mark = length - i > 2 && length > i && text[i] == '0' ? (char)(text[i + 1] | 0x20) : '\0';
    int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked && (base == marked || base == 0)) {
        base = marked;
        i += 2 + (size_t)(text[i + 2] == '_');
    }
    if (base < 2 || base > 36)
        base = 10;
    int64_t value = 0;
    for (; i < length; i++) {
        if (text[i] == '_' && digit && i + 1 < length) {
            digit = false;
            continue;
        }
        if (digit_of(text[i]) >= base)
            return true;
        digit = true;
        if (__builtin_mul_overflow(value, base, &value) ||
            __builtin_sub_overflow(value, (int64_t)digit_of(text[i]), &value))
            return mln_run_fail(run, "an integer does not fit in 64 bits");
    }
    if (!digit || (!negative && value == INT64_MIN))
        return true;
    *ok = true;
    *out = negative ? value : -value;
    return true;
}

/* float(text), for plain decimal numbers. */
bool mln_parse_float(mln_run *run, const mln_string *s, double *out, bool *ok) {
    mln_value stripped;
    *ok = false;
    if (!mln_strip(run, s, NULL, true, true, &stripped))
        return false;
    char text[400], *end;
    size_t length = stripped.string->length, n = 0, digits = 0;
    if (length == 0 || length > 300)
        return true;
    for (size_t i = 0; i < length; i++) {
        char c = stripped.string->data[i];
        if (!c || !strchr("0123456789+-.eE", c))
            return true;
        digits += c >= '0' && c <= '9';
        text[n++] = c;
    }
    text[n] = '\0';
    if (!digits)
        return true;
    char *mark = strchr(text, '.'); /* the locale's decimal mark, so that strtod reads it */
    char sample[8] = {0};
    double half = 0.5;
    int written = snprintf(sample, sizeof sample, "%.1f", half);
    if (mark && written == 3)
        *mark = sample[1];
    *out = strtod(text, &end);
    *ok = *end == '\0';
    return true;
}
