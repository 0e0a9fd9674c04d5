/* SPDX-License-Identifier: Apache-2.0 */
#include "http_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool continues(unsigned char byte) {
    return (byte & 0xc0) == 0x80;
}

/* Bytes of the UTF-8 character at text, or 0 when there is none; *c is the character. */
static size_t character(const unsigned char *text, uint32_t *c) {
    if (text[0] < 0x80) {
        *c = text[0];
        return 1;
    }
    if (text[0] >= 0xc2 && text[0] <= 0xdf && continues(text[1])) {
        *c = (uint32_t)(text[0] & 0x1f) << 6 | (text[1] & 0x3f);
        return 2;
    }
    if ((text[0] & 0xf0) == 0xe0 && continues(text[1]) && continues(text[2])) {
        *c = (uint32_t)(text[0] & 0x0f) << 12 | (uint32_t)(text[1] & 0x3f) << 6 | (text[2] & 0x3f);
        return *c >= 0x800 && (*c < 0xd800 || *c > 0xdfff) ? 3 : 0;
    }
    if (text[0] >= 0xf0 && text[0] <= 0xf4 && continues(text[1]) && continues(text[2]) &&
        continues(text[3])) {
        *c = (uint32_t)(text[0] & 0x07) << 18 | (uint32_t)(text[1] & 0x3f) << 12 |
             (uint32_t)(text[2] & 0x3f) << 6 | (text[3] & 0x3f);
        return *c >= 0x10000 && *c <= 0x10ffff ? 4 : 0;
    }
    return 0;
}

static void print_string(FILE *out, const char *value) {
    const unsigned char *text = (const unsigned char *)value;
    if (text == NULL) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    while (*text != '\0') {
        uint32_t c = 0;
        size_t length = character(text, &c);
        if (length == 0)
            fputs("\\ufffd", out);
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029)
            fprintf(out, "\\u%04x", (unsigned)c);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", (int)c);
        else
            fwrite(text, 1, length, out);
        text += length != 0 ? length : 1;
    }
    fputc('"', out);
}

static void print_member(FILE *out, const char *name, const char *value) {
    fprintf(out, ",\"%s\":", name);
    print_string(out, value);
}

char *http_log_line(const http_log_entry *entry) {
    char *text = NULL;
    size_t size = 0;
    struct tm when;
    gmtime_r(&entry->time.tv_sec, &when);
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    fprintf(out, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", when.tm_year + 1900,
            when.tm_mon + 1, when.tm_mday, when.tm_hour, when.tm_min, when.tm_sec,
            (int)(entry->time.tv_nsec / 1000000));
    print_member(out, "peer", entry->peer);
    print_member(out, "method", entry->method);
    print_member(out, "path", entry->path);
    fprintf(out, ",\"status\":%d,\"bytes\":%llu,\"ms\":%.1f,\"complete\":%s", entry->status,
            (unsigned long long)entry->bytes, entry->milliseconds,
            entry->complete ? "true" : "false");
    print_member(out, "label", entry->label);
    fputc('}', out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
