/* The header of a batch: what decodes must encode to the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "log/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vv_cursor cursor = vv_cursor_of(data, size);
    struct vv_batch_header header;
    if (vv_batch_header_decode(&cursor, &header) < 0)
        return 0;
    size_t used = size - cursor.len;
    struct vv_writer writer = vv_writer_new();
    vv_batch_header_encode(&writer, &header);
    if (vv_writer_check(&writer) < 0 || writer.len != used || memcmp(writer.ptr, data, used) != 0)
        abort();
    vv_writer_done(&writer);
    return 0;
}
