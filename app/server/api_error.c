/* SPDX-License-Identifier: Apache-2.0 */
#include "api_error.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { API_MESSAGE_SIZE = 1024 };

const char *api_error_type(int status) {
    switch (status) {
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    case 503:
        return "service_unavailable_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

/* Text that jansson takes: bytes beyond ASCII become '?' when they are not UTF-8 as a whole. */
static json_t *message_string(const char *message) {
    json_t *string = json_string(message);
    if (string != NULL)
        return string;
    char plain[API_MESSAGE_SIZE];
    size_t length = 0;
    for (; message[length] != '\0' && length < sizeof plain - 1; length++)
        plain[length] = (unsigned char)message[length] < 0x80 ? message[length] : '?';
    plain[length] = '\0';
    return json_string(plain);
}

char *api_error_text(int status, const char *param, const char *code, const char *message) {
    json_t *object =
        json_pack("{s:{s:o,s:s,s:s?,s:s?}}", "error", "message", message_string(message), "type",
                  api_error_type(status), "param", param, "code", code);
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text;
}

void api_error_respond(http_exchange *exchange, int status, const char *param, const char *code,
                       const char *format, ...) {
    static const char fallback[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,"
        "\"code\":null}}";
    char message[API_MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    char *text = api_error_text(status, param, code, message);
    const char *body = text != NULL ? text : fallback;
    http_respond(exchange, status, "application/json", NULL, 0, body, strlen(body));
    free(text);
}
