/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What compare_jinja.py talks to: JSON lines {"template": ..., "variables": {...}} on stdin, each
 * answered by {"text": ...} or {"error": ...}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

static json_t *answer(const json_t *request) {
    const json_t *source = json_object_get(request, "template");
    mln_template *template;
    mln_buffer text = {0};
    myelin_error error = {0};
    myelin_status status = mln_template_parse(&template, json_string_value(source),
                                              json_string_length(source), "t", &error);
    if (status == MYELIN_OK)
        status =
            mln_template_render(template, json_object_get(request, "variables"), 0, &text, &error);
    mln_template_free(template);
    json_t *reply = status == MYELIN_OK
                        ? json_pack("{s:s%}", "text", text.data ? text.data : "", text.length)
                        : json_pack("{s:s}", "error", error.message);
    mln_buffer_free(&text);
    return reply;
}

int main(void) {
    char *line = NULL;
    size_t capacity = 0;
    while (getline(&line, &capacity, stdin) > 0) {
        json_t *request = json_loads(line, JSON_ALLOW_NUL, NULL);
        json_t *reply = request ? answer(request) : NULL;
        if (!reply)
            return 1;
        char *text = json_dumps(reply, 0);
        puts(text ? text : "null");
        fflush(stdout);
        free(text);
        json_decref(reply);
        json_decref(request);
    }
    free(line);
    return 0;
}
