/* SPDX-License-Identifier: Apache-2.0 */
#include "text/small.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/byte_alphabet.h"

static const char usual_split[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
    "\" ?\\\\p{L}+|\\\\s+|.\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
    "\"add_prefix_space\":false,\"trim_offsets\":false,\"use_regex\":false}]}";
static const char usual_decoder[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                                    "\"trim_offsets\":false,\"use_regex\":false}";

static void put(mln_buffer *out, const char *text) {
    mln_buffer_append(out, text, strlen(text));
}

static void put_part(mln_buffer *out, const char *key, const char *given, const char *usual) {
    const char *value = given ? given : usual;
    if (!*value)
        return;
    put(out, "\"");
    put(out, key);
    put(out, "\":");
    put(out, value);
    put(out, ",");
}

static void put_vocab(mln_buffer *out, const char *more) {
    put(out, "\"vocab\":{");
    for (int b = 0; b < 256; b++) {
        unsigned char form[MLN_UTF8_MAX];
        char id[16];
        size_t n = mln_utf8_encode(mln_byte_to_char((unsigned char)b), form);
        put(out, b ? ",\"" : "\"");
        if (b == '"' || b == '\\')
            put(out, "\\");
        mln_buffer_append(out, form, n);
        snprintf(id, sizeof id, "\":%d", b);
        put(out, id);
    }
    put(out, more);
    put(out, "},");
}

mln_buffer small_document(const small_parts *parts) {
    mln_buffer out = {0};
    put(&out, "{");
    put(&out, parts->top ? parts->top : "\"version\":\"1.0\",\"truncation\":null,");
    put_part(&out, "added_tokens", parts->added_tokens, "[]");
    put_part(&out, "normalizer", parts->normalizer, "{\"type\":\"NFC\"}");
    put_part(&out, "pre_tokenizer", parts->pre_tokenizer, usual_split);
    put_part(&out, "post_processor", parts->post_processor, "null");
    put_part(&out, "decoder", parts->decoder, usual_decoder);
    if (parts->model) {
        put_part(&out, "model", parts->model, "");
    } else {
        put(&out, "\"model\":{\"type\":\"BPE\",");
        put(&out, parts->model_options ? parts->model_options : "");
        put_vocab(&out, parts->vocab ? parts->vocab : ",\"ab\":256,\"abc\":257");
        put(&out, "\"merges\":");
        put(&out, parts->merges ? parts->merges : "[[\"a\",\"b\"],[\"ab\",\"c\"]]");
        put(&out, "},");
    }
    put(&out, "\"padding\":null}");
    return out;
}
