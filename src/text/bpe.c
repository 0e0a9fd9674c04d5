/* SPDX-License-Identifier: Apache-2.0 */
#include "text/bpe.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/byte_alphabet.h"

#define NONE UINT32_MAX

enum {
    SHORT_PIECE = 48,        /* up to so many bytes the next merge is found by looking at all */
    MAX_MEMOS = 8192,        /* half a megabyte: stays in the second-level cache */
    MIN_MEMO_TEXT = 512,     /* shorter texts are not worth a table */
    TEXT_BYTES_PER_MEMO = 16 /* a larger table would hold mostly words met once */
};

/* A keyed mix of two words: the high and low half of a 128-bit product, folded. */
static inline uint64_t mix(uint64_t a, uint64_t b) {
    __extension__ unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The slot of the rule for a pair, or the empty one where it belongs. */
static inline mln_bpe_rule *find_rule(const mln_bpe *bpe, uint32_t left, uint32_t right) {
    uint64_t pair = (uint64_t)left << 32 | right;
    size_t mask = bpe->num_slots - 1;
    size_t i = (size_t)mix(pair ^ bpe->key.k0, bpe->key.k1 | 1) & mask;
    mln_bpe_rule *rule = &bpe->rules[i];
    while (rule->rank != NONE && (rule->left != left || rule->right != right)) {
        i = (i + 1) & mask;
        rule = &bpe->rules[i];
    }
    return rule;
}

static myelin_status absent(const mln_document *d, size_t index, const char *token, size_t length,
                            myelin_error *error) {
    return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, d->merges[index].offset,
                    "model.merges[%zu]: expected tokens of the vocabulary, found \"%.*s\"", index,
                    mln_shown(token, length), token);
}

/*
 * The token a merge makes. Trainers number tokens in the order of the merges, so the one after the
 * last is tried before the table is asked.
 */
static const mln_token *merged_token(const mln_vocab *vocab, const mln_token *last,
                                     const char *text, size_t length) {
    size_t guess = last ? (size_t)(last - vocab->tokens) + 1 : 0;
    if (guess < vocab->count && vocab->tokens[guess].written_length == length &&
        memcmp(vocab->written.data + vocab->tokens[guess].written, text, length) == 0)
        return &vocab->tokens[guess];
    return mln_vocab_find(vocab, text, length);
}

static myelin_status add_rules(mln_bpe *bpe, const mln_document *d, myelin_error *error) {
    const mln_vocab *vocab = bpe->vocab;
    const mln_token *made = NULL;
    for (size_t i = 0; i < d->num_merges; i++) {
        const mln_merge *m = &d->merges[i];
        const char *text = d->merge_text.data + m->text;
        const mln_token *left = mln_vocab_find(vocab, text, m->left);
        const mln_token *right = mln_vocab_find(vocab, text + m->left, m->right);
        made = merged_token(vocab, made, text, (size_t)m->left + m->right);
        if (!left)
            return absent(d, i, text, m->left, error);
        if (!right)
            return absent(d, i, text + m->left, m->right, error);
        if (!made)
            return absent(d, i, text, (size_t)m->left + m->right, error);
        mln_bpe_rule *rule = find_rule(bpe, left->id, right->id);
        if (rule->rank != NONE)
            return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, m->offset,
                            "model.merges[%zu]: expected a new pair, found that of merge %u", i,
                            rule->rank);
        *rule = (mln_bpe_rule){left->id, right->id, (uint32_t)i, made->id};
    }
    return MYELIN_OK;
}

myelin_status mln_bpe_make(mln_bpe *bpe, const mln_vocab *vocab, const mln_document *document,
                           bool ignore_merges, myelin_error *error) {
    size_t num_slots = 64;
    while (num_slots < document->num_merges + document->num_merges / 2)
        num_slots *= 2;
    bpe->rules = mln_alloc(num_slots, sizeof *bpe->rules);
    if (!bpe->rules)
        return mln_fail_memory(error, num_slots * sizeof *bpe->rules, "the merges");
    memset(bpe->rules, 0xFF, num_slots * sizeof *bpe->rules);
    bpe->num_slots = num_slots;
    bpe->key = mln_hash_key_make();
    bpe->ignore_merges = ignore_merges;
    bpe->vocab = vocab;
    for (int b = 0; b < 256; b++) {
        unsigned char form[MLN_UTF8_MAX];
        size_t n = mln_utf8_encode(mln_byte_to_char((unsigned char)b), form);
        const mln_token *token = mln_vocab_find(vocab, (const char *)form, n);
        bpe->byte_ids[b] = token ? (int32_t)token->id : -1;
    }
    return add_rules(bpe, document, error);
}

void mln_bpe_free(mln_bpe *bpe) {
    free(bpe->rules);
    *bpe = (mln_bpe){0};
}

myelin_status mln_bpe_begin(mln_bpe_work *work, size_t length, myelin_error *error) {
    if (length < MIN_MEMO_TEXT)
        return MYELIN_OK;
    size_t n = MIN_MEMO_TEXT / TEXT_BYTES_PER_MEMO;
    while (n < MAX_MEMOS && n < length / TEXT_BYTES_PER_MEMO)
        n *= 2;
    work->memos = mln_calloc(n, sizeof *work->memos);
    if (!work->memos)
        return mln_fail_memory(error, n * sizeof *work->memos, "encoding a text");
    work->num_memos = n;
    return MYELIN_OK;
}

void mln_bpe_work_free(mln_bpe_work *work) {
    free(work->memos);
    free(work->symbols);
    free(work->heap);
    mln_buffer_free(&work->written);
    *work = (mln_bpe_work){0};
}

myelin_status mln_ids_reserve(mln_ids *ids, size_t extra, myelin_error *error) {
    if (extra <= ids->capacity - ids->count)
        return MYELIN_OK;
    size_t capacity = ids->count + extra + ids->capacity / 2 + 16;
    int32_t *data = mln_realloc(ids->data, capacity, sizeof *data);
    if (!data)
        return mln_fail_memory(error, capacity * sizeof *data, "token ids");
    ids->data = data;
    ids->capacity = capacity;
    return MYELIN_OK;
}

static inline void look_up(const mln_bpe *bpe, mln_bpe_symbol *left, const mln_bpe_symbol *right) {
    const mln_bpe_rule *rule = find_rule(bpe, left->id, right->id);
    left->rank = rule->rank;
    left->made = rule->made;
}

/* One symbol for each byte the vocabulary has; returns how many. */
static size_t split_bytes(const mln_bpe *bpe, mln_bpe_symbol *symbols, const char *bytes,
                          size_t length) {
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        int32_t id = bpe->byte_ids[(unsigned char)bytes[i]];
        if (id >= 0)
            symbols[n++] = (mln_bpe_symbol){.id = (uint32_t)id, .rank = NONE};
    }
    for (size_t i = 0; i + 1 < n; i++)
        look_up(bpe, &symbols[i], &symbols[i + 1]);
    return n;
}

/* Merges by looking for the lowest rank again and again; returns how many symbols are left. */
static size_t merge_short(const mln_bpe *bpe, mln_bpe_symbol *symbols, size_t n) {
    for (;;) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (symbols[i].rank < symbols[best].rank)
                best = i;
        if (n < 2 || symbols[best].rank == NONE)
            return n;
        symbols[best].id = symbols[best].made;
        symbols[best].rank = NONE;
        n--;
        memmove(&symbols[best + 1], &symbols[best + 2], (n - best - 1) * sizeof *symbols);
        if (best + 1 < n)
            look_up(bpe, &symbols[best], &symbols[best + 1]);
        if (best > 0)
            look_up(bpe, &symbols[best - 1], &symbols[best]);
    }
}

/*
 * The heap of candidate merges: rank << 32 | position of the left symbol, the smallest on top. An
 * entry is out of date when its symbol's rank is another one by now.
 */
static void sift_down(uint64_t *heap, size_t n, size_t i) {
    uint64_t entry = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (entry <= heap[child])
            break;
        heap[i] = heap[child];
    }
    heap[i] = entry;
}

static void push(uint64_t *heap, size_t *n, const mln_bpe_symbol *symbols, uint32_t at) {
    if (symbols[at].rank == NONE)
        return;
    uint64_t entry = (uint64_t)symbols[at].rank << 32 | at;
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > entry; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = entry;
}

static size_t fill_heap(uint64_t *heap, mln_bpe_symbol *symbols, size_t n) {
    size_t size = 0;
    for (size_t i = 0; i < n; i++) {
        symbols[i].previous = i ? (uint32_t)(i - 1) : NONE;
        symbols[i].next = i + 1 < n ? (uint32_t)(i + 1) : NONE;
        if (symbols[i].rank != NONE)
            heap[size++] = (uint64_t)symbols[i].rank << 32 | i;
    }
    for (size_t i = size / 2; i-- > 0;)
        sift_down(heap, size, i);
    return size;
}

/* The same merges in the same order, with a heap. The symbols left stay linked from the first. */
static void merge_long(const mln_bpe *bpe, uint64_t *heap, mln_bpe_symbol *symbols, size_t n) {
    size_t size = fill_heap(heap, symbols, n);
    while (size > 0) {
        uint32_t at = (uint32_t)heap[0], rank = (uint32_t)(heap[0] >> 32);
        heap[0] = heap[--size];
        if (size > 0)
            sift_down(heap, size, 0);
        mln_bpe_symbol *left = &symbols[at];
        if (left->rank != rank)
            continue;
        mln_bpe_symbol *right = &symbols[left->next];
        left->id = left->made;
        left->next = right->next;
        left->rank = right->rank = NONE;
        if (left->next != NONE) {
            symbols[left->next].previous = at;
            look_up(bpe, left, &symbols[left->next]);
            push(heap, &size, symbols, at);
        }
        if (left->previous != NONE) {
            look_up(bpe, &symbols[left->previous], left);
            push(heap, &size, symbols, left->previous);
        }
    }
}

static myelin_status encode_short(const mln_bpe *bpe, const char *bytes, size_t length,
                                  mln_ids *ids, myelin_error *error) {
    mln_bpe_symbol symbols[SHORT_PIECE];
    size_t n = merge_short(bpe, symbols, split_bytes(bpe, symbols, bytes, length));
    myelin_status status = mln_ids_reserve(ids, n, error);
    for (size_t i = 0; i < n && status == MYELIN_OK; i++)
        ids->data[ids->count++] = (int32_t)symbols[i].id;
    return status;
}

static myelin_status reserve_symbols(mln_bpe_work *work, size_t length, myelin_error *error) {
    if (length <= work->capacity)
        return MYELIN_OK;
    if (length >= NONE)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "expected parts of less than %" PRIu32 " bytes in the text, found %zu",
                        NONE, length);
    free(work->symbols);
    free(work->heap);
    /* A merge takes one entry from the heap and adds two at most, so it grows by one at most. */
    work->capacity = 0;
    work->symbols = mln_alloc(length, sizeof *work->symbols);
    work->heap = mln_alloc(length, 2 * sizeof *work->heap);
    if (!work->symbols || !work->heap)
        return mln_fail_memory(error, length * sizeof *work->symbols, "encoding a text");
    work->capacity = length;
    return MYELIN_OK;
}

static myelin_status encode_long(const mln_bpe *bpe, mln_bpe_work *work, const char *bytes,
                                 size_t length, mln_ids *ids, myelin_error *error) {
    myelin_status status = reserve_symbols(work, length, error);
    if (status != MYELIN_OK)
        return status;
    mln_bpe_symbol *symbols = work->symbols;
    size_t n = split_bytes(bpe, symbols, bytes, length), left = 0;
    if (n == 0)
        return MYELIN_OK;
    merge_long(bpe, work->heap, symbols, n);
    for (uint32_t i = 0; i != NONE; i = symbols[i].next)
        left++;
    status = mln_ids_reserve(ids, left, error);
    for (uint32_t i = 0; i != NONE && status == MYELIN_OK; i = symbols[i].next)
        ids->data[ids->count++] = (int32_t)symbols[i].id;
    return status;
}

/* The token of model.vocab that is the whole pre-token, or NULL. */
static myelin_status find_whole(const mln_bpe *bpe, mln_bpe_work *work, const char *bytes,
                                size_t length, const mln_token **token, myelin_error *error) {
    *token = NULL;
    if (length > MLN_TOKENIZER_MAX_TOKEN_BYTES)
        return MYELIN_OK;
    work->written.length = 0;
    if (!mln_buffer_reserve(&work->written, length * MLN_UTF8_MAX))
        return mln_fail_memory(error, length * MLN_UTF8_MAX, "encoding a text");
    unsigned char *out = (unsigned char *)work->written.data;
    size_t n = 0;
    for (size_t i = 0; i < length; i++)
        n += mln_utf8_encode(mln_byte_to_char((unsigned char)bytes[i]), out + n);
    const mln_token *found = mln_vocab_find(bpe->vocab, work->written.data, n);
    *token = found && found->flags & MLN_TOKEN_MODEL ? found : NULL;
    return MYELIN_OK;
}

static myelin_status encode_piece(const mln_bpe *bpe, mln_bpe_work *work, const char *bytes,
                                  size_t length, mln_ids *ids, myelin_error *error) {
    if (bpe->ignore_merges) {
        const mln_token *token;
        myelin_status status = find_whole(bpe, work, bytes, length, &token, error);
        if (status == MYELIN_OK && token)
            status = mln_ids_reserve(ids, 1, error);
        if (status != MYELIN_OK)
            return status;
        if (token) {
            ids->data[ids->count++] = (int32_t)token->id;
            return MYELIN_OK;
        }
    }
    return length <= SHORT_PIECE ? encode_short(bpe, bytes, length, ids, error)
                                 : encode_long(bpe, work, bytes, length, ids, error);
}

static uint64_t hash_piece(const char padded[MLN_BPE_CACHED_BYTES], size_t length) {
    uint64_t words[MLN_BPE_CACHED_BYTES / 8];
    memcpy(words, padded, sizeof words);
    return mix(words[0] ^ UINT64_C(0x9E3779B97F4A7C15), words[1] ^ UINT64_C(0xC2B2AE3D27D4EB4F)) ^
           mix(words[2] ^ UINT64_C(0x165667B19E3779F9), words[3] ^ (length + UINT64_C(0x27D4EB2F)));
}

myelin_status mln_bpe_encode(const mln_bpe *bpe, mln_bpe_work *work, const char *bytes,
                             size_t length, mln_ids *ids, myelin_error *error) {
    if (work->num_memos == 0 || length == 0 || length > MLN_BPE_CACHED_BYTES)
        return encode_piece(bpe, work, bytes, length, ids, error);
    char padded[MLN_BPE_CACHED_BYTES] = {0};
    memcpy(padded, bytes, length);
    mln_bpe_memo *memo = &work->memos[hash_piece(padded, length) & (work->num_memos - 1)];
    if (memo->length == length && memcmp(memo->bytes, padded, sizeof padded) == 0) {
        myelin_status status = mln_ids_reserve(ids, MLN_BPE_CACHED_IDS, error);
        if (status != MYELIN_OK)
            return status;
        memcpy(ids->data + ids->count, memo->ids, sizeof memo->ids);
        ids->count += memo->num_ids;
        return MYELIN_OK;
    }
    size_t before = ids->count;
    myelin_status status = encode_piece(bpe, work, bytes, length, ids, error);
    size_t made = ids->count - before;
    if (status != MYELIN_OK || made > MLN_BPE_CACHED_IDS)
        return status;
    memcpy(memo->bytes, padded, sizeof padded);
    memo->length = (uint8_t)length;
    memo->num_ids = (uint8_t)made;
    if (made)
        memcpy(memo->ids, ids->data + before, made * sizeof *memo->ids);
    return MYELIN_OK;
}
