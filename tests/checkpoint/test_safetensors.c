/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "checkpoint/expect.h"
#include "checkpoint/safetensors.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

static myelin_status parse(mln_safetensors *out, const char *header, uint64_t data_size,
                           myelin_error *error) {
    size_t length = strlen(header);
    return mln_safetensors_parse(out, header, length, 8 + length + data_size,
                                 "/m/model.safetensors", error);
}

static void test_good(void **state) {
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
        "\"a\":{\"data_offsets\":[0,4],\"extra\":{\"x\":[1,[2]]},\"shape\":[],\"dtype\":\"F32\"},"
        "\"none\":{\"dtype\":\"I64\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
        "\"end\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[16,16]}}  \t\n   ";
    mln_safetensors t;
    myelin_error error = {0};
    if (parse(&t, header, 16, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(t.count, 4);
    assert_string_equal(t.tensors[0].name, "a");
    const mln_file_tensor *a = mln_safetensors_find(&t, "a"), *b = mln_safetensors_find(&t, "b");
    assert_int_equal(a->rank, 0);
    assert_int_equal(a->size, 4);
    assert_int_equal(a->offset, 8 + sizeof header - 1);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->dtype, MLN_FILE_BF16);
    assert_int_equal(b->offset, a->offset + 4);
    assert_int_equal(b->size, 12);
    assert_int_equal(mln_safetensors_find(&t, "none")->size, 0);
    assert_null(mln_safetensors_find(&t, "c"));
    mln_safetensors_free(&t);
    assert_int_equal(parse(&t, "{}", 0, NULL), MYELIN_OK);
    assert_int_equal(t.count, 0);
    assert_null(mln_safetensors_find(&t, "a"));
    mln_safetensors_free(&t);
}

static void test_every_dtype(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t size;
    } dtypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
                  {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
                  {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8}};
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        char header[128];
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%" PRIu64 "]}}",
                 dtypes[i].name, 3 * dtypes[i].size);
        mln_safetensors t;
        assert_int_equal(parse(&t, header, 3 * dtypes[i].size, NULL), MYELIN_OK);
        assert_string_equal(mln_file_dtype_name(t.tensors[0].dtype), dtypes[i].name);
        assert_int_equal(mln_file_dtype_size(t.tensors[0].dtype), dtypes[i].size);
        mln_safetensors_free(&t);
    }
}

#define TENSOR(name, dtype, shape, offsets)                                                        \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_bad_headers(void **state) {
    (void)state;
    static const struct {
        const char *name, *header;
        uint64_t data_size;
        const char *message;
    } cases[] = {
        {"empty", "", 0, "begin with '{', found nothing"},
        {"array", "[]", 0, "begin with '{'"},
        {"leading space", " {}", 0, "begin with '{'"},
        {"cut off", "{\"x\":{\"dtype\":\"F32\",\"sha", 0, "header: invalid JSON"},
        {"cut off after a value", "{" TENSOR("x", "F32", "[1]", "[0,4]"), 4, "invalid JSON"},
        {"garbage after", "{}x", 0, "invalid JSON"},
        {"not UTF-8", "{\"\xff\":1}", 0, "header: expected UTF-8, found byte 0xff (byte 10)"},
        {"overlong UTF-8", "{\"\xc0\xaf\":1}", 0, "expected UTF-8"},
        {"duplicate tensor",
         "{" TENSOR("x", "F32", "[1]", "[0,4]") "," TENSOR("x", "F32", "[1]", "[4,8]") "}", 8,
         "duplicate key \"x\""},
        {"duplicate member",
         "{\"x\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "duplicate key \"dtype\""},
        {"duplicate metadata", "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "duplicate key"},
        {"metadata no object", "{\"__metadata__\":[]}", 0,
         "\"__metadata__\": expected an object, found an array"},
        {"metadata value", "{\"__metadata__\":{\"a\":1}}", 0,
         "a value of __metadata__: expected a string, found a number 1"},
        {"metadata nested", "{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "__metadata__"},
        {"tensor no object", "{\"x\":3}", 0, "\"x\": expected an object, found a number"},
        {"tensor null", "{\"x\":null}", 0, "\"x\": expected an object, found null"},
        {"NUL in a name", "{" TENSOR("x\\u0000y", "F32", "[1]", "[0,4]") "}", 4, "holds a NUL"},
        {"unknown dtype", "{" TENSOR("x", "F4", "[2]", "[0,1]") "}", 1,
         "dtype of \"x\": expected one of the safetensors dtypes, found \"F4\""},
        {"dtype number", "{\"x\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "dtype of \"x\": expected a string, found a number 32"},
        {"no dtype", "{\"x\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
         "tensor \"x\": expected a dtype, found none"},
        {"no shape", "{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "expected a shape"},
        {"no offsets", "{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "expected a data_offsets"},
        {"empty entry", "{\"x\":{}}", 0, "expected a dtype"},
        {"shape number", "{" TENSOR("x", "F32", "1", "[0,4]") "}", 4,
         "shape of \"x\": expected an array, found a number 1"},
        {"shape nested", "{" TENSOR("x", "F32", "[[1]]", "[0,4]") "}", 4, "found an array"},
        {"negative shape", "{" TENSOR("x", "F32", "[-1]", "[0,4]") "}", 4, "found a number -1"},
        {"fractional shape", "{" TENSOR("x", "F32", "[1.5]", "[0,6]") "}", 6, "number 1.5"},
        {"exponent shape", "{" TENSOR("x", "F32", "[1e0]", "[0,4]") "}", 4, "number 1e0"},
        {"huge shape", "{" TENSOR("x", "F32", "[9223372036854775808]", "[0,4]") "}", 4,
         "found a number 9223372036854775808"},
        {"large shape", "{" TENSOR("x", "F32", "[1000000000000]", "[0,4]") "}", 4,
         "expected 4000000000000 bytes (shape and F32), found 4"},
        {"string shape", "{" TENSOR("x", "F32", "[\"1\"]", "[0,4]") "}", 4, "found a string"},
        {"rank 9", "{" TENSOR("x", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1,
         "at most 8 dimensions"},
        {"product overflow", "{" TENSOR("x", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0,
         "shape of \"x\": the number of bytes overflows"},
        {"size overflow", "{" TENSOR("x", "I64", "[4611686018427387904]", "[0,0]") "}", 0,
         "overflows"},
        {"one offset", "{" TENSOR("x", "F32", "[1]", "[0]") "}", 4, "found 1 numbers"},
        {"three offsets", "{" TENSOR("x", "F32", "[1]", "[0,4,8]") "}", 4, "found more"},
        {"negative offset", "{" TENSOR("x", "F32", "[1]", "[-4,0]") "}", 4, "data_offsets"},
        {"fractional offset", "{" TENSOR("x", "F32", "[1]", "[0,4.0]") "}", 4, "number 4.0"},
        {"end before start", "{" TENSOR("x", "F32", "[1]", "[4,0]") "}", 4,
         "data_offsets of \"x\": begin (4) is past end (0)"},
        {"past the end", "{" TENSOR("x", "F32", "[2]", "[0,8]") "}", 6,
         "end (8) is past the 6 bytes of data in the file"},
        {"size too small", "{" TENSOR("x", "F32", "[2]", "[0,4]") "}", 4,
         "expected 8 bytes (shape and F32), found 4"},
        {"overlap",
         "{" TENSOR("x", "F32", "[2]", "[0,8]") "," TENSOR("y", "F32", "[2]", "[4,12]") "}", 12,
         "\"y\" overlaps \"x\""},
        {"same place",
         "{" TENSOR("x", "U8", "[4]", "[0,4]") "," TENSOR("y", "U8", "[4]", "[0,4]") "}", 4,
         "overlaps"},
        {"empty inside another",
         "{" TENSOR("x", "U8", "[4]", "[0,4]") "," TENSOR("y", "U8", "[0]", "[2,2]") "}", 4,
         "\"y\" overlaps \"x\""},
        {"hole", "{" TENSOR("x", "U8", "[2]", "[0,2]") "," TENSOR("y", "U8", "[2]", "[4,6]") "}", 6,
         "hole of 2 bytes before \"y\""},
        {"hole at the start", "{" TENSOR("x", "U8", "[2]", "[1,3]") "}", 3, "hole of 1 bytes"},
        {"trailing bytes", "{" TENSOR("x", "U8", "[2]", "[0,2]") "}", 5, "found 3 more bytes"},
        {"data without tensors", "{}", 1, "found 1 more bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_safetensors t;
        myelin_error error = {0};
        expect_failure(cases[i].name, parse(&t, cases[i].header, cases[i].data_size, &error),
                       &error, MYELIN_ERROR_FORMAT, cases[i].message);
        assert_non_null(strstr(error.message, "model.safetensors: "));
        assert_int_equal(parse(&t, cases[i].header, cases[i].data_size, NULL), MYELIN_ERROR_FORMAT);
    }
}

/* Whole files: what comes before the header, and how long the file is. */
static void test_bad_files(void **state) {
    (void)state;
    static const char good[] = "{" TENSOR("x", "U8", "[6]", "[0,6]") "}";
    const uint64_t length = sizeof good - 1;
    const struct {
        const char *name;
        uint64_t length;  /* as the file says */
        size_t file_size; /* of length, header and data, cut off or filled up */
        const char *message;
    } cases[] = {
        {"0 bytes", length, 0, "expected at least 8 bytes, found 0"},
        {"1 byte", length, 1, "expected at least 8 bytes, found 1"},
        {"7 bytes", length, 7, "expected at least 8 bytes, found 7"},
        {"8 bytes", length, 8, "header length: expected 1 to 0"},
        {"length 0", 0, 8 + length + 6, "header length"},
        {"length past the end", length + 7, 8 + length + 6, "header length"},
        {"length 2^63", UINT64_C(1) << 63, 8 + length + 6, "found 9223372036854775808"},
        {"length 2^64-1", UINT64_MAX, 8 + length + 6, "header length"},
        {"over 100 MB", 100000001, 8 + length + 6, "at most 100000000, found 100000001"},
        {"cut off", length, 8 + length - 3, "header length"},
        {"two bytes short", length, 8 + length + 4, "is past the 4 bytes of data"},
        {"no data", length, 8 + length, "is past the 0 bytes of data"},
        {"trailing bytes", length, 8 + length + 7, "found 1 more bytes"},
    };
    char *directory = temp_directory_make();
    char *path = temp_path(directory, "model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char bytes[256] = {0};
        for (int b = 0; b < 8; b++)
            bytes[b] = (unsigned char)(cases[i].length >> 8 * b);
        memcpy(bytes + 8, good, length);
        temp_write(directory, "model.safetensors", bytes, cases[i].file_size);
        mln_file file;
        mln_safetensors t;
        myelin_error error = {0};
        assert_int_equal(mln_file_open(&file, path, NULL), MYELIN_OK);
        expect_failure(cases[i].name, mln_safetensors_read(&t, &file, &error), &error,
                       MYELIN_ERROR_FORMAT, cases[i].message);
        mln_file_close(&file);
    }
    free(path);
    temp_directory_remove(directory);
}

/* A sparse file of 200 MB whose header would be over the cap: refused without reading it. */
static void test_long_header(void **state) {
    (void)state;
    char *directory = temp_directory_make();
    char *path = temp_path(directory, "model.safetensors");
    static const unsigned char length[8] = {0x01, 0xe1, 0xf5, 0x05}; /* 100,000,001 */
    temp_write(directory, "model.safetensors", length, sizeof length);
    assert_int_equal(truncate(path, 200000000), 0);
    mln_file file;
    mln_safetensors t;
    myelin_error error = {0};
    assert_int_equal(mln_file_open(&file, path, NULL), MYELIN_OK);
    mln_fail_allocation(1, true);
    expect_failure("long header", mln_safetensors_read(&t, &file, &error), &error,
                   MYELIN_ERROR_FORMAT, "at most 100000000");
    mln_fail_allocation(0, false);
    mln_file_close(&file);
    free(path);
    temp_directory_remove(directory);
}

enum { MILLION = 1000000 };

static void test_a_million_tensors(void **state) {
    (void)state;
    mln_buffer header = {0};
    char entry[128];
    for (int i = 0; i < MILLION; i++) {
        /* Scattered names, so that sorting has something to do. */
        int n = snprintf(entry, sizeof entry,
                         "%c\"t%08x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                         i ? ',' : '{', (uint32_t)i * 2654435761u, i, i + 1);
        assert_true(mln_buffer_append(&header, entry, (size_t)n));
    }
    assert_true(mln_buffer_append(&header, "}", 1));
    mln_safetensors t;
    myelin_error error = {0};
    int64_t start = mln_clock_ns();
    myelin_status status = mln_safetensors_parse(&t, header.data, header.length,
                                                 8 + header.length + MILLION, "m", &error);
    double ms = mln_ms_between(start, mln_clock_ns());
    if (status != MYELIN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(t.count, MILLION);
    for (int i = 0; i < MILLION; i += 99991) {
        snprintf(entry, sizeof entry, "t%08x", (uint32_t)i * 2654435761u);
        const mln_file_tensor *found = mln_safetensors_find(&t, entry);
        assert_non_null(found);
        assert_int_equal(found->offset, 8 + header.length + (uint64_t)i);
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    print_message("a million tensors: %.0f ms, peak %ld MiB for a header of %zu MiB\n", ms,
                  usage.ru_maxrss / 1024, header.length >> 20);
    /* Generous, for slow machines and sanitizers; quadratic work would take hours. */
    assert_true(ms < 60000);
    mln_safetensors_free(&t);
    mln_buffer_free(&header);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),        cmocka_unit_test(test_every_dtype),
        cmocka_unit_test(test_bad_headers), cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_long_header), cmocka_unit_test(test_a_million_tensors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
