/* The plain content of a manifest: what decodes must encode to the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "log/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vv_manifest manifest;
    if (vv_manifest_decode_plain(data, size, &manifest) < 0)
        return 0;
    struct vv_writer writer = vv_writer_new();
    vv_manifest_encode_plain(&writer, &manifest);
    if (vv_writer_check(&writer) < 0 || writer.len != size || memcmp(writer.ptr, data, size) != 0)
        abort();
    struct vv_manifest copy;
    if (vv_manifest_copy(&manifest, &copy) == 0)
        vv_manifest_done(&copy);
    vv_manifest_done(&manifest);
    vv_writer_done(&writer);
    return 0;
}
