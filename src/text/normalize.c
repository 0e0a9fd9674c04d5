/* SPDX-License-Identifier: Apache-2.0 */
#include "text/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/utf8.h"

enum {
    FIRST_UNSTABLE = 0x300, /* no character before it changes alone or joins one before it */
    MAX_DECOMPOSED = 32,    /* code points one character may become (Unicode: 4) */
    INSERTION_SORT = 16,    /* runs of marks up to this length are sorted by insertion */
    NUM_CLASSES = 256
};

typedef struct range {
    int32_t first, last;
} range;

/*
 * Characters with a combining class or a decomposition that Unicode assigned after version 9.0. The
 * reference's tables (crate unicode-normalization-alignments 0.1.12) end there, so it leaves these
 * alone and so do we. Derived by comparing the reference with utf8proc 2.8 (Unicode 15.0) on each
 * code point before and after one mark of each combining class, and on each full decomposition.
 */
static const range inert[] = {
    {0x07FD, 0x07FD},   {0x0898, 0x089F},   {0x08CA, 0x08D3},   {0x09FE, 0x09FE},
    {0x0C3C, 0x0C3C},   {0x0D3B, 0x0D3C},   {0x0EBA, 0x0EBA},   {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99},
    {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42},
    {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}};

/* Characters of combining class 0 that join a character before them; Hangul vowels and finals. */
static const range joining[] = {
    {0x09BE, 0x09BE},   {0x09D7, 0x09D7},   {0x0B3E, 0x0B3E},   {0x0B56, 0x0B57},
    {0x0BBE, 0x0BBE},   {0x0BD7, 0x0BD7},   {0x0CC2, 0x0CC2},   {0x0CD5, 0x0CD6},
    {0x0D3E, 0x0D3E},   {0x0D57, 0x0D57},   {0x0DCF, 0x0DCF},   {0x0DDF, 0x0DDF},
    {0x102E, 0x102E},   {0x1161, 0x1175},   {0x11A8, 0x11C2},   {0x1B35, 0x1B35},
    {0x11127, 0x11127}, {0x1133E, 0x1133E}, {0x11357, 0x11357}, {0x114B0, 0x114B0},
    {0x114BA, 0x114BA}, {0x114BD, 0x114BD}, {0x115AF, 0x115AF}};

static bool contains(const range *ranges, size_t count, int32_t code) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && ranges[low].first <= code;
}

static bool is_inert(int32_t code) {
    return code >= FIRST_UNSTABLE && contains(inert, sizeof inert / sizeof *inert, code);
}

static int combining_class(int32_t code) {
    if (code < FIRST_UNSTABLE)
        return 0;
    int class = utf8proc_get_property(code)->combining_class;
    return class == 0 || is_inert(code) ? 0 : class;
}

/*
 * A character that normalisation leaves as it is, and that does not join what comes before it; what
 * comes after may join it. Says no for some that would qualify.
 */
static bool is_stable(int32_t code) {
    if (code < FIRST_UNSTABLE)
        return true;
    const utf8proc_property_t *p = utf8proc_get_property(code);
    bool decomposes = p->decomp_seqindex != UINT16_MAX && p->decomp_type == 0;
    if (p->combining_class != 0 || decomposes)
        return is_inert(code);
    return !contains(joining, sizeof joining / sizeof *joining, code);
}

/* Makes *codes hold at least `need` entries. */
static myelin_status reserve(int32_t **codes, size_t *capacity, size_t need, myelin_error *error) {
    if (need <= *capacity)
        return MYELIN_OK;
    size_t wanted = need + need / 2 + 64;
    int32_t *grown = mln_realloc(*codes, wanted, sizeof *grown);
    if (!grown)
        return mln_fail_memory(error, wanted * sizeof *grown, "a text being normalised");
    *codes = grown;
    *capacity = wanted;
    return MYELIN_OK;
}

/* Appends the full canonical decomposition of each character to normalizer->codes. */
static myelin_status decompose(mln_normalizer *n, const char *text, size_t length, size_t *count,
                               myelin_error *error) {
    *count = 0;
    for (size_t i = 0; i < length;) {
        uint32_t code;
        i += mln_utf8_decode((const unsigned char *)text + i, length - i, &code);
        myelin_status status = reserve(&n->codes, &n->capacity, *count + MAX_DECOMPOSED, error);
        if (status != MYELIN_OK)
            return status;
        int boundary = 0;
        utf8proc_ssize_t made =
            is_inert((int32_t)code)
                ? 0
                : utf8proc_decompose_char((int32_t)code, n->codes + *count, MAX_DECOMPOSED,
                                          UTF8PROC_DECOMPOSE, &boundary);
        if (made <= 0 || made > MAX_DECOMPOSED) {
            n->codes[*count] = (int32_t)code;
            made = 1;
        }
        *count += (size_t)made;
    }
    return MYELIN_OK;
}

static void insertion_sort(int32_t *codes, size_t count) {
    for (size_t i = 1; i < count; i++) {
        int32_t code = codes[i];
        int class = combining_class(code);
        size_t j = i;
        for (; j > 0 && combining_class(codes[j - 1]) > class; j--)
            codes[j] = codes[j - 1];
        codes[j] = code;
    }
}

/* A stable sort by combining class in linear time, for texts made of marks. */
static myelin_status counting_sort(mln_normalizer *n, int32_t *codes, size_t count,
                                   myelin_error *error) {
    size_t starts[NUM_CLASSES + 1] = {0};
    myelin_status status = reserve(&n->sorted, &n->sorted_capacity, count, error);
    if (status != MYELIN_OK)
        return status;
    for (size_t i = 0; i < count; i++)
        starts[(combining_class(codes[i]) & (NUM_CLASSES - 1)) + 1]++;
    for (int c = 0; c < NUM_CLASSES; c++)
        starts[c + 1] += starts[c];
    for (size_t i = 0; i < count; i++)
        n->sorted[starts[combining_class(codes[i]) & (NUM_CLASSES - 1)]++] = codes[i];
    memcpy(codes, n->sorted, count * sizeof *codes);
    return MYELIN_OK;
}

/* The canonical ordering: each run of marks by combining class. */
static myelin_status reorder(mln_normalizer *n, int32_t *codes, size_t count, myelin_error *error) {
    for (size_t i = 0; i < count; i++) {
        size_t end = i;
        while (end < count && combining_class(codes[end]) != 0)
            end++;
        if (end - i <= INSERTION_SORT) {
            insertion_sort(codes + i, end - i);
        } else {
            myelin_status status = counting_sort(n, codes + i, end - i, error);
            if (status != MYELIN_OK)
                return status;
        }
        i = end;
    }
    return MYELIN_OK;
}

/* The character that a pair becomes, or -1. */
static int32_t compose_pair(int32_t first, int32_t second) {
    int32_t pair[2] = {first, second};
    if (is_inert(second) ||
        utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) != 1)
        return -1;
    return is_inert(pair[0]) ? -1 : pair[0];
}

/* Composes in place (UAX #15, D117) and returns the new count. */
static size_t compose(int32_t *codes, size_t count) {
    size_t starter = SIZE_MAX, out = 0;
    int last_class = 0; /* of the character before, when it did not join the starter */
    for (size_t i = 0; i < count; i++) {
        int class = combining_class(codes[i]);
        bool adjacent = starter != SIZE_MAX && out == starter + 1;
        if (starter != SIZE_MAX && (adjacent || last_class < class)) {
            int32_t joined = compose_pair(codes[starter], codes[i]);
            if (joined >= 0) {
                codes[starter] = joined;
                continue;
            }
        }
        if (class == 0)
            starter = out;
        last_class = class;
        codes[out++] = codes[i];
    }
    return out;
}

/* Appends the normal form of text, a run that nothing before or after it joins. */
static myelin_status append_run(mln_normalizer *n, const char *text, size_t length,
                                myelin_error *error) {
    size_t count = 0;
    myelin_status status = decompose(n, text, length, &count, error);
    if (status == MYELIN_OK)
        status = reorder(n, n->codes, count, error);
    if (status != MYELIN_OK)
        return status;
    count = compose(n->codes, count);
    if (!mln_buffer_reserve(&n->text, count * MLN_UTF8_MAX))
        return mln_fail_memory(error, count * MLN_UTF8_MAX, "a normalised text");
    for (size_t i = 0; i < count; i++)
        n->text.length +=
            mln_utf8_encode((uint32_t)n->codes[i], (unsigned char *)n->text.data + n->text.length);
    return MYELIN_OK;
}

/*
 * From `from` on, the next run that may change: from the stable character before the first that is
 * not stable up to the next that is. False when there is none.
 */
static bool find_run(const char *text, size_t length, size_t from, size_t *start, size_t *end) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t before = from, i = from;
    bool found = false;
    *start = from;
    while (i < length) {
        uint32_t code = bytes[i];
        size_t size = code < 0x80 ? 1 : mln_utf8_decode(bytes + i, length - i, &code);
        bool stable = is_stable((int32_t)code);
        if (found && stable)
            break;
        if (!stable && !found) {
            *start = before;
            found = true;
        }
        before = i;
        i += size;
    }
    *end = i;
    return found;
}

myelin_status mln_normalize(mln_normalizer *n, const char *text, size_t length, const char **out,
                            size_t *out_length, myelin_error *error) {
    size_t done = 0, start, end;
    n->text.length = 0;
    *out = text;
    *out_length = length;
    while (find_run(text, length, done, &start, &end)) {
        if (!mln_buffer_append(&n->text, text + done, start - done))
            return mln_fail_memory(error, start - done, "a normalised text");
        myelin_status status = append_run(n, text + start, end - start, error);
        if (status != MYELIN_OK)
            return status;
        done = end;
    }
    if (done == 0)
        return MYELIN_OK;
    if (!mln_buffer_append(&n->text, text + done, length - done))
        return mln_fail_memory(error, length - done, "a normalised text");
    *out = n->text.data;
    *out_length = n->text.length;
    return MYELIN_OK;
}

void mln_normalizer_free(mln_normalizer *n) {
    mln_buffer_free(&n->text);
    free(n->codes);
    free(n->sorted);
    *n = (mln_normalizer){0};
}
