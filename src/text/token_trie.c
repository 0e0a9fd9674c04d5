/* SPDX-License-Identifier: Apache-2.0 */
#include "text/token_trie.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/internal.h"

struct mln_trie_slot {
    pthread_mutex_t lock;
    mln_token_trie *trie;
};

/* A token to be placed. */
typedef struct entry {
    const unsigned char *bytes;
    uint32_t length;
    int32_t id;
    uint32_t characters; /* when plain, else 0 */
} entry;

static void free_trie(mln_trie *trie) {
    free(trie->nodes);
    free(trie->ids);
}

static void trie_free(mln_token_trie *t) {
    if (!t)
        return;
    free_trie(&t->plain);
    free_trie(&t->other);
    free(t->plain_masks);
    free(t);
}

mln_trie_slot *mln_trie_slot_make(void) {
    mln_trie_slot *slot = mln_calloc(1, sizeof *slot);
    if (slot && pthread_mutex_init(&slot->lock, NULL) != 0) {
        free(slot);
        return NULL;
    }
    return slot;
}

void mln_trie_slot_free(mln_trie_slot *slot) {
    if (!slot)
        return;
    trie_free(slot->trie);
    pthread_mutex_destroy(&slot->lock);
    free(slot);
}

/* Characters of a text that may stand in a JSON string as it is; 0 for other texts. */
static uint32_t plain_characters(const unsigned char *bytes, size_t length) {
    uint32_t count = 0, code;
    for (size_t i = 0; i < length; count++) {
        size_t n = mln_utf8_decode(bytes + i, length - i, &code);
        if (n == 0 || code < 0x20 || code == '"' || code == '\\')
            return 0;
        i += n;
    }
    return count;
}

static int compare_entries(const void *a, const void *b) {
    const entry *x = a, *y = b;
    size_t common = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->bytes, y->bytes, common);
    if (order != 0)
        return order;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static size_t list_entries(const mln_tokenizer *tokenizer, entry *entries) {
    const mln_vocab *vocab = &tokenizer->vocab;
    size_t count = 0;
    for (size_t i = 0; i < vocab->count; i++) {
        const mln_token *token = &vocab->tokens[i];
        if (token->bytes_length == 0 || token->flags & (MLN_TOKEN_SPECIAL | MLN_TOKEN_SKIPPED))
            continue;
        const unsigned char *bytes = (const unsigned char *)vocab->bytes.data + token->bytes;
        entries[count++] = (entry){bytes, token->bytes_length, (int32_t)token->id,
                                   plain_characters(bytes, token->bytes_length)};
    }
    return count;
}

static uint32_t common_prefix(const entry *a, const entry *b) {
    uint32_t n = 0;
    while (n < a->length && n < b->length && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Of sorted entries: with nodes NULL only counts them. */
static size_t place(const entry *entries, size_t count, mln_trie *trie, uint32_t *path) {
    size_t n = 0;
    uint32_t depth = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t common = i ? common_prefix(&entries[i - 1], &entries[i]) : 0;
        while (trie && depth > common)
            trie->nodes[path[--depth]].skip = (uint32_t)n;
        for (uint32_t d = common; d < entries[i].length; d++, n++) {
            if (!trie)
                continue;
            path[depth++] = (uint32_t)n;
            trie->nodes[n] = (mln_trie_node){
                .first = (uint32_t)i, .depth = (uint16_t)d, .byte = entries[i].bytes[d]};
        }
        if (trie)
            trie->ids[i] = entries[i].id;
    }
    while (trie && depth > 0)
        trie->nodes[path[--depth]].skip = (uint32_t)n;
    if (trie)
        trie->nodes[n] = (mln_trie_node){.skip = (uint32_t)n, .first = (uint32_t)count};
    return n;
}

static bool make_trie(mln_trie *trie, const entry *entries, size_t count, size_t longest) {
    trie->num_nodes = place(entries, count, NULL, NULL);
    trie->nodes = mln_alloc(trie->num_nodes + 1, sizeof *trie->nodes);
    trie->ids = mln_alloc(count, sizeof *trie->ids);
    uint32_t *path = mln_alloc(longest + 1, sizeof *path);
    bool ok = trie->nodes && trie->ids && path;
    if (ok)
        place(entries, count, trie, path);
    free(path);
    return ok;
}

/* The lengths of plain tokens, as many as there is room for; tokens of others count as not plain.
 */
static void list_lengths(mln_token_trie *t, entry *entries, size_t count) {
    bool seen[MLN_TOKENIZER_MAX_TOKEN_BYTES + 1] = {false};
    for (size_t i = 0; i < count; i++)
        if (entries[i].characters <= MLN_TOKENIZER_MAX_TOKEN_BYTES)
            seen[entries[i].characters] = true;
    for (uint32_t n = 1; n <= MLN_TOKENIZER_MAX_TOKEN_BYTES; n++)
        if (seen[n] && t->num_lengths < MLN_TRIE_MAX_LENGTHS)
            t->plain_lengths[t->num_lengths++] = n;
    uint32_t most = t->num_lengths ? t->plain_lengths[t->num_lengths - 1] : 0;
    for (size_t i = 0; i < count; i++)
        if (entries[i].characters > most)
            entries[i].characters = 0;
}

static bool make_masks(mln_token_trie *t, const entry *plain, size_t count) {
    t->plain_masks = mln_calloc(t->num_lengths * t->num_words, sizeof *t->plain_masks);
    if (!t->plain_masks)
        return false;
    for (size_t k = 0; k < t->num_lengths; k++) {
        uint32_t *mask = t->plain_masks + k * t->num_words;
        if (k > 0)
            memcpy(mask, mask - t->num_words, t->num_words * sizeof *mask);
        for (size_t i = 0; i < count; i++)
            if (plain[i].characters == t->plain_lengths[k])
                mask[plain[i].id / 32] |= UINT32_C(1) << plain[i].id % 32;
    }
    return true;
}

static bool fill(mln_token_trie *t, entry *entries, entry *sorted, size_t count) {
    size_t num_plain = 0, num_other = 0;
    memset(t->byte_ids, -1, sizeof t->byte_ids);
    for (size_t i = 0; i < count; i++) {
        if (entries[i].length == 1)
            t->byte_ids[entries[i].bytes[0]] = entries[i].id;
        t->longest = entries[i].length > t->longest ? entries[i].length : t->longest;
        num_plain += entries[i].characters > 0;
    }
    for (size_t i = 0, p = 0; i < count; i++)
        sorted[entries[i].characters > 0 ? p++ : num_plain + num_other++] = entries[i];
    qsort(sorted, num_plain, sizeof *sorted, compare_entries);
    qsort(sorted + num_plain, num_other, sizeof *sorted, compare_entries);
    return make_masks(t, sorted, num_plain) &&
           make_trie(&t->plain, sorted, num_plain, t->longest) &&
           make_trie(&t->other, sorted + num_plain, num_other, t->longest);
}

static mln_token_trie *make(const mln_tokenizer *tokenizer) {
    size_t most = tokenizer->vocab.count;
    mln_token_trie *t = mln_calloc(1, sizeof *t);
    entry *entries = mln_alloc(most, sizeof *entries), *sorted = mln_alloc(most, sizeof *sorted);
    bool ok = t && entries && sorted;
    if (ok) {
        size_t count = list_entries(tokenizer, entries);
        t->num_words = ((size_t)tokenizer->size + 31) / 32;
        list_lengths(t, entries, count);
        ok = fill(t, entries, sorted, count);
    }
    free(entries);
    free(sorted);
    if (ok)
        return t;
    trie_free(t);
    return NULL;
}

myelin_status mln_token_trie_of(const mln_token_trie **trie, const mln_tokenizer *tokenizer,
                                myelin_error *error) {
    mln_trie_slot *slot = tokenizer->trie;
    pthread_mutex_lock(&slot->lock);
    if (!slot->trie)
        slot->trie = make(tokenizer);
    *trie = slot->trie;
    pthread_mutex_unlock(&slot->lock);
    if (!*trie)
        return mln_fail_memory(error, tokenizer->vocab.bytes.length * sizeof(mln_trie_node),
                               "a tree of tokens");
    return MYELIN_OK;
}
