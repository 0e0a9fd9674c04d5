/* SPDX-License-Identifier: Apache-2.0 */
/* Where a model's directory is. */
#ifndef CLI_MODEL_PATH_H
#define CLI_MODEL_PATH_H

#include <stdbool.h>

/*
 * The directory of MODEL: a directory, or the name of a model in the Hugging Face cache; NULL for
 * $MYELIN_MODEL, else the bundled demo. Both results are released with free(); when there is no
 * such directory, *path is NULL and *message says where it was looked for.
 */
bool cli_model_path(const char *model, char **path, char **message);

#endif
