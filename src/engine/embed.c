/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/embed.h"

#include "base/error.h"
#include "engine/internal.h"

myelin_status myelin_embed(myelin_model *model, const int32_t *ids, size_t count, float *embedding,
                           myelin_error *error) {
    if (count < 1 || count > MLN_CONFIG_MAX_POSITIONS)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "number of ids: expected 1 to %d, found %zu", MLN_CONFIG_MAX_POSITIONS,
                        count);
    mln_warn_of_positions(model, count);
    return mln_embed(model->model, ids, (int32_t)count, embedding, error);
}
