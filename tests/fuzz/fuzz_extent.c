/* Records of the volume's tables. The first byte chooses: an extent record, or the key of a segment's
 * sums. What is accepted must encode to what decodes to the same, and bears pruning. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "volume/extent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_extent(struct vv_bytes value)
{
    static struct vv_extent_record record, again;
    uint8_t once[VV_EXTENT_RECORD_MAX];
    uint8_t twice[VV_EXTENT_RECORD_MAX];
    if (vv_extent_decode(value, &record) < 0)
        return;
    for (unsigned i = 0; i < record.count; i++)
        assert(record.pieces[i].from < record.pieces[i].to &&
               record.pieces[i].to <= VV_EXTENT_BYTES);
    size_t len = vv_extent_encode(&record, once);
    int err = vv_extent_decode((struct vv_bytes){once, len}, &again);
    assert(err == 0);
    size_t len_again = vv_extent_encode(&again, twice);
    assert(len == len_again && memcmp(once, twice, len) == 0);
    assert(vv_extent_allocated(&record) <= VV_EXTENT_BYTES);
}

static void try_segment_key(struct vv_bytes key)
{
    struct vv_segment_id id;
    uint8_t out[VV_VOLUME_KEY_MAX];
    if (vv_key_segment_parse(key, &id) < 0)
        return;
    size_t len = vv_key_segment(out, &id);
    assert(len == key.len && memcmp(out, key.ptr, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if (data[0] % 2 == 0)
        try_extent((struct vv_bytes){data + 1, size - 1});
    else
        try_segment_key((struct vv_bytes){data + 1, size - 1});
    return 0;
}
