/* SPDX-License-Identifier: Apache-2.0 */
#include "out.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_CAPACITY = 256, FLOAT_DIGITS = 9 };

void out_free(out *o) {
    free(o->data);
    *o = (out){0};
}

void out_reset(out *o) {
    o->length = 0;
    o->failed = false;
}

/* Room for so many bytes more and a NUL. */
static bool reserve(out *o, size_t more) {
    if (o->failed || more >= SIZE_MAX / 2 - o->length) {
        o->failed = true;
        return false;
    }
    size_t wanted = o->length + more + 1, capacity = o->capacity ? o->capacity : FIRST_CAPACITY;
    if (wanted <= o->capacity)
        return true;
    while (capacity < wanted)
        capacity *= 2;
    char *data = realloc(o->data, capacity);
    if (data == NULL) {
        o->failed = true;
        return false;
    }
    o->data = data;
    o->capacity = capacity;
    return true;
}

void out_bytes(out *o, const void *bytes, size_t length) {
    if (!reserve(o, length))
        return;
    if (length > 0)
        memcpy(o->data + o->length, bytes, length);
    o->length += length;
    o->data[o->length] = '\0';
}

void out_text(out *o, const char *text) {
    out_bytes(o, text, strlen(text));
}

void out_format(out *o, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length >= 0 && reserve(o, (size_t)length)) {
        vsnprintf(o->data + o->length, (size_t)length + 1, format, again);
        o->length += (size_t)length;
    } else {
        o->failed = true;
    }
    va_end(again);
}

/* Bytes of the character that begins here, 0 when it is ill-formed; its code in *code. */
static size_t character(const unsigned char *text, size_t length, uint32_t *code) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = text[0];
    size_t size = first < 0x80             ? 1
                  : (first & 0xE0) == 0xC0 ? 2
                  : (first & 0xF0) == 0xE0 ? 3
                  : (first & 0xF8) == 0xF0 ? 4
                                           : 0;
    if (size == 0 || size > length)
        return 0;
    *code = size == 1 ? first : first & (0x7Fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((text[i] & 0xC0) != 0x80)
            return 0;
        *code = *code << 6 | (text[i] & 0x3Fu);
    }
    bool surrogate = *code >= 0xD800 && *code <= 0xDFFF;
    return *code < least[size] || *code > 0x10FFFF || surrogate ? 0 : size;
}

static bool needs_escape(uint32_t code) {
    return code < 0x20 || code == '"' || code == '\\' || code == 0x7F || code == 0x85 ||
           code == 0x2028 || code == 0x2029;
}

static void escape(out *o, uint32_t code) {
    static const char named[] = "b\bf\fn\nr\rt\t\"\"\\\\";
    for (size_t i = 0; named[i] != '\0'; i += 2) {
        if ((unsigned char)named[i + 1] == code) {
            char pair[2] = {'\\', named[i]};
            out_bytes(o, pair, sizeof pair);
            return;
        }
    }
    out_format(o, "\\u%04x", (unsigned)code);
}

void out_escaped(out *o, const char *text, size_t length) {
    size_t plain = 0; /* where what needs nothing begins */
    for (size_t i = 0; i < length;) {
        uint32_t code = 0;
        size_t size = character((const unsigned char *)text + i, length - i, &code);
        if (size > 0 && !needs_escape(code)) {
            i += size;
            continue;
        }
        out_bytes(o, text + plain, i - plain);
        if (size == 0)
            out_text(o, "\xEF\xBF\xBD");
        else
            escape(o, code);
        i += size > 0 ? size : 1;
        plain = i;
    }
    if (plain < length)
        out_bytes(o, text + plain, length - plain);
}

void out_string(out *o, const char *text, size_t length) {
    out_text(o, "\"");
    out_escaped(o, text, length);
    out_text(o, "\"");
}

void out_string_or_null(out *o, const char *text) {
    if (text != NULL)
        out_string(o, text, strlen(text));
    else
        out_text(o, "null");
}

void out_real(out *o, double value, const char *other) {
    if (isfinite(value))
        out_format(o, "%.*g", FLOAT_DIGITS, value);
    else
        out_text(o, other);
}

void out_base64(out *o, const void *bytes, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *from = bytes;
    for (size_t i = 0; i < length; i += 3) {
        size_t count = length - i < 3 ? length - i : 3;
        uint32_t group = (uint32_t)from[i] << 16;
        group |= count > 1 ? (uint32_t)from[i + 1] << 8 : 0;
        group |= count > 2 ? from[i + 2] : 0;
        char four[4] = {digits[group >> 18], digits[group >> 12 & 63],
                        count > 1 ? digits[group >> 6 & 63] : '=',
                        count > 2 ? digits[group & 63] : '='};
        out_bytes(o, four, sizeof four);
    }
}
