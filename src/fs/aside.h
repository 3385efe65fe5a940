/* Space that fallocate has set aside: the record 'P' inode, and how it changes.
 *
 * A set of blocks (of VV_BLOCK_BYTES) of a file, holes and since written ones: st_blocks counts all of them, and what is
 * written there does not count again (vv_op_into_aside). So a write changes nothing here. Invariant: a block enters the
 * set only as a hole and leaves it only when it is cleared whole, in the same operation. The inode's record says how many
 * blocks they are. Nothing is set aside in the store: it is a number.
 *
 * Record:
 *   u8      version, 1
 *   stretches, ascending, to the end:
 *     varint  blocks from the end of the one before (of the first: from 0); not 0 but in the first
 *     varint  blocks; not 0
 *
 * A record has at most VV_ASIDE_RECORD_MAX bytes. What would make a longer one changes nothing: of a file with thousands of
 * stretches, a call may set aside nothing more, and one that frees leaves its blocks counted. (Removing at the end and
 * collapsing make none longer.)
 *
 * Plain values but for vv_aside_load and vv_aside_store; any thread; never suspends. */
#ifndef VV_FS_ASIDE_H
#define VV_FS_ASIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "fs/inode.h"
#include "volume/volume.h"

#define VV_ASIDE_VERSION 1
#define VV_ASIDE_RECORD_MAX 8192
#define VV_ASIDE_BLOCKS_MAX (VV_FILE_BYTES_MAX / VV_BLOCK_BYTES) /* the last block that can be in it ends there */

struct vv_aside_range {
    uint64_t from, to; /* blocks */
};

/* The stretches of a record, one after the other. */
struct vv_aside_iter {
    struct vv_cursor cursor;
    uint64_t at;
};
/* An empty `record` has none. */
struct vv_aside_iter vv_aside_iter_of(struct vv_bytes record);
/* False at the end, and where the record is damaged (vv_aside_check tells). */
bool vv_aside_next(struct vv_aside_iter *iter, struct vv_aside_range *out_range);
/* Is it sound, and how many blocks are in it? -VV_ERR_FORMAT, -VV_ERR_NEWER. */
MUST_CHECK int vv_aside_check(struct vv_bytes record, uint64_t *out_blocks);
/* Is the block in it? *out_end: the first block behind it for which the answer is another; UINT64_MAX = none. */
bool vv_aside_has(struct vv_bytes record, uint64_t block, uint64_t *out_end);

/* A set that is being made: its record, and how many blocks are in it. Too little memory shows in the writer. */
struct vv_aside_made {
    struct vv_writer writer;
    struct vv_aside_range last; /* not written yet */
    uint64_t at, blocks;
};
void vv_aside_begin(struct vv_aside_made *out);
/* Stretches in the order of where they begin; what meets the one before joins it, and an empty one is left out. */
void vv_aside_put(struct vv_aside_made *made, uint64_t from, uint64_t to);
void vv_aside_end(struct vv_aside_made *made);
void vv_aside_done(struct vv_aside_made *made);

/* Each makes a set in *out, which the caller gives to vv_aside_done. */
void vv_aside_join(struct vv_bytes record, struct vv_bytes other, struct vv_aside_made *out);
typedef void vv_aside_change(struct vv_bytes record, uint64_t first, uint64_t second,
                             struct vv_aside_made *out);
void vv_aside_remove(struct vv_bytes record, uint64_t from, uint64_t to, struct vv_aside_made *out);
/* Blocks [from, to) go, and those behind move down. */
void vv_aside_collapse(struct vv_bytes record, uint64_t from, uint64_t to,
                       struct vv_aside_made *out);
/* Those from `at` on move up by `count`. */
void vv_aside_insert(struct vv_bytes record, uint64_t at, uint64_t count,
                     struct vv_aside_made *out);

/* What is set aside of a file: *out_record is valid as vv_op_get's; empty when nothing is. -VV_ERR_MISS, -VV_ERR_FORMAT. */
MUST_CHECK int vv_aside_load(struct vv_op *op, const struct vv_inode *inode,
                             struct vv_bytes *out_record);
/* What is written next begins at byte `offset` of the file: tell the operation whether that lies in what is set aside. How many
 * of `len` bytes do, or don't, alike. */
uint64_t vv_aside_tell(struct vv_op *op, struct vv_bytes record, uint64_t offset, uint64_t len);
/* Let `made` be it, which is then done with. Stages its record, not the inode. 1; 0 = it is too long, and nothing is changed; -ENOMEM. */
MUST_CHECK int vv_aside_store(struct vv_op *op, struct vv_inode *inode, struct vv_aside_made *made);
/* Let it be what `change` (vv_aside_remove and those after it) makes of it with these two numbers. As vv_aside_load and vv_aside_store;
 * 1 also when nothing is set aside. */
MUST_CHECK int vv_aside_edit(struct vv_op *op, struct vv_inode *inode, vv_aside_change *change,
                             uint64_t first, uint64_t second);
/* Nothing is set aside any more. */
MUST_CHECK int vv_aside_drop(struct vv_op *op, struct vv_inode *inode);

#endif
