/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A chat template: the part of Jinja2 that Qwen3-family templates use, under the rules of the
 * environment transformers gives them (trim_blocks, lstrip_blocks, loop controls, tojson with
 * ensure_ascii off, raise_exception, strftime_now). Rendering gives what transformers gives, byte
 * for byte; what is not covered is an error with the template's line and the construct, when the
 * template is parsed and not in the middle of a request.
 */
#ifndef MLN_TEXT_TEMPLATE_H
#define MLN_TEXT_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/memory.h"
#include "myelin/status.h"

/* What a template may ask for; more is an error, so that a hostile one ends. */
#define MLN_TEMPLATE_MAX_SOURCE (UINT64_C(1) << 20)  /* bytes of source */
#define MLN_TEMPLATE_MAX_OUTPUT (UINT64_C(64) << 20) /* bytes rendered, and of any one string */
#define MLN_TEMPLATE_MAX_STEPS  UINT64_C(20000000)   /* nodes evaluated and items made */
enum { MLN_TEMPLATE_MAX_DEPTH = 100 };               /* nesting of blocks, expressions, calls */

/* A parsed template. Immutable; any number of threads may render it at once. */
typedef struct mln_template mln_template;

/* `file` names the source in errors ("chat_template.jinja") and may be NULL. */
myelin_status mln_template_parse(mln_template **template, const char *source, size_t length,
                                 const char *file, myelin_error *error);
void mln_template_free(mln_template *template); /* accepts NULL */

/*
 * Appends the rendering to *out. `variables` is a JSON object: its members are the template's
 * variables, in transformers' types (null is none, objects keep their order); names it does not
 * have are undefined. `now` is what strftime_now() tells, in seconds since 1970 (local time is the
 * process's). An error raised by the template (raise_exception) is MYELIN_ERROR_ARGUMENT with its
 * message; so are operations Jinja would refuse (an attribute of an undefined value, ...), with the
 * template's line. On failure *out is as it was.
 */
myelin_status mln_template_render(const mln_template *template, const json_t *variables,
                                  int64_t now, mln_buffer *out, myelin_error *error);

#endif
