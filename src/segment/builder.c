#include "segment/segment.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "segment/run_impl.h"

/* The first chunk holds the 4 KiB frame, the small batch and the directory of a small commit. */
#define BUILDER_CHUNK_LEN (8u << 10)
/* Parts are for bulk data. */
#define PART_CHUNK_LEN (128u << 10)
/* Header, and the chunks of a small segment. */
#define INLINE_IOV_COUNT 4
#define FOOTER_MAGIC "vvsg"

struct vv_segment_builder {
    struct vv_segment_id id;
    struct vv_object_header header;
    struct vv_sealer *sealer;
    struct vv_run run;
    bool is_finished;
    uint8_t *lent;     /* the header, and behind it the first chunk's bytes; or NULL */
    struct iovec *iov; /* inline_iov, or allocated */
    struct iovec inline_iov[INLINE_IOV_COUNT];
    uint8_t header_bytes[VV_OBJECT_HEADER_LEN];
};

struct vv_segment_part {
    struct vv_segment_id id;
    const struct vv_sealer *sealer; /* the builder's */
    struct vv_run run;
};

int vv_segment_builder_new(const struct vv_keyring *ring, const struct vv_segment_id *id,
                           const struct vv_seal_settings *settings,
                           struct vv_segment_builder **out_builder)
{
    struct vv_segment_builder *builder = vv_zalloc(sizeof(*builder));
    if (!builder)
        return -ENOMEM;
    bool is_log = id->kind == VV_SEGMENT_LOG;
    char name[64];
    vv_segment_name(id, name, sizeof(name));
    builder->id = *id;
    builder->iov = builder->inline_iov;
    vv_run_init(&builder->run, 0, BUILDER_CHUNK_LEN);
    int err = vv_sealer_new(ring, is_log ? VV_KIND_LOG : VV_KIND_DATA, name, is_log ? id->epoch : 0,
                            settings, &builder->header, &builder->sealer);
    if (err < 0) {
        vv_segment_builder_free(builder);
        return err;
    }
    vv_object_header_encode(&builder->header, builder->header_bytes);
    *out_builder = builder;
    return 0;
}

int vv_segment_builder_lend(struct vv_segment_builder *builder, void *buffer, size_t capacity)
{
    assert(builder->run.count == 0 && builder->run.chunk_count == 0);
    assert(capacity > VV_OBJECT_HEADER_LEN);
    struct vv_chunk *chunk = vv_zalloc(sizeof(*chunk));
    if (!chunk)
        return -ENOMEM;
    chunk->bytes = (uint8_t *)buffer + VV_OBJECT_HEADER_LEN;
    chunk->capacity = capacity - VV_OBJECT_HEADER_LEN;
    vv_list_push_back(&builder->run.chunks, &chunk->link);
    builder->run.chunk_count++;
    builder->lent = buffer;
    return 0;
}

size_t vv_segment_bound(size_t bytes, size_t count)
{
    size_t directory = VV_DIRECTORY_COUNT_MAX + count * VV_DIRECTORY_ENTRY_MAX;
    return VV_OBJECT_HEADER_LEN + bytes + count * vv_frame_bound(0) + vv_frame_bound(directory) +
           VV_SEGMENT_FOOTER_LEN;
}

void vv_segment_builder_free(struct vv_segment_builder *builder)
{
    if (!builder)
        return;
    vv_sealer_free(builder->sealer);
    vv_run_done(&builder->run);
    if (builder->iov != builder->inline_iov)
        vv_free(builder->iov);
    vv_free(builder);
}

int vv_segment_add(struct vv_segment_builder *builder, const struct vv_origin *origin,
                   const void *plain, size_t plain_len, struct vv_frame_loc *out_loc)
{
    assert(!builder->is_finished);
    struct vv_frame_loc loc = {.segment = builder->id};
    TRY(vv_run_add(&builder->run, builder->sealer, origin, plain, plain_len, &loc));
    loc.offset += VV_OBJECT_HEADER_LEN;
    *out_loc = loc;
    return 0;
}

int vv_segment_add_sealed(struct vv_segment_builder *builder, const struct vv_origin *origin,
                          const struct vv_sealed_frame *frame, struct vv_frame_loc *out_loc)
{
    assert(!builder->is_finished);
    struct vv_frame_loc loc = {.segment = builder->id};
    TRY(vv_run_add_sealed(&builder->run, builder->sealer, origin, frame, &loc));
    loc.offset += VV_OBJECT_HEADER_LEN;
    *out_loc = loc;
    return 0;
}

size_t vv_segment_builder_bytes(const struct vv_segment_builder *builder)
{
    return VV_OBJECT_HEADER_LEN + builder->run.bytes;
}

uint32_t vv_segment_builder_count(const struct vv_segment_builder *builder)
{
    return builder->run.count;
}

const struct vv_object_header *vv_segment_builder_header(const struct vv_segment_builder *builder)
{
    return &builder->header;
}

const struct vv_sealer *vv_segment_builder_sealer(const struct vv_segment_builder *builder)
{
    return builder->sealer;
}

/* ---- finishing ---- */

static void encode_footer(const struct vv_segment_footer *footer, uint8_t *out)
{
    struct vv_writer writer = vv_writer_of(out, VV_SEGMENT_FOOTER_LEN);
    vv_writer_bytes(&writer, FOOTER_MAGIC, 4);
    vv_writer_u32(&writer, footer->frame_count);
    vv_writer_u64(&writer, footer->batch_offset);
    vv_writer_u32(&writer, footer->batch_len);
    vv_writer_u64(&writer, footer->directory_offset);
    vv_writer_u32(&writer, footer->directory_len);
    vv_writer_u32(&writer, 0);
    vv_writer_u32(&writer, vv_crc32c(0, out, writer.len));
    assert(!writer.is_bad && writer.len == VV_SEGMENT_FOOTER_LEN);
}

/* The directory's plain content: the count, and the entries that are there already. */
static struct vv_bytes complete_directory(struct vv_run *run, uint8_t *empty)
{
    uint8_t *directory = run->directory ? run->directory : empty;
    size_t count_len = vv_varint_len(run->count);
    uint8_t *start = directory + VV_DIRECTORY_COUNT_MAX - count_len;
    struct vv_writer writer = vv_writer_of(start, count_len);
    vv_writer_varint(&writer, run->count);
    assert(!writer.is_bad && writer.len == count_len);
    return (struct vv_bytes){start, run->directory_len - (VV_DIRECTORY_COUNT_MAX - count_len)};
}

/* Seal batch, directory and footer into `tail`, which has room for them. Returns their length. */
static ssize_t seal_tail(struct vv_segment_builder *builder, struct vv_chunk *tail,
                         const void *batch, size_t batch_len, struct vv_bytes directory)
{
    static const struct vv_origin batch_origin = {.data_id = VV_ORIGIN_BATCH};
    static const struct vv_origin directory_origin = {.data_id = VV_ORIGIN_DIRECTORY};
    uint8_t *out = tail->bytes + tail->len;
    size_t room = tail->capacity - tail->len;
    struct vv_segment_footer footer = {.frame_count = builder->run.count};
    uint64_t offset = VV_OBJECT_HEADER_LEN + builder->run.bytes;
    uint32_t index = builder->run.count;
    size_t len = 0;
    if (batch) {
        ssize_t sealed_len =
            vv_frame_seal(builder->sealer, index, &batch_origin, batch, batch_len, out, room);
        TRY(sealed_len);
        footer.batch_offset = offset;
        footer.batch_len = (uint32_t)sealed_len;
        len += (size_t)sealed_len;
        index++;
    }
    ssize_t sealed_len = vv_frame_seal(builder->sealer, index, &directory_origin, directory.ptr,
                                       directory.len, out + len, room - len);
    TRY(sealed_len);
    footer.directory_offset = offset + len;
    footer.directory_len = (uint32_t)sealed_len;
    len += (size_t)sealed_len;
    assert(room - len >= VV_SEGMENT_FOOTER_LEN);
    encode_footer(&footer, out + len);
    return (ssize_t)(len + VV_SEGMENT_FOOTER_LEN);
}

/* Point at the header and the chunks that hold something. Returns how many. */
static int fill_iov(struct vv_segment_builder *builder)
{
    int count = 0;
    uint8_t *header = builder->lent ? builder->lent : builder->header_bytes;
    if (builder->lent)
        memcpy(header, builder->header_bytes, VV_OBJECT_HEADER_LEN);
    builder->iov[count++] = (struct iovec){header, VV_OBJECT_HEADER_LEN};
    vv_list_each (node, &builder->run.chunks) {
        struct vv_chunk *chunk = vv_list_entry(node, struct vv_chunk, link);
        if (chunk->len == 0)
            continue;
        if (builder->lent && chunk->bytes == header + VV_OBJECT_HEADER_LEN)
            builder->iov[0].iov_len += chunk->len;
        else
            builder->iov[count++] = (struct iovec){chunk->bytes, chunk->len};
    }
    return count;
}

/* Room for the header and every chunk. */
static int reserve_iov(struct vv_segment_builder *builder)
{
    size_t count = 1 + builder->run.chunk_count;
    if (count <= INLINE_IOV_COUNT)
        return 0;
    struct iovec *iov = vv_calloc(count, sizeof(*iov));
    if (!iov)
        return -ENOMEM;
    if (builder->iov != builder->inline_iov)
        vv_free(builder->iov);
    builder->iov = iov;
    return 0;
}

int vv_segment_finish(struct vv_segment_builder *builder, const void *batch, size_t batch_len,
                      const struct iovec **out_iov, int *out_count, size_t *out_bytes)
{
    assert(!builder->is_finished);
    assert(!batch || builder->id.kind == VV_SEGMENT_LOG);
    if (batch && batch_len > VV_BATCH_MAX)
        return -VV_ERR_LIMIT;
    uint8_t empty[VV_DIRECTORY_COUNT_MAX];
    struct vv_bytes directory = complete_directory(&builder->run, empty);
    size_t room = vv_frame_bound(directory.len) + VV_SEGMENT_FOOTER_LEN;
    if (batch)
        room += vv_frame_bound(batch_len);
    struct vv_chunk *tail = vv_run_reserve(&builder->run, room, 0);
    if (!tail)
        return -ENOMEM;
    TRY(reserve_iov(builder));
    ssize_t tail_len = seal_tail(builder, tail, batch, batch_len, directory);
    TRY(tail_len);
    tail->len += (size_t)tail_len;
    builder->is_finished = true;
    *out_count = fill_iov(builder);
    *out_iov = builder->iov;
    *out_bytes = VV_OBJECT_HEADER_LEN + builder->run.bytes + (size_t)tail_len;
    return 0;
}

/* ---- parts ---- */

int vv_segment_part_new(struct vv_segment_builder *builder, uint32_t first_index,
                        struct vv_segment_part **out_part)
{
    assert(!builder->is_finished);
    struct vv_segment_part *part = vv_zalloc(sizeof(*part));
    if (!part)
        return -ENOMEM;
    part->id = builder->id;
    part->sealer = builder->sealer;
    vv_run_init(&part->run, first_index, PART_CHUNK_LEN);
    *out_part = part;
    return 0;
}

void vv_segment_part_free(struct vv_segment_part *part)
{
    if (!part)
        return;
    vv_run_done(&part->run);
    vv_free(part);
}

int vv_segment_part_add(struct vv_segment_part *part, const struct vv_origin *origin,
                        const void *plain, size_t plain_len, struct vv_frame_loc *out_loc)
{
    struct vv_frame_loc loc = {.segment = part->id};
    TRY(vv_run_add(&part->run, part->sealer, origin, plain, plain_len, &loc));
    *out_loc = loc;
    return 0;
}

int vv_segment_join(struct vv_segment_builder *builder, struct vv_segment_part *part,
                    uint32_t *out_base)
{
    assert(!builder->is_finished);
    assert(part->sealer == builder->sealer);
    if (part->run.first_index != builder->run.count)
        return -EINVAL;
    size_t base = VV_OBJECT_HEADER_LEN + builder->run.bytes;
    TRY(vv_run_append(&builder->run, &part->run));
    *out_base = (uint32_t)base;
    return 0;
}
