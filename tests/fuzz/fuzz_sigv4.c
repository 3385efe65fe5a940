/* What a request claims about its signature, in a header or a query, and its canonical form. The first byte chooses. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/sigv4.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_claim(const struct vv_sigv4_claim *claim)
{
    if (strlen(claim->signature) != VV_SIGV4_HEX_LEN || claim->access_key[0] == 0 ||
        strlen(claim->scope.time) != 16 || claim->signed_headers[0] == 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct vv_sigv4_claim claim;
    if (len == 0)
        return 0;
    char *text = malloc(len);
    if (!text)
        return 0;
    memcpy(text, bytes + 1, len - 1);
    text[len - 1] = 0;
    if (bytes[0] % 3 == 0) {
        if (vv_sigv4_parse_header(text, "20130524T000000Z", &claim) == 0)
            check_claim(&claim);
    } else if (bytes[0] % 3 == 1) {
        if (vv_sigv4_parse_query(text, &claim) == 0)
            check_claim(&claim);
    }
    struct vv_sigv4_header header = {"host", text};
    struct vv_sigv4_request request = {"GET", text, text, &header, 1, VV_SIGV4_UNSIGNED};
    struct vv_writer out = vv_writer_new();
    if (vv_sigv4_canonical(&request, &out) == 0 && out.len == 0)
        abort();
    vv_writer_done(&out);
    free(text);
    return 0;
}
