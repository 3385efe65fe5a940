/* Segment footers: 8 bytes of object length, then the footer, as it comes and with the checksum
 * made right. What decodes lies inside the object. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "segment/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const uint8_t *bytes, size_t len, uint64_t object_len)
{
    struct vv_segment_footer footer;
    if (vv_segment_footer_decode(bytes, len, object_len, &footer) < 0)
        return;
    assert(footer.frame_count <= VV_SEGMENT_FRAMES_MAX);
    assert(footer.directory_offset >= VV_OBJECT_HEADER_LEN);
    assert(footer.directory_offset + footer.directory_len + VV_SEGMENT_FOOTER_LEN == object_len);
    if (footer.batch_offset) {
        assert(footer.batch_offset >= VV_OBJECT_HEADER_LEN);
        assert(footer.batch_offset + footer.batch_len == footer.directory_offset);
    }
    assert(object_len <= UINT32_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[VV_SEGMENT_FOOTER_LEN];
    if (size < 8)
        return 0;
    uint64_t object_len = vv_load_u64(data);
    decode(data + 8, size - 8, object_len);
    if (size < 8 + sizeof(bytes))
        return 0;
    memcpy(bytes, data + 8, sizeof(bytes));
    memcpy(bytes, "vvsg", 4);
    vv_store_u32(bytes + 36, vv_crc32c(0, bytes, 36));
    decode(bytes, sizeof(bytes), object_len);
    return 0;
}
