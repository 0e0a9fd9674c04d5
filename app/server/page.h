/* SPDX-License-Identifier: Apache-2.0 */
/* The chat page: files of app/server/page/, built into the program. */
#ifndef MLN_SERVER_PAGE_H
#define MLN_SERVER_PAGE_H

#include "http.h"

/* Answers a request for one of the page's files and returns the status it answered with; 0 for any
   other request, which it leaves alone. A method other than GET and HEAD on such a file is a 405.
 */
int page_handle(http_exchange *exchange, const http_request *request);

#endif
