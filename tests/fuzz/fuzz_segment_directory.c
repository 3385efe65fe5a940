/* Segment directories. The first byte says how: bit 0 with a batch, bit 1 the rest is a sealed
 * frame as it comes, else its plain content, which is sealed here. Then 4 bytes of frame count and
 * 4 bytes of the offset at which the frames end. What decodes adds up. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "segment/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PLAIN_MAX (64u << 10)
#define BATCH_LEN 100

struct object {
    struct vv_keyring *ring;
    struct vv_sealer *writer;
    struct vv_sealer *reader;
};

/* Made once: deriving keys takes far longer than a directory. */
static const struct object *object_get(void)
{
    static const uint8_t volume_id[16];
    static const struct vv_seal_settings settings = {VV_CIPHER_NONE, VV_COMPRESSION_NONE, 0};
    static struct object object;
    struct vv_object_header header;
    if (!object.reader &&
        (vv_keyring_new(volume_id, &object.ring) < 0 ||
         vv_sealer_new(object.ring, VV_KIND_DATA, "x", 0, &settings, &header, &object.writer) < 0 ||
         vv_sealer_open(object.ring, &header, "x", &object.reader) < 0))
        abort();
    return &object;
}

static void decode(const struct object *object, const struct vv_segment_footer *footer,
                   const uint8_t *frame, size_t len)
{
    struct vv_segment_entry *entries = NULL;
    uint64_t end = footer->batch_offset ? footer->batch_offset : footer->directory_offset;
    uint64_t offset = VV_OBJECT_HEADER_LEN;
    if (vv_segment_directory_decode(object->reader, footer, frame, len, &entries) < 0)
        return;
    for (uint32_t i = 0; i < footer->frame_count; i++) {
        assert(entries[i].offset == offset);
        assert(entries[i].len >= VV_FRAME_OVERHEAD);
        assert(entries[i].plain_len <= VV_FRAME_PLAIN_MAX);
        offset += entries[i].len;
    }
    assert(offset == end);
    vv_free(entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct vv_origin origin = {VV_ORIGIN_DIRECTORY, 0};
    static uint8_t sealed[PLAIN_MAX + VV_FRAME_OVERHEAD];
    if (size < 9 || size - 9 > PLAIN_MAX)
        return 0;
    struct vv_bytes frame = {data + 9, size - 9};
    bool has_batch = data[0] & 1;
    uint64_t end = vv_load_u32(data + 5);
    struct vv_segment_footer footer = {.frame_count = vv_load_u32(data + 1)};
    if (footer.frame_count > VV_SEGMENT_FRAMES_MAX || end < VV_OBJECT_HEADER_LEN)
        return 0;
    footer.batch_offset = has_batch ? end : 0;
    footer.batch_len = has_batch ? BATCH_LEN : 0;
    footer.directory_offset = end + footer.batch_len;
    const struct object *object = object_get();
    if (!(data[0] & 2)) {
        ssize_t len = vv_frame_seal(object->writer, footer.frame_count + has_batch, &origin,
                                    frame.ptr, frame.len, sealed, sizeof(sealed));
        if (len < 0)
            abort();
        frame = (struct vv_bytes){sealed, (size_t)len};
    }
    footer.directory_len = (uint32_t)frame.len;
    decode(object, &footer, frame.ptr, frame.len);
    return 0;
}
