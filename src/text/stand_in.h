/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bridges what PCRE2 and the reference's regular expressions (Oniguruma 6.9.10, Unicode 16) know
 * about characters: PCRE2 is shown, in place of a character that it knows less of, one of the same
 * general category and the same length in UTF-8, so that offsets stay as they are.
 */
#ifndef MLN_TEXT_STAND_IN_H
#define MLN_TEXT_STAND_IN_H

#include "base/memory.h"

/* The character to show for `code`: itself but for a few. */
uint32_t mln_stand_in(uint32_t code);

/*
 * Sets *out to text (well-formed UTF-8) as PCRE2 is to see it: text itself when it holds no such
 * character, else a copy of the same length in *copy. False when out of memory.
 */
bool mln_stand_in_text(const char *text, size_t length, mln_buffer *copy, const char **out);

#endif
