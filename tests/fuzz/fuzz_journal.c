/* The header of a journal record: what decodes must encode to the same bytes. The checksum is
 * mended first, or nothing would ever pass it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "log/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const uint8_t *bytes, size_t size)
{
    struct vv_journal_record record;
    uint8_t again[VV_JOURNAL_RECORD_HEADER_LEN];
    if (vv_journal_record_decode(bytes, size, &record) < 0)
        return;
    vv_journal_record_encode(&record, again);
    if (memcmp(again, bytes, sizeof(again)) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t mended[VV_JOURNAL_RECORD_HEADER_LEN];
    check(data, size);
    if (size < sizeof(mended))
        return 0;
    memcpy(mended, data, sizeof(mended));
    vv_store_u32(mended + 4, vv_crc32c(0, mended + 8, sizeof(mended) - 8));
    check(mended, sizeof(mended));
    return 0;
}
