/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/philox.h"

enum { ROUNDS = 10 };
static const uint32_t multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
static const uint32_t weyl[2] = {0x9E3779B9u, 0xBB67AE85u};

void mln_philox(uint32_t out[4], uint64_t key, const uint32_t counter[4]) {
    uint32_t x[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k[2] = {(uint32_t)key, (uint32_t)(key >> 32)};
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t a = (uint64_t)multiplier[0] * x[0];
        uint64_t b = (uint64_t)multiplier[1] * x[2];
        x[0] = (uint32_t)(b >> 32) ^ x[1] ^ k[0];
        x[1] = (uint32_t)b;
        x[2] = (uint32_t)(a >> 32) ^ x[3] ^ k[1];
        x[3] = (uint32_t)a;
        k[0] += weyl[0];
        k[1] += weyl[1];
    }
    for (int i = 0; i < 4; i++)
        out[i] = x[i];
}

double mln_uniform(uint64_t seed, uint32_t position, uint32_t id) {
    uint32_t word[4], counter[4] = {id, position, 0, 0};
    mln_philox(word, seed, counter);
    uint64_t bits = (uint64_t)word[0] << 21 ^ word[1] >> 11;
    return ((double)(bits & ((UINT64_C(1) << 53) - 1)) + 0.5) * 0x1p-53;
}
