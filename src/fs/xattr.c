/* Extended attributes. Names and permissions as fs/xattr.c of Linux has them. */
#include <assert.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/xattr.h>

#include "fs/acl.h"
#include "fs/fs_impl.h"

#define CAPABILITY_NAME "security.capability"

enum xattr_kind { KIND_USER, KIND_TRUSTED, KIND_SECURITY, KIND_ACCESS_ACL, KIND_DEFAULT_ACL };

/* ---- records ---- */

static uint8_t bit_of(const char *name)
{
    if (strcmp(name, VV_ACL_ACCESS_NAME) == 0)
        return VV_INODE_HAS_ACCESS_ACL;
    if (strcmp(name, VV_ACL_DEFAULT_NAME) == 0)
        return VV_INODE_HAS_DEFAULT_ACL;
    return strcmp(name, CAPABILITY_NAME) == 0 ? VV_INODE_HAS_CAPABILITY : 0;
}

int vv_xattr_load(struct vv_op *op, uint64_t inode, const char *name, struct vv_bytes *out_value)
{
    struct vv_fs_key key;
    vv_key_xattr(&key, inode, name, strlen(name));
    return vv_op_get(op, vv_fs_key_bytes(&key), out_value);
}

int vv_xattr_store(struct vv_op *op, struct vv_inode *inode, const char *name,
                   struct vv_bytes value, bool had)
{
    struct vv_fs_key key;
    vv_key_xattr(&key, inode->inode, name, strlen(name));
    if (!had) {
        inode->xattr_count++;
        inode->xattr_name_bytes += (uint32_t)strlen(name) + 1;
        inode->bits |= bit_of(name);
    }
    return vv_op_put(op, vv_fs_key_bytes(&key), value);
}

int vv_xattr_erase(struct vv_op *op, struct vv_inode *inode, const char *name)
{
    struct vv_fs_key key;
    uint32_t len = (uint32_t)strlen(name);
    vv_key_xattr(&key, inode->inode, name, len);
    inode->bits &= (uint8_t)~bit_of(name);
    /* The counts come from the store: do not let damage wrap them. */
    inode->xattr_count -= inode->xattr_count > 0 ? 1 : 0;
    inode->xattr_name_bytes -= inode->xattr_name_bytes > len ? len + 1 : inode->xattr_name_bytes;
    return vv_op_delete(op, vv_fs_key_bytes(&key));
}

int vv_xattr_erase_known(struct vv_op *op, struct vv_inode *inode)
{
    static const char *const names[] = {VV_ACL_ACCESS_NAME, VV_ACL_DEFAULT_NAME, CAPABILITY_NAME};
    if (inode->xattr_count > (uint32_t)__builtin_popcount(inode->bits))
        return 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (inode->bits & bit_of(names[i]))
            TRY(vv_xattr_erase(op, inode, names[i]));
    }
    return 1;
}

/* ---- names and permissions ---- */

static int kind_of(const char *name)
{
    static const struct {
        const char *prefix;
        enum xattr_kind kind;
    } kinds[] = {{"user.", KIND_USER}, {"trusted.", KIND_TRUSTED}, {"security.", KIND_SECURITY}};
    size_t len = strlen(name);
    if (len == 0 || len > VV_XATTR_NAME_MAX)
        return -ERANGE;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t prefix_len = strlen(kinds[i].prefix);
        if (strncmp(name, kinds[i].prefix, prefix_len) == 0)
            return len > prefix_len ? (int)kinds[i].kind : -EINVAL;
    }
    if (strcmp(name, VV_ACL_ACCESS_NAME) == 0)
        return KIND_ACCESS_ACL;
    return strcmp(name, VV_ACL_DEFAULT_NAME) == 0 ? KIND_DEFAULT_ACL : -EOPNOTSUPP;
}

static bool is_acl(int kind)
{
    return kind == KIND_ACCESS_ACL || kind == KIND_DEFAULT_ACL;
}

static int may_get(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
                   int kind)
{
    if (is_acl(kind))
        return S_ISLNK(inode->mode) ? -EOPNOTSUPP : 0;
    if (kind == KIND_SECURITY)
        return 0;
    if (kind == KIND_TRUSTED)
        return vv_cred_is_root(cred) ? 0 : -ENODATA;
    if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        return -ENODATA;
    return vv_permit(op, cred, inode, R_OK);
}

static int may_change(struct vv_op *op, const struct vv_cred *cred, const struct vv_inode *inode,
                      int kind)
{
    bool is_root = cred->is_checked || vv_cred_is_root(cred);
    if (inode->flags & (FS_IMMUTABLE_FL | FS_APPEND_FL))
        return -EPERM;
    if (is_acl(kind) && S_ISLNK(inode->mode))
        return -EOPNOTSUPP;
    if (is_acl(kind))
        return vv_cred_is_owner(cred, inode) ? 0 : -EPERM;
    if (kind != KIND_USER)
        return is_root ? 0 : -EPERM;
    if (!S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        return -EPERM;
    if (S_ISDIR(inode->mode) && (inode->mode & S_ISVTX) && !vv_cred_is_owner(cred, inode))
        return -EPERM;
    return vv_permit(op, cred, inode, W_OK);
}

/* ---- getting ---- */

struct get_xattr {
    struct vv_fs *fs;
    const struct vv_cred *cred;
    uint64_t inode;
    const char *name;
    int kind;
    void *buf;
    size_t size;
};

static int get_xattr(struct vv_op *op, void *arg)
{
    struct get_xattr *call = arg;
    struct vv_inode inode;
    struct vv_bytes value = {NULL, 0};
    int err = vv_inode_load(call->fs, op, call->inode, &inode);
    /* Most have none: then nothing is looked for. */
    int found = 0;
    if (err == -VV_ERR_MISS || (err == 0 && inode.xattr_count > 0))
        found = vv_xattr_load(op, call->inode, call->name, &value);
    if (err == 0)
        err = may_get(op, call->cred, &inode, call->kind);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(err);
    TRY(found);
    if (found == 0)
        return -ENODATA;
    if (call->size == 0)
        return (int)value.len;
    if (value.len > call->size)
        return -ERANGE;
    if (value.len > 0)
        memcpy(call->buf, value.ptr, value.len);
    return (int)value.len;
}

ssize_t vv_fs_getxattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                       const char *name, void *buf, size_t size)
{
    struct get_xattr args = {.fs = fs, .cred = &call->cred, .inode = inode, .name = name};
    args.kind = kind_of(name);
    TRY(args.kind);
    args.buf = buf;
    args.size = size;
    return vv_volume_run(fs->volume, VV_OP_READ, 0, get_xattr, &args);
}

/* ---- changing ---- */

struct set_xattr {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    uint64_t inode;
    const char *name;
    int kind;
    struct vv_bytes value;
    int flags;
    bool is_killing_sgid;
    bool is_removing;
};

/* The mode follows an access ACL, which is kept only if it says more. True: keep it. */
static bool apply_access_acl(const struct set_xattr *call, struct vv_inode *inode)
{
    bool is_minimal = vv_acl_to_mode(call->value, &inode->mode);
    if (call->is_killing_sgid || !vv_cred_may_setgid(&call->call->cred, inode->gid))
        inode->mode &= ~(uint32_t)S_ISGID;
    return !is_minimal;
}

static int change(struct vv_op *op, struct set_xattr *call, struct vv_inode *inode, bool had)
{
    bool is_storing = !call->is_removing;
    if (is_storing && call->kind == KIND_ACCESS_ACL)
        is_storing = apply_access_acl(call, inode);
    vv_inode_touch(inode, VV_NOW_CTIME);
    if (is_storing && !had &&
        strlen(call->name) + 1 > VV_XATTR_LIST_MAX - (size_t)inode->xattr_name_bytes)
        return -ENOSPC;
    if (is_storing)
        TRY(vv_xattr_store(op, inode, call->name, call->value, had));
    else if (had)
        TRY(vv_xattr_erase(op, inode, call->name));
    return vv_inode_save(op, inode);
}

static int set_xattr(struct vv_op *op, void *arg)
{
    struct set_xattr *call = arg;
    struct vv_inode inode;
    struct vv_bytes old;
    int err = vv_inode_load(call->fs, op, call->inode, &inode);
    int found = vv_xattr_load(op, call->inode, call->name, &old);
    if (err == 0)
        err = may_change(op, &call->call->cred, &inode, call->kind);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(err);
    TRY(found);
    if (call->kind == KIND_DEFAULT_ACL && !S_ISDIR(inode.mode))
        return call->is_removing ? 0 : -EACCES;
    if ((call->flags & XATTR_CREATE) && found)
        return -EEXIST;
    if ((call->flags & XATTR_REPLACE) && !found)
        return -ENODATA;
    /* Removing an ACL that is not there succeeds. */
    if (call->is_removing && !found)
        return is_acl(call->kind) ? 0 : -ENODATA;
    if (inode.xattr_name_bytes > VV_XATTR_LIST_MAX)
        return -VV_ERR_FORMAT;
    return change(op, call, &inode, found > 0);
}

static int run_change(struct set_xattr *call)
{
    TRY(vv_volume_run(call->fs->volume, VV_OP_WRITE, 0, set_xattr, call));
    vv_notify_inode(call->fs, call->call, call->inode, 0, 0);
    vv_notify_wait(call->fs, call->call);
    return 0;
}

int vv_fs_setxattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                   const char *name, const void *value, size_t len, int flags)
{
    struct set_xattr args = {.fs = fs, .call = call, .inode = inode, .name = name};
    args.is_killing_sgid = flags & VV_XATTR_KILL_SGID;
    flags &= ~VV_XATTR_KILL_SGID;
    args.flags = flags;
    if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) || flags == (XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    args.kind = kind_of(name);
    TRY(args.kind);
    if (len > VV_XATTR_VALUE_MAX)
        return -E2BIG;
    args.value = (struct vv_bytes){value, len};
    if (is_acl(args.kind)) {
        int is_empty = len == 0 ? 1 : vv_acl_check(args.value);
        TRY(is_empty);
        args.is_removing = is_empty;
    }
    return run_change(&args);
}

int vv_fs_removexattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode,
                      const char *name)
{
    struct set_xattr args = {.fs = fs, .call = call, .inode = inode, .name = name};
    args.kind = kind_of(name);
    TRY(args.kind);
    args.is_removing = true;
    return run_change(&args);
}

/* ---- listing ---- */

struct list_xattr {
    struct vv_fs *fs;
    uint64_t inode;
};

/* How many there are. */
static int count_xattrs(struct vv_op *op, void *arg)
{
    const struct list_xattr *call = arg;
    struct vv_inode inode;
    TRY(vv_inode_load(call->fs, op, call->inode, &inode));
    return inode.xattr_count > 0;
}

static ssize_t list_names(struct vv_lsm_iter *iter, size_t prefix_len, bool is_root, char *buf,
                          size_t size)
{
    size_t len = 0;
    for (;;) {
        struct vv_bytes key;
        struct vv_bytes value;
        int found = vv_lsm_iter_next(iter, &key, &value);
        if (found <= 0)
            return found < 0 ? found : (ssize_t)len;
        const char *name = (const char *)key.ptr + prefix_len;
        size_t name_len = key.len - prefix_len;
        if (!is_root && name_len >= 8 && memcmp(name, "trusted.", 8) == 0)
            continue;
        if (size > 0 && size - len < name_len + 1)
            return -ERANGE;
        if (size > 0) {
            memcpy(buf + len, name, name_len);
            buf[len + name_len] = 0;
        }
        len += name_len + 1;
    }
}

ssize_t vv_fs_listxattr(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t inode, char *buf,
                        size_t size)
{
    struct list_xattr args = {.fs = fs, .inode = inode};
    struct vv_fs_key lower;
    struct vv_fs_key upper;
    struct vv_lsm_iter *iter = NULL;
    int has_some = vv_volume_run(fs->volume, VV_OP_READ, 0, count_xattrs, &args);
    if (has_some <= 0)
        return has_some;
    vv_key_xattr(&lower, inode, NULL, 0);
    vv_key_xattr(&upper, inode + 1, NULL, 0);
    TRY(vv_volume_scan(fs->volume, vv_fs_key_bytes(&lower), vv_fs_key_bytes(&upper), &iter));
    ssize_t len = list_names(iter, lower.len, vv_cred_is_root(&call->cred), buf, size);
    vv_lsm_iter_close(iter);
    return len;
}
