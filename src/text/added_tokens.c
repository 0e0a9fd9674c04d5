/* SPDX-License-Identifier: Apache-2.0 */
#include "text/added_tokens.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/stand_in.h"

static int compare_patterns(const void *a, const void *b) {
    const mln_added_token *x = a, *y = b;
    size_t shorter = x->pattern_length < y->pattern_length ? x->pattern_length : y->pattern_length;
    int order = memcmp(x->pattern, y->pattern, shorter);
    return order
               ? order
               : (x->pattern_length > y->pattern_length) - (x->pattern_length < y->pattern_length);
}

static unsigned char first_byte(const mln_added_token *token) {
    return (unsigned char)token->pattern[0];
}

myelin_status mln_added_set_make(mln_added_set *set, const mln_added_token *tokens, size_t count,
                                 bool normalized, const char *file, myelin_error *error) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        n += tokens[i].normalized == normalized;
    if (n == 0)
        return MYELIN_OK;
    set->tokens = mln_alloc(n, sizeof *set->tokens);
    if (!set->tokens)
        return mln_fail_memory(error, n * sizeof *set->tokens, "the added tokens");
    for (size_t i = 0; i < count; i++)
        if (tokens[i].normalized == normalized)
            set->tokens[set->count++] = tokens[i];
    qsort(set->tokens, n, sizeof *set->tokens, compare_patterns);
    for (size_t i = 1; i < n; i++) {
        const mln_added_token *a = &set->tokens[i - 1], *b = &set->tokens[i];
        if (compare_patterns(a, b) == 0)
            return mln_fail(error, MYELIN_ERROR_FORMAT, file, b->offset,
                            "added_tokens: expected different tokens, found \"%.*s\" with the ids "
                            "%u and %u",
                            mln_shown(b->pattern, b->pattern_length), b->pattern, a->id, b->id);
    }
    for (size_t b = 0, i = 0; b <= 256; b++) {
        while (i < n && first_byte(&set->tokens[i]) < b)
            i++;
        set->first[b] = (uint32_t)i;
    }
    return MYELIN_OK;
}

void mln_added_set_free(mln_added_set *set) {
    free(set->tokens);
    *set = (mln_added_set){0};
}

/* The first token in [low, high), equal up to byte `depth`, whose byte there is at least `byte`. */
static size_t lower_bound(const mln_added_set *set, size_t low, size_t high, size_t depth,
                          unsigned byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const mln_added_token *t = &set->tokens[middle];
        if (t->pattern_length <= depth || (unsigned char)t->pattern[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The token with the longest pattern at the beginning of text, or NULL. */
static const mln_added_token *longest(const mln_added_set *set, const char *text, size_t length) {
    unsigned char byte = (unsigned char)text[0];
    size_t low = set->first[byte], high = set->first[byte + 1];
    const mln_added_token *found = NULL;
    for (size_t depth = 1; low < high; depth++) {
        if (set->tokens[low].pattern_length == depth) /* a prefix sorts before what it begins */
            found = &set->tokens[low];
        if (depth == length)
            break;
        byte = (unsigned char)text[depth];
        low = lower_bound(set, low, high, depth, byte);
        high = lower_bound(set, low, high, depth, byte + 1u);
    }
    return found;
}

static bool is_white_space(uint32_t code) {
    return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* What \w of the reference's regex crate matches: UTS #18, Alphabetic, M, Nd, Pc, joiners. */
static bool is_word(uint32_t code) {
    bool alphabetic_symbol =
        (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
        (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
    if (alphabetic_symbol || code == 0x200C || code == 0x200D)
        return true;
    switch (utf8proc_category((int32_t)mln_stand_in(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

/* The character that ends at `at`, and where it begins. at is not 0. */
static uint32_t character_before(const mln_added_scan *scan, size_t at, size_t *start) {
    const unsigned char *text = (const unsigned char *)scan->text;
    uint32_t code;
    *start = at - 1;
    while (*start > 0 && (text[*start] & 0xC0u) == 0x80u)
        --*start;
    mln_utf8_decode(text + *start, at - *start, &code);
    return code;
}

/* The character at `at`, and where it ends. at is not the length. */
static uint32_t character_at(const mln_added_scan *scan, size_t at, size_t *end) {
    uint32_t code;
    *end = at + mln_utf8_decode((const unsigned char *)scan->text + at, scan->length - at, &code);
    return code;
}

static bool is_single_word(const mln_added_scan *scan, size_t start, size_t end) {
    size_t unused;
    bool before = start > 0 && is_word(character_before(scan, start, &unused));
    bool after = end < scan->length && is_word(character_at(scan, end, &unused));
    return !before && !after;
}

/*
 * The reference looks for the next token behind the pattern, not behind the white space that was
 * taken with it, and a match that is no single word still uses its bytes up: so do we.
 */
bool mln_added_scan_next(mln_added_scan *scan, size_t *start, size_t *end, uint32_t *id) {
    const mln_added_set *set = scan->set;
    if (set->count == 0)
        return false;
    while (scan->search < scan->length) {
        size_t from = scan->search, byte = (unsigned char)scan->text[from];
        const mln_added_token *token = set->first[byte] == set->first[byte + 1]
                                           ? NULL
                                           : longest(set, scan->text + from, scan->length - from);
        scan->search += token ? token->pattern_length : 1;
        size_t to = scan->search, next;
        if (!token || (token->single_word && !is_single_word(scan, from, to)))
            continue;
        while (token->lstrip && from > scan->done &&
               is_white_space(character_before(scan, from, &next)))
            from = next;
        while (token->rstrip && to < scan->length && is_white_space(character_at(scan, to, &next)))
            to = next;
        *start = scan->done;
        *end = from;
        *id = token->id;
        scan->done = to;
        return true;
    }
    return false;
}
