/* Object headers: as they come, and with the checksum made right. What decodes encodes to the same.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "seal/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode(const uint8_t *bytes, size_t len)
{
    struct vv_object_header header;
    uint8_t again[VV_OBJECT_HEADER_LEN];
    if (vv_object_header_decode(bytes, len, &header) < 0)
        return;
    vv_object_header_encode(&header, again);
    assert(memcmp(bytes, again, sizeof(again)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode(data, size);
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    if (size < sizeof(bytes))
        return 0;
    memcpy(bytes, data, sizeof(bytes));
    memcpy(bytes, "varve\0\r\n", 8);
    vv_store_u32(bytes + 92, vv_crc32c(0, bytes, 92));
    decode(bytes, sizeof(bytes));
    return 0;
}
