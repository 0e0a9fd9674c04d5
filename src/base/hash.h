/* SPDX-License-Identifier: Apache-2.0 */
/* A keyed hash for tables whose keys come from files: collisions cannot be prepared in advance. */
#ifndef MLN_BASE_HASH_H
#define MLN_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

typedef struct mln_hash_key {
    uint64_t k0, k1;
} mln_hash_key;

/* A fresh random key. */
mln_hash_key mln_hash_key_make(void);

/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF"). */
uint64_t mln_hash(mln_hash_key key, const void *data, size_t length);

#endif
