/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/score.h"

#include "base/error.h"
#include "engine/internal.h"

myelin_status myelin_score(myelin_model *model, const int32_t *ids, size_t count, float *logprobs,
                           int32_t num_top, int32_t *top_ids, float *top_logprobs,
                           myelin_error *error) {
    int32_t vocab_size = model->checkpoint->config.model.vocab_size;
    if (count < 1 || count > MLN_CONFIG_MAX_POSITIONS)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "number of ids: expected 1 to %d, found %zu", MLN_CONFIG_MAX_POSITIONS,
                        count);
    if (num_top < 0 || num_top > vocab_size)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1, "top: expected 0 to %d, found %d",
                        (int)vocab_size, (int)num_top);
    mln_warn_of_positions(model, count);
    mln_top top = {num_top, top_ids, top_logprobs};
    myelin_status status = mln_score(model->model, ids, (int32_t)count, logprobs, &top, error);
    for (int32_t i = top.count; status == MYELIN_OK && i < num_top; i++) {
        top_ids[i] = -1; /* NaN logits: fewer than asked for */
        top_logprobs[i] = 0;
    }
    return status;
}
