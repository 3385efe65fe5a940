/* Attributes: getting and setting them, access(2), flags, and paths for log lines. */
#include <assert.h>
#include <linux/fs.h>
#include <string.h>

#include "base/log.h"
#include "fs/acl.h"
#include "fs/fs_impl.h"

#define RELATIME_S (24 * 60 * 60)
#define GETATTRS_MAX 1024 /* inodes looked at by one operation */

/* ---- getting ---- */

struct get_attrs {
    struct vv_fs *fs;
    const uint64_t *inodes;
    size_t count;
    struct vv_attr *attrs; /* out */
    int *errors;           /* out */
};

static int get_attrs(struct vv_op *op, void *arg)
{
    struct get_attrs *call = arg;
    for (size_t i = 0; i < call->count; i++) {
        struct vv_inode inode;
        int err = vv_inode_load(call->fs, op, call->inodes[i], &inode);
        /* vv_inode_attr also says so when an inode before this one is missing. */
        if (err == 0)
            err = vv_inode_attr(op, &inode, &call->attrs[i]);
        call->errors[i] = err;
    }
    return vv_op_is_missing(op) ? -VV_ERR_MISS : 0;
}

int vv_fs_getattr(struct vv_fs *fs, uint64_t inode, struct vv_attr *out_attr)
{
    struct vv_attr attr;
    int error = 0;
    struct get_attrs args = {
        .fs = fs, .inodes = &inode, .count = 1, .attrs = &attr, .errors = &error};
    TRY(vv_volume_run(fs->volume, VV_OP_READ, 0, get_attrs, &args));
    TRY(error);
    *out_attr = attr;
    return 0;
}

int vv_fs_getattrs(struct vv_fs *fs, const uint64_t *inodes, size_t count,
                   struct vv_attr *out_attrs, int *out_errors)
{
    for (size_t done = 0; done < count; done += GETATTRS_MAX) {
        struct get_attrs args = {.fs = fs,
                                 .inodes = inodes + done,
                                 .count = count - done < GETATTRS_MAX ? count - done : GETATTRS_MAX,
                                 .attrs = out_attrs + done,
                                 .errors = out_errors + done};
        TRY(vv_volume_run(fs->volume, VV_OP_READ, 0, get_attrs, &args));
    }
    return 0;
}

/* ---- setting ---- */

#define SET_TIMES (VV_SET_ATIME | VV_SET_MTIME | VV_SET_ATIME_NOW | VV_SET_MTIME_NOW)
#define SET_BOTH_NOW (VV_SET_ATIME_NOW | VV_SET_MTIME_NOW)

struct set_attr {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    const struct vv_handle *handle;
    const struct vv_attr *set;
    uint32_t mask;
    bool is_stateless;
    const struct timespec *guard;
    struct vv_attr before; /* out */
    struct vv_attr attr;   /* out */
    struct vv_inode now;   /* out; its borrowed bytes are gone */
    struct vv_file_buf buf;
};

static int may_truncate(struct vv_op *op, const struct set_attr *call, const struct vv_inode *inode)
{
    const struct vv_handle *handle = call->handle;
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    if (!S_ISREG(inode->mode))
        return -EINVAL;
    if (handle && ((handle->flags & O_PATH) || (handle->flags & O_ACCMODE) == O_RDONLY))
        return -EINVAL;
    if (!handle)
        TRY(call->is_stateless ? vv_permit_io(op, &call->call->cred, inode, W_OK)
                               : vv_permit(op, &call->call->cred, inode, W_OK));
    if (inode->flags & (FS_APPEND_FL | FS_IMMUTABLE_FL))
        return -EPERM;
    return call->set->size > VV_FILE_BYTES_MAX ? -EFBIG : 0;
}

/* Both times to now: who may write may. Anything else is for the owner. */
static int may_set_times(struct vv_op *op, const struct set_attr *call,
                         const struct vv_inode *inode)
{
    uint32_t times = call->mask & SET_TIMES;
    const struct vv_cred *cred = &call->call->cred;
    bool is_implied = (call->mask & VV_SET_SIZE) && (times & ~SET_BOTH_NOW) == 0;
    if (times == 0 || is_implied)
        return 0;
    if (inode->flags & (times == SET_BOTH_NOW ? FS_IMMUTABLE_FL : FS_IMMUTABLE_FL | FS_APPEND_FL))
        return -EPERM;
    if (vv_cred_is_owner(cred, inode))
        return 0;
    return times == SET_BOTH_NOW ? vv_permit(op, cred, inode, W_OK) : -EPERM;
}

static int may_chown(const struct set_attr *call, const struct vv_inode *inode)
{
    const struct vv_cred *cred = &call->call->cred;
    bool is_owner = cred->uid == inode->uid;
    if (cred->is_checked || vv_cred_is_root(cred))
        return 0;
    if ((call->mask & VV_SET_UID) && !(is_owner && call->set->uid == inode->uid))
        return -EPERM;
    if ((call->mask & VV_SET_GID) &&
        !(is_owner && (call->set->gid == inode->gid || vv_cred_is_member(cred, call->set->gid))))
        return -EPERM;
    return 0;
}

static int may_set(struct vv_op *op, const struct set_attr *call, const struct vv_inode *inode)
{
    uint32_t mask = call->mask;
    if (mask & VV_SET_SIZE)
        TRY(may_truncate(op, call, inode));
    if ((mask & (VV_SET_MODE | VV_SET_UID | VV_SET_GID)) &&
        (inode->flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
        return -EPERM;
    TRY(may_chown(call, inode));
    if ((mask & (VV_SET_MODE | VV_SET_CTIME)) && !vv_cred_is_owner(&call->call->cred, inode))
        return -EPERM;
    if ((mask & VV_SET_MODE) && S_ISLNK(inode->mode))
        return -EOPNOTSUPP;
    return may_set_times(op, call, inode);
}

static int set_mode(struct vv_op *op, const struct set_attr *call, struct vv_inode *inode)
{
    uint32_t mode = call->set->mode & 07777;
    bool is_chown = call->mask & (VV_SET_UID | VV_SET_GID);
    if (!vv_cred_may_setgid(&call->call->cred, inode->gid))
        mode &= ~(uint32_t)S_ISGID;
    /* A new owner does not get a setuid program, even if he is named in the same call. */
    if (is_chown && !S_ISDIR(inode->mode))
        mode &= ~(uint32_t)(mode & S_IXGRP ? S_ISUID | S_ISGID : S_ISUID);
    inode->mode = (inode->mode & S_IFMT) | mode;
    if (!(inode->bits & VV_INODE_HAS_ACCESS_ACL))
        return 0;
    struct vv_bytes acl = {NULL, 0};
    TRY(vv_xattr_load(op, inode->inode, VV_ACL_ACCESS_NAME, &acl));
    if (vv_acl_check(acl) != 0)
        return -VV_ERR_FORMAT;
    CLEANUP(vv_free_ptr) uint8_t *copy = vv_memdup(acl.ptr, acl.len);
    if (!copy)
        return -ENOMEM;
    vv_acl_chmod(copy, acl.len, mode);
    return vv_xattr_store(op, inode, VV_ACL_ACCESS_NAME, (struct vv_bytes){copy, acl.len}, true);
}

static void set_times(const struct set_attr *call, struct vv_inode *inode)
{
    uint32_t mask = call->mask;
    unsigned now = mask & VV_SET_CTIME ? 0 : VV_NOW_CTIME;
    if (mask & VV_SET_ATIME_NOW)
        now |= VV_NOW_ATIME;
    if (mask & (VV_SET_MTIME_NOW | VV_SET_SIZE))
        now |= VV_NOW_MTIME;
    vv_inode_touch(inode, now);
    if (mask & VV_SET_ATIME)
        inode->atime = call->set->atime;
    if (mask & VV_SET_MTIME)
        inode->mtime = call->set->mtime;
    if (mask & VV_SET_CTIME)
        inode->ctime = call->set->ctime;
}

static int set_attr(struct vv_op *op, void *arg)
{
    struct set_attr *call = arg;
    struct vv_inode inode;
    uint32_t mask = call->mask;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    if (call->is_stateless)
        TRY(vv_inode_attr(op, &inode, &call->before));
    if (call->guard && (call->guard->tv_sec != inode.ctime.tv_sec ||
                        call->guard->tv_nsec != inode.ctime.tv_nsec))
        return -ECANCELED;
    TRY(may_set(op, call, &inode));
    if (mask == 0)
        return vv_inode_attr(op, &inode, &call->attr);
    if (mask & VV_SET_UID)
        inode.uid = call->set->uid;
    if (mask & VV_SET_GID)
        inode.gid = call->set->gid;
    if (mask & VV_SET_MODE)
        TRY(set_mode(op, call, &inode));
    if (mask & VV_SET_SIZE)
        TRY(vv_file_resize(op, &inode, call->set->size, &call->buf));
    bool is_chown = mask & (VV_SET_UID | VV_SET_GID);
    bool is_told = is_chown || (mask & VV_SET_KILL_PRIV);
    if (is_told || (mask & VV_SET_SIZE))
        TRY(vv_kill_priv(op, &inode, vv_cred_is_killing_ids(&call->call->cred, is_told)));
    set_times(call, &inode);
    inode.verifier = 0;
    call->now = inode;
    TRY(vv_inode_attr(op, &inode, &call->attr));
    if (call->is_stateless)
        TRY(vv_reply_stage(call->fs, op, call->call, inode.inode));
    return vv_inode_save(op, &inode);
}

static bool is_bad_time(const struct timespec *time)
{
    return time->tv_nsec < 0 || time->tv_nsec >= (long)VV_NS_PER_S;
}

static int run_set_attr(struct set_attr *call)
{
    const struct vv_attr *set = call->set;
    uint32_t mask = call->mask;
    if (((mask & VV_SET_ATIME) && is_bad_time(&set->atime)) ||
        ((mask & VV_SET_MTIME) && is_bad_time(&set->mtime)) ||
        ((mask & VV_SET_CTIME) && is_bad_time(&set->ctime)))
        return -EINVAL;
    enum vv_op_mode mode = mask & VV_SET_SIZE ? VV_OP_FREEING : VV_OP_WRITE;
    TRY(vv_volume_run(call->fs->volume, mask == 0 ? VV_OP_READ : mode, 0, set_attr, call));
    if (mask == 0)
        return 0;
    vv_notify_inode(call->fs, call->call, call->inode, 0, mask & VV_SET_SIZE ? UINT64_MAX : 0);
    vv_notify_wait(call->fs, call->call);
    return vv_fs_sync_if(call->fs, &call->now);
}

int vv_fs_setattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                  struct vv_handle *handle, const struct vv_attr *set, uint32_t mask,
                  struct vv_attr *out_attr)
{
    struct set_attr args;
    args.fs = fs;
    args.call = call;
    args.inode = inode;
    args.handle = handle;
    args.set = set;
    args.mask = mask;
    args.is_stateless = false;
    args.guard = NULL;
    TRY(run_set_attr(&args));
    *out_attr = args.attr;
    return 0;
}

int vv_fs_setattr_guarded(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                          const struct vv_attr *set, uint32_t mask, const struct timespec *guard,
                          struct vv_attr *out_before, struct vv_attr *out_attr)
{
    struct set_attr args;
    args.fs = fs;
    args.call = call;
    args.inode = inode;
    args.handle = NULL;
    args.set = set;
    args.mask = mask;
    args.is_stateless = true;
    args.guard = guard;
    TRY(run_set_attr(&args));
    *out_before = args.before;
    *out_attr = args.attr;
    return 0;
}

/* ---- access times ---- */

static bool is_not_after(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec <= b->tv_nsec);
}

void vv_fs_set_atime(struct vv_fs *fs, enum vv_atime atime)
{
    fs->atime = atime;
}

/* relatime: when it says less than mtime and ctime do, or is a day old. */
bool vv_atime_is_due(const struct vv_fs *fs, const struct vv_inode *inode,
                     const struct vv_handle *handle)
{
    if (fs->atime == VV_ATIME_NEVER || (inode->flags & FS_NOATIME_FL) ||
        (handle && (handle->flags & O_NOATIME)))
        return false;
    if (fs->atime == VV_ATIME_STRICT)
        return true;
    int64_t age_s;
    return is_not_after(&inode->atime, &inode->mtime) ||
           is_not_after(&inode->atime, &inode->ctime) ||
           __builtin_sub_overflow((int64_t)vv_rt_wall().tv_sec, (int64_t)inode->atime.tv_sec,
                                  &age_s) ||
           age_s >= RELATIME_S;
}

struct set_atime {
    struct vv_fs *fs;
    uint64_t inode;
};

static int set_atime(struct vv_op *op, void *arg)
{
    const struct set_atime *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    inode.atime = vv_rt_wall();
    return vv_inode_put(op, &inode);
}

void vv_atime_update(struct vv_fs *fs, uint64_t inode)
{
    struct set_atime args = {.fs = fs, .inode = inode};
    int err = vv_volume_run(fs->volume, VV_OP_WRITE, 0, set_atime, &args);
    if (err < 0)
        vv_debug("fs", "atime of inode %llu: %s", (unsigned long long)inode, vv_err_text(err));
}

/* ---- access(2) ---- */

struct check_access {
    struct vv_fs *fs;
    const struct vv_cred *cred;
    uint64_t inode;
    uint32_t want;
};

static int check_access(struct vv_op *op, void *arg)
{
    struct check_access *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    return call->want ? vv_permit_always(op, call->cred, &inode, call->want) : 0;
}

int vv_fs_access(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode, int mask)
{
    struct check_access args = {.fs = fs, .cred = &call->cred, .inode = inode};
    if (mask & ~(R_OK | W_OK | X_OK))
        return -EINVAL;
    args.want = (uint32_t)mask;
    return vv_volume_run(fs->volume, VV_OP_READ, 0, check_access, &args);
}

/* ---- flags ---- */

struct set_flags {
    struct vv_fs *fs;
    const struct vv_cred *cred;
    uint64_t inode;
    uint32_t flags;
};

static int set_flags(struct vv_op *op, void *arg)
{
    struct set_flags *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    if (!vv_cred_is_owner(call->cred, &inode))
        return -EPERM;
    uint32_t changed = inode.flags ^ call->flags;
    if ((changed & (FS_IMMUTABLE_FL | FS_APPEND_FL)) && !vv_cred_is_root(call->cred))
        return -EPERM;
    if (!S_ISREG(inode.mode) && !S_ISDIR(inode.mode))
        return -EOPNOTSUPP;
    if ((call->flags & FS_DIRSYNC_FL) && !S_ISDIR(inode.mode))
        return -EOPNOTSUPP;
    inode.flags = call->flags;
    vv_inode_touch(&inode, VV_NOW_CTIME);
    return vv_inode_save(op, &inode);
}

int vv_fs_set_flags(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode, uint32_t flags)
{
    struct set_flags args = {.fs = fs, .cred = &call->cred, .inode = inode, .flags = flags};
    if (flags & ~(uint32_t)VV_FLAGS_KEPT)
        return -EOPNOTSUPP;
    TRY(vv_volume_run(fs->volume, VV_OP_WRITE, 0, set_flags, &args));
    vv_notify_inode(fs, call, inode, 0, 0);
    vv_notify_wait(fs, call);
    return 0;
}

/* ---- paths ---- */

struct step_up {
    struct vv_fs *fs;
    uint64_t inode;
    uint64_t parent, cookie; /* out; or in, when the inode's record does not say */
    size_t name_len;         /* out */
    char name[VV_NAME_MAX];
};

static int step_up(struct vv_op *op, void *arg)
{
    struct step_up *call = arg;
    struct vv_inode inode;
    struct vv_fs_key key;
    struct vv_bytes record;
    struct vv_entry entry;
    struct vv_bytes name;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    call->name_len = 0;
    if (inode.parent != 0) {
        call->parent = inode.parent;
        call->cookie = inode.cookie;
    }
    if (call->parent == 0)
        return 0;
    vv_key_cookie(&key, call->parent, call->cookie);
    int found = vv_op_get(op, vv_fs_key_bytes(&key), &record);
    if (found <= 0)
        return found;
    TRY(vv_cookie_decode(record, &entry, &name));
    memcpy(call->name, name.ptr, name.len);
    call->name_len = name.len;
    return 0;
}

/* A file whose first link is gone: any of the others. */
static int find_link(struct vv_fs *fs, struct step_up *call)
{
    struct vv_fs_key lower;
    struct vv_fs_key upper;
    struct vv_lsm_iter *iter = NULL;
    struct vv_bytes key;
    struct vv_bytes value;
    vv_key_link(&lower, call->inode, 0, 0);
    vv_key_link(&upper, call->inode + 1, 0, 0);
    TRY(vv_volume_scan(fs->volume, vv_fs_key_bytes(&lower), vv_fs_key_bytes(&upper), &iter));
    int found = vv_lsm_iter_next(iter, &key, &value);
    if (found > 0 && key.len == lower.len) {
        call->parent = vv_load_be64(key.ptr + 9);
        call->cookie = vv_load_be64(key.ptr + 17);
    }
    vv_lsm_iter_close(iter);
    return found;
}

/* Put `text` in front of what stands at the end of buf. */
static int prepend(char *buf, size_t *start, const char *text, size_t len)
{
    if (len + 1 > *start)
        return -ENAMETOOLONG;
    *start -= len;
    memcpy(buf + *start, text, len);
    (*start)--;
    buf[*start] = '/';
    return 0;
}

int vv_fs_path(struct vv_fs *fs, uint64_t inode, char *buf, size_t size)
{
    struct step_up args = {.fs = fs, .inode = inode};
    if (size < 2)
        return -ENAMETOOLONG;
    size_t start = size - 1;
    buf[start] = 0;
    for (unsigned depth = 0; args.inode != VV_ROOT_INODE; depth++) {
        args.parent = 0;
        int err = vv_volume_run(fs->volume, VV_OP_READ, 0, step_up, &args);
        if (err == 0 && args.parent == 0 && find_link(fs, &args) > 0)
            err = vv_volume_run(fs->volume, VV_OP_READ, 0, step_up, &args);
        bool is_known = err == 0 && args.name_len > 0;
        TRY(is_known ? prepend(buf, &start, args.name, args.name_len)
                     : prepend(buf, &start, "?", 1));
        if (!is_known || depth == VV_DEPTH_MAX)
            break;
        args.inode = args.parent;
    }
    if (buf[start] == 0)
        buf[--start] = '/';
    memmove(buf, buf + start, size - start);
    return 0;
}

/* ---- where it is ---- */

struct climb {
    struct vv_fs *fs;
    uint64_t inode;
    uint64_t parent; /* out; 0 = not known: a file whose first link is gone */
};

static int climb(struct vv_op *op, void *arg)
{
    struct climb *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    call->parent = inode.parent;
    return 0;
}

/* An operation for each level: a way up is a chain of reads, and no operation may have many rounds.
 */
int vv_fs_nearest(struct vv_fs *fs, uint64_t inode, const uint64_t *roots, size_t count,
                  size_t *out_index)
{
    struct climb args = {.fs = fs, .inode = inode};
    for (unsigned depth = 0; depth < VV_DEPTH_MAX; depth++) {
        for (size_t i = 0; i < count; i++) {
            if (roots[i] == args.inode) {
                *out_index = i;
                return 0;
            }
        }
        TRY(vv_volume_run(fs->volume, VV_OP_READ, 0, climb, &args));
        if (args.parent == 0) {
            struct step_up step = {.fs = fs, .inode = args.inode};
            TRY(find_link(fs, &step));
            args.parent = step.parent;
        }
        if (args.parent == 0 || args.parent == args.inode)
            return -ENOENT;
        args.inode = args.parent;
    }
    return -VV_ERR_CORRUPT;
}
