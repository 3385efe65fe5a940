/* What an S3 server may send: list pages, error documents, keys as JSON and XML, header lines, profile files. The first
 * byte chooses. */
#include <stdlib.h>
#include <string.h>

#include "store/s3_credentials.h"
#include "store/s3_impl.h"
#include "store/s3_places_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void try_page(const char *text, size_t len)
{
    static struct vv_s3_page page;
    if (vv_s3_parse_page(text, len, &page) == 0) {
        for (size_t i = 0; i < page.count; i++) {
            if (!page.keys[i].name)
                abort();
        }
    }
    vv_s3_page_done(&page);
}

static void try_texts(const char *text, size_t len)
{
    struct vv_s3_message message;
    struct vv_s3_keys keys;
    char out[64];
    int64_t seconds;
    vv_s3_parse_error(text, len, &message);
    (void)!vv_s3_xml_find(text, len, "SessionToken", out, sizeof(out));
    (void)!vv_s3_parse_keys_json(text, len, &keys);
    (void)!vv_s3_ini_find(text, "profile a", "region", out, sizeof(out));
    (void)!vv_s3_parse_time(text, &seconds);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    char *text = malloc(len);
    if (!text)
        return 0;
    memcpy(text, bytes + 1, len - 1);
    text[len - 1] = 0;
    if (bytes[0] % 3 == 0) {
        try_page(text, len - 1);
    } else if (bytes[0] % 3 == 1) {
        try_texts(text, len - 1);
    } else {
        struct vv_http_answer answer = {0};
        vv_http_parse_header(&answer, text, len - 1);
    }
    free(text);
    return 0;
}
