/* Attributes, space, extended attributes. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "front/ninep/ninep_impl.h"

#define V9FS_MAGIC 0x01021997u
#define XATTR_TRIES 3

/* Tgetattr. All is told, whatever was asked for. */
int vv_ninep_getattr(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_attr attr;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    TRY(vv_fs_getattr(job->conn->ninep->fs, fid->inode, &attr));
    reply->getattr = (struct vv_ninep_getattr){
        .valid = VV_NINEP_GETATTR_ALL,
        .qid = vv_ninep_qid_of(&attr),
        .mode = attr.mode,
        .uid = attr.uid,
        .gid = attr.gid,
        .nlink = attr.nlink,
        .rdev = makedev(attr.rdev_major, attr.rdev_minor),
        .size = attr.size,
        .blksize = VV_BLOCK_BYTES,
        .blocks = attr.blocks,
        .atime = attr.atime,
        .mtime = attr.mtime,
        .ctime = attr.ctime,
        .btime = attr.btime,
        .gen = attr.generation,
        .data_version = attr.change,
    };
    return 0;
}

/* The wire's bits to those of vv_fs_setattr. A change of ctime alone is left out: every change sets
 * it. */
static uint32_t set_mask_of(const struct vv_ninep_setattr *in, uint32_t uid)
{
    uint32_t mask = 0;
    mask |= in->valid & VV_NINEP_SET_MODE ? VV_SET_MODE : 0;
    mask |= in->valid & VV_NINEP_SET_UID ? VV_SET_UID : 0;
    mask |= in->valid & VV_NINEP_SET_GID ? VV_SET_GID : 0;
    if (in->valid & VV_NINEP_SET_SIZE)
        mask |= VV_SET_SIZE | (uid != 0 ? VV_SET_KILL_PRIV : 0);
    if (in->valid & VV_NINEP_SET_ATIME)
        mask |= in->valid & VV_NINEP_SET_ATIME_SET ? VV_SET_ATIME : VV_SET_ATIME_NOW;
    if (in->valid & VV_NINEP_SET_MTIME)
        mask |= in->valid & VV_NINEP_SET_MTIME_SET ? VV_SET_MTIME : VV_SET_MTIME_NOW;
    return mask;
}

/* A caching client clears the setuid and setgid bits by itself, as a chmod, before it keeps an
 * ordinary user's write in its cache. Who may write may do that, for his write would; and no more. */
static int drop_set_ids(struct vv_ninep_fid *fid, const struct vv_fs_call *call, uint32_t mode)
{
    struct vv_fs *fs = fid->conn->ninep->fs;
    struct vv_attr attr;
    TRY(vv_fs_getattr(fs, fid->inode, &attr));
    uint32_t dropped = (attr.mode & 07777) & ~mode;
    if (!S_ISREG(attr.mode) || (mode & ~attr.mode) || (dropped & ~(uint32_t)(S_ISUID | S_ISGID)))
        return -EPERM;
    int err = vv_fs_access(fs, call, fid->inode, W_OK);
    TRY(err == -EACCES ? -EPERM : err);
    return vv_fs_setattr(fs, call, fid->inode, fid->handle, &attr, VV_SET_KILL_PRIV, &attr);
}

/* Tsetattr */
int vv_ninep_setattr(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    const struct vv_ninep_setattr *in = &job->request.setattr;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    struct vv_attr set = {.mode = in->mode & 07777,
                          .uid = in->uid,
                          .gid = in->gid,
                          .size = in->size,
                          .atime = in->atime,
                          .mtime = in->mtime};
    struct vv_attr attr;
    uint32_t mask = set_mask_of(in, fid->user->uid);
    if (mask == 0)
        return 0;
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    int err =
        vv_fs_setattr(job->conn->ninep->fs, &call.call, fid->inode, fid->handle, &set, mask, &attr);
    if (err == -EPERM && mask == VV_SET_MODE)
        err = drop_set_ids(fid, &call.call, set.mode);
    vv_ninep_call_end(&call);
    return err;
}

/* Tstatfs */
int vv_ninep_statfs(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_statfs statfs;
    TRY(vv_ninep_fid_get_file(job->conn, job->request.fid, &fid));
    TRY(vv_fs_statfs(job->conn->ninep->fs, &statfs));
    reply->statfs = (struct vv_ninep_statfs){
        .type = V9FS_MAGIC,
        .bsize = (uint32_t)statfs.block_bytes,
        .blocks = statfs.blocks,
        .bfree = statfs.blocks_free,
        .bavail = statfs.blocks_free,
        .files = statfs.files,
        .ffree = statfs.files_free,
        .fsid = statfs.fsid,
        .namelen = statfs.name_max,
    };
    return 0;
}

/* ---- extended attributes ---- */

/* A name that ends with NUL, as fs wants it. */
static int copy_xattr_name(struct vv_bytes name, char out[VV_XATTR_NAME_MAX + 1])
{
    if (name.len == 0 || name.len > VV_XATTR_NAME_MAX)
        return -ERANGE;
    memcpy(out, name.ptr, name.len);
    out[name.len] = '\0';
    return 0;
}

static ssize_t get_xattr(struct vv_ninep_fid *fid, const char *name, void *buf, size_t size)
{
    struct vv_fs *fs = fid->conn->ninep->fs;
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    ssize_t len = name ? vv_fs_getxattr(fs, &call.call, fid->inode, name, buf, size)
                       : vv_fs_listxattr(fs, &call.call, fid->inode, buf, size);
    vv_ninep_call_end(&call);
    return len;
}

/* The value (name NULL: the list of names) of from's inode, into *fid. It may change between being
 * measured and read. */
static int load_xattr(struct vv_ninep_fid *from, const char *name, struct vv_ninep_fid *fid)
{
    ssize_t len = -ERANGE;
    for (int i = 0; i < XATTR_TRIES && len == -ERANGE; i++) {
        ssize_t size = get_xattr(from, name, NULL, 0);
        TRY(size);
        uint8_t *value = vv_realloc(fid->xattr, (size_t)size);
        if (!value)
            return -ENOMEM;
        fid->xattr = value;
        len = size > 0 ? get_xattr(from, name, value, (size_t)size) : 0;
    }
    TRY(len);
    fid->xattr_size = (size_t)len;
    return 0;
}

/* Txattrwalk: newfid becomes the value of the attribute `name` of fid, or, without a name, the list
 * of all names, to be read. */
int vv_ninep_xattrwalk(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *from CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    char name[VV_XATTR_NAME_MAX + 1];
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &from));
    if (request->name.len > 0)
        TRY(copy_xattr_name(request->name, name));
    TRY(vv_ninep_fid_new(job->conn, from->user, &fid));
    fid->kind = VV_NINEP_FID_XATTR_READ;
    fid->inode = from->inode;
    fid->root = from->root;
    TRY(load_xattr(from, request->name.len > 0 ? name : NULL, fid));
    TRY(vv_ninep_fid_enter(fid, request->newfid, NULL));
    reply->size = fid->xattr_size;
    return 0;
}

/* Txattrcreate: fid becomes the new value of its attribute, to be written and then clunked. */
int vv_ninep_xattrcreate(struct vv_ninep_job *job, struct vv_ninep_reply *reply)
{
    const struct vv_ninep_request *request = &job->request;
    struct vv_ninep_fid *from CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    struct vv_ninep_fid *fid CLEANUP(vv_ninep_fid_unref_ptr) = NULL;
    char name[VV_XATTR_NAME_MAX + 1];
    TRY(vv_ninep_fid_get_file(job->conn, request->fid, &from));
    if (from->handle)
        return -EBUSY;
    TRY(copy_xattr_name(request->name, name));
    if (request->size > VV_XATTR_VALUE_MAX)
        return -E2BIG;
    TRY(vv_ninep_fid_new(job->conn, from->user, &fid));
    fid->kind = VV_NINEP_FID_XATTR_WRITE;
    fid->inode = from->inode;
    fid->root = from->root;
    fid->xattr_size = (size_t)request->size;
    fid->xattr_flags = request->flags;
    fid->xattr_name = vv_strdup(name);
    fid->xattr = vv_alloc(fid->xattr_size);
    if (!fid->xattr_name || !fid->xattr)
        return -ENOMEM;
    return vv_ninep_fid_enter(fid, request->fid, from);
}

/* An empty value with XATTR_REPLACE is how Linux sends removexattr. */
int vv_ninep_xattr_commit(struct vv_ninep_fid *fid)
{
    struct vv_fs *fs = fid->conn->ninep->fs;
    if (fid->xattr_len != fid->xattr_size)
        return -EINVAL; /* not all of it has come: nothing is changed */
    struct vv_ninep_call call = vv_ninep_call_of(fid, VV_NINEP_NONUNAME);
    int flags = (int)(fid->xattr_flags & (XATTR_CREATE | XATTR_REPLACE));
    int err;
    if (fid->xattr_size == 0 && (flags & XATTR_REPLACE))
        err = vv_fs_removexattr(fs, &call.call, fid->inode, fid->xattr_name);
    else
        err = vv_fs_setxattr(fs, &call.call, fid->inode, fid->xattr_name, fid->xattr,
                             fid->xattr_size, flags);
    vv_ninep_call_end(&call);
    return err;
}
