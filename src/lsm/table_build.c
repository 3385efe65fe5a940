#include "lsm/table_build_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"

#define CHUNK_BYTES ((size_t)256 << 10) /* the object is built in pieces of this size */

/* A block or index being written: records, and where the restarts are. */
struct block_writer {
    struct vv_writer records;
    struct vv_writer restarts;
    uint32_t record_count;
    uint32_t since_restart;
};

struct vv_table_builder {
    struct vv_sealer *sealer;
    struct vv_object_header header;
    struct vv_table_footer footer;
    struct block_writer block;
    struct block_writer index;
    struct vv_writer hashes; /* 8 bytes each */
    struct iovec *chunks;
    size_t chunk_count;
    size_t chunk_capacity;
    size_t chunk_left; /* bytes left in the last chunk */
    uint64_t bytes;    /* of the object so far */
    uint64_t entries;
    uint32_t blocks;
    /* A sealed block whose separator waits for the next key. */
    bool is_index_due;
    struct vv_block_loc index_due;
    uint8_t first_key[VV_LSM_KEY_MAX];
    uint8_t last_key[VV_LSM_KEY_MAX];
    uint16_t first_key_len;
    uint16_t last_key_len;
    uint8_t *filter;
    size_t filter_len;
    struct vv_bytes *kept; /* plain blocks from 0 on, owned */
    uint32_t kept_count;
    uint32_t kept_capacity;
    size_t keep_max; /* bytes that may still be kept */
};

/* ---- blocks ---- */

static void block_writer_init(struct block_writer *block)
{
    block->records = vv_writer_new();
    block->restarts = vv_writer_new();
}

static void block_writer_done(struct block_writer *block)
{
    vv_writer_done(&block->records);
    vv_writer_done(&block->restarts);
}

static void block_writer_reset(struct block_writer *block)
{
    vv_writer_reset(&block->records);
    vv_writer_reset(&block->restarts);
    block->record_count = 0;
    block->since_restart = 0;
}

static size_t block_writer_len(const struct block_writer *block)
{
    return block->records.len + block->restarts.len + 4;
}

static void block_writer_add(struct block_writer *block, enum vv_lsm_kind kind, size_t shared,
                             struct vv_bytes key, struct vv_bytes value)
{
    if (shared == 0) {
        vv_writer_u32(&block->restarts, (uint32_t)block->records.len);
        block->since_restart = 0;
    }
    block->since_restart++;
    block->record_count++;
    vv_writer_varint(&block->records, shared);
    vv_writer_varint(&block->records, key.len - shared);
    vv_writer_varint(&block->records, (uint64_t)kind | (uint64_t)value.len << 2);
    vv_writer_bytes(&block->records, key.ptr + shared, key.len - shared);
    vv_writer_bytes(&block->records, value.ptr, value.len);
}

/* Append the restarts; the records are then the whole block. */
static int block_writer_close(struct block_writer *block)
{
    uint32_t restart_count = (uint32_t)(block->restarts.len / 4);
    vv_writer_bytes(&block->records, block->restarts.ptr, block->restarts.len);
    vv_writer_u32(&block->records, restart_count);
    TRY(vv_writer_check(&block->restarts));
    return vv_writer_check(&block->records);
}

/* ---- the object ---- */

/* Room for `len` bytes at the end of the object, not yet counted. NULL: no memory. */
static uint8_t *chunk_space(struct vv_table_builder *builder, size_t len)
{
    if (builder->chunk_left < len) {
        if (builder->chunk_count == builder->chunk_capacity) {
            size_t capacity = builder->chunk_capacity ? builder->chunk_capacity * 2 : 16;
            struct iovec *chunks = vv_realloc(builder->chunks, capacity * sizeof(*builder->chunks));
            if (!chunks)
                return NULL;
            builder->chunks = chunks;
            builder->chunk_capacity = capacity;
        }
        size_t size = len > CHUNK_BYTES ? len : CHUNK_BYTES;
        void *chunk = vv_alloc(size);
        if (!chunk)
            return NULL;
        builder->chunks[builder->chunk_count++] = (struct iovec){.iov_base = chunk};
        builder->chunk_left = size;
    }
    const struct iovec *last = &builder->chunks[builder->chunk_count - 1];
    return (uint8_t *)last->iov_base + last->iov_len;
}

static void chunk_used(struct vv_table_builder *builder, size_t len)
{
    builder->chunks[builder->chunk_count - 1].iov_len += len;
    builder->chunk_left -= len;
    builder->bytes += len;
}

/* Seal `plain` as the next frame. */
static int add_frame(struct vv_table_builder *builder, uint32_t number,
                     const struct vv_origin *origin, struct vv_bytes plain, uint32_t *out_len)
{
    size_t bound = vv_frame_bound(plain.len);
    uint8_t *out = chunk_space(builder, bound);
    if (!out)
        return -ENOMEM;
    ssize_t len;
    if (origin->data_id == VV_ORIGIN_SST_FILTER)
        len = vv_frame_seal_as(builder->sealer, VV_COMPRESSION_NONE, number, origin, plain.ptr,
                               plain.len, out, bound);
    else
        len = vv_frame_seal(builder->sealer, number, origin, plain.ptr, plain.len, out, bound);
    if (len < 0)
        return (int)len;
    chunk_used(builder, (size_t)len);
    *out_len = (uint32_t)len;
    return 0;
}

static int add_plain(struct vv_table_builder *builder, const void *bytes, size_t len)
{
    uint8_t *out = chunk_space(builder, len);
    if (!out)
        return -ENOMEM;
    memcpy(out, bytes, len);
    chunk_used(builder, len);
    return 0;
}

int vv_table_builder_new(const struct vv_keyring *ring, const struct vv_seal_settings *settings,
                         uint64_t epoch, uint64_t counter, struct vv_table_builder **out_builder)
{
    struct vv_table_builder *builder = vv_zalloc(sizeof(*builder));
    if (!builder)
        return -ENOMEM;
    block_writer_init(&builder->block);
    block_writer_init(&builder->index);
    builder->hashes = vv_writer_new();
    char name[VV_TABLE_NAME_MAX];
    vv_table_name(epoch, counter, name, sizeof(name));
    int err =
        vv_sealer_new(ring, VV_KIND_SST, name, 0, settings, &builder->header, &builder->sealer);
    uint8_t header[VV_OBJECT_HEADER_LEN];
    if (err == 0) {
        vv_object_header_encode(&builder->header, header);
        err = add_plain(builder, header, sizeof(header));
    }
    if (err < 0) {
        vv_table_builder_free(builder);
        return err;
    }
    *out_builder = builder;
    return 0;
}

void vv_table_builder_free(struct vv_table_builder *builder)
{
    if (!builder)
        return;
    block_writer_done(&builder->block);
    block_writer_done(&builder->index);
    vv_writer_done(&builder->hashes);
    for (size_t i = 0; i < builder->chunk_count; i++)
        vv_free(builder->chunks[i].iov_base);
    vv_free(builder->chunks);
    for (uint32_t i = 0; i < builder->kept_count; i++)
        vv_free((uint8_t *)builder->kept[i].ptr);
    vv_free(builder->kept);
    vv_free(builder->filter);
    vv_sealer_free(builder->sealer);
    vv_free(builder);
}

static size_t shared_len(const struct vv_table_builder *builder, struct vv_bytes key)
{
    size_t max = key.len < builder->last_key_len ? key.len : builder->last_key_len;
    size_t len = 0;
    while (len < max && key.ptr[len] == builder->last_key[len])
        len++;
    return len;
}

/* The index record of the block sealed last: the shortest key that is not below the block's last
 * and is below `next`, which shares `shared` bytes with it. */
static void add_index(struct vv_table_builder *builder, struct vv_bytes next, size_t shared)
{
    uint8_t bytes[20];
    struct vv_writer value = vv_writer_of(bytes, sizeof(bytes));
    vv_writer_varint(&value, builder->index_due.offset);
    vv_writer_varint(&value, builder->index_due.len);
    struct vv_bytes key = {builder->last_key, builder->last_key_len};
    uint8_t separator[VV_LSM_KEY_MAX];
    /* The bytes shared and one more of `next` lie between the two, when `next` goes on after them.
     */
    if (next.len > shared + 1 && key.len > shared + 1) {
        memcpy(separator, next.ptr, shared + 1);
        key = (struct vv_bytes){separator, shared + 1};
    }
    block_writer_add(&builder->index, VV_LSM_PUT, 0, key, (struct vv_bytes){bytes, value.len});
    builder->is_index_due = false;
}

void vv_table_builder_keep(struct vv_table_builder *builder, size_t bytes_max)
{
    builder->keep_max = bytes_max;
}

/* Without memory it is only not kept. Once one is not, none behind it is. */
static void keep_block(struct vv_table_builder *builder, struct vv_bytes plain)
{
    bool is_next = builder->kept_count == builder->blocks && plain.len <= builder->keep_max;
    builder->keep_max -= is_next ? plain.len : builder->keep_max;
    if (!is_next)
        return;
    if (builder->kept_count == builder->kept_capacity) {
        uint32_t capacity = builder->kept_capacity ? 2 * builder->kept_capacity : 32;
        struct vv_bytes *kept = vv_realloc(builder->kept, capacity * sizeof(*kept));
        if (!kept)
            return;
        builder->kept = kept;
        builder->kept_capacity = capacity;
    }
    uint8_t *copy = vv_memdup(plain.ptr, plain.len);
    if (copy)
        builder->kept[builder->kept_count++] = (struct vv_bytes){copy, plain.len};
}

static int seal_block(struct vv_table_builder *builder)
{
    TRY(block_writer_close(&builder->block));
    struct vv_origin origin = {VV_ORIGIN_SST_BLOCK, builder->blocks};
    struct vv_bytes plain = {builder->block.records.ptr, builder->block.records.len};
    builder->index_due.offset = builder->bytes;
    TRY(add_frame(builder, builder->blocks, &origin, plain, &builder->index_due.len));
    builder->is_index_due = true;
    keep_block(builder, plain);
    builder->blocks++;
    block_writer_reset(&builder->block);
    return 0;
}

int vv_table_builder_add(struct vv_table_builder *builder, enum vv_lsm_kind kind,
                         struct vv_bytes key, uint64_t hash, struct vv_bytes value)
{
    size_t shared = shared_len(builder, key);
    assert(builder->entries == 0 || shared < key.len);
    assert(builder->entries == 0 || shared == builder->last_key_len ||
           key.ptr[shared] > builder->last_key[shared]);
    struct block_writer *block = &builder->block;
    size_t bytes = block_writer_len(block) + key.len - shared + value.len + 8;
    if (block->record_count > 0 && bytes > VV_LSM_BLOCK_BYTES) {
        if (builder->blocks == VV_TABLE_BLOCKS_MAX)
            return -VV_ERR_LIMIT;
        TRY(seal_block(builder));
    }
    if (builder->is_index_due)
        add_index(builder, key, shared);
    bool is_restart = block->record_count == 0 || block->since_restart >= VV_BLOCK_RESTART;
    block_writer_add(block, kind, is_restart ? 0 : shared, key, value);
    vv_writer_u64(&builder->hashes, hash);
    if (builder->entries == 0) {
        memcpy(builder->first_key, key.ptr, key.len);
        builder->first_key_len = (uint16_t)key.len;
    }
    memcpy(builder->last_key + shared, key.ptr + shared, key.len - shared);
    builder->last_key_len = (uint16_t)key.len;
    builder->entries++;
    TRY(vv_writer_check(&builder->index.records));
    TRY(vv_writer_check(&builder->hashes));
    return vv_writer_check(&block->records);
}

size_t vv_table_builder_bytes(const struct vv_table_builder *builder)
{
    return builder->bytes + builder->block.records.len;
}

uint32_t vv_table_builder_blocks(const struct vv_table_builder *builder)
{
    return builder->blocks;
}

uint64_t vv_table_builder_entries(const struct vv_table_builder *builder)
{
    return builder->entries;
}

static int add_filter(struct vv_table_builder *builder)
{
    builder->filter_len = vv_filter_len(builder->entries);
    builder->filter = vv_zalloc(builder->filter_len);
    if (!builder->filter)
        return -ENOMEM;
    for (uint64_t i = 0; i < builder->entries; i++)
        vv_filter_add(builder->filter, builder->filter_len,
                      vv_load_u64(builder->hashes.ptr + i * 8));
    struct vv_origin origin = {VV_ORIGIN_SST_FILTER, 0};
    struct vv_bytes plain = {builder->filter, builder->filter_len};
    builder->footer.filter_offset = builder->bytes;
    return add_frame(builder, builder->blocks, &origin, plain, &builder->footer.filter_len);
}

int vv_table_builder_finish(struct vv_table_builder *builder)
{
    assert(builder->entries > 0);
    TRY(seal_block(builder));
    add_index(builder, (struct vv_bytes){NULL, 0}, 0);
    TRY(add_filter(builder));
    TRY(block_writer_close(&builder->index));
    struct vv_origin origin = {VV_ORIGIN_SST_INDEX, 0};
    struct vv_bytes plain = {builder->index.records.ptr, builder->index.records.len};
    builder->footer.block_count = builder->blocks;
    builder->footer.index_offset = builder->bytes;
    TRY(add_frame(builder, builder->blocks + 1, &origin, plain, &builder->footer.index_len));
    uint8_t trailer[VV_TABLE_TRAILER_LEN];
    vv_object_header_encode(&builder->header, trailer);
    vv_table_footer_encode(&builder->footer, trailer + VV_OBJECT_HEADER_LEN);
    return add_plain(builder, trailer, sizeof(trailer));
}

/* ---- what was built ---- */

const struct iovec *vv_table_builder_iov(const struct vv_table_builder *builder, int *out_count)
{
    *out_count = (int)builder->chunk_count;
    return builder->chunks;
}

const struct vv_object_header *vv_table_builder_header(const struct vv_table_builder *builder)
{
    return &builder->header;
}

const struct vv_table_footer *vv_table_builder_footer(const struct vv_table_builder *builder)
{
    return &builder->footer;
}

int vv_table_builder_ref(const struct vv_table_builder *builder, struct vv_table_ref *ref)
{
    uint8_t *min_key = vv_memdup(builder->first_key, builder->first_key_len);
    uint8_t *max_key = vv_memdup(builder->last_key, builder->last_key_len);
    if (!min_key || !max_key) {
        vv_free(min_key);
        vv_free(max_key);
        return -ENOMEM;
    }
    ref->min_key = min_key;
    ref->min_key_len = builder->first_key_len;
    ref->max_key = max_key;
    ref->max_key_len = builder->last_key_len;
    ref->bytes = builder->bytes;
    ref->entries = builder->entries;
    return 0;
}

struct vv_sealer *vv_table_builder_take_sealer(struct vv_table_builder *builder)
{
    struct vv_sealer *sealer = builder->sealer;
    builder->sealer = NULL;
    return sealer;
}

uint8_t *vv_table_builder_take_filter(struct vv_table_builder *builder, size_t *out_len)
{
    uint8_t *filter = builder->filter;
    *out_len = builder->filter_len;
    builder->filter = NULL;
    return filter;
}

uint8_t *vv_table_builder_take_block(struct vv_table_builder *builder, uint32_t number,
                                     size_t *out_len)
{
    if (number >= builder->kept_count)
        return NULL;
    struct vv_bytes block = builder->kept[number];
    builder->kept[number] = (struct vv_bytes){NULL, 0};
    *out_len = block.len;
    return (uint8_t *)block.ptr;
}

uint8_t *vv_table_builder_take_index(struct vv_table_builder *builder, size_t *out_len)
{
    uint8_t *index = builder->index.records.ptr;
    *out_len = builder->index.records.len;
    builder->index.records = vv_writer_new();
    return index;
}
