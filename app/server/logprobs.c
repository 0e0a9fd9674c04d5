/* SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities in the two forms OpenAI has for them. Control tokens have no entry. */
#include <math.h>
#include <string.h>

#include "internal.h"

/* What OpenAI says for a probability of 0, which JSON cannot. */
static const char least_logprob[] = "-9999.0";

void logprobs_records(const myelin_tokenizer *tokenizer, const myelin_piece *piece, out *o) {
    for (size_t i = 0; i < piece->num_tokens; i++) {
        const char *bytes;
        size_t length;
        bool special = true;
        if (!myelin_token_bytes(tokenizer, piece->token_ids[i], &bytes, &length, &special) ||
            special)
            continue;
        token_record record = {piece->token_ids[i], piece->logprobs[i], piece->num_top};
        out_bytes(o, &record, sizeof record);
        for (int32_t j = 0; j < piece->num_top; j++) {
            size_t at = i * (size_t)piece->num_top + (size_t)j;
            likely_token likely = {piece->top_ids[at], piece->top_logprobs[at]};
            out_bytes(o, &likely, sizeof likely);
        }
    }
}

/* The record at *at, which is moved behind it; the likely tokens begin at *likely. */
static token_record next_record(const char *records, size_t *at, size_t *likely) {
    token_record record;
    memcpy(&record, records + *at, sizeof record);
    *likely = *at + sizeof record;
    *at = *likely + (size_t)record.num_top * sizeof(likely_token);
    return record;
}

static likely_token likely_at(const char *records, size_t likely, int32_t index) {
    likely_token token;
    memcpy(&token, records + likely + (size_t)index * sizeof token, sizeof token);
    return token;
}

/* "token": ..., "logprob": ..., "bytes": [...] */
static void write_token(const myelin_tokenizer *tokenizer, int32_t id, float logprob, out *o) {
    const char *bytes = "";
    size_t length = 0;
    (void)myelin_token_bytes(tokenizer, id, &bytes, &length, NULL);
    out_text(o, "\"token\":");
    out_string(o, bytes, length);
    out_text(o, ",\"logprob\":");
    out_real(o, (double)logprob, least_logprob);
    out_text(o, ",\"bytes\":[");
    for (size_t i = 0; i < length; i++)
        out_format(o, "%s%d", i > 0 ? "," : "", (unsigned char)bytes[i]);
    out_text(o, "]");
}

void logprobs_chat(const myelin_tokenizer *tokenizer, const event *tokens, out *o) {
    for (size_t at = 0, likely; at < tokens->length;) {
        token_record record = next_record(tokens->text, &at, &likely);
        out_text(o, o->length > 0 ? ",{" : "{");
        write_token(tokenizer, record.id, record.logprob, o);
        out_text(o, ",\"top_logprobs\":[");
        for (int32_t i = 0; i < record.num_top; i++) {
            likely_token token = likely_at(tokens->text, likely, i);
            out_text(o, i > 0 ? ",{" : "{");
            write_token(tokenizer, token.id, token.logprob, o);
            out_text(o, "}");
        }
        out_text(o, "]}");
    }
}

/* ---- The form of completions ---- */

static bool is_text(const char *bytes, size_t length) {
    out escaped = {0};
    out_escaped(&escaped, bytes, length);
    bool good =
        !escaped.failed && (escaped.length < 3 || strstr(escaped.data, "\xEF\xBF\xBD") == NULL);
    out_free(&escaped);
    return good;
}

/* A token as a string; one that is a part of a character only as "bytes:\xe2\x82". */
static void write_name(const myelin_tokenizer *tokenizer, int32_t id, out *o) {
    const char *bytes = "";
    size_t length = 0;
    (void)myelin_token_bytes(tokenizer, id, &bytes, &length, NULL);
    if (is_text(bytes, length)) {
        out_string(o, bytes, length);
        return;
    }
    out_text(o, "\"bytes:");
    for (size_t i = 0; i < length; i++)
        out_format(o, "\\\\x%02x", (unsigned char)bytes[i]);
    out_text(o, "\"");
}

static size_t characters_of(const myelin_tokenizer *tokenizer, int32_t id) {
    const char *bytes = "";
    size_t length = 0, count = 0;
    (void)myelin_token_bytes(tokenizer, id, &bytes, &length, NULL);
    for (size_t i = 0; i < length; i++)
        count += ((unsigned char)bytes[i] & 0xC0) != 0x80;
    return count;
}

static void write_likely(const myelin_tokenizer *tokenizer, const char *records, size_t likely,
                         const token_record *record, out *o) {
    bool found = false;
    out_text(o, "{");
    for (int32_t i = 0; i < record->num_top; i++) {
        likely_token token = likely_at(records, likely, i);
        found |= token.id == record->id;
        out_text(o, i > 0 ? "," : "");
        write_name(tokenizer, token.id, o);
        out_text(o, ":");
        out_real(o, (double)token.logprob, least_logprob);
    }
    if (!found) {
        out_text(o, record->num_top > 0 ? "," : "");
        write_name(tokenizer, record->id, o);
        out_text(o, ":");
        out_real(o, (double)record->logprob, least_logprob);
    }
    out_text(o, "}");
}

/* One of the four arrays. */
static size_t write_column(const myelin_tokenizer *tokenizer, const char *records, size_t length,
                           size_t offset, int column, out *o) {
    for (size_t at = 0, likely; at < length;) {
        out_text(o, at > 0 ? "," : "");
        token_record record = next_record(records, &at, &likely);
        if (column == 0)
            write_name(tokenizer, record.id, o);
        else if (column == 1)
            out_real(o, (double)record.logprob, least_logprob);
        else if (column == 2)
            write_likely(tokenizer, records, likely, &record, o);
        else
            out_format(o, "%zu", offset);
        offset += characters_of(tokenizer, record.id);
    }
    return offset;
}

size_t logprobs_completion(const myelin_tokenizer *tokenizer, const char *records, size_t length,
                           size_t offset, out *o) {
    static const char *const names[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
    size_t end = offset;
    out_text(o, "{");
    for (int column = 0; column < 4; column++) {
        out_format(o, "%s\"%s\":[", column > 0 ? "," : "", names[column]);
        end = write_column(tokenizer, records, length, offset, column, o);
        out_text(o, "]");
    }
    out_text(o, "}");
    return end;
}
