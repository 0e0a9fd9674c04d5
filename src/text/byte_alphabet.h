/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The alphabet of byte-level BPE: every byte is written as one printable character. The 188 bytes
 * that are printable in Latin-1 stand for themselves (U+0021..7E, A1..AC, AE..FF); the other 68
 * follow in order from U+0100.
 */
#ifndef MLN_TEXT_BYTE_ALPHABET_H
#define MLN_TEXT_BYTE_ALPHABET_H

#include <stdint.h>

static inline uint32_t mln_byte_to_char(unsigned char byte) {
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte >= 0x7F && byte <= 0xA0)
        return 0x121u + (byte - 0x7Fu);
    return byte == 0xAD ? 0x143u : byte;
}

/* -1 for a character outside the alphabet. */
static inline int mln_char_to_byte(uint32_t code) {
    if (code >= 0x100)
        return code <= 0x120   ? (int)(code - 0x100)
               : code <= 0x142 ? (int)(code - 0x121 + 0x7F)
               : code == 0x143 ? 0xAD
                               : -1;
    return mln_byte_to_char((unsigned char)code) == code ? (int)code : -1;
}

#endif
