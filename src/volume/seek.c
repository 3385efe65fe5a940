/* Finding data and holes: extent records joined with what is in memory, extent by extent. */
#include "volume/volume_impl.h"

/* The smallest index >= from of an extent with layers; VV_EXTENTS_NO_END when there is none. */
static uint64_t next_dirty(struct vv_volume *volume, uint64_t data_id, uint64_t from)
{
    uint64_t found = VV_EXTENTS_NO_END;
    const struct vv_data *data = vv_data_find(volume, data_id);
    if (data == NULL)
        return found;
    vv_list_each (node, &data->extents) {
        const struct vv_extent *extent = vv_list_entry(node, struct vv_extent, in_data);
        if (extent->index >= from && extent->index < found)
            found = extent->index;
    }
    return found;
}

struct seek {
    struct vv_volume *volume;
    uint64_t data_id, offset, end;
    bool is_hole;
    uint64_t found;
};

/* Looks at one extent; true when the answer lies in it. */
static bool seek_extent(struct seek *seek, uint64_t index, const struct vv_extent_record *record)
{
    struct vv_extent_state state;
    uint64_t start = index * VV_EXTENT_BYTES;
    vv_extent_state_now(seek->volume, seek->data_id, index, record, &state);
    for (uint32_t block = 0; block < VV_EXTENT_BLOCKS; block++) {
        uint64_t at = start + (uint64_t)block * VV_EXTENT_BLOCK;
        bool is_data = state.blocks >> block & 1;
        if (at + VV_EXTENT_BLOCK <= seek->offset || is_data == seek->is_hole)
            continue;
        seek->found = at > seek->offset ? at : seek->offset;
        return true;
    }
    return false;
}

/* Extents in [*from, to) that have no record. True when the answer lies there. */
static bool seek_without_records(struct seek *seek, uint64_t *from, uint64_t to)
{
    while (*from < to) {
        uint64_t dirty = next_dirty(seek->volume, seek->data_id, *from);
        if (seek->is_hole && dirty > *from) {
            uint64_t at = *from * VV_EXTENT_BYTES;
            seek->found = at > seek->offset ? at : seek->offset;
            return true;
        }
        if (dirty >= to) {
            *from = to;
            return false;
        }
        if (seek_extent(seek, dirty, NULL))
            return true;
        *from = dirty + 1;
    }
    return false;
}

static int seek_records(struct seek *seek, struct vv_lsm_iter *iter, uint64_t end_index)
{
    uint64_t next = seek->offset / VV_EXTENT_BYTES;
    struct vv_bytes key, value;
    int found;
    while ((found = vv_lsm_iter_next(iter, &key, &value)) > 0) {
        struct vv_extent_record record;
        TRY(vv_extent_decode(value, &record));
        uint64_t index = vv_load_be64(key.ptr + 9);
        if (seek_without_records(seek, &next, index) || seek_extent(seek, index, &record))
            return 1;
        next = index + 1;
    }
    TRY(found);
    return seek_without_records(seek, &next, end_index);
}

static int seek_once(struct vv_volume *volume, uint64_t data_id, uint64_t offset, uint64_t end,
                   bool is_hole, uint64_t *out_offset)
{
    struct seek seek = {volume, data_id, offset, end, is_hole, end};
    *out_offset = end;
    if (offset >= end)
        return 0;
    if (data_id == 0) {
        *out_offset = is_hole ? offset : end;
        return 0;
    }
    uint64_t end_index = (end + VV_EXTENT_BYTES - 1) / VV_EXTENT_BYTES;
    uint8_t low[VV_VOLUME_KEY_MAX], high[VV_VOLUME_KEY_MAX];
    struct vv_bytes lower = {low, vv_key_extent(low, data_id, offset / VV_EXTENT_BYTES)};
    struct vv_bytes upper = {high, vv_key_extent(high, data_id, end_index)};
    struct vv_lsm_iter *iter;
    TRY(vv_lsm_iter_open(volume->lsm, lower, upper, &iter));
    int found = seek_records(&seek, iter, end_index);
    vv_lsm_iter_close(iter);
    TRY(found);
    if (found > 0 && seek.found < end)
        *out_offset = seek.found;
    return 0;
}

/* The scan suspends: layers that it has not come to may meanwhile have become records that it is past. */
int vv_volume_seek(struct vv_volume *volume, uint64_t data_id, uint64_t offset, uint64_t end,
                   bool is_hole, uint64_t *out_offset)
{
    for (unsigned tries = 0;; tries++) {
        uint64_t confirmed = volume->bucket_commit;
        TRY(seek_once(volume, data_id, offset, end, is_hole, out_offset));
        if (confirmed == volume->bucket_commit || tries == 1000)
            return 0;
    }
}
