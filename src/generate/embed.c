/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/embed.h"

#include <math.h>

#include "base/error.h"

/* Reads the whole sequence; every call writes the hidden state of its last token. */
static myelin_status read_all(const mln_decoder *d, const mln_sequence *s, float *hidden,
                              myelin_error *error) {
    const myelin_plugin *plugin = d->model->plugin;
    int32_t step = mln_step_tokens(plugin);
    for (int32_t begin = 0; begin < s->count; begin += step) {
        int32_t rest = s->count - begin;
        myelin_span span = {
            .sequence = s->cache, .ids = s->ids + begin, .count = rest < step ? rest : step};
        char reason[256] = "";
        myelin_error_buffer buffer = {reason, sizeof reason};
        myelin_status status = plugin->forward_hidden(d->context, &span, 1, hidden, &buffer);
        status = mln_plugin_result(status, true, "forward_hidden", &buffer);
        if (status != MYELIN_OK)
            return mln_fail(error, status, NULL, -1, "%s: %s", plugin->name, reason);
    }
    return MYELIN_OK;
}

/* x[count] of length 1, in place. */
static myelin_status normalise(float *x, int32_t count, myelin_error *error) {
    double squares = 0;
    for (int32_t i = 0; i < count; i++)
        squares += (double)x[i] * (double)x[i];
    double length = sqrt(squares);
    if (!(length > 0) || !isfinite(length))
        return mln_fail(error, MYELIN_ERROR_FORMAT, NULL, -1,
                        "the hidden state's length is %g: expected a positive number (are the "
                        "weights damaged?)",
                        length);
    for (int32_t i = 0; i < count; i++)
        x[i] = (float)((double)x[i] / length);
    return MYELIN_OK;
}

myelin_status mln_embed(const mln_model *model, const int32_t *ids, int32_t count, float *embedding,
                        myelin_error *error) {
    if (!model->plugin->forward_hidden)
        return mln_fail(error, MYELIN_ERROR_UNSUPPORTED, NULL, -1,
                        "%s: the plug-in makes no embeddings (forward_hidden is NULL)",
                        model->plugin->name);
    mln_sequence *sequence = NULL;
    mln_decoder *decoder = NULL;
    myelin_status status = mln_sequence_create(&sequence, model, count, error);
    if (status == MYELIN_OK)
        status = mln_sequence_append(sequence, ids, (size_t)count, error);
    if (status == MYELIN_OK)
        status = mln_decoder_create(&decoder, model, 1, count, error);
    if (status == MYELIN_OK)
        status = read_all(decoder, sequence, embedding, error);
    if (status == MYELIN_OK)
        status = normalise(embedding, model->config.hidden_size, error);
    mln_decoder_free(decoder);
    mln_sequence_free(sequence);
    return status;
}
