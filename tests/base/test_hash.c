/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"

/*
 * SipHash-1-3 of the bytes 0, 1, 2, ... under the key 00 01 .. 0f, from an implementation of the
 * paper's pseudocode in another language that gives the paper's own SipHash-2-4 value,
 * a129ca6149be45e5 for 15 bytes.
 */
static void known_values(void **state) {
    (void)state;
    static const struct {
        size_t length;
        uint64_t hash;
    } cases[] = {
        {0, UINT64_C(0xabac0158050fc4dc)},   {1, UINT64_C(0xc9f49bf37d57ca93)},
        {7, UINT64_C(0xd3927d989bb11140)},   {8, UINT64_C(0x369095118d299a8e)},
        {9, UINT64_C(0x25a48eb36c063de4)},   {15, UINT64_C(0xd320d86d2a519956)},
        {16, UINT64_C(0xcc4fdd1a7d908b66)},  {63, UINT64_C(0x9d199062b7bbb3a8)},
        {300, UINT64_C(0x4016a23bda5a2224)},
    };
    unsigned char bytes[300];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)i;
    mln_hash_key key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(mln_hash(key, bytes, cases[i].length) == cases[i].hash);
}

static void alignment_does_not_matter(void **state) {
    (void)state;
    unsigned char bytes[64 + 8];
    mln_hash_key key = {1, 2};
    char text[] = "the same forty bytes at every alignment!";
    uint64_t hash = mln_hash(key, text, 40);
    for (size_t shift = 0; shift < 8; shift++) {
        memcpy(bytes + shift, text, 40);
        assert_true(mln_hash(key, bytes + shift, 40) == hash);
    }
}

/* Each bit of key and text changes about half of the 64 bits of the hash. */
static void every_bit_counts(void **state) {
    (void)state;
    unsigned char text[19] = "nineteen bytes long";
    mln_hash_key key = {3, 5};
    uint64_t hash = mln_hash(key, text, sizeof text);
    for (size_t bit = 0; bit < 8 * sizeof text + 128; bit++) {
        mln_hash_key other = key;
        unsigned char changed[sizeof text];
        memcpy(changed, text, sizeof text);
        if (bit < 64)
            other.k0 ^= UINT64_C(1) << bit;
        else if (bit < 128)
            other.k1 ^= UINT64_C(1) << (bit - 64);
        else
            changed[(bit - 128) / 8] ^= (unsigned char)(1u << (bit % 8));
        int flipped = __builtin_popcountll(hash ^ mln_hash(other, changed, sizeof changed));
        assert_in_range(flipped, 12, 52);
    }
}

static void keys_differ(void **state) {
    (void)state;
    mln_hash_key a = mln_hash_key_make(), b = mln_hash_key_make();
    assert_true(a.k0 != b.k0 || a.k1 != b.k1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(alignment_does_not_matter),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(keys_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
