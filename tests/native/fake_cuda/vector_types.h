/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FAKE_VECTOR_TYPES_H
#define FAKE_VECTOR_TYPES_H

typedef struct float2 {
    float x, y;
} float2;

typedef struct int2 {
    int x, y;
} int2;

#endif
