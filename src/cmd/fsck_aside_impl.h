/* Private to fsck: do the extent records of a file agree with what fallocate has set aside of it (fs/aside.h)?
 *
 * Each block of a file in which there is data must be marked in its extent record if and only if it lies in what is set
 * aside. What tombstones hide, and what lies in no part of the file and is not marked, does not matter.
 *
 * Memory: one struct of some 24 KiB. The functions that suspend say so. */
#ifndef VV_CMD_FSCK_ASIDE_IMPL_H
#define VV_CMD_FSCK_ASIDE_IMPL_H

#include "cmd/fsck_impl.h"
#include "fs/aside.h"
#include "volume/extent.h"

/* A stretch of the data id's bytes for which one answer holds. */
struct vv_fsck_aside_run {
    uint64_t from, to;
    bool is_aside;
};

struct vv_fsck_aside {
    struct vv_fsck *fsck;
    uint64_t inode, data_id;
    bool is_unknown; /* the file's records are damaged, which is said elsewhere */
    struct vv_parts parts;
    size_t record_len;
    struct vv_fsck_aside_run run;                   /* the last one that was looked for */
    uint64_t hidden_from, hidden_to, hidden_commit; /* extents of the last tombstone that hid one */
    uint64_t wrong_blocks, first_wrong;             /* byte in the data id */
    bool is_first_marked;
    uint8_t record[VV_ASIDE_RECORD_MAX];
};

/* Begin with a data id that one inode uses. has_aside: the inode's record says that something is set aside. Suspends. */
MUST_CHECK int vv_fsck_aside_begin(struct vv_fsck_aside *aside, uint64_t inode, uint64_t data_id,
                                   bool has_aside);
/* Its extents, ascending. May suspend. */
MUST_CHECK int vv_fsck_aside_take(struct vv_fsck_aside *aside, uint64_t index,
                                  const struct vv_extent_record *record);
/* Say what was found of the data id. */
void vv_fsck_aside_end(struct vv_fsck_aside *aside);

#endif
