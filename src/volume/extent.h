/* Extent records: where the bytes of one extent lie. Table 'E', key: data id, extent index.
 *
 * Value:
 *   varint  commit number: newest change that the record holds
 *   u8      count of pieces, 1 .. VV_PIECES_MAX; 128 more when a byte follows:
 *   u8        blocks (of VV_EXTENT_BLOCK) of frames that lie in space that was set aside: bit i for the i-th; never 0
 *   pieces, oldest first, each laid over those before it:
 *     u8      flags: 1 = frame (else zeros), 2 = the frame is in a log object (else a data segment),
 *             4 = a parent volume's segment (its index follows as a varint)
 *     varint  first byte in the extent
 *     varint  bytes
 *     for frames: varint epoch, varint counter, varint index, varint offset, varint frame length
 *
 * The plain bytes of a piece's frame begin at the piece's first byte; there may be more of them than the
 * piece uses. The frame's origin is the record's key. Bytes that no piece covers are zeros (a hole). The first piece of an extent that was
 * folded or written whole is its base; up to 8 more are laid over it. Space that was set aside (fallocate) is counted where
 * it was set aside, so what is written there is not counted again: the record says which blocks those are, so that they
 * are not counted out either.
 *
 * Pure values; any thread; never suspends. */
#ifndef VV_VOLUME_EXTENT_H
#define VV_VOLUME_EXTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "segment/segment.h"
#include "volume/volume.h"

#define VV_PIECES_MAX 9
#define VV_EXTENT_RECORD_MAX (12 + VV_PIECES_MAX * 64) /* encoded bytes */
#define VV_EXTENT_BLOCK 4096u /* space is counted in blocks of so many bytes */
#define VV_EXTENT_BLOCKS (VV_EXTENT_BYTES / VV_EXTENT_BLOCK)
#define VV_EXTENT_INDEX_MAX (VV_DATA_BYTES_MAX / VV_EXTENT_BYTES)

struct vv_piece {
    uint32_t from, to; /* bytes in the extent, from < to */
    bool is_zero;
    struct vv_frame_loc loc;
};

struct vv_extent_record {
    uint64_t commit;
    uint8_t aside; /* blocks that are not counted: among those of vv_extent_blocks */
    unsigned count;
    struct vv_piece pieces[VV_PIECES_MAX];
};

/* Into out[VV_EXTENT_RECORD_MAX]; the length. */
size_t vv_extent_encode(const struct vv_extent_record *record, uint8_t *out);
/* -VV_ERR_FORMAT. */
MUST_CHECK int vv_extent_decode(struct vv_bytes value, struct vv_extent_record *out_record);

/* Sets of bytes of one extent, as sorted disjoint ranges. */
#define VV_COVER_MAX 64
struct vv_cover {
    unsigned count;
    struct {
        uint32_t from, to;
    } ranges[VV_COVER_MAX];
};
/* False when the set would need more than VV_COVER_MAX ranges (then it is unchanged). */
bool vv_cover_add(struct vv_cover *cover, uint32_t from, uint32_t to);
bool vv_cover_has(const struct vv_cover *cover, uint32_t from, uint32_t to);
/* The parts of [from, to) that are not in it, ascending; at most VV_COVER_MAX + 1. */
unsigned vv_cover_gaps(const struct vv_cover *cover, uint32_t from, uint32_t to,
                       uint32_t (*out_gaps)[2]);

/* Sets of blocks of one extent: bit i is the i-th. Those that [from, to) touches or, of zeros, covers: only such are free. */
uint8_t vv_blocks_of(uint32_t from, uint32_t to, bool is_zero);
static inline uint8_t vv_blocks_put(uint8_t blocks, uint32_t from, uint32_t to, bool is_zero)
{
    uint8_t these = vv_blocks_of(from, to, is_zero);
    return (uint8_t)(is_zero ? blocks & ~these : blocks | these);
}
/* The blocks in which the record has frames. */
uint8_t vv_extent_blocks(const struct vv_extent_record *record);
/* Bytes of them that are counted in st_blocks: those that do not lie in space that was set aside. */
uint32_t vv_extent_allocated(const struct vv_extent_record *record);

/* Keys. Each returns the length; out has VV_VOLUME_KEY_MAX bytes. */
#define VV_VOLUME_KEY_MAX 40
size_t vv_key_extent(uint8_t *out, uint64_t data_id, uint64_t index);
size_t vv_key_range(uint8_t *out, uint64_t data_id, uint64_t from, uint64_t commit);
size_t vv_key_allocated(uint8_t *out, uint64_t inode, uint64_t data_id);
size_t vv_key_segment(uint8_t *out, const struct vv_segment_id *id);
MUST_CHECK int vv_key_segment_parse(struct vv_bytes key, struct vv_segment_id *out_id);
size_t vv_key_orphan_data(uint8_t *out, uint64_t data_id);

#endif
