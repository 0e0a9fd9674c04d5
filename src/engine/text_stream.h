/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens in, text out: what may be shown now, what must wait because it could still become a
 * character or a stop string, and where the text ends.
 */
#ifndef MLN_ENGINE_TEXT_STREAM_H
#define MLN_ENGINE_TEXT_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "text/tokenizer.h"

typedef struct mln_text_stream {
    const mln_tokenizer *tokenizer;
    const char *const *stops; /* borrowed */
    size_t num_stops;
    size_t longest_stop; /* bytes */
    bool stable;         /* release whole words only */
    bool first_released;
    bool finished; /* nothing more can come: all text is releasable */
    mln_detokenizer detokenizer;
    mln_buffer text; /* all text so far; cut where a stop string began */
    size_t released; /* bytes handed out */
} mln_text_stream;

/* Takes memory for all the text max_tokens tokens of at most longest_token bytes can make. */
myelin_status mln_text_stream_begin(mln_text_stream *stream, const mln_tokenizer *tokenizer,
                                    size_t longest_token, int32_t max_tokens,
                                    const char *const *stops, size_t num_stops, bool stable,
                                    myelin_error *error);
void mln_text_stream_free(mln_text_stream *stream);

/* Adds a token's text. *stopped: a stop string has occurred, and the stream is finished. */
myelin_status mln_text_stream_push(mln_text_stream *stream, int32_t id, bool *stopped,
                                   myelin_error *error);
/* No more tokens: what was held back becomes text, up to a stop string that this completes. */
myelin_status mln_text_stream_finish(mln_text_stream *stream, bool *stopped, myelin_error *error);

/* Bytes of the text so far that are certain: no stop string can begin in them any more. */
size_t mln_text_stream_certain(const mln_text_stream *stream);

/* Hands out the text that may be shown now, possibly none; valid until the stream changes. */
size_t mln_text_stream_release(mln_text_stream *stream, const char **piece);

#endif
