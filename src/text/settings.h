/* SPDX-License-Identifier: Apache-2.0 */
/* What the settings of a tokenizer.json ask for, when it is something Myelin does. */
#ifndef MLN_TEXT_SETTINGS_H
#define MLN_TEXT_SETTINGS_H

#include "text/document.h"

typedef struct mln_text_settings {
    bool nfc;
    bool splits;           /* the text is split by `pattern` */
    bool pattern_literal;  /* a plain string, not a regular expression */
    mln_json_text pattern; /* belongs to the document, or static */
    bool ignore_merges;
} mln_text_settings;

myelin_status mln_text_settings_read(mln_text_settings *settings, const mln_document *document,
                                     myelin_error *error);

#endif
