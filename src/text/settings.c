/* SPDX-License-Identifier: Apache-2.0 */
#include "text/settings.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "text/tokenizer.h"

/* What ByteLevel splits by when use_regex is true (the pattern of GPT-2). */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|"
                                   " ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum { MAX_STEPS = 8 }; /* steps of a Sequence that are looked at */

typedef struct reader {
    const mln_document *document;
    myelin_error *error;
} reader;

/* The setting at prefix.key, or NULL; null values count as absent. */
static const mln_setting *get(const reader *r, const char *prefix, const char *key) {
    size_t n = strlen(prefix);
    const mln_setting *s = r->document->first;
    while (s && (strncmp(s->path, prefix, n) != 0 || s->path[n] != '.' ||
                 strcmp(s->path + n + 1, key) != 0))
        s = s->next;
    return s && s->kind != MLN_JSON_NULL ? s : NULL;
}

static myelin_status unsupported(const reader *r, const mln_setting *s, const char *expected) {
    int shown = mln_shown(s->text.data, s->text.length);
    bool quoted = s->kind == MLN_JSON_STRING, plain = s->kind == MLN_JSON_NUMBER;
    return mln_fail(r->error, MYELIN_ERROR_UNSUPPORTED, r->document->file, s->offset,
                    "%s: expected %s, found %s%.*s%s", s->path, expected,
                    quoted  ? "\""
                    : plain ? ""
                            : mln_json_kind_name(s->kind),
                    quoted || plain ? shown : 0, s->text.data, quoted ? "\"" : "");
}

static myelin_status wrong_type(const reader *r, const mln_setting *s, const char *expected) {
    return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->document->file, s->offset,
                    "%s: expected %s, found %s", s->path, expected, mln_json_kind_name(s->kind));
}

static myelin_status missing(const reader *r, const char *prefix, const char *key) {
    return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->document->file, -1, "expected the key %s%s%s",
                    prefix, *prefix ? "." : "", key);
}

static myelin_status get_bool(const reader *r, const char *prefix, const char *key, bool otherwise,
                              const mln_setting **where, bool *value) {
    const mln_setting *s = get(r, prefix, key);
    *value = s ? s->kind == MLN_JSON_TRUE : otherwise;
    *where = s;
    if (s && s->kind != MLN_JSON_TRUE && s->kind != MLN_JSON_FALSE)
        return wrong_type(r, s, "true or false");
    return MYELIN_OK;
}

static myelin_status require_false(const reader *r, const char *prefix, const char *key) {
    const mln_setting *where;
    bool value;
    myelin_status status = get_bool(r, prefix, key, false, &where, &value);
    return status == MYELIN_OK && value ? unsupported(r, where, "false") : status;
}

/* The "type" of the object at `prefix`. */
static myelin_status get_type(const reader *r, const char *prefix, const mln_setting **type) {
    const mln_setting *object = mln_document_find(r->document, prefix);
    if (object && object->kind != MLN_JSON_BEGIN_OBJECT)
        return wrong_type(r, object, "an object");
    *type = get(r, prefix, "type");
    if (!*type)
        return missing(r, prefix, "type");
    return (*type)->kind == MLN_JSON_STRING ? MYELIN_OK : wrong_type(r, *type, "a string");
}

/* Whether `section` holds something: false when it is absent or null. */
static bool present(const reader *r, const char *section) {
    const mln_setting *s = mln_document_find(r->document, section);
    return s && s->kind != MLN_JSON_NULL;
}

/*
 * Steps of the Sequence at section.key, written to prefixes; a section that is no Sequence is one
 * step. More than MAX_STEPS are not counted.
 */
static myelin_status get_steps(const reader *r, const char *section, const char *key,
                               char prefixes[MAX_STEPS][64], int *count) {
    const mln_setting *type = NULL;
    myelin_status status = get_type(r, section, &type);
    if (status != MYELIN_OK)
        return status;
    *count = 1;
    snprintf(prefixes[0], sizeof prefixes[0], "%s", section);
    if (!mln_json_text_is(type->text, "Sequence"))
        return MYELIN_OK;
    const mln_setting *list = get(r, section, key);
    if (!list)
        return missing(r, section, key);
    if (list->kind != MLN_JSON_BEGIN_ARRAY)
        return wrong_type(r, list, "an array");
    for (*count = 0; *count < MAX_STEPS; ++*count) {
        char *prefix = prefixes[*count];
        snprintf(prefix, sizeof prefixes[0], "%s.%s.%d", section, key, *count);
        if (!mln_document_find(r->document, prefix))
            break;
    }
    return MYELIN_OK;
}

static myelin_status read_normalizer(const reader *r, mln_text_settings *out) {
    if (!present(r, "normalizer"))
        return MYELIN_OK;
    char prefixes[MAX_STEPS][64];
    int count;
    myelin_status status = get_steps(r, "normalizer", "normalizers", prefixes, &count);
    for (int i = 0; i < count && status == MYELIN_OK; i++) {
        const mln_setting *type = NULL;
        status = get_type(r, prefixes[i], &type);
        if (status == MYELIN_OK && !mln_json_text_is(type->text, "NFC"))
            status = unsupported(r, type, "\"NFC\"");
        out->nfc = true;
    }
    return status;
}

static myelin_status read_byte_level(const reader *r, const char *prefix, bool regex_allowed,
                                     mln_text_settings *out) {
    const mln_setting *where;
    bool use_regex;
    myelin_status status = require_false(r, prefix, "add_prefix_space");
    if (status == MYELIN_OK && !get(r, prefix, "add_prefix_space"))
        status = missing(r, prefix, "add_prefix_space");
    if (status == MYELIN_OK)
        status = get_bool(r, prefix, "use_regex", true, &where, &use_regex);
    if (status != MYELIN_OK || !use_regex)
        return status;
    if (!regex_allowed)
        return mln_fail(r->error, MYELIN_ERROR_UNSUPPORTED, r->document->file,
                        where ? where->offset : -1,
                        "%s.use_regex: expected false after a Split, found true", prefix);
    out->splits = true;
    out->pattern = (mln_json_text){gpt2_pattern, sizeof gpt2_pattern - 1};
    return MYELIN_OK;
}

static myelin_status read_split(const reader *r, const char *prefix, mln_text_settings *out) {
    const mln_setting *regex = get(r, prefix, "pattern.Regex");
    const mln_setting *literal = get(r, prefix, "pattern.String");
    const mln_setting *pattern = regex ? regex : literal;
    const mln_setting *behavior = get(r, prefix, "behavior");
    if (!pattern)
        return missing(r, prefix, "pattern.Regex");
    if (pattern->kind != MLN_JSON_STRING)
        return wrong_type(r, pattern, "a string");
    if (pattern->text.length > MLN_TOKENIZER_MAX_PATTERN_BYTES)
        return mln_fail(r->error, MYELIN_ERROR_FORMAT, r->document->file, pattern->offset,
                        "%s: expected at most %d bytes, found %zu", pattern->path,
                        MLN_TOKENIZER_MAX_PATTERN_BYTES, pattern->text.length);
    if (!behavior)
        return missing(r, prefix, "behavior");
    if (!mln_json_text_is(behavior->text, "Isolated"))
        return unsupported(r, behavior, "\"Isolated\"");
    out->splits = true;
    out->pattern_literal = !regex;
    out->pattern = pattern->text;
    return require_false(r, prefix, "invert");
}

static myelin_status read_pre_tokenizer(const reader *r, mln_text_settings *out) {
    if (!present(r, "pre_tokenizer"))
        return mln_fail(r->error, MYELIN_ERROR_UNSUPPORTED, r->document->file, -1,
                        "pre_tokenizer: expected ByteLevel or a Sequence of Split and ByteLevel, "
                        "found none");
    char prefixes[MAX_STEPS][64];
    int count;
    myelin_status status = get_steps(r, "pre_tokenizer", "pretokenizers", prefixes, &count);
    if (status != MYELIN_OK)
        return status;
    if (count < 1 || count > 2)
        return mln_fail(r->error, MYELIN_ERROR_UNSUPPORTED, r->document->file, -1,
                        "pre_tokenizer.pretokenizers: expected Split and ByteLevel, found %d%s "
                        "steps",
                        count, count == MAX_STEPS ? " or more" : "");
    for (int i = 0; i < count && status == MYELIN_OK; i++) {
        bool last = i == count - 1;
        const mln_setting *type = NULL;
        status = get_type(r, prefixes[i], &type);
        if (status == MYELIN_OK && !mln_json_text_is(type->text, last ? "ByteLevel" : "Split"))
            status = unsupported(r, type, last ? "\"ByteLevel\"" : "\"Split\"");
        if (status == MYELIN_OK)
            status = last ? read_byte_level(r, prefixes[i], count == 1, out)
                          : read_split(r, prefixes[i], out);
    }
    return status;
}

/* A template is fine when it puts nothing around the text: one element, the text itself. */
static myelin_status check_template(const reader *r, const char *prefix) {
    const mln_setting *first = get(r, prefix, "single.0"), *second = get(r, prefix, "single.1");
    if (!first)
        return missing(r, prefix, "single");
    if (second || !get(r, prefix, "single.0.Sequence"))
        return unsupported(r, second ? second : first, "a template that adds no tokens");
    return MYELIN_OK;
}

static myelin_status read_post_processor(const reader *r) {
    if (!present(r, "post_processor"))
        return MYELIN_OK;
    char prefixes[MAX_STEPS][64];
    int count;
    myelin_status status = get_steps(r, "post_processor", "processors", prefixes, &count);
    for (int i = 0; i < count && status == MYELIN_OK; i++) {
        const mln_setting *type = NULL;
        status = get_type(r, prefixes[i], &type);
        if (status != MYELIN_OK || mln_json_text_is(type->text, "ByteLevel"))
            continue;
        status = mln_json_text_is(type->text, "TemplateProcessing")
                     ? check_template(r, prefixes[i])
                     : unsupported(r, type, "\"ByteLevel\"");
    }
    return status;
}

static myelin_status read_decoder(const reader *r) {
    if (!present(r, "decoder"))
        return mln_fail(r->error, MYELIN_ERROR_UNSUPPORTED, r->document->file, -1,
                        "decoder: expected ByteLevel, found none");
    const mln_setting *type = NULL;
    myelin_status status = get_type(r, "decoder", &type);
    if (status == MYELIN_OK && !mln_json_text_is(type->text, "ByteLevel"))
        return unsupported(r, type, "\"ByteLevel\"");
    return status;
}

static myelin_status read_model(const reader *r, mln_text_settings *out) {
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const mln_setting *model = mln_document_find(r->document, "model"), *s;
    if (!model)
        return missing(r, "", "model");
    if (model->kind != MLN_JSON_BEGIN_OBJECT)
        return wrong_type(r, model, "an object");
    if ((s = get(r, "model", "type")) != NULL && !mln_json_text_is(s->text, "BPE"))
        return unsupported(r, s, "\"BPE\"");
    if (!get(r, "model", "vocab"))
        return missing(r, "model", "vocab");
    if (!get(r, "model", "merges"))
        return missing(r, "model", "merges");
    if ((s = get(r, "model", "unk_token")) != NULL)
        return unsupported(r, s, "null");
    for (size_t i = 0; i < 2; i++)
        if ((s = get(r, "model", affixes[i])) != NULL &&
            (s->kind != MLN_JSON_STRING || s->text.length != 0))
            return unsupported(r, s, "null or \"\"");
    if ((s = get(r, "model", "dropout")) != NULL &&
        (s->kind != MLN_JSON_NUMBER || strspn(s->text.data, "-0.") != s->text.length))
        return unsupported(r, s, "null or 0");
    myelin_status status = require_false(r, "model", "byte_fallback");
    if (status == MYELIN_OK)
        status = get_bool(r, "model", "ignore_merges", false, &s, &out->ignore_merges);
    return status;
}

myelin_status mln_text_settings_read(mln_text_settings *settings, const mln_document *document,
                                     myelin_error *error) {
    reader r = {document, error};
    *settings = (mln_text_settings){0};
    const mln_setting *version = mln_document_find(document, "version");
    if (version && !mln_json_text_is(version->text, "1.0"))
        return unsupported(&r, version, "\"1.0\"");
    myelin_status status = read_model(&r, settings);
    if (status == MYELIN_OK)
        status = read_normalizer(&r, settings);
    if (status == MYELIN_OK)
        status = read_pre_tokenizer(&r, settings);
    if (status == MYELIN_OK)
        status = read_post_processor(&r);
    if (status == MYELIN_OK)
        status = read_decoder(&r);
    return status;
}
