/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/utf8.h"

enum { LINEAR_KEYS = 16 }; /* objects up to this size are searched, larger ones hashed */

typedef struct key_place {
    size_t offset, length; /* in the container's key bytes */
} key_place;

/* An open object or array, and the keys met in it so far. Its buffers serve the next one as well.
 */
typedef struct container {
    bool is_object;
    size_t count;
    size_t room;
    key_place *keys;
    size_t num_slots; /* a power of two, or 0 while the object is small */
    size_t *slots;    /* key index + 1, or 0 */
    size_t slots_room;
    mln_buffer bytes;
} container;

/* Stands before each block of memory yajl has; a list that begins in the stream. */
typedef struct yajl_block {
    _Alignas(max_align_t) struct yajl_block *next;
    struct yajl_block *previous;
} yajl_block;

typedef struct stream {
    mln_json_handler handler;
    void *context;
    const char *file;
    myelin_error *error;
    myelin_status status;
    yajl_handle parser;
    yajl_block blocks;
    jmp_buf out_of_memory;
    mln_hash_key hash_key;
    int depth; /* containers open */
    container open[MLN_JSON_MAX_DEPTH];
    mln_json_text path[MLN_JSON_MAX_DEPTH];
    uint64_t index[MLN_JSON_MAX_DEPTH];
} stream;

static int64_t position(const stream *s) {
    return (int64_t)yajl_get_bytes_consumed(s->parser);
}

static int stop(stream *s, myelin_status status) {
    s->status = status;
    return 0;
}

static int emit(stream *s, mln_json_kind kind, const char *text, size_t length) {
    mln_json_event event = {.kind = kind,
                            .depth = s->depth,
                            .text = {text, length},
                            .path = s->path,
                            .index = s->index,
                            .offset = position(s)};
    myelin_status status = s->handler(s->context, &event, s->error);
    return status == MYELIN_OK ? 1 : stop(s, status);
}

/* A whole value has been seen: in an array the next element is the one after. */
static void advance(stream *s) {
    if (s->depth > 0 && !s->open[s->depth - 1].is_object)
        s->index[s->depth - 1]++;
}

static int scalar(stream *s, mln_json_kind kind, const char *text, size_t length) {
    int go_on = emit(s, kind, text, length);
    advance(s);
    return go_on;
}

static int on_null(void *context) {
    return scalar(context, MLN_JSON_NULL, NULL, 0);
}

static int on_boolean(void *context, int value) {
    return scalar(context, value ? MLN_JSON_TRUE : MLN_JSON_FALSE, NULL, 0);
}

static int on_number(void *context, const char *text, size_t length) {
    return scalar(context, MLN_JSON_NUMBER, text, length);
}

static int on_string(void *context, const unsigned char *text, size_t length) {
    return scalar(context, MLN_JSON_STRING, (const char *)text, length);
}

static int begin(stream *s, bool is_object) {
    if (!emit(s, is_object ? MLN_JSON_BEGIN_OBJECT : MLN_JSON_BEGIN_ARRAY, NULL, 0))
        return 0;
    if (s->depth == MLN_JSON_MAX_DEPTH)
        return stop(s, mln_fail(s->error, MYELIN_ERROR_FORMAT, s->file, position(s),
                                "expected at most %d levels of nesting, found more",
                                MLN_JSON_MAX_DEPTH));
    container *c = &s->open[s->depth];
    c->is_object = is_object;
    c->count = 0;
    c->num_slots = 0;
    c->bytes.length = 0;
    s->path[s->depth] = (mln_json_text){NULL, 0};
    s->index[s->depth] = 0;
    s->depth++;
    return 1;
}

static int end(stream *s, bool is_object) {
    s->depth--;
    int go_on = emit(s, is_object ? MLN_JSON_END_OBJECT : MLN_JSON_END_ARRAY, NULL, 0);
    advance(s);
    return go_on;
}

static int on_begin_object(void *context) {
    return begin(context, true);
}

static int on_end_object(void *context) {
    return end(context, true);
}

static int on_begin_array(void *context) {
    return begin(context, false);
}

static int on_end_array(void *context) {
    return end(context, false);
}

static bool same_key(const container *c, size_t key, const char *text, size_t length) {
    return c->keys[key].length == length &&
           memcmp(c->bytes.data + c->keys[key].offset, text, length) == 0;
}

/* The slot that holds the key, or the empty one where it belongs. */
static size_t find_slot(const stream *s, const container *c, const char *text, size_t length) {
    size_t slot = (size_t)mln_hash(s->hash_key, text, length) & (c->num_slots - 1);
    while (c->slots[slot] && !same_key(c, c->slots[slot] - 1, text, length))
        slot = (slot + 1) & (c->num_slots - 1);
    return slot;
}

static bool has_key(const stream *s, const container *c, const char *text, size_t length) {
    if (c->num_slots)
        return c->slots[find_slot(s, c, text, length)] != 0;
    for (size_t i = 0; i < c->count; i++)
        if (same_key(c, i, text, length))
            return true;
    return false;
}

/* Makes the table twice as large as the keys need and enters them all. */
static bool rehash(const stream *s, container *c) {
    size_t num_slots = 4 * LINEAR_KEYS;
    while (num_slots < 4 * c->count)
        num_slots *= 2;
    if (num_slots > c->slots_room) {
        size_t *slots = mln_realloc(c->slots, num_slots, sizeof *slots);
        if (!slots)
            return false;
        c->slots = slots;
        c->slots_room = num_slots;
    }
    memset(c->slots, 0, num_slots * sizeof *c->slots);
    c->num_slots = num_slots;
    for (size_t i = 0; i < c->count; i++) {
        const key_place *k = &c->keys[i];
        c->slots[find_slot(s, c, c->bytes.data + k->offset, k->length)] = i + 1;
    }
    return true;
}

static bool add_key(const stream *s, container *c, const char *text, size_t length) {
    if (c->count == c->room) {
        size_t room = c->room ? 2 * c->room : LINEAR_KEYS;
        key_place *keys = mln_realloc(c->keys, room, sizeof *keys);
        if (!keys)
            return false;
        c->keys = keys;
        c->room = room;
    }
    size_t offset = c->bytes.length;
    if (!mln_buffer_append(&c->bytes, text, length))
        return false;
    c->keys[c->count++] = (key_place){offset, length};
    if (c->num_slots ? 2 * c->count > c->num_slots : c->count > LINEAR_KEYS)
        return rehash(s, c);
    if (c->num_slots)
        c->slots[find_slot(s, c, text, length)] = c->count;
    return true;
}

static int on_key(void *context, const unsigned char *key, size_t length) {
    stream *s = context;
    container *c = &s->open[s->depth - 1];
    const char *text = (const char *)key;
    if (has_key(s, c, text, length))
        return stop(s,
                    mln_fail(s->error, MYELIN_ERROR_FORMAT, s->file, position(s),
                             "duplicate key \"%.*s\"", (int)(length < 200 ? length : 200), text));
    if (!add_key(s, c, text, length))
        return stop(s, mln_fail_memory(s->error, length, "the keys of a JSON object"));
    s->path[s->depth - 1] = (mln_json_text){c->bytes.data + c->keys[c->count - 1].offset, length};
    s->index[s->depth - 1] = c->count - 1;
    return 1;
}

static int hex_value(const char *digits) {
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)digits[i] | 0x20;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* yajl turns an unpaired \uD800..\uDFFF into '?'; returns the offset of the first one, or -1. */
static int64_t unpaired_surrogate(const char *text, size_t length) {
    const char *end = text + length, *p = text;
    while ((p = memchr(p, '\\', (size_t)(end - p))) != NULL) {
        if (end - p < 6 || p[1] != 'u') {
            p = end - p > 2 ? p + 2 : end;
            continue;
        }
        int unit = hex_value(p + 2);
        bool high = unit >= 0xD800 && unit <= 0xDBFF;
        if (unit >= 0xDC00 && unit <= 0xDFFF)
            return p - text;
        if (high) {
            int low = end - p >= 12 && p[6] == '\\' && p[7] == 'u' ? hex_value(p + 8) : -1;
            if (low < 0xDC00 || low > 0xDFFF)
                return p - text;
        }
        p += high ? 12 : 6;
    }
    return -1;
}

static myelin_status check_text(const char *text, size_t length, const char *file,
                                myelin_error *error) {
    size_t valid = mln_utf8_valid_prefix(text, length);
    if (valid != length)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file, (int64_t)valid,
                        "expected UTF-8, found byte 0x%02x", (unsigned char)text[valid]);
    int64_t surrogate = unpaired_surrogate(text, length);
    if (surrogate >= 0)
        return mln_fail(error, MYELIN_ERROR_FORMAT, file, surrogate,
                        "unpaired surrogate in a \\u escape");
    return MYELIN_OK;
}

/*
 * yajl takes for granted that memory is there. So its blocks are kept in a list; when there is no
 * more, control leaves yajl for good by longjmp and the list frees what it held.
 */
static void link_block(stream *s, yajl_block *block) {
    block->previous = &s->blocks;
    block->next = s->blocks.next;
    if (block->next)
        block->next->previous = block;
    s->blocks.next = block;
}

static void unlink_block(yajl_block *block) {
    block->previous->next = block->next;
    if (block->next)
        block->next->previous = block->previous;
}

static void *yajl_resize(void *context, void *old, size_t size) {
    stream *s = context;
    yajl_block *block = old ? (yajl_block *)old - 1 : NULL;
    size_t bytes;
    if (__builtin_add_overflow(size, sizeof *block, &bytes))
        longjmp(s->out_of_memory, 1);
    if (block)
        unlink_block(block);
    yajl_block *moved = mln_realloc(block, bytes, 1);
    if (moved || block)
        link_block(s, moved ? moved : block);
    if (!moved)
        longjmp(s->out_of_memory, 1);
    return moved + 1;
}

static void *yajl_take(void *context, size_t size) {
    return yajl_resize(context, NULL, size);
}

static void yajl_release(void *context, void *memory) {
    (void)context;
    if (!memory)
        return;
    yajl_block *block = (yajl_block *)memory - 1;
    unlink_block(block);
    free(block);
}

static myelin_status parse(stream *s, const yajl_callbacks *callbacks, const char *text,
                           size_t length) {
    if (setjmp(s->out_of_memory))
        return mln_fail_memory(s->error, length, "a JSON parser");
    yajl_alloc_funcs memory = {yajl_take, yajl_resize, yajl_release, s};
    s->parser = yajl_alloc(callbacks, &memory, s);
    yajl_status result = yajl_parse(s->parser, (const unsigned char *)text, length);
    int64_t at = position(s);
    if (result == yajl_status_ok) {
        result = yajl_complete_parse(s->parser);
        at = (int64_t)length;
    }
    if (result == yajl_status_ok || s->status != MYELIN_OK)
        return s->status;
    unsigned char *reason = yajl_get_error(s->parser, 0, NULL, 0);
    myelin_status status =
        mln_fail(s->error, MYELIN_ERROR_FORMAT, s->file, at, "invalid JSON: %.*s",
                 reason ? (int)strcspn((const char *)reason, "\n") : 12,
                 reason ? (const char *)reason : "syntax error");
    return status;
}

myelin_status mln_json_stream(const char *text, size_t length, const char *file,
                              mln_json_handler handler, void *context, myelin_error *error) {
    static const yajl_callbacks callbacks = {.yajl_null = on_null,
                                             .yajl_boolean = on_boolean,
                                             .yajl_number = on_number,
                                             .yajl_string = on_string,
                                             .yajl_start_map = on_begin_object,
                                             .yajl_map_key = on_key,
                                             .yajl_end_map = on_end_object,
                                             .yajl_start_array = on_begin_array,
                                             .yajl_end_array = on_end_array};
    myelin_status status = check_text(text, length, file, error);
    if (status != MYELIN_OK)
        return status;
    stream *s = mln_calloc(1, sizeof *s);
    if (!s)
        return mln_fail_memory(error, sizeof *s, "a JSON parser");
    s->handler = handler;
    s->context = context;
    s->file = file;
    s->error = error;
    s->hash_key = mln_hash_key_make();
    status = parse(s, &callbacks, text, length);
    while (s->blocks.next)
        yajl_release(s, s->blocks.next + 1);
    for (int i = 0; i < MLN_JSON_MAX_DEPTH; i++) {
        free(s->open[i].keys);
        free(s->open[i].slots);
        mln_buffer_free(&s->open[i].bytes);
    }
    free(s);
    return status;
}
