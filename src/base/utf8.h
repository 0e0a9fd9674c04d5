/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as the Unicode Standard (table 3-7) defines it: no surrogates, no overlong forms. */
#ifndef MLN_BASE_UTF8_H
#define MLN_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MLN_UTF8_MAX = 4 }; /* bytes of the longest character */

/*
 * Decodes the character at text[0 .. length), length at least 1. Returns its length in bytes and
 * sets *code. Returns 0 when the bytes are not a character; then *code is the number of bytes (at
 * least 1) of the maximal ill-formed part, which a lossy decoder replaces by one U+FFFD.
 */
size_t mln_utf8_decode(const unsigned char *text, size_t length, uint32_t *code);

/* Writes `code` (a scalar value) and returns the bytes written, 1 to 4. */
size_t mln_utf8_encode(uint32_t code, unsigned char out[MLN_UTF8_MAX]);

/* Length of the longest well-formed prefix; equal to `length` when all of it is well-formed. */
size_t mln_utf8_valid_prefix(const char *text, size_t length);

/*
 * How many bytes at the end of text could still become a character with more bytes (0 to 3). Bytes
 * that can never become one are not counted.
 */
size_t mln_utf8_incomplete_suffix(const char *text, size_t length);

#endif
