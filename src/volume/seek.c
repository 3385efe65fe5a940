/* Finding data and holes: extent records joined with what is in memory, extent by extent. */
#include <string.h>

#include "volume/volume_impl.h"

/* Marks the bytes of an extent that are data: records' frames and written layers. */
static void mark(uint8_t *blocks, uint32_t from, uint32_t to, bool is_data)
{
    /* Zeros make holes of whole blocks only. */
    uint32_t first = is_data ? from / 4096 : (from + 4095) / 4096;
    uint32_t end = is_data ? (to + 4095) / 4096 : to / 4096;
    for (uint32_t block = first; block < end; block++)
        blocks[block] = is_data;
}

static void mark_extent(struct vv_volume *volume, uint64_t data_id, uint64_t index,
                        const struct vv_extent_record *record, uint8_t *blocks)
{
    uint64_t hidden = vv_hidden_commit(vv_data_find(volume, data_id), index, UINT64_MAX);
    memset(blocks, 0, VV_EXTENT_BYTES / 4096);
    for (unsigned i = 0; record != NULL && record->commit >= hidden && i < record->count; i++)
        mark(blocks, record->pieces[i].from, record->pieces[i].to, !record->pieces[i].is_zero);
    const struct vv_extent *extent = vv_extent_find(volume, data_id, index);
    if (extent == NULL)
        return;
    for (struct vv_list *node = extent->layers.prev; node != &extent->layers; node = node->prev) {
        const struct vv_layer *layer = vv_list_entry(node, struct vv_layer, in_extent);
        if (layer->commit >= hidden)
            mark(blocks, layer->from, layer->to, !layer->is_zero);
    }
}

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
    uint8_t blocks[VV_EXTENT_BYTES / 4096];
    uint64_t start = index * VV_EXTENT_BYTES;
    mark_extent(seek->volume, seek->data_id, index, record, blocks);
    for (uint32_t block = 0; block < VV_EXTENT_BYTES / 4096; block++) {
        uint64_t at = start + block * 4096ull;
        if (at + 4096 <= seek->offset || (blocks[block] != 0) == seek->is_hole)
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
