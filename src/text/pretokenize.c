/* SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenize.h"

#include <pcre2.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/utf8.h"
#include "text/pattern.h"
#include "text/stand_in.h"

enum { FIRST_JIT_STACK = 32 * 1024 };

static void *pattern_alloc(size_t size, void *data) {
    (void)data;
    return mln_alloc(size, 1);
}

static void pattern_release(void *memory, void *data) {
    (void)data;
    free(memory);
}

static myelin_status fail_compile(int code, size_t at, const char *file, myelin_error *error) {
    if (code == PCRE2_ERROR_HEAP_FAILED)
        return mln_fail_memory(error, 0, "a pattern");
    PCRE2_UCHAR reason[128] = "unknown error";
    pcre2_get_error_message(code, reason, sizeof reason);
    return mln_fail(error, MYELIN_ERROR_FORMAT, file, -1,
                    "pre_tokenizer: expected a regular expression, found at its byte %zu: %s", at,
                    (const char *)reason);
}

myelin_status mln_splitter_compile(mln_splitter *splitter, mln_json_text pattern, bool literal,
                                   const char *file, myelin_error *error) {
    myelin_status status = literal ? MYELIN_OK : mln_pattern_check(pattern, file, error);
    if (status != MYELIN_OK)
        return status;
    splitter->literal = literal;
    splitter->memory = pcre2_general_context_create(pattern_alloc, pattern_release, NULL);
    pcre2_compile_context *context =
        splitter->memory ? pcre2_compile_context_create(splitter->memory) : NULL;
    if (!context)
        return mln_fail_memory(error, 0, "a pattern");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    int code = 0;
    size_t at = 0;
    uint32_t options = literal ? PCRE2_LITERAL | PCRE2_UTF : PCRE2_UTF | PCRE2_UCP;
    splitter->code = pcre2_compile((PCRE2_SPTR)pattern.data, pattern.length,
                                   options | PCRE2_NO_UTF_CHECK, &code, &at, context);
    pcre2_compile_context_free(context);
    if (!splitter->code)
        return fail_compile(code, at, file, error);
    /* Where JIT is missing, cannot do the pattern or may not have memory that is both written to
     * and executed (MemoryDenyWriteExecute, SELinux), the interpreter serves. */
    pcre2_jit_compile(splitter->code, PCRE2_JIT_COMPLETE);
    return MYELIN_OK;
}

void mln_splitter_free(mln_splitter *splitter) {
    pcre2_code_free(splitter->code);
    pcre2_general_context_free(splitter->memory);
    *splitter = (mln_splitter){0};
}

static bool prepare(mln_splits *s) {
    if (!s->match)
        s->match = pcre2_match_data_create_from_pattern(s->splitter->code, s->splitter->memory);
    if (!s->context) {
        s->context = pcre2_match_context_create(s->splitter->memory);
        if (s->context) {
            pcre2_set_match_limit(s->context, MLN_SPLIT_MAX_STEPS);
            pcre2_set_heap_limit(s->context, MLN_SPLIT_MAX_HEAP_KIB);
        }
    }
    return s->match && s->context;
}

myelin_status mln_splits_begin(mln_splits *s, const mln_splitter *splitter, const char *text,
                               size_t length, myelin_error *error) {
    s->splitter = splitter;
    s->subject = text;
    if (!prepare(s) ||
        (!splitter->literal && !mln_stand_in_text(text, length, &s->shown, &s->subject)))
        return mln_fail_memory(error, length, "splitting a text");
    s->length = length;
    s->emitted = s->search = s->match_start = s->match_end = 0;
    s->matched = s->interpret = false;
    return MYELIN_OK;
}

/* A larger stack for JIT, then the interpreter. */
static myelin_status help_jit(mln_splits *s, myelin_error *error) {
    if (s->stack) {
        s->interpret = true;
        return MYELIN_OK;
    }
    s->stack =
        pcre2_jit_stack_create(FIRST_JIT_STACK, MLN_SPLIT_MAX_JIT_STACK, s->splitter->memory);
    if (!s->stack)
        return mln_fail_memory(error, MLN_SPLIT_MAX_JIT_STACK, "splitting a text");
    pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return MYELIN_OK;
}

/* *found tells whether the pattern matches at or after s->search. */
static myelin_status match(mln_splits *s, bool *found, myelin_error *error) {
    for (;;) {
        uint32_t options = PCRE2_NO_UTF_CHECK | (s->interpret ? PCRE2_NO_JIT : 0u);
        int rc = pcre2_match(s->splitter->code, (PCRE2_SPTR)s->subject, s->length, s->search,
                             options, s->match, s->context);
        *found = rc >= 0;
        if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH)
            return MYELIN_OK;
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
            myelin_status status = help_jit(s, error);
            if (status != MYELIN_OK)
                return status;
            continue;
        }
        if (rc == PCRE2_ERROR_NOMEMORY)
            return mln_fail_memory(error, s->length, "splitting a text");
        PCRE2_UCHAR reason[128] = "unknown error";
        pcre2_get_error_message(rc, reason, sizeof reason);
        return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                        "splitting the text failed at byte %zu of a part of %zu bytes: %s",
                        s->search, s->length, (const char *)reason);
    }
}

/*
 * Finds the next match as the reference's iterator does: an empty match right behind the match
 * before it does not count, and the search moves on by a character.
 */
static myelin_status next_match(mln_splits *s, bool *found, myelin_error *error) {
    *found = false;
    while (s->search <= s->length) {
        myelin_status status = match(s, found, error);
        if (status != MYELIN_OK || !*found)
            return status;
        const size_t *span = pcre2_get_ovector_pointer(s->match);
        if (span[0] != span[1] || !s->matched || s->match_end != span[1]) {
            s->match_start = span[0];
            s->match_end = s->search = span[1];
            s->matched = true;
            return MYELIN_OK;
        }
        *found = false;
        uint32_t code;
        s->search += s->search == s->length
                         ? 1
                         : mln_utf8_decode((const unsigned char *)s->subject + s->search,
                                           s->length - s->search, &code);
    }
    return MYELIN_OK;
}

static void emit(mln_splits *s, size_t end, size_t *start, size_t *length) {
    *start = s->emitted;
    *length = end - s->emitted;
    s->emitted = end;
}

myelin_status mln_splits_next(mln_splits *s, size_t *start, size_t *length, myelin_error *error) {
    *length = 0;
    for (;;) {
        if (s->emitted < s->match_start)
            emit(s, s->match_start, start, length);
        else if (s->emitted < s->match_end)
            emit(s, s->match_end, start, length);
        if (*length || s->emitted == s->length)
            return MYELIN_OK;
        bool found;
        myelin_status status = next_match(s, &found, error);
        if (status != MYELIN_OK)
            return status;
        if (!found) {
            s->search = s->length + 1;
            emit(s, s->length, start, length);
            return MYELIN_OK;
        }
    }
}

void mln_splits_free(mln_splits *s) {
    pcre2_match_data_free(s->match);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    mln_buffer_free(&s->shown);
    *s = (mln_splits){0};
}
