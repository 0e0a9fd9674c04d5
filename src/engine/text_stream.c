/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/text_stream.h"

#include <string.h>

#include "base/checked.h"
#include "base/error.h"

enum { LOSSY_GROWTH = 3 }; /* one ill-formed byte becomes U+FFFD, three bytes */

myelin_status mln_text_stream_begin(mln_text_stream *stream, const mln_tokenizer *tokenizer,
                                    size_t longest_token, int32_t max_tokens,
                                    const char *const *stops, size_t num_stops, bool stable,
                                    myelin_error *error) {
    *stream = (mln_text_stream){
        .tokenizer = tokenizer, .stops = stops, .num_stops = num_stops, .stable = stable};
    for (size_t i = 0; i < num_stops; i++) {
        size_t length = strlen(stops[i]);
        stream->longest_stop = length > stream->longest_stop ? length : stream->longest_stop;
    }
    uint64_t bytes = 0;
    bool fits = mln_mul((uint64_t)max_tokens + 1, (uint64_t)longest_token * LOSSY_GROWTH, &bytes);
    if (!fits || !mln_buffer_reserve(&stream->text, (size_t)bytes + 1))
        return mln_fail_memory(error, bytes, "text");
    stream->text.data[0] = '\0';
    return MYELIN_OK;
}

void mln_text_stream_free(mln_text_stream *stream) {
    mln_buffer_free(&stream->text);
}

/* Where in text[from ..] the first stop string begins, or SIZE_MAX. */
static size_t find_stop(const mln_text_stream *s, size_t from) {
    size_t first = SIZE_MAX;
    for (size_t i = 0; i < s->num_stops; i++) {
        const char *hit =
            memmem(s->text.data + from, s->text.length - from, s->stops[i], strlen(s->stops[i]));
        size_t at = hit ? (size_t)(hit - s->text.data) : SIZE_MAX;
        first = at < first ? at : first;
    }
    return first;
}

/* Looks for a stop string that the text from old_length on completes; cuts the text there. */
static bool cut_at_stop(mln_text_stream *s, size_t old_length) {
    if (s->num_stops == 0)
        return false;
    size_t reach = s->longest_stop - 1;
    size_t at = find_stop(s, old_length > reach ? old_length - reach : 0);
    if (at == SIZE_MAX)
        return false;
    s->text.length = at;
    s->text.data[at] = '\0';
    s->finished = true;
    return true;
}

myelin_status mln_text_stream_push(mln_text_stream *s, int32_t id, bool *stopped,
                                   myelin_error *error) {
    size_t old_length = s->text.length;
    myelin_status status =
        mln_detokenizer_push(&s->detokenizer, s->tokenizer, id, true, &s->text, error);
    *stopped = status == MYELIN_OK && cut_at_stop(s, old_length);
    return status;
}

myelin_status mln_text_stream_finish(mln_text_stream *s, bool *stopped, myelin_error *error) {
    *stopped = false;
    if (s->finished)
        return MYELIN_OK;
    size_t old_length = s->text.length;
    myelin_status status = mln_detokenizer_flush(&s->detokenizer, &s->text, error);
    *stopped = status == MYELIN_OK && cut_at_stop(s, old_length);
    s->finished = true;
    return status;
}

/* Bytes at the end of the text that are the beginning of a stop string. */
static size_t held_for_stop(const mln_text_stream *s) {
    size_t held = 0;
    for (size_t i = 0; i < s->num_stops; i++) {
        size_t longest = strlen(s->stops[i]) - 1;
        if (longest > s->text.length)
            longest = s->text.length;
        for (size_t n = longest; n > held; n--)
            if (memcmp(s->text.data + s->text.length - n, s->stops[i], n) == 0)
                held = n;
    }
    return held;
}

size_t mln_text_stream_certain(const mln_text_stream *s) {
    return s->finished ? s->text.length : s->text.length - held_for_stop(s);
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

size_t mln_text_stream_release(mln_text_stream *s, const char **piece) {
    size_t end = mln_text_stream_certain(s);
    if (s->stable && s->first_released && !s->finished)
        while (end > s->released && !is_space(s->text.data[end]))
            end--;
    if (end < s->released)
        end = s->released;
    *piece = s->text.data + s->released;
    size_t length = end - s->released;
    s->released = end;
    s->first_released = s->first_released || length > 0;
    return length;
}
