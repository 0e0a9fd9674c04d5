/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a template, parsed and rendered with a conversation's variables. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char conversation[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \" Hi, \\u00e9\\ud83c\\udf89 \"},"
    " {\"role\": \"assistant\", \"content\": null, \"n\": [1, 2.5, -3]}], \"tools\": null,"
    " \"s\": \"a,b\", \"n\": 3, \"d\": {\"k\": \"v\", \"items\": []}, \"t\": true}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    myelin_error error = {0};
    mln_template *template;
    bool failing = size > 0 && data[size - 1] % 8 == 0; /* the n-th allocation fails */
    json_t *variables = json_loads(conversation, 0, NULL);
    mln_buffer out = {0};
    if (failing)
        mln_fail_allocation(1 + data[0] % 32, false);
    myelin_status status = mln_template_parse(&template, (const char *)data, size, "t", &error);
    if (status == MYELIN_OK)
        status = mln_template_render(template, variables, 0, &out, &error);
    mln_fail_allocation(0, false);
    if (status != MYELIN_OK && (out.length || !error.message[0]))
        abort();
    mln_buffer_free(&out);
    mln_template_free(template);
    json_decref(variables);
    return 0;
}
