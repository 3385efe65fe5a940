/* Handles, attributes, and weak cache consistency. */
#include <string.h>
#include <sys/stat.h>

#include "front/nfs/nfs_impl.h"

/* ---- handles ---- */

void vv_nfs_handle_of(const struct vv_nfs *nfs, uint64_t inode, struct vv_nfs_handle *out_handle)
{
    memset(out_handle, 0, sizeof(*out_handle));
    out_handle->len = VV_NFS_HANDLE_BYTES;
    memcpy(out_handle->bytes, vv_volume_id(vv_fs_volume(nfs->fs)), 16);
    vv_store_be64(out_handle->bytes + 16, inode);
    vv_store_be64(out_handle->bytes + 24, VV_NFS_GENERATION);
}

int vv_nfs_inode_of(const struct vv_nfs *nfs, const struct vv_nfs_handle *handle,
                    uint64_t *out_inode)
{
    if (handle->len != VV_NFS_HANDLE_BYTES)
        return VV_NFS3ERR_BADHANDLE;
    /* Another volume may have been served here before. */
    if (memcmp(handle->bytes, vv_volume_id(vv_fs_volume(nfs->fs)), 16) != 0 ||
        vv_load_be64(handle->bytes + 24) != VV_NFS_GENERATION)
        return VV_NFS3ERR_STALE;
    *out_inode = vv_load_be64(handle->bytes + 16);
    return 0;
}

/* ---- attributes ---- */

static uint32_t type_of(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR: return VV_NF3DIR;
    case S_IFBLK: return VV_NF3BLK;
    case S_IFCHR: return VV_NF3CHR;
    case S_IFLNK: return VV_NF3LNK;
    case S_IFSOCK: return VV_NF3SOCK;
    case S_IFIFO: return VV_NF3FIFO;
    default: return VV_NF3REG;
    }
}

/* NFS counts unsigned seconds in 32 bits: what lies outside becomes the nearest that it can say. */
static struct vv_nfs_time time_of(const struct timespec *time)
{
    if (time->tv_sec < 0)
        return (struct vv_nfs_time){0, 0};
    if (time->tv_sec > (time_t)UINT32_MAX)
        return (struct vv_nfs_time){UINT32_MAX, 999999999};
    return (struct vv_nfs_time){(uint32_t)time->tv_sec, (uint32_t)time->tv_nsec};
}

void vv_nfs_fattr_of(const struct vv_nfs *nfs, const struct vv_attr *attr,
                     struct vv_nfs_fattr *out_fattr)
{
    *out_fattr = (struct vv_nfs_fattr){
        .type = type_of(attr->mode),
        .mode = attr->mode & 07777,
        .nlink = attr->nlink,
        .uid = attr->uid,
        .gid = attr->gid,
        .size = attr->size,
        .used = attr->blocks * 512,
        .major = attr->rdev_major,
        .minor = attr->rdev_minor,
        .fsid = nfs->fsid,
        .fileid = attr->inode,
        .atime = time_of(&attr->atime),
        .mtime = time_of(&attr->mtime),
        .ctime = time_of(&attr->ctime),
    };
}

static struct timespec timespec_of(const struct vv_nfs_time *time)
{
    return (struct timespec){.tv_sec = time->sec, .tv_nsec = (long)time->nsec};
}

uint32_t vv_nfs_set_of(const struct vv_nfs_sattr *sattr, struct vv_attr *out_set)
{
    uint32_t mask = 0;
    *out_set = (struct vv_attr){.mode = sattr->mode & 07777,
                                .uid = sattr->uid,
                                .gid = sattr->gid,
                                .size = sattr->size,
                                .atime = timespec_of(&sattr->atime),
                                .mtime = timespec_of(&sattr->mtime)};
    mask |= sattr->has_uid ? VV_SET_UID : 0;
    mask |= sattr->has_gid ? VV_SET_GID : 0;
    mask |= sattr->has_size ? VV_SET_SIZE : 0;
    if (sattr->atime_how != VV_NFS_TIME_KEEP)
        mask |= sattr->atime_how == VV_NFS_TIME_NOW ? VV_SET_ATIME_NOW : VV_SET_ATIME;
    if (sattr->mtime_how != VV_NFS_TIME_KEEP)
        mask |= sattr->mtime_how == VV_NFS_TIME_NOW ? VV_SET_MTIME_NOW : VV_SET_MTIME;
    return mask;
}

/* ---- weak cache consistency ---- */

void vv_nfs_watch_begin(struct vv_nfs_job *job, uint64_t inode, struct vv_nfs_watch *watch)
{
    watch->inode = inode;
    watch->err = vv_fs_getattr(job->conn->nfs->fs, inode, &watch->before);
}

void vv_nfs_watch_end(struct vv_nfs_job *job, const struct vv_nfs_watch *watch, unsigned changes,
                      struct vv_nfs_wcc *out_wcc)
{
    struct vv_attr after;
    *out_wcc = (struct vv_nfs_wcc){0};
    if (vv_fs_getattr(job->conn->nfs->fs, watch->inode, &after) < 0)
        return;
    out_wcc->has_after = true;
    vv_nfs_fattr_of(job->conn->nfs, &after, &out_wcc->after);
    if (watch->err < 0)
        return;
    uint64_t change_count = after.change - watch->before.change;
    out_wcc->has_before = change_count == 0 || change_count == changes;
    out_wcc->size = watch->before.size;
    out_wcc->mtime = time_of(&watch->before.mtime);
    out_wcc->ctime = time_of(&watch->before.ctime);
}

int vv_nfs_post_attr(struct vv_nfs_job *job, uint64_t inode)
{
    struct vv_attr attr;
    struct vv_nfs_results *results = &job->results;
    results->has_attr = false;
    TRY(vv_fs_getattr(job->conn->nfs->fs, inode, &attr));
    results->has_attr = true;
    vv_nfs_fattr_of(job->conn->nfs, &attr, &results->attr);
    return 0;
}

int vv_nfs_settle(struct vv_nfs_job *job, uint64_t inode)
{
    return job->export->is_async ? 0 : vv_fs_sync(job->conn->nfs->fs, inode);
}
