#include "segment/segment.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "segment/run_impl.h"

#define FOOTER_MAGIC "vvsg"
#define FOOTER_CHECKED_LEN (VV_SEGMENT_FOOTER_LEN - 4)
/* A data segment stays below VV_SEGMENT_BYTES_MAX; a log object's batch comes on top. */
#define OBJECT_BYTES_MAX (VV_SEGMENT_BYTES_MAX + VV_BATCH_MAX + VV_FRAME_OVERHEAD)

/* Header, frames, batch, directory, footer, without gaps. No sum can overflow: both lengths are 32
 * bits, and both offsets are compared with the object's bounded length first. */
static bool footer_adds_up(const struct vv_segment_footer *footer, uint64_t object_len)
{
    uint64_t frames_end = footer->batch_offset ? footer->batch_offset : footer->directory_offset;
    if (object_len > OBJECT_BYTES_MAX || footer->directory_offset > object_len ||
        footer->batch_offset > object_len)
        return false;
    if (footer->frame_count > VV_SEGMENT_FRAMES_MAX || frames_end < VV_OBJECT_HEADER_LEN)
        return false;
    if (frames_end - VV_OBJECT_HEADER_LEN < (uint64_t)footer->frame_count * VV_FRAME_OVERHEAD)
        return false;
    if (footer->batch_offset == 0 && footer->batch_len != 0)
        return false;
    if (footer->batch_offset != 0 &&
        (footer->batch_len < VV_FRAME_OVERHEAD ||
         footer->batch_offset + footer->batch_len != footer->directory_offset))
        return false;
    return footer->directory_len >= VV_FRAME_OVERHEAD &&
           footer->directory_offset + footer->directory_len + VV_SEGMENT_FOOTER_LEN == object_len;
}

int vv_segment_footer_decode(const void *bytes, size_t len, uint64_t object_len,
                             struct vv_segment_footer *out_footer)
{
    if (len < VV_SEGMENT_FOOTER_LEN || len > object_len)
        return -VV_ERR_FORMAT;
    const uint8_t *start = (const uint8_t *)bytes + len - VV_SEGMENT_FOOTER_LEN;
    struct vv_cursor cursor = vv_cursor_of(start, VV_SEGMENT_FOOTER_LEN);
    if (memcmp(start, FOOTER_MAGIC, 4) != 0)
        return -VV_ERR_FORMAT;
    if (vv_load_u32(start + FOOTER_CHECKED_LEN) != vv_crc32c(0, start, FOOTER_CHECKED_LEN))
        return -VV_ERR_CHECKSUM;
    struct vv_segment_footer footer;
    vv_cursor_skip(&cursor, 4);
    footer.frame_count = vv_cursor_u32(&cursor);
    footer.batch_offset = vv_cursor_u64(&cursor);
    footer.batch_len = vv_cursor_u32(&cursor);
    footer.directory_offset = vv_cursor_u64(&cursor);
    footer.directory_len = vv_cursor_u32(&cursor);
    if (vv_cursor_u32(&cursor) != 0 || !footer_adds_up(&footer, object_len))
        return -VV_ERR_FORMAT;
    *out_footer = footer;
    return 0;
}

/* Open a frame into memory of its own; a plain length outside [min, max] is -VV_ERR_FORMAT. */
static int open_frame(const struct vv_sealer *sealer, uint32_t index, uint64_t role,
                      struct vv_bytes frame, size_t min, size_t max, struct vv_bytes *out_plain)
{
    struct vv_origin origin = {.data_id = role};
    ssize_t claimed = vv_frame_plain_len(frame.ptr, frame.len);
    TRY(claimed);
    if ((size_t)claimed < min || (size_t)claimed > max)
        return -VV_ERR_FORMAT;
    CLEANUP(vv_free_ptr) uint8_t *plain = vv_alloc((size_t)claimed);
    if (!plain)
        return -ENOMEM;
    TRY(vv_frame_open(sealer, index, &origin, frame.ptr, frame.len, plain, (size_t)claimed));
    *out_plain = (struct vv_bytes){plain, (size_t)claimed};
    plain = NULL;
    return 0;
}

static int decode_entries(struct vv_bytes plain, const struct vv_segment_footer *footer,
                          struct vv_segment_entry *entries)
{
    struct vv_cursor cursor = vv_cursor_of(plain.ptr, plain.len);
    uint64_t end = footer->batch_offset ? footer->batch_offset : footer->directory_offset;
    uint64_t offset = VV_OBJECT_HEADER_LEN;
    if (vv_cursor_varint(&cursor) != footer->frame_count)
        return -VV_ERR_FORMAT;
    for (uint32_t i = 0; i < footer->frame_count; i++) {
        struct vv_segment_entry *entry = &entries[i];
        entry->origin.data_id = vv_cursor_varint(&cursor);
        entry->origin.extent = vv_cursor_varint(&cursor);
        uint64_t len = vv_cursor_varint(&cursor);
        uint64_t plain_len = vv_cursor_varint(&cursor);
        if (len < VV_FRAME_OVERHEAD || len > end - offset || plain_len > VV_FRAME_PLAIN_MAX)
            return -VV_ERR_FORMAT;
        entry->offset = (uint32_t)offset;
        entry->len = (uint32_t)len;
        entry->plain_len = (uint32_t)plain_len;
        offset += len;
    }
    TRY(vv_cursor_end(&cursor));
    return offset == end ? 0 : -VV_ERR_FORMAT;
}

int vv_segment_directory_decode(const struct vv_sealer *sealer,
                                const struct vv_segment_footer *footer, const void *frame,
                                size_t len, struct vv_segment_entry **out_entries)
{
    if (len != footer->directory_len || footer->frame_count > VV_SEGMENT_FRAMES_MAX)
        return -VV_ERR_FORMAT;
    size_t count = footer->frame_count;
    uint32_t index = footer->frame_count + (footer->batch_offset != 0);
    struct vv_bytes plain = {0};
    TRY(open_frame(sealer, index, VV_ORIGIN_DIRECTORY, (struct vv_bytes){frame, len},
                   1 + count * VV_DIRECTORY_ENTRY_MIN,
                   VV_DIRECTORY_COUNT_MAX + count * VV_DIRECTORY_ENTRY_MAX, &plain));
    struct vv_segment_entry *entries = vv_calloc(count + 1, sizeof(*entries));
    int err = entries ? decode_entries(plain, footer, entries) : -ENOMEM;
    vv_free((void *)(uintptr_t)plain.ptr);
    if (err < 0) {
        vv_free(entries);
        return err;
    }
    *out_entries = entries;
    return 0;
}

static int open_batch(const struct vv_sealer *sealer, const uint8_t *object, size_t len,
                      struct vv_bytes *out_batch)
{
    struct vv_segment_footer footer;
    TRY(vv_segment_footer_decode(object, len, len, &footer));
    if (footer.batch_offset == 0)
        return -VV_ERR_FORMAT;
    struct vv_bytes frame = {object + footer.batch_offset, footer.batch_len};
    return open_frame(sealer, footer.frame_count, VV_ORIGIN_BATCH, frame, 0, VV_BATCH_MAX,
                      out_batch);
}

int vv_segment_batch_open(const struct vv_keyring *ring, const char *name, const void *object,
                          size_t len, uint8_t **out_batch, size_t *out_len)
{
    struct vv_object_header header;
    TRY(vv_object_header_decode(object, len, &header));
    if (header.kind != VV_KIND_LOG)
        return -VV_ERR_FORMAT;
    struct vv_sealer *sealer = NULL;
    TRY(vv_sealer_open(ring, &header, name, &sealer));
    struct vv_bytes batch = {0};
    int err = open_batch(sealer, object, len, &batch);
    vv_sealer_free(sealer);
    TRY(err);
    *out_batch = (uint8_t *)(uintptr_t)batch.ptr;
    *out_len = batch.len;
    return 0;
}
