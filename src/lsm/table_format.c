#include "lsm/table_format.h"

#include <endian.h>
#include <string.h>

#include "base/hash.h"

#define FOOTER_MAGIC "vvst"
#define PREFETCHED_MAX 64 /* restarts; a block of 16 KiB has 10 to 30 */

/* ---- footer ---- */

void vv_table_footer_encode(const struct vv_table_footer *footer, uint8_t out[VV_TABLE_FOOTER_LEN])
{
    struct vv_writer writer = vv_writer_of(out, VV_TABLE_FOOTER_LEN);
    vv_writer_bytes(&writer, FOOTER_MAGIC, 4);
    vv_writer_u32(&writer, footer->block_count);
    vv_writer_u64(&writer, footer->filter_offset);
    vv_writer_u32(&writer, footer->filter_len);
    vv_writer_u64(&writer, footer->index_offset);
    vv_writer_u32(&writer, footer->index_len);
    vv_writer_u32(&writer, 0);
    vv_writer_u32(&writer, vv_crc32c(0, out, VV_TABLE_FOOTER_LEN - 4));
}

int vv_table_footer_decode(const uint8_t bytes[VV_TABLE_FOOTER_LEN], uint64_t object_len,
                           struct vv_table_footer *out_footer)
{
    struct vv_table_footer footer;
    struct vv_cursor cursor = vv_cursor_of(bytes, VV_TABLE_FOOTER_LEN);
    if (memcmp(vv_cursor_bytes(&cursor, 4).ptr, FOOTER_MAGIC, 4) != 0)
        return -VV_ERR_FORMAT;
    if (vv_load_u32(bytes + VV_TABLE_FOOTER_LEN - 4) !=
        vv_crc32c(0, bytes, VV_TABLE_FOOTER_LEN - 4))
        return -VV_ERR_CHECKSUM;
    footer.block_count = vv_cursor_u32(&cursor);
    footer.filter_offset = vv_cursor_u64(&cursor);
    footer.filter_len = vv_cursor_u32(&cursor);
    footer.index_offset = vv_cursor_u64(&cursor);
    footer.index_len = vv_cursor_u32(&cursor);
    if (vv_cursor_u32(&cursor) != 0)
        return -VV_ERR_FORMAT;
    if (footer.block_count == 0 || footer.block_count > VV_TABLE_BLOCKS_MAX)
        return -VV_ERR_FORMAT;
    /* Blocks, filter, index and trailer follow one another without a gap. */
    uint64_t end;
    if (footer.filter_offset <= VV_OBJECT_HEADER_LEN ||
        __builtin_add_overflow(footer.filter_offset, footer.filter_len, &end) ||
        end != footer.index_offset || __builtin_add_overflow(end, footer.index_len, &end) ||
        __builtin_add_overflow(end, VV_TABLE_TRAILER_LEN, &end) || end != object_len)
        return -VV_ERR_FORMAT;
    *out_footer = footer;
    return 0;
}

/* ---- blocks ---- */

int vv_block_iter_init(struct vv_block_iter *iter, const void *block, size_t len)
{
    if (len < 8 || len > VV_FRAME_PLAIN_MAX)
        return -VV_ERR_FORMAT;
    const uint8_t *bytes = block;
    uint32_t count = vv_load_u32(bytes + len - 4);
    if (count == 0 || count > (len - 4) / 4)
        return -VV_ERR_FORMAT;
    iter->records = bytes;
    iter->records_len = (uint32_t)(len - 4 - (size_t)count * 4);
    iter->restarts = bytes + iter->records_len;
    iter->restart_count = count;
    iter->offset = 0;
    iter->kind = VV_LSM_DELETE;
    iter->key_len = 0;
    iter->value = (struct vv_bytes){NULL, 0};
    return 0;
}

/* Searching is mostly these two: they are here to be inlined. */
static inline uint32_t load_u32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return le32toh(value);
}

static inline bool is_below(struct vv_bytes a, struct vv_bytes b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len > 0 ? memcmp(a.ptr, b.ptr, len) : 0;
    return order < 0 || (order == 0 && a.len < b.len);
}

/* A record's head. */
struct head {
    uint64_t shared, rest, tail; /* tail = kind + 4 * value length */
};

/* Returns the bytes of the head, 0 when it is damaged. Most heads are three single bytes. */
static size_t head_decode(const uint8_t *bytes, size_t len, struct head *out_head)
{
    if (len >= 3 && ((bytes[0] | bytes[1] | bytes[2]) & 0x80) == 0) {
        *out_head = (struct head){bytes[0], bytes[1], bytes[2]};
        return 3;
    }
    struct vv_cursor cursor = vv_cursor_of(bytes, len);
    out_head->shared = vv_cursor_varint(&cursor);
    out_head->rest = vv_cursor_varint(&cursor);
    out_head->tail = vv_cursor_varint(&cursor);
    return cursor.is_bad ? 0 : len - cursor.len;
}

/* Decode the record at `offset`: everything but the key. Fills iter->kind and iter->value. */
static int record_decode(struct vv_block_iter *iter, size_t offset, struct head *out_head,
                         struct vv_bytes *out_rest, size_t *out_end)
{
    size_t len = iter->records_len - offset;
    size_t head_len = head_decode(iter->records + offset, len, out_head);
    if (head_len == 0)
        return -VV_ERR_FORMAT;
    len -= head_len;
    uint64_t value_len = out_head->tail >> 2;
    uint8_t kind = out_head->tail & 3;
    if (kind > VV_LSM_MERGE || value_len > VV_LSM_VALUE_MAX || out_head->rest > VV_LSM_KEY_MAX ||
        out_head->rest + value_len > len || (kind == VV_LSM_DELETE && value_len > 0))
        return -VV_ERR_FORMAT;
    const uint8_t *rest = iter->records + offset + head_len;
    *out_rest = (struct vv_bytes){rest, out_head->rest};
    iter->kind = kind;
    iter->value = (struct vv_bytes){rest + out_head->rest, value_len};
    *out_end = offset + head_len + out_head->rest + value_len;
    return 0;
}

int vv_block_next(struct vv_block_iter *iter)
{
    if (iter->offset >= iter->records_len)
        return 0;
    struct head head;
    struct vv_bytes rest;
    size_t end;
    TRY(record_decode(iter, iter->offset, &head, &rest, &end));
    if (head.shared > iter->key_len || head.shared + head.rest > VV_LSM_KEY_MAX)
        return -VV_ERR_FORMAT;
    memcpy(iter->key + head.shared, rest.ptr, rest.len);
    iter->key_len = (uint16_t)(head.shared + head.rest);
    iter->offset = (uint32_t)end;
    return 1;
}

/* The key and value of the record at restart `number`, borrowed from the block. */
static int restart_at(struct vv_block_iter *iter, uint32_t number, uint32_t *out_offset,
                      struct vv_bytes *out_key)
{
    uint32_t offset = load_u32(iter->restarts + (size_t)number * 4);
    if (offset >= iter->records_len)
        return -VV_ERR_FORMAT;
    struct head head;
    size_t end;
    TRY(record_decode(iter, offset, &head, out_key, &end));
    if (head.shared != 0)
        return -VV_ERR_FORMAT;
    *out_offset = offset;
    return 0;
}

/* The search jumps about in a block that lies in no cache as a rule: what it may look at is fetched all at once, not one
 * after the other. */
static void prefetch_restarts(const struct vv_block_iter *iter)
{
    if (iter->restart_count > PREFETCHED_MAX)
        return;
    for (uint32_t i = 0; i < iter->restart_count; i++) {
        uint32_t offset = load_u32(iter->restarts + (size_t)i * 4);
        if (offset < iter->records_len)
            __builtin_prefetch(iter->records + offset);
    }
}

int vv_block_seek(struct vv_block_iter *iter, struct vv_bytes key)
{
    prefetch_restarts(iter);
    /* The last restart below `key`: the record is not before it. */
    uint32_t low = 0;
    uint32_t high = iter->restart_count;
    uint32_t offset = 0;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t middle_offset;
        struct vv_bytes middle_key;
        TRY(restart_at(iter, middle, &middle_offset, &middle_key));
        if (is_below(middle_key, key)) {
            low = middle;
            offset = middle_offset;
        } else {
            high = middle;
        }
    }
    iter->offset = offset;
    iter->key_len = 0;
    for (;;) {
        int found = vv_block_next(iter);
        if (found <= 0 || !is_below(vv_block_key(iter), key))
            return found;
    }
}

/* ---- index ---- */

int vv_index_count(struct vv_bytes index, uint32_t *out_count)
{
    struct vv_block_iter iter;
    TRY(vv_block_iter_init(&iter, index.ptr, index.len));
    *out_count = iter.restart_count;
    return 0;
}

int vv_index_find(struct vv_bytes index, struct vv_bytes key, uint32_t *out_block)
{
    struct vv_block_iter iter;
    TRY(vv_block_iter_init(&iter, index.ptr, index.len));
    uint32_t low = 0;
    uint32_t high = iter.restart_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t offset;
        struct vv_bytes separator;
        TRY(restart_at(&iter, middle, &offset, &separator));
        if (is_below(separator, key))
            low = middle + 1;
        else
            high = middle;
    }
    *out_block = low;
    return low < iter.restart_count;
}

int vv_index_at(struct vv_bytes index, const struct vv_table_footer *footer, uint32_t number,
                struct vv_block_loc *out_loc, struct vv_bytes *out_key)
{
    struct vv_block_iter iter;
    TRY(vv_block_iter_init(&iter, index.ptr, index.len));
    if (number >= iter.restart_count)
        return -VV_ERR_FORMAT;
    uint32_t at;
    struct vv_bytes separator;
    TRY(restart_at(&iter, number, &at, &separator));
    struct vv_cursor cursor = vv_cursor_of(iter.value.ptr, iter.value.len);
    uint64_t offset = vv_cursor_varint(&cursor);
    uint64_t len = vv_cursor_varint(&cursor);
    TRY(vv_cursor_end(&cursor));
    if (offset < VV_OBJECT_HEADER_LEN || offset > footer->filter_offset ||
        len > footer->filter_offset - offset || len < VV_FRAME_OVERHEAD ||
        len > VV_BLOCK_PLAIN_MAX + VV_FRAME_OVERHEAD)
        return -VV_ERR_FORMAT;
    *out_loc = (struct vv_block_loc){offset, (uint32_t)len};
    if (out_key)
        *out_key = separator;
    return 0;
}

/* ---- filter ---- */

/* The odd constants of the Parquet format's split-block Bloom filter. */
static const uint32_t filter_salt[8] = {0x47b6137bu, 0x44974d91u, 0x8824ad5bu, 0xa2b7289du,
                                        0x705495c7u, 0x2df1424bu, 0x9efc4947u, 0x5c6bfb31u};

size_t vv_filter_len(uint64_t keys)
{
    uint64_t groups =
        (keys * VV_FILTER_BITS + VV_FILTER_GROUP_LEN * 8 - 1) / (VV_FILTER_GROUP_LEN * 8);
    return (size_t)(groups ? groups : 1) * VV_FILTER_GROUP_LEN;
}

static size_t group_of(size_t len, uint64_t hash)
{
    uint64_t groups = len / VV_FILTER_GROUP_LEN;
    return (size_t)(((hash >> 32) * groups) >> 32) * VV_FILTER_GROUP_LEN;
}

void vv_filter_add(uint8_t *filter, size_t len, uint64_t hash)
{
    uint8_t *group = filter + group_of(len, hash);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t bit = ((uint32_t)hash * filter_salt[i]) >> 27;
        group[i * 4 + bit / 8] |= (uint8_t)(1u << (bit % 8));
    }
}

bool vv_filter_may_contain(const uint8_t *filter, size_t len, uint64_t hash)
{
    const uint8_t *group = filter + group_of(len, hash);
    unsigned missing = 0;
    for (unsigned i = 0; i < 8; i++) {
        uint32_t bit = ((uint32_t)hash * filter_salt[i]) >> 27;
        missing |= ~(unsigned)group[i * 4 + bit / 8] >> (bit % 8) & 1;
    }
    return missing == 0;
}
