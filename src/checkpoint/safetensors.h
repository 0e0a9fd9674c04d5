/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors format: 8 bytes of header length (little-endian), a JSON header, the data.
 * https://github.com/huggingface/safetensors describes it; like its reference reader this one
 * demands that the tensors cover the data exactly, without holes or overlaps.
 */
#ifndef MLN_CHECKPOINT_SAFETENSORS_H
#define MLN_CHECKPOINT_SAFETENSORS_H

#include "base/file.h"
#include "base/memory.h"
#include "myelin/status.h"

/* The reference reader's cap on the header, in bytes. */
#define MLN_SAFETENSORS_MAX_HEADER UINT64_C(100000000)
enum { MLN_SAFETENSORS_MAX_RANK = 8, MLN_SAFETENSORS_MAX_TENSORS = 4 * 1024 * 1024 };

/* Every dtype of the format, so that a legal file is never called malformed. */
typedef enum mln_file_dtype {
    MLN_FILE_BOOL,
    MLN_FILE_U8,
    MLN_FILE_I8,
    MLN_FILE_F8_E5M2,
    MLN_FILE_F8_E4M3,
    MLN_FILE_I16,
    MLN_FILE_U16,
    MLN_FILE_F16,
    MLN_FILE_BF16,
    MLN_FILE_I32,
    MLN_FILE_U32,
    MLN_FILE_F32,
    MLN_FILE_F64,
    MLN_FILE_I64,
    MLN_FILE_U64
} mln_file_dtype;

typedef struct mln_file_tensor {
    const char *name; /* owned by the header's arena */
    mln_file_dtype dtype;
    int32_t rank;
    int64_t shape[MLN_SAFETENSORS_MAX_RANK];
    uint64_t offset; /* first byte in the file */
    uint64_t size;   /* bytes */
} mln_file_tensor;

typedef struct mln_safetensors {
    mln_arena arena;
    mln_file_tensor *tensors; /* sorted by name; heap memory */
    size_t count;
} mln_safetensors;

/* "BF16" and so on; size of one element in bytes. */
const char *mln_file_dtype_name(mln_file_dtype dtype);
uint64_t mln_file_dtype_size(mln_file_dtype dtype);

/*
 * Parses the JSON header (the fuzzed entrance). The data begin at byte 8 + length and file_size
 * says where they end. Free after success only.
 */
myelin_status mln_safetensors_parse(mln_safetensors *out, const char *header, size_t length,
                                    uint64_t file_size, const char *file, myelin_error *error);
/* Reads and parses an open file's header; data are not touched. */
myelin_status mln_safetensors_read(mln_safetensors *out, const mln_file *file, myelin_error *error);
void mln_safetensors_free(mln_safetensors *tensors);

/* The tensor of that name, or NULL. */
const mln_file_tensor *mln_safetensors_find(const mln_safetensors *tensors, const char *name);

#endif
