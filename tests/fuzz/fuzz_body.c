/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the body of a request: parsed, and read as conversations, tools and schemas. What is
 * refused is refused with a status and a sentence; what is read parses as the library wants it.
 */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "app/server/messages.h"
#include "app/server/out.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good, const problem *p) {
    if (!good && (p->status < 400 || p->message[0] == '\0'))
        abort();
}

/* Whether a message is a JSON string once escaped, whatever it quotes. */
static void check_message(const problem *p) {
    out text = {0};
    out_string_or_null(&text, p->message);
    json_t *value = json_loadb(text.data, text.length, JSON_DECODE_ANY, NULL);
    if (!json_is_string(value))
        abort();
    json_decref(value);
    out_free(&text);
}

static void read_all(const json_t *body) {
    problem p = {0};
    tool_choice choice;
    json_t *tools;
    char *schema;
    json_t *messages = messages_from_chat(json_object_get(body, "messages"), "messages", &p);
    check(messages != NULL, &p);
    json_decref(messages);
    messages = messages_from_items(json_object_get(body, "input"), "x", 1, &p);
    check(messages != NULL, &p);
    json_decref(messages);
    for (int flat = 0; flat < 2; flat++) {
        bool good = tools_read(body, flat != 0, &tools, &choice, &p);
        check(good, &p);
        if (!good && tools != NULL)
            abort();
        json_decref(tools);
        const json_t *format = json_object_get(body, "format");
        check(format_read(json_is_object(format) ? format : NULL, "format", flat != 0, &schema, &p),
              &p);
        free(schema);
    }
    check_message(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    problem p = {0};
    json_t *body = body_parse((const char *)data, size, &p);
    check(body != NULL, &p);
    if (body != NULL)
        read_all(body);
    else
        check_message(&p);
    json_decref(body);
    return 0;
}
