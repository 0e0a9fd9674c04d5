/* SPDX-License-Identifier: Apache-2.0 */
/* Text being put together: JSON as it goes out, character by character. */
#ifndef MLN_SERVER_OUT_H
#define MLN_SERVER_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/myelin.h"

/* Zero-initialise. What does not fit in memory is left out and `failed` stays set. */
typedef struct out {
    char *data;
    size_t length, capacity;
    bool failed;
} out;

void out_free(out *o); /* leaves it zeroed */
/* Empties it and keeps its memory. */
void out_reset(out *o);

void out_bytes(out *o, const void *bytes, size_t length);
void out_text(out *o, const char *text);
void out_format(out *o, const char *format, ...) MYELIN_PRINTF(2, 3);

/*
 * A JSON string, quotes included; ill-formed UTF-8 becomes U+FFFD. What some readers of streams
 * take for the end of a line (U+0085, U+2028, U+2029) is escaped.
 */
void out_string(out *o, const char *text, size_t length);
/* The same of a NUL-terminated text, null for NULL. */
void out_string_or_null(out *o, const char *text);
/* The same without the quotes. */
void out_escaped(out *o, const char *text, size_t length);
/* A JSON number that is read back as the same float; one that JSON cannot say becomes `other`. */
void out_real(out *o, double value, const char *other);
void out_base64(out *o, const void *bytes, size_t length);

#endif
