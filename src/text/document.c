/* SPDX-License-Identifier: Apache-2.0 */
#include "text/document.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "text/tokenizer.h"

enum { MAX_SETTINGS = 4096, MAX_PATH_BYTES = 256, MAX_MERGES = MLN_TOKENIZER_MAX_VOCAB };

typedef enum section { OTHER, VOCAB, MERGES, ADDED } section;

typedef enum merge_form { UNKNOWN_FORM, TEXT_FORM, PAIR_FORM } merge_form;

typedef struct reader {
    mln_document *document;
    section section;
    merge_form form; /* of all merges so far */
    int parts;       /* of the merge at hand */
} reader;

static myelin_status wrong_type(const reader *r, const mln_json_event *e, const char *where,
                                const char *expected, myelin_error *error) {
    return mln_fail(error, MYELIN_ERROR_FORMAT, r->document->file, e->offset,
                    "%s: expected %s, found %s", where, expected, mln_json_kind_name(e->kind));
}

static myelin_status read_id(const reader *r, const mln_json_event *e, const char *where,
                             uint32_t *id, myelin_error *error) {
    if (e->kind != MLN_JSON_NUMBER)
        return wrong_type(r, e, where, "an id", error);
    int64_t value;
    if (!mln_json_integer(e->text, &value) || value < 0 || value >= MLN_TOKENIZER_MAX_VOCAB)
        return mln_fail(error, MYELIN_ERROR_FORMAT, r->document->file, e->offset,
                        "%s: expected an id from 0 to %d, found %.*s", where,
                        MLN_TOKENIZER_MAX_VOCAB - 1, mln_shown(e->text.data, e->text.length),
                        e->text.data);
    *id = (uint32_t)value;
    return MYELIN_OK;
}

static myelin_status check_length(const reader *r, const mln_json_event *e, mln_json_text token,
                                  const char *where, myelin_error *error) {
    if (token.length <= MLN_TOKENIZER_MAX_TOKEN_BYTES)
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_FORMAT, r->document->file, e->offset,
                    "%s: expected tokens of at most %d bytes, found %zu", where,
                    MLN_TOKENIZER_MAX_TOKEN_BYTES, token.length);
}

static myelin_status on_vocab(reader *r, const mln_json_event *e, myelin_error *error) {
    mln_json_text key = e->path[2];
    mln_vocab *vocab = &r->document->vocab;
    if (e->kind != MLN_JSON_NUMBER) {
        char where[160];
        snprintf(where, sizeof where, "model.vocab[\"%.*s\"]", mln_shown(key.data, key.length),
                 key.data);
        return wrong_type(r, e, where, "an id", error);
    }
    uint32_t id = 0;
    myelin_status status = read_id(r, e, "model.vocab", &id, error);
    if (status == MYELIN_OK)
        status = check_length(r, e, key, "model.vocab", error);
    if (status != MYELIN_OK)
        return status;
    if (vocab->count == MLN_TOKENIZER_MAX_VOCAB)
        return mln_fail(error, MYELIN_ERROR_FORMAT, r->document->file, e->offset,
                        "model.vocab: expected at most %d tokens, found more",
                        MLN_TOKENIZER_MAX_VOCAB);
    if (!mln_vocab_add(vocab, key.data, key.length, id, MLN_TOKEN_MODEL, e->offset))
        return mln_fail_memory(error, key.length, "a vocabulary");
    return MYELIN_OK;
}

static myelin_status new_merge(reader *r, const mln_json_event *e, myelin_error *error) {
    mln_document *d = r->document;
    if (d->num_merges == MAX_MERGES)
        return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, e->offset,
                        "model.merges: expected at most %d, found more", MAX_MERGES);
    if (d->num_merges == d->merges_room) {
        size_t room = d->merges_room ? 2 * d->merges_room : 256;
        mln_merge *merges = mln_realloc(d->merges, room, sizeof *merges);
        if (!merges)
            return mln_fail_memory(error, room * sizeof *merges, "the merges");
        d->merges = merges;
        d->merges_room = room;
    }
    d->merges[d->num_merges++] =
        (mln_merge){.text = (uint32_t)d->merge_text.length, .offset = (uint32_t)e->offset};
    return MYELIN_OK;
}

static myelin_status add_part(reader *r, const mln_json_event *e, const char *part, size_t length,
                              bool left, myelin_error *error) {
    mln_document *d = r->document;
    mln_merge *merge = &d->merges[d->num_merges - 1];
    myelin_status status = check_length(r, e, (mln_json_text){part, length}, "model.merges", error);
    if (status != MYELIN_OK)
        return status;
    if (!mln_buffer_append(&d->merge_text, part, length))
        return mln_fail_memory(error, length, "the merges");
    *(left ? &merge->left : &merge->right) = (uint32_t)length;
    return MYELIN_OK;
}

/* A merge written as one string, "left right". */
static myelin_status on_merge_text(reader *r, const mln_json_event *e, myelin_error *error) {
    static const char version[] = "#version"; /* the first line of a merges.txt, no merge */
    const char *text = e->text.data, *end = text + e->text.length;
    if (e->text.length >= sizeof version - 1 && memcmp(text, version, sizeof version - 1) == 0)
        return MYELIN_OK;
    const char *space = e->text.length ? memchr(text, ' ', e->text.length) : NULL;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return mln_fail(error, MYELIN_ERROR_FORMAT, r->document->file, e->offset,
                        "model.merges[%" PRIu64 "]: expected two tokens and one space between "
                        "them, found \"%.*s\"",
                        e->index[2], mln_shown(text, e->text.length), text);
    myelin_status status = new_merge(r, e, error);
    if (status == MYELIN_OK)
        status = add_part(r, e, text, (size_t)(space - text), true, error);
    if (status == MYELIN_OK)
        status = add_part(r, e, space + 1, (size_t)(end - space - 1), false, error);
    return status;
}

static myelin_status wrong_merge(const reader *r, const mln_json_event *e, const char *expected,
                                 myelin_error *error) {
    char where[64];
    snprintf(where, sizeof where, "model.merges[%" PRIu64 "]", e->index[2]);
    return wrong_type(r, e, where, expected, error);
}

static myelin_status wrong_parts(const reader *r, const mln_json_event *e, myelin_error *error) {
    return mln_fail(error, MYELIN_ERROR_FORMAT, r->document->file, e->offset,
                    "model.merges[%" PRIu64 "]: expected two tokens, found %s", e->index[2],
                    r->parts < 2 ? "fewer" : "more");
}

static myelin_status on_merge(reader *r, const mln_json_event *e, myelin_error *error) {
    if (e->depth == 4) {
        if (e->kind != MLN_JSON_STRING)
            return wrong_merge(r, e, "two strings", error);
        if (r->parts == 2)
            return wrong_parts(r, e, error);
        return add_part(r, e, e->text.data, e->text.length, r->parts++ == 0, error);
    }
    if (e->kind == MLN_JSON_END_ARRAY)
        return r->parts == 2 ? MYELIN_OK : wrong_parts(r, e, error);
    merge_form form = e->kind == MLN_JSON_STRING        ? TEXT_FORM
                      : e->kind == MLN_JSON_BEGIN_ARRAY ? PAIR_FORM
                                                        : UNKNOWN_FORM;
    if (form == UNKNOWN_FORM)
        return wrong_merge(r, e, "\"left right\" or [\"left\", \"right\"]", error);
    if (r->form != UNKNOWN_FORM && r->form != form)
        return wrong_merge(r, e, "the form of the merges before it", error);
    r->form = form;
    r->parts = 0;
    return form == TEXT_FORM ? on_merge_text(r, e, error) : new_merge(r, e, error);
}

static const char *const added_flags[] = {"single_word", "lstrip", "rstrip", "normalized",
                                          "special"};
enum { NUM_ADDED_FLAGS = 5, SEEN_ID = 1 << NUM_ADDED_FLAGS, SEEN_CONTENT = SEEN_ID << 1 };

static myelin_status begin_added(reader *r, const mln_json_event *e, myelin_error *error) {
    mln_document *d = r->document;
    if (e->kind != MLN_JSON_BEGIN_OBJECT)
        return wrong_type(r, e, "added_tokens", "objects", error);
    if (d->num_added == MLN_TOKENIZER_MAX_ADDED)
        return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, e->offset,
                        "added_tokens: expected at most %d, found more", MLN_TOKENIZER_MAX_ADDED);
    if (d->num_added == d->added_room) {
        size_t room = d->added_room ? 2 * d->added_room : 32;
        mln_added_token *added = mln_realloc(d->added, room, sizeof *added);
        if (!added)
            return mln_fail_memory(error, room * sizeof *added, "the added tokens");
        d->added = added;
        d->added_room = room;
    }
    d->added[d->num_added++] = (mln_added_token){.offset = e->offset};
    return MYELIN_OK;
}

static myelin_status end_added(const reader *r, const mln_json_event *e, myelin_error *error) {
    unsigned seen = r->document->added[r->document->num_added - 1].seen;
    const char *missing = !(seen & SEEN_ID) ? "id" : !(seen & SEEN_CONTENT) ? "content" : NULL;
    for (int i = 0; i < NUM_ADDED_FLAGS && !missing; i++)
        if (!(seen & 1u << i))
            missing = added_flags[i];
    if (!missing)
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_FORMAT, r->document->file, e->offset,
                    "added_tokens[%" PRIu64 "]: expected the key \"%s\"", e->index[1], missing);
}

static myelin_status read_content(const reader *r, const mln_json_event *e, const char *where,
                                  myelin_error *error) {
    mln_document *d = r->document;
    mln_added_token *token = &d->added[d->num_added - 1];
    if (e->kind != MLN_JSON_STRING)
        return wrong_type(r, e, where, "a string", error);
    if (e->text.length == 0)
        return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, e->offset,
                        "%s: expected at least one byte, found none", where);
    myelin_status status = check_length(r, e, e->text, where, error);
    if (status != MYELIN_OK)
        return status;
    token->content = mln_arena_strndup(&d->arena, e->text.data, e->text.length);
    token->length = e->text.length;
    token->seen |= SEEN_CONTENT;
    return token->content ? MYELIN_OK : mln_fail_memory(error, token->length, "an added token");
}

static myelin_status on_added(reader *r, const mln_json_event *e, myelin_error *error) {
    if (e->depth == 2)
        return e->kind == MLN_JSON_END_OBJECT ? end_added(r, e, error) : begin_added(r, e, error);
    if (e->depth > 3)
        return MYELIN_OK; /* inside the value of a key we do not know */
    mln_added_token *token = &r->document->added[r->document->num_added - 1];
    bool *const flags[] = {&token->single_word, &token->lstrip, &token->rstrip, &token->normalized,
                           &token->special};
    char where[96];
    snprintf(where, sizeof where, "added_tokens[%" PRIu64 "].%.*s", e->index[1],
             mln_shown(e->path[2].data, e->path[2].length), e->path[2].data);
    if (mln_json_text_is(e->path[2], "id")) {
        token->seen |= SEEN_ID;
        return read_id(r, e, where, &token->id, error);
    }
    if (mln_json_text_is(e->path[2], "content"))
        return read_content(r, e, where, error);
    for (int i = 0; i < NUM_ADDED_FLAGS; i++) {
        if (!mln_json_text_is(e->path[2], added_flags[i]))
            continue;
        if (e->kind != MLN_JSON_TRUE && e->kind != MLN_JSON_FALSE)
            return wrong_type(r, e, where, "true or false", error);
        *flags[i] = e->kind == MLN_JSON_TRUE;
        token->seen |= 1u << i;
    }
    return MYELIN_OK;
}

static bool write_path(const mln_json_event *e, char path[MAX_PATH_BYTES]) {
    size_t used = 0;
    path[0] = '\0';
    for (int i = 0; i < e->depth; i++) {
        const char *dot = i ? "." : "";
        int n = e->path[i].data
                    ? snprintf(path + used, MAX_PATH_BYTES - used, "%s%.*s", dot,
                               (int)(e->path[i].length < MAX_PATH_BYTES ? e->path[i].length
                                                                        : MAX_PATH_BYTES),
                               e->path[i].data)
                    : snprintf(path + used, MAX_PATH_BYTES - used, "%s%" PRIu64, dot, e->index[i]);
        if (n < 0 || (size_t)n >= MAX_PATH_BYTES - used)
            return false;
        used += (size_t)n;
    }
    return true;
}

static myelin_status on_setting(reader *r, const mln_json_event *e, myelin_error *error) {
    mln_document *d = r->document;
    char path[MAX_PATH_BYTES];
    if (!write_path(e, path))
        return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, e->offset,
                        "expected keys whose path has less than %d bytes, found \"%s...\"",
                        MAX_PATH_BYTES, path);
    if (d->num_settings == MAX_SETTINGS)
        return mln_fail(error, MYELIN_ERROR_FORMAT, d->file, e->offset,
                        "expected at most %d settings, found more", MAX_SETTINGS);
    mln_setting *setting = mln_arena_alloc(&d->arena, 1, sizeof *setting);
    char *name = mln_arena_strndup(&d->arena, path, strlen(path));
    char *text = mln_arena_strndup(&d->arena, e->text.data, e->text.length);
    if (!setting || !name || !text)
        return mln_fail_memory(error, sizeof *setting, "a tokenizer's settings");
    *setting = (mln_setting){
        .path = name, .kind = e->kind, .text = {text, e->text.length}, .offset = e->offset};
    *(d->last ? &d->last->next : &d->first) = setting;
    d->last = setting;
    d->num_settings++;
    return MYELIN_OK;
}

/* Parts of the file that say nothing about ids or text. */
static bool is_ignored(mln_json_text key) {
    static const char *const known[] = {"version",        "normalizer", "pre_tokenizer",
                                        "post_processor", "decoder",    "model"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (mln_json_text_is(key, known[i]))
            return false;
    return true;
}

/* A value outside the tables; it may be where one of them begins. */
static myelin_status on_other(reader *r, const mln_json_event *e, myelin_error *error) {
    if (e->depth == 0)
        return e->kind == MLN_JSON_BEGIN_OBJECT || e->kind == MLN_JSON_END_OBJECT
                   ? MYELIN_OK
                   : wrong_type(r, e, "the document", "an object", error);
    if (e->kind == MLN_JSON_END_ARRAY || e->kind == MLN_JSON_END_OBJECT)
        return MYELIN_OK;
    if (e->depth == 1 && mln_json_text_is(e->path[0], "added_tokens")) {
        r->section = ADDED;
        return e->kind == MLN_JSON_BEGIN_ARRAY
                   ? MYELIN_OK
                   : wrong_type(r, e, "added_tokens", "an array", error);
    }
    if (is_ignored(e->path[0]))
        return MYELIN_OK;
    if (e->depth == 2 && mln_json_text_is(e->path[0], "model")) {
        bool vocab = mln_json_text_is(e->path[1], "vocab");
        bool merges = mln_json_text_is(e->path[1], "merges");
        if (vocab && e->kind != MLN_JSON_BEGIN_OBJECT)
            return wrong_type(r, e, "model.vocab", "an object", error);
        if (merges && e->kind != MLN_JSON_BEGIN_ARRAY)
            return wrong_type(r, e, "model.merges", "an array", error);
        r->section = vocab ? VOCAB : merges ? MERGES : OTHER;
    }
    return on_setting(r, e, error);
}

static myelin_status on_event(void *context, const mln_json_event *e, myelin_error *error) {
    reader *r = context;
    if (r->section != OTHER && e->depth <= (r->section == ADDED ? 1 : 2))
        r->section = OTHER; /* the table's own end */
    switch (r->section) {
    case VOCAB:
        return on_vocab(r, e, error);
    case MERGES:
        return on_merge(r, e, error);
    case ADDED:
        return on_added(r, e, error);
    case OTHER:
        break;
    }
    return on_other(r, e, error);
}

myelin_status mln_document_read(mln_document *document, const char *json, size_t length,
                                const char *file, myelin_error *error) {
    *document = (mln_document){.file = file};
    reader r = {.document = document};
    return mln_json_stream(json, length, file, on_event, &r, error);
}

void mln_document_free(mln_document *document) {
    mln_vocab_free(&document->vocab);
    mln_buffer_free(&document->merge_text);
    free(document->merges);
    free(document->added);
    mln_arena_free(&document->arena);
    *document = (mln_document){0};
}

const mln_setting *mln_document_find(const mln_document *document, const char *path) {
    const mln_setting *s = document->first;
    while (s && strcmp(s->path, path) != 0)
        s = s->next;
    return s;
}
