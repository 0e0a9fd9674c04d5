/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams a completion to the terminal:  story MODEL_DIRECTORY [PROMPT]
 *
 *     cc story.c $(pkg-config --cflags --libs myelin) -o story
 */
#include <myelin/myelin.h>
#include <stdio.h>

static bool print(void *user, const myelin_piece *piece) {
    (void)user;
    fwrite(piece->text, 1, piece->text_length, stdout);
    return fflush(stdout) == 0; /* false stops the generation */
}

int main(int argc, char **argv) {
    const char *directory = argc > 1 ? argv[1] : "models/demo";
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    myelin_error error;
    myelin_model *model;
    if (myelin_model_open(&model, directory, NULL, &error) != MYELIN_OK) {
        fprintf(stderr, "%s\n", error.message);
        return 3;
    }
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.sync = MYELIN_SYNC_TOKEN; /* show each word as it comes */

    myelin_result result;
    myelin_status status = myelin_stream(model, prompt, print, NULL, &options, &result, &error);
    if (status == MYELIN_OK)
        printf("\n[%zu tokens, %s]\n", result.num_tokens,
               myelin_finish_reason_text(result.finish_reason));
    else
        fprintf(stderr, "%s\n", error.message);
    myelin_result_clear(&result);
    myelin_model_close(model);
    return status == MYELIN_OK ? 0 : 1;
}
