/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/score.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"
#include "tensor/ops.h"

enum { CHUNK = 32 }; /* rows of logits held at once */

/* Scores one chunk: the logits of row i judge the token after it. */
static myelin_status score_chunk(const mln_decoder *d, const mln_sequence *s, int32_t begin,
                                 int32_t rows, float *logits, float *logprobs, mln_top *top,
                                 myelin_error *error) {
    int32_t vocab_size = s->model->checkpoint->config.model.vocab_size;
    myelin_span span = {.sequence = s->cache,
                        .ids = s->ids + begin,
                        .count = rows,
                        .num_logits = rows,
                        .logits = logits};
    char reason[256] = "";
    myelin_error_buffer buffer = {reason, sizeof reason};
    myelin_status status = d->model->plugin->forward(d->context, &span, 1, &buffer);
    status = mln_plugin_result(status, true, "forward", &buffer);
    if (status != MYELIN_OK)
        return mln_fail(error, status, NULL, -1, "%s: %s", d->model->plugin->name, reason);
    for (int32_t i = 0; i < rows; i++) {
        float *row = logits + (size_t)i * (size_t)vocab_size;
        bool last = begin + i + 1 == s->count;
        if (last && top->count == 0)
            break;
        mln_log_softmax(row, row, vocab_size);
        if (last)
            mln_top_of(row, vocab_size, top);
        else
            logprobs[begin + i] = row[s->ids[begin + i + 1]];
    }
    return MYELIN_OK;
}

myelin_status mln_score(const mln_model *model, const int32_t *ids, int32_t count, float *logprobs,
                        mln_top *top, myelin_error *error) {
    size_t vocab_size = (size_t)model->checkpoint->config.model.vocab_size;
    mln_sequence *sequence = NULL;
    mln_decoder *decoder = NULL;
    float *logits = NULL;
    myelin_status status = mln_sequence_create(&sequence, model, count, error);
    if (status == MYELIN_OK)
        status = mln_sequence_append(sequence, ids, (size_t)count, error);
    if (status == MYELIN_OK)
        status = mln_decoder_create(&decoder, model, 1, count, error);
    if (status == MYELIN_OK) {
        logits = mln_alloc(CHUNK * vocab_size, sizeof *logits);
        if (!logits)
            status = mln_fail_memory(error, CHUNK * vocab_size * sizeof *logits, "logits");
    }
    for (int32_t begin = 0; status == MYELIN_OK && begin < count; begin += CHUNK) {
        int32_t rows = count - begin < CHUNK ? count - begin : CHUNK;
        status = score_chunk(decoder, sequence, begin, rows, logits, logprobs, top, error);
    }
    free(logits);
    mln_decoder_free(decoder);
    mln_sequence_free(sequence);
    return status;
}
