/* Private to fsck: what the pass over the tree and the search for what it missed share.
 *
 * Two sets must be equal: the places that entries say their inodes are at (from table 'C'), and the
 * places that inodes say they are at (the inode record's own, and table 'L'). Each is summed up in
 * many buckets by inode. Only what lies in buckets that differ is looked up record by record. */
#ifndef VV_CMD_FSCK_TREE_IMPL_H
#define VV_CMD_FSCK_TREE_IMPL_H

#include "cmd/fsck_impl.h"
#include "fs/inode.h"

#define VV_FSCK_BUCKETS 65536

struct vv_fsck_dir {
    uint64_t inode;
    uint64_t parent;
};

struct vv_fsck_tree {
    struct vv_fsck *fsck;
    struct vv_fsck_sum *entries; /* VV_FSCK_BUCKETS each */
    struct vv_fsck_sum *places;
    struct vv_fsck_dir *dirs; /* that have links, ascending */
    size_t dir_count, dir_capacity, dir_max;
    bool has_too_many_dirs;
};

unsigned vv_fsck_bucket(const struct vv_fsck *fsck, uint64_t inode);
/* Look at what lies in buckets that differ. Suspends. */
MUST_CHECK int vv_fsck_places(struct vv_fsck_tree *tree);
/* The entries of one directory, by name and by cookie, that do not have their twin. Suspends. */
MUST_CHECK int vv_fsck_pairs(struct vv_fsck *fsck, uint64_t directory);
/* Is every directory below the root? May suspend. */
MUST_CHECK int vv_fsck_loops(struct vv_fsck_tree *tree);

#endif
