#include <string.h>

#include "base/hash.h"
#include "base/text.h"
#include "log/journal_impl.h"

static const uint8_t record_magic[4] = {'v', 'v', 'j', 'r'};

#define CHECKED_FROM 8 /* the checksum covers what follows it */
#define SEALED_LEN_MIN (VV_OBJECT_HEADER_LEN + VV_FRAME_OVERHEAD)

void vv_journal_record_encode(const struct vv_journal_record *record,
                              uint8_t out[VV_JOURNAL_RECORD_HEADER_LEN])
{
    memcpy(out, record_magic, sizeof(record_magic));
    vv_store_u64(out + 8, record->commit);
    vv_store_u32(out + 16, record->sealed_len);
    vv_store_u64(out + 20, record->session);
    vv_store_u32(out + 28, record->group_index);
    vv_store_u32(out + 4,
                 vv_crc32c(0, out + CHECKED_FROM, VV_JOURNAL_RECORD_HEADER_LEN - CHECKED_FROM));
}

int vv_journal_record_decode(const void *bytes, size_t len, struct vv_journal_record *out_record)
{
    const uint8_t *at = bytes;
    if (len < VV_JOURNAL_RECORD_HEADER_LEN || memcmp(at, record_magic, sizeof(record_magic)) != 0)
        return -VV_ERR_FORMAT;
    uint32_t crc = vv_crc32c(0, at + CHECKED_FROM, VV_JOURNAL_RECORD_HEADER_LEN - CHECKED_FROM);
    if (vv_load_u32(at + 4) != crc)
        return -VV_ERR_CHECKSUM;
    struct vv_journal_record record = {
        .commit = vv_load_u64(at + 8),
        .sealed_len = vv_load_u32(at + 16),
        .session = vv_load_u64(at + 20),
        .group_index = vv_load_u32(at + 28),
    };
    size_t sealed_max = VV_OBJECT_HEADER_LEN + vv_frame_bound(VV_JOURNAL_RECORD_MAX);
    if (record.commit == 0 || record.commit == UINT64_MAX || record.sealed_len < SEALED_LEN_MIN ||
        record.sealed_len > sealed_max || record.group_index >= record.commit)
        return -VV_ERR_FORMAT;
    *out_record = record;
    return 0;
}

void vv_journal_record_name(const struct vv_journal *journal, uint64_t commit, char *name,
                            size_t size)
{
    char id[2 * sizeof(journal->id) + 1];
    vv_hex(journal->id, sizeof(journal->id), id);
    vv_format(name, size, "journal/%s/%016llx", id, (unsigned long long)commit);
}
