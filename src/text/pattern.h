/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MLN_TEXT_PATTERN_H
#define MLN_TEXT_PATTERN_H

#include "base/json.h"

/*
 * Accepts a regular expression when it is made only of what PCRE2 (with UTF, UCP and stand-ins) and
 * the reference's Oniguruma understand alike; anything else is MYELIN_ERROR_UNSUPPORTED and named.
 */
myelin_status mln_pattern_check(mln_json_text pattern, const char *file, myelin_error *error);

#endif
