/* Opening and closing, and the records that all other files share. */
#include "fs/fs.h"

#include <assert.h>
#include <linux/fs.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "fs/aside.h"
#include "fs/fs_impl.h"

#define UNBOUNDED_BYTES (1ull << 50) /* what statfs says of a store without a known size */
#define FILES_MAX (1ull << 32)

/* ---- opening ---- */

static int find_root(struct vv_op *op, void *arg)
{
    struct vv_fs_key key;
    struct vv_bytes record;
    vv_key_inode(&key, VV_ROOT_INODE);
    return vv_op_get(op, vv_fs_key_bytes(&key), &record);
}

static int make_root(struct vv_op *op, void *arg)
{
    int found = find_root(op, arg);
    if (found != 0)
        return found;
    const struct vv_cred *owner = arg;
    struct vv_inode root = {.inode = VV_ROOT_INODE,
                            .mode = S_IFDIR | 0755,
                            .uid = owner->uid,
                            .gid = owner->gid,
                            .nlink = 2,
                            .parent = VV_ROOT_INODE,
                            .next_cookie = VV_FIRST_COOKIE};
    root.btime = vv_rt_wall();
    vv_inode_touch(&root, VV_NOW_ATIME | VV_NOW_MTIME | VV_NOW_CTIME);
    return vv_inode_save(op, &root);
}

static void fs_free(struct vv_fs *fs)
{
    vv_map_done(&fs->opens);
    vv_locks_done(fs);
    vv_replies_done(fs);
    vv_free(fs);
}

static int fs_init(struct vv_fs *fs, struct vv_cred *owner)
{
    TRY(vv_map_init(&fs->opens));
    TRY(vv_locks_init(fs));
    /* The root is made by the first operation ever: whatever was committed is a prefix with it. */
    struct vv_volume_stats stats;
    vv_volume_stats(fs->volume, &stats);
    bool has_root = stats.open_commit > 1;
    int found = has_root ? 1 : vv_volume_run(fs->volume, VV_OP_READ, 0, find_root, NULL);
    if (found == 0)
        found = vv_volume_run(fs->volume, VV_OP_WRITE, 0, make_root, owner);
    TRY(found);
    return vv_reclaim_start(fs);
}

int vv_fs_open(struct vv_volume *volume, struct vv_fs **out_fs)
{
    return vv_fs_open_as(volume, 0, 0, out_fs);
}

int vv_fs_open_as(struct vv_volume *volume, uint32_t uid, uint32_t gid, struct vv_fs **out_fs)
{
    struct vv_cred owner = {.uid = uid, .gid = gid};
    struct vv_fs *fs = vv_zalloc(sizeof(*fs));
    if (!fs)
        return -ENOMEM;
    fs->volume = volume;
    vv_list_init(&fs->watches);
    vv_list_init(&fs->reclaims);
    vv_list_init(&fs->lock_waiters);
    vv_waitq_init(&fs->reclaim_wake);
    vv_waitq_init(&fs->reclaim_ended);
    int err = fs_init(fs, &owner);
    if (err < 0) {
        fs_free(fs);
        return err;
    }
    *out_fs = fs;
    return 0;
}

void vv_fs_close(struct vv_fs *fs)
{
    if (!fs)
        return;
    vv_reclaim_stop(fs);
    assert(vv_list_is_empty(&fs->lock_waiters));
    assert(fs->opens.count == 0 && "no handle is open");
    fs_free(fs);
}

struct vv_volume *vv_fs_volume(struct vv_fs *fs)
{
    return fs->volume;
}

/* ---- records ---- */

static bool is_counted_before(const struct vv_parts *parts, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (parts->at[i].data_id == parts->at[index].data_id)
            return true;
    }
    return false;
}

/* Sectors that the data takes, and what is set aside; inline bytes count as one, so that nobody thinks them a hole. 0; 1 = that
 * will change by itself. */
static int count_blocks(struct vv_op *op, const struct vv_inode *inode, uint64_t *out_blocks)
{
    struct vv_parts parts;
    uint64_t sum = inode->aside_blocks * VV_BLOCK_BYTES;
    int is_settling = 0;
    *out_blocks = (S_ISREG(inode->mode) && inode->in_line.len > 0) + sum / 512;
    if (inode->parts.len == 0)
        return 0;
    TRY(vv_parts_decode(inode->parts, &parts));
    for (size_t i = 0; i < parts.count; i++) {
        uint64_t bytes = 0;
        if (is_counted_before(&parts, i))
            continue;
        int err = vv_op_allocated(op, inode->inode, parts.at[i].data_id, &bytes);
        if (err < 0 && err != -VV_ERR_MISS)
            return err;
        sum += bytes;
        is_settling |= err == 1;
    }
    *out_blocks = (sum + 511) / 512;
    return vv_op_is_missing(op) ? -VV_ERR_MISS : is_settling;
}

/* What follows on an inode's record: most who read it want to know its blocks. */
static void follow_inode(struct vv_op *op, uint64_t number)
{
    struct vv_fs_key key;
    struct vv_bytes record;
    struct vv_inode inode;
    uint64_t blocks;
    struct vv_bytes aside;
    vv_key_inode(&key, number);
    if (vv_op_get(op, vv_fs_key_bytes(&key), &record) <= 0 ||
        vv_inode_decode(record, number, &inode) < 0)
        return;
    /* A miss is noted; anything else shows again when it is asked for in earnest. */
    if (vv_aside_load(op, &inode, &aside) < 0 && !vv_op_is_missing(op))
        return;
    int err = count_blocks(op, &inode, &blocks);
    (void)err;
}

int vv_inode_load(struct vv_fs *fs, struct vv_op *op, uint64_t inode, struct vv_inode *out_inode)
{
    struct vv_fs_key key;
    struct vv_bytes record;
    vv_key_inode(&key, inode);
    int found = vv_op_get(op, vv_fs_key_bytes(&key), &record);
    if (found == -VV_ERR_MISS)
        vv_op_follow(op, follow_inode, inode);
    TRY(found);
    if (found == 0)
        return -ESTALE;
    TRY(vv_inode_decode(record, inode, out_inode));
    if (out_inode->nlink > 0)
        return 0;
    const struct vv_open_inode *open = vv_open_find(fs, inode);
    return open && open->handle_count > 0 ? 0 : -ESTALE;
}

int vv_key_put(struct vv_op *op, const struct vv_fs_key *key, const void *bytes, size_t len)
{
    return vv_op_put(op, vv_fs_key_bytes(key), (struct vv_bytes){bytes, len});
}

int vv_inode_put(struct vv_op *op, const struct vv_inode *inode)
{
    uint8_t record[VV_INODE_RECORD_MAX];
    struct vv_fs_key key;
    vv_key_inode(&key, inode->inode);
    return vv_key_put(op, &key, record, vv_inode_encode(inode, record));
}

int vv_inode_save(struct vv_op *op, const struct vv_inode *inode)
{
    TRY(vv_op_touch(op, inode->inode));
    return vv_inode_put(op, inode);
}

int vv_entry_load(struct vv_op *op, uint64_t directory, const char *name, size_t name_len,
                  struct vv_entry *out_entry)
{
    struct vv_fs_key key;
    struct vv_bytes record;
    vv_key_entry(&key, directory, name, name_len);
    int found = vv_op_get(op, vv_fs_key_bytes(&key), &record);
    if (found <= 0)
        return found;
    TRY(vv_entry_decode(record, out_entry));
    return 1;
}

int vv_entry_save(struct vv_op *op, uint64_t directory, const struct vv_entry *entry,
                  const char *name, size_t name_len)
{
    uint8_t record[VV_COOKIE_RECORD_MAX];
    struct vv_fs_key key;
    vv_key_entry(&key, directory, name, name_len);
    TRY(vv_key_put(op, &key, record, vv_entry_encode(entry, record)));
    vv_key_cookie(&key, directory, entry->cookie);
    return vv_key_put(op, &key, record, vv_cookie_encode(entry, name, name_len, record));
}

int vv_entry_erase(struct vv_op *op, uint64_t directory, const struct vv_entry *entry,
                   const char *name, size_t name_len)
{
    struct vv_fs_key key;
    vv_key_entry(&key, directory, name, name_len);
    TRY(vv_op_delete(op, vv_fs_key_bytes(&key)));
    vv_key_cookie(&key, directory, entry->cookie);
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}

void vv_inode_touch(struct vv_inode *inode, unsigned which)
{
    struct timespec now = vv_rt_wall();
    if (which & VV_NOW_MTIME)
        inode->mtime = now;
    if (which & VV_NOW_CTIME)
        inode->ctime = now;
    if (which & VV_NOW_ATIME)
        inode->atime = now;
    inode->change++;
}

int vv_dir_add(struct vv_inode *dir, bool is_subdir, uint64_t *out_cookie)
{
    if (dir->size >= VV_FILE_BYTES_MAX || dir->next_cookie == UINT64_MAX)
        return -VV_ERR_CORRUPT;
    if (is_subdir && dir->nlink == UINT32_MAX)
        return -EMLINK;
    *out_cookie = dir->next_cookie++;
    dir->size++;
    dir->nlink += is_subdir ? 1 : 0;
    vv_inode_touch(dir, VV_NOW_MTIME | VV_NOW_CTIME);
    return 0;
}

int vv_dir_remove(struct vv_inode *dir, bool is_subdir)
{
    if (dir->size == 0 || (is_subdir && dir->nlink <= 2))
        return -VV_ERR_CORRUPT;
    dir->size--;
    dir->nlink -= is_subdir ? 1 : 0;
    vv_inode_touch(dir, VV_NOW_MTIME | VV_NOW_CTIME);
    return 0;
}

int vv_inode_attr(struct vv_op *op, const struct vv_inode *inode, struct vv_attr *out_attr)
{
    uint64_t blocks;
    int is_settling = count_blocks(op, inode, &blocks);
    TRY(is_settling);
    *out_attr = (struct vv_attr){.inode = inode->inode,
                                 .mode = inode->mode,
                                 .nlink = inode->nlink,
                                 .uid = inode->uid,
                                 .gid = inode->gid,
                                 .rdev_major = (uint32_t)(inode->rdev >> 32),
                                 .rdev_minor = (uint32_t)inode->rdev,
                                 .size = inode->size,
                                 .blocks = blocks,
                                 .is_settling = is_settling > 0,
                                 .atime = inode->atime,
                                 .mtime = inode->mtime,
                                 .ctime = inode->ctime,
                                 .btime = inode->btime,
                                 .flags = inode->flags,
                                 .generation = 1,
                                 .change = inode->change};
    return 0;
}

void vv_inode_new(struct vv_op *op, const struct vv_fs_call *call, const struct vv_inode *dir,
                  uint32_t mode, struct vv_inode *out_inode)
{
    const struct vv_cred *cred = &call->cred;
    struct vv_inode inode = {.inode = vv_op_new_inode(op), .uid = cred->uid, .gid = cred->gid};
    inode.flags = dir->flags & (FS_NODUMP_FL | FS_NOATIME_FL | FS_SYNC_FL | FS_DIRSYNC_FL);
    if (!S_ISDIR(mode))
        inode.flags &= ~(uint32_t)FS_DIRSYNC_FL;
    if (S_ISLNK(mode))
        inode.flags = 0;
    if (dir->mode & S_ISGID) {
        inode.gid = dir->gid;
        if (S_ISDIR(mode))
            mode |= S_ISGID;
        else if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
                 !vv_cred_may_setgid(cred, dir->gid))
            mode &= ~(uint32_t)S_ISGID;
    }
    inode.mode = mode;
    inode.nlink = S_ISDIR(mode) ? 2 : 1;
    inode.next_cookie = S_ISDIR(mode) ? VV_FIRST_COOKIE : 0;
    inode.parent = dir->inode;
    vv_inode_touch(&inode, VV_NOW_ATIME | VV_NOW_MTIME | VV_NOW_CTIME);
    inode.btime = inode.ctime;
    *out_inode = inode;
}

/* ---- durability and facts ---- */

int vv_fs_sync(struct vv_fs *fs, uint64_t inode)
{
    return vv_volume_sync(fs->volume, inode);
}

void vv_fs_shut_down(struct vv_fs *fs)
{
    vv_volume_shut_down(fs->volume);
}

int vv_fs_sync_if(struct vv_fs *fs, const struct vv_inode *inode)
{
    uint32_t wanted = FS_SYNC_FL | (S_ISDIR(inode->mode) ? FS_DIRSYNC_FL : 0);
    return inode->flags & wanted ? vv_volume_sync(fs->volume, inode->inode) : 0;
}

int vv_fs_statfs(struct vv_fs *fs, struct vv_statfs *out_statfs)
{
    struct vv_volume_stats stats;
    int err = vv_volume_refresh_space(fs->volume);
    /* The figures of the last time will do. */
    if (err < 0)
        vv_debug("fs", "asking for free space: %s", vv_err_text(err));
    vv_volume_stats(fs->volume, &stats);
    uint64_t total = stats.store_total;
    uint64_t free_bytes = stats.store_free;
    /* What is not sent yet will take its room. */
    if (free_bytes != UINT64_MAX)
        free_bytes -= free_bytes < stats.dirty_bytes ? free_bytes : stats.dirty_bytes;
    if (total == UINT64_MAX || free_bytes == UINT64_MAX) {
        total = UNBOUNDED_BYTES;
        while (total / 2 < stats.total_bytes)
            total *= 2;
        free_bytes = total - stats.total_bytes;
    }
    *out_statfs = (struct vv_statfs){.block_bytes = VV_BLOCK_BYTES,
                                     .blocks = total / VV_BLOCK_BYTES,
                                     .blocks_free = free_bytes / VV_BLOCK_BYTES,
                                     .files = FILES_MAX,
                                     .files_free = FILES_MAX,
                                     .name_max = VV_NAME_MAX};
    out_statfs->fsid = vv_xxh3(vv_volume_id(fs->volume), 16, 0);
    return 0;
}
