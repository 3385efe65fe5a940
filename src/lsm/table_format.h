/* The bytes of a metadata table, and how they are decoded. All integers little-endian.
 *
 * Object "sst/<2-hex shard>/<16-hex epoch>-<16-hex counter>" (the shard is the low byte of the
 * counter):
 *
 *   object header    96 bytes (seal.h), kind SST
 *   blocks           frames, index 0..n-1, origin {SST_BLOCK, i}, back to back, at least one
 *   filter           frame, index n, origin {SST_FILTER, 0}
 *   index            frame, index n+1, origin {SST_INDEX, 0}
 *   header copy      the 96 bytes of the object header again, so that the end of a table, which one
 *                    request brings, is enough to open it
 *   footer           40 bytes:
 *      0  4  magic "vvst"
 *      4  4  block count n
 *      8  8  filter offset
 *     16  4  filter length
 *     20  8  index offset
 *     28  4  index length
 *     32  4  reserved, 0
 *     36  4  CRC32C of bytes 0..35
 *
 * Block (plain), about VV_LSM_BLOCK_BYTES; a record that does not fit stands alone in a larger one:
 *
 *   records, keys ascending, each:
 *      varint shared       bytes that the key shares with the key before it
 *      varint rest         bytes of the key that follow
 *      varint kind + 4 * length of the value
 *      rest of the key, value (none for a delete; two svarints for a merge)
 *   restarts, 4 bytes each: offsets of the records with shared = 0, every VV_BLOCK_RESTART records
 *   restart count, 4 bytes, at least 1
 *
 * Index (plain): a block in which every record is a restart. Record i is a put; its key is not
 * below the last key of block i and below the first key of block i + 1; its value is varint offset
 * and varint length of the frame. The last record's key is the last key of the table.
 *
 * Filter (plain): a split-block Bloom filter: groups of 32 bytes, each of 8 words of 32 bits. A key
 * with XXH3 hash h belongs to group ((h >> 32) * groups) >> 32 and sets in word w the bit
 * ((uint32_t)h * salt[w]) >> 27. VV_FILTER_BITS bits for each key, rounded up to a group; never
 * empty.
 *
 * Pure computation over bytes from outside: any thread, never suspends, no allocation. */
#ifndef VV_LSM_TABLE_FORMAT_H
#define VV_LSM_TABLE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "lsm/lsm.h"
#include "seal/seal.h"

#define VV_TABLE_FOOTER_LEN 40
#define VV_TABLE_TRAILER_LEN (VV_OBJECT_HEADER_LEN + VV_TABLE_FOOTER_LEN)
#define VV_TABLE_BLOCKS_MAX (1u << 24)
#define VV_TABLE_NAME_MAX 64
#define VV_BLOCK_RESTART 16
/* The longest record: three varints, key and value. And the most plain bytes of a block. */
#define VV_RECORD_BYTES_MAX (16 + VV_LSM_KEY_MAX + VV_LSM_VALUE_MAX)
#define VV_BLOCK_PLAIN_MAX (VV_LSM_BLOCK_BYTES + VV_RECORD_BYTES_MAX)
#define VV_FILTER_GROUP_LEN 32
#define VV_FILTER_BITS 10

struct vv_table_footer {
    uint32_t block_count;
    uint64_t filter_offset;
    uint32_t filter_len;
    uint64_t index_offset;
    uint32_t index_len;
};

void vv_table_footer_encode(const struct vv_table_footer *footer, uint8_t out[VV_TABLE_FOOTER_LEN]);
/* Decode the last VV_TABLE_FOOTER_LEN bytes of an object of `object_len` bytes; what it says is
 * checked to lie inside. -VV_ERR_FORMAT, -VV_ERR_CHECKSUM. */
MUST_CHECK int vv_table_footer_decode(const uint8_t bytes[VV_TABLE_FOOTER_LEN], uint64_t object_len,
                                      struct vv_table_footer *out_footer);

/* ---- blocks ---- */

/* Walks the records of a block, whose bytes are borrowed. After vv_block_next or vv_block_seek
 * returned 1, `kind`, key and value are those of the record stood on, valid until the next call. */
struct vv_block_iter {
    const uint8_t *records;
    const uint8_t *restarts;
    uint32_t records_len;
    uint32_t restart_count;
    uint32_t offset; /* of the next record */
    uint8_t kind;    /* enum vv_lsm_kind */
    uint16_t key_len;
    struct vv_bytes value;
    uint8_t key[VV_LSM_KEY_MAX];
};

/* Before the first record. -VV_ERR_FORMAT. */
MUST_CHECK int vv_block_iter_init(struct vv_block_iter *iter, const void *block, size_t len);
/* The next record: 1, 0 at the end, -VV_ERR_FORMAT. */
MUST_CHECK int vv_block_next(struct vv_block_iter *iter);
/* The first record whose key is not below `key`: 1, 0 if there is none, -VV_ERR_FORMAT. */
MUST_CHECK int vv_block_seek(struct vv_block_iter *iter, struct vv_bytes key);
static inline struct vv_bytes vv_block_key(const struct vv_block_iter *iter)
{
    return (struct vv_bytes){iter->key, iter->key_len};
}

/* ---- index ---- */

struct vv_block_loc {
    uint64_t offset;
    uint32_t len;
};

/* How many blocks an index names. -VV_ERR_FORMAT. */
MUST_CHECK int vv_index_count(struct vv_bytes index, uint32_t *out_count);
/* The block that holds `key` if any does: 1, 0 when the key is above the last, -VV_ERR_FORMAT. */
MUST_CHECK int vv_index_find(struct vv_bytes index, struct vv_bytes key, uint32_t *out_block);
/* Where block `number` lies, checked against the footer, and its separator (out_key may be NULL;
 * borrowed from the index). -VV_ERR_FORMAT. */
MUST_CHECK int vv_index_at(struct vv_bytes index, const struct vv_table_footer *footer,
                           uint32_t number, struct vv_block_loc *out_loc, struct vv_bytes *out_key);

/* ---- filter ---- */

/* Bytes of the filter of `keys` keys. */
size_t vv_filter_len(uint64_t keys);
/* `filter` is a whole number of groups, at least one. */
void vv_filter_add(uint8_t *filter, size_t len, uint64_t hash);
bool vv_filter_may_contain(const uint8_t *filter, size_t len, uint64_t hash);

#endif
