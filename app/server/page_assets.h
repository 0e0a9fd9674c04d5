/* SPDX-License-Identifier: Apache-2.0 */
/* What page/embed.cmake writes. */
#ifndef MLN_SERVER_PAGE_ASSETS_H
#define MLN_SERVER_PAGE_ASSETS_H

#include <stddef.h>

typedef struct page_asset {
    const char *path; /* "/" or "/page/style.css" */
    const char *content_type;
    const char *etag; /* quoted; changes with the content */
    const unsigned char *data;
    size_t length;
} page_asset;

extern const page_asset page_assets[];
extern const size_t page_num_assets;

#endif
