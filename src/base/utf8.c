/* SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

#include <string.h>

/* What the second byte may be after `lead`; narrower than 80..BF for E0, ED, F0 and F4. */
static void second_byte_range(unsigned char lead, unsigned char *low, unsigned char *high) {
    *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
}

static size_t length_from_lead(unsigned char lead) {
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* Bytes of text that agree with the form `lead` announces, the lead included. */
static size_t matching_bytes(const unsigned char *text, size_t length, size_t need) {
    unsigned char low, high;
    second_byte_range(text[0], &low, &high);
    size_t i = 1;
    while (i < need && i < length && text[i] >= low && text[i] <= high) {
        low = 0x80;
        high = 0xBF;
        i++;
    }
    return i;
}

size_t mln_utf8_decode(const unsigned char *text, size_t length, uint32_t *code) {
    size_t need = length_from_lead(text[0]);
    if (need == 1) {
        *code = text[0];
        return 1;
    }
    size_t matched = need ? matching_bytes(text, length, need) : 1;
    if (matched != need) {
        *code = (uint32_t)matched;
        return 0;
    }
    uint32_t value = text[0] & (0xFFu >> (need + 1));
    for (size_t i = 1; i < need; i++)
        value = value << 6 | (text[i] & 0x3Fu);
    *code = value;
    return need;
}

size_t mln_utf8_encode(uint32_t code, unsigned char out[MLN_UTF8_MAX]) {
    if (code < 0x80) {
        out[0] = (unsigned char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (unsigned char)(0x80u | (code & 0x3Fu));
    out[0] = (unsigned char)(((0xF00u >> n) & 0xFFu) | code);
    return n;
}

size_t mln_utf8_valid_prefix(const char *text, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text;
    size_t i = 0;
    while (i < length) {
        uint64_t word;
        if (length - i >= sizeof word) {
            memcpy(&word, bytes + i, sizeof word);
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof word;
                continue;
            }
        }
        uint32_t code;
        size_t n = mln_utf8_decode(bytes + i, length - i, &code);
        if (n == 0)
            return i;
        i += n;
    }
    return i;
}

size_t mln_utf8_incomplete_suffix(const char *text, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text;
    for (size_t back = 1; back <= 3 && back <= length; back++) {
        unsigned char byte = bytes[length - back];
        if ((byte & 0xC0u) == 0x80u)
            continue;
        size_t need = length_from_lead(byte);
        bool open = need > back && matching_bytes(bytes + length - back, back, need) == back;
        return open ? back : 0;
    }
    return 0;
}
