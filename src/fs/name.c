/* Looking names up, and making new ones. */
#include <assert.h>
#include <string.h>

#include "fs/acl.h"
#include "fs/fs_impl.h"

/* ---- places ---- */

bool vv_name_is_dots(const char *name, size_t name_len)
{
    return (name_len == 1 && name[0] == '.') || (name_len == 2 && memcmp(name, "..", 2) == 0);
}

static int check_name(const char *name, size_t name_len)
{
    if (name_len == 0)
        return -ENOENT;
    if (name_len > VV_NAME_MAX)
        return -ENAMETOOLONG;
    return memchr(name, '/', name_len) || memchr(name, 0, name_len) ? -EINVAL : 0;
}

/* The entry of a name in a directory that may not be in memory yet. */
static int find_entry(struct vv_op *op, struct vv_place *place)
{
    int err = check_name(place->name, place->name_len);
    if (err < 0)
        return err;
    if (!vv_name_is_dots(place->name, place->name_len))
        return vv_entry_load(op, place->parent, place->name, place->name_len, &place->entry);
    if (place->dir_err < 0)
        return 0;
    bool is_self = place->name_len == 1;
    place->entry =
        (struct vv_entry){.inode = is_self ? place->dir.inode : place->dir.parent, .type = S_IFDIR};
    return 1;
}

/* What the name stands for. The directory has been read, or the name is neither "." nor "..". */
static void read_child(struct vv_fs *fs, struct vv_op *op, struct vv_place *place)
{
    place->is_found = false;
    place->name_err = find_entry(op, place);
    if (place->name_err > 0) {
        place->name_err = vv_inode_load(fs, op, place->entry.inode, &place->child);
        /* An entry without its inode is damage, not a stale handle. */
        if (place->name_err == -ESTALE && place->entry.cookie != 0)
            place->name_err = -VV_ERR_CORRUPT;
        place->is_found = place->name_err == 0;
    }
}

void vv_place_read(struct vv_fs *fs, struct vv_op *op, const struct vv_fs_call *call,
                   struct vv_place *place)
{
    place->dir_err = vv_inode_load(fs, op, place->parent, &place->dir);
    if (place->dir_err == 0 && !S_ISDIR(place->dir.mode))
        place->dir_err = -ENOTDIR;
    read_child(fs, op, place);
    if (place->dir_err == 0)
        place->dir_err = vv_permit(op, &call->cred, &place->dir, X_OK);
}

/* ---- lookup ---- */

struct lookup {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    struct vv_place place;
    struct vv_attr attr; /* out */
};

static int lookup(struct vv_op *op, void *arg)
{
    struct lookup *call = arg;
    struct vv_place *place = &call->place;
    if (call->call->cred.is_checked && !vv_name_is_dots(place->name, place->name_len))
        read_child(call->fs, op, place);
    else
        vv_place_read(call->fs, op, call->call, place);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(place->dir_err);
    TRY(place->name_err);
    return place->is_found ? vv_inode_attr(op, &place->child, &call->attr) : -ENOENT;
}

int vv_fs_lookup(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent, const char *name,
                 size_t name_len, struct vv_attr *out_attr)
{
    struct lookup args = {.fs = fs, .call = call};
    args.place.parent = parent;
    args.place.name = name;
    args.place.name_len = name_len;
    TRY(vv_volume_run(fs->volume, VV_OP_READ, 0, lookup, &args));
    *out_attr = args.attr;
    return 0;
}

/* ---- new inodes ---- */

struct make {
    struct vv_fs *fs;
    const struct vv_fs_call *call;
    const struct vv_create *create;
    struct vv_place place;
    const char *target; /* of a symlink */
    size_t target_len;
    int flags;                /* of open(2), when there is a handle */
    struct vv_handle *handle; /* to be bound, or NULL */
    bool is_opening;          /* open(2) with O_CREAT: an existing file will do */
    bool is_tmpfile;
    bool is_made; /* out */
    struct vv_attr attr;
};

/* The default ACL of the directory: 1 with a copy that the caller frees, 0, or an error. */
static int load_default_acl(struct vv_op *op, const struct vv_inode *dir, struct vv_bytes *out_acl)
{
    if (!(dir->bits & VV_INODE_HAS_DEFAULT_ACL))
        return 0;
    int found = vv_xattr_load(op, dir->inode, VV_ACL_DEFAULT_NAME, out_acl);
    if (found <= 0)
        return found;
    return vv_acl_check(*out_acl) == 0 ? 1 : -VV_ERR_FORMAT;
}

/* What a default ACL makes of the new inode: its mode and its own lists. */
static int inherit_acl(struct vv_op *op, struct vv_bytes acl, struct vv_inode *inode)
{
    CLEANUP(vv_free_ptr) uint8_t *copy = vv_memdup(acl.ptr, acl.len);
    if (!copy)
        return -ENOMEM;
    if (S_ISDIR(inode->mode))
        TRY(vv_xattr_store(op, inode, VV_ACL_DEFAULT_NAME, acl, false));
    if (vv_acl_create(copy, acl.len, &inode->mode))
        return 0;
    return vv_xattr_store(op, inode, VV_ACL_ACCESS_NAME, (struct vv_bytes){copy, acl.len}, false);
}

static int check_type(const struct vv_cred *cred, const struct vv_create *create)
{
    uint32_t type = create->mode & S_IFMT;
    bool is_device = type == S_IFCHR || type == S_IFBLK;
    bool is_whiteout = type == S_IFCHR && create->rdev_major == 0 && create->rdev_minor == 0;
    return is_device && !is_whiteout && !vv_cred_is_root(cred) ? -EPERM : 0;
}

/* An orphan record and no entry: it lives as long as its handle. */
static int stage_tmpfile(struct vv_op *op, struct vv_inode *inode)
{
    static const uint8_t value = 1;
    struct vv_fs_key key;
    inode->nlink = 0;
    inode->parent = 0;
    vv_key_orphan(&key, inode->inode);
    TRY(vv_key_put(op, &key, &value, sizeof(value)));
    return vv_inode_save(op, inode);
}

static int stage_entry(struct vv_op *op, struct make *call, struct vv_inode *inode)
{
    struct vv_place *place = &call->place;
    struct vv_entry entry = {.inode = inode->inode, .type = inode->mode & S_IFMT};
    TRY(vv_dir_add(&place->dir, S_ISDIR(inode->mode), &entry.cookie));
    inode->cookie = entry.cookie;
    TRY(vv_entry_save(op, place->parent, &entry, place->name, place->name_len));
    TRY(vv_inode_save(op, &place->dir));
    return vv_inode_save(op, inode);
}

/* What is to be set with the creation. */
static int stage_set(const struct make *call, struct vv_inode *inode)
{
    const struct vv_create *create = call->create;
    const struct vv_cred *cred = &call->call->cred;
    bool is_root = cred->is_checked || vv_cred_is_root(cred);
    inode->verifier = S_ISREG(inode->mode) ? create->verifier : 0;
    if (create->set_mask == 0)
        return 0;
    const struct vv_attr *set = create->set;
    if ((create->set_mask & VV_SET_UID) && set->uid != inode->uid) {
        if (!is_root)
            return -EPERM;
        inode->uid = set->uid;
    }
    if ((create->set_mask & VV_SET_GID) && set->gid != inode->gid) {
        if (!is_root && !vv_cred_is_member(cred, set->gid))
            return -EPERM;
        inode->gid = set->gid;
    }
    if ((create->set_mask & VV_SET_SIZE) && S_ISREG(inode->mode)) {
        if (set->size > VV_FILE_BYTES_MAX)
            return -EFBIG;
        inode->size = set->size;
    }
    if (create->set_mask & VV_SET_ATIME)
        inode->atime = set->atime;
    if (create->set_mask & VV_SET_MTIME)
        inode->mtime = set->mtime;
    return 0;
}

static int stage_inode(struct vv_op *op, struct make *call, struct vv_bytes acl)
{
    struct vv_inode inode;
    uint32_t mode = call->create->mode;
    if (!acl.ptr && !call->target)
        mode &= ~(call->create->umask & 0777u);
    if (call->target)
        mode = S_IFLNK | 0777;
    vv_inode_new(op, call->call, &call->place.dir, mode, &inode);
    if (S_ISCHR(mode) || S_ISBLK(mode))
        inode.rdev = (uint64_t)call->create->rdev_major << 32 | call->create->rdev_minor;
    if (call->target) {
        inode.in_line = (struct vv_bytes){(const uint8_t *)call->target, call->target_len};
        inode.size = call->target_len;
    }
    TRY(stage_set(call, &inode));
    if (!call->target && acl.ptr) {
        TRY(inherit_acl(op, acl, &inode));
    }
    TRY(call->is_tmpfile ? stage_tmpfile(op, &inode) : stage_entry(op, call, &inode));
    TRY(vv_reply_stage(call->fs, op, call->call, inode.inode));
    TRY(vv_inode_attr(op, &inode, &call->attr));
    if (call->handle)
        vv_handle_bind(call->handle, inode.inode);
    call->is_made = true;
    return 0;
}

/* open(2) with O_CREAT of what is there already. */
static int open_existing(struct vv_op *op, struct make *call)
{
    struct vv_inode *inode = &call->place.child;
    int flags = call->flags;
    if (flags & O_EXCL)
        return -EEXIST;
    if (S_ISLNK(inode->mode))
        return -ELOOP;
    if (S_ISDIR(inode->mode))
        return -EISDIR;
    TRY(vv_open_permit(op, &call->call->cred, inode, flags));
    if (flags & O_TRUNC)
        TRY(vv_open_truncate(op, &call->call->cred, inode));
    TRY(vv_inode_attr(op, inode, &call->attr));
    vv_handle_bind(call->handle, inode->inode);
    return 0;
}

static int make(struct vv_op *op, void *arg)
{
    struct make *call = arg;
    struct vv_place *place = &call->place;
    struct vv_bytes acl = {NULL, 0};
    int has_acl = 0;
    call->is_made = false;
    if (call->handle)
        vv_handle_unbind(call->handle);
    if (call->is_tmpfile) {
        place->name_err = 0;
        place->is_found = false;
        place->dir_err = vv_inode_load(call->fs, op, place->parent, &place->dir);
        if (place->dir_err == 0 && !S_ISDIR(place->dir.mode))
            place->dir_err = -ENOTDIR;
    } else {
        vv_place_read(call->fs, op, call->call, place);
    }
    if (place->dir_err == 0 && !call->target)
        has_acl = load_default_acl(op, &place->dir, &acl);
    if (vv_op_is_missing(op))
        return -VV_ERR_MISS;
    TRY(place->dir_err);
    TRY(place->name_err);
    if (place->is_found && call->is_opening)
        return open_existing(op, call);
    if (place->is_found && call->create->verifier != 0 && S_ISREG(place->child.mode) &&
        place->child.verifier == call->create->verifier)
        return vv_inode_attr(op, &place->child, &call->attr);
    if (place->is_found)
        return -EEXIST;
    TRY(vv_permit_create(op, &call->call->cred, &place->dir));
    TRY(has_acl);
    if (!call->target)
        TRY(check_type(&call->call->cred, call->create));
    return stage_inode(op, call, acl);
}

/* Tell the other doors, and make durable what wants to be. */
static int finish_make(struct make *call)
{
    struct vv_place *place = &call->place;
    if (call->is_made && !call->is_tmpfile) {
        vv_notify_entry(call->fs, call->call, place->parent, place->name, place->name_len);
        vv_notify_inode(call->fs, call->call, place->parent, 0, 0);
    } else if (!call->is_made && (call->flags & O_TRUNC)) {
        vv_notify_inode(call->fs, call->call, call->attr.inode, 0, UINT64_MAX);
    }
    vv_notify_wait(call->fs, call->call);
    return call->is_made ? vv_fs_sync_if(call->fs, &place->dir) : 0;
}

static void set_place(struct make *call, uint64_t parent, const char *name, size_t name_len)
{
    call->place.parent = parent;
    call->place.name = name;
    call->place.name_len = name_len;
}

static int run_make(struct make *call, struct vv_attr *out_attr)
{
    TRY(vv_volume_run(call->fs->volume, VV_OP_WRITE, 0, make, call));
    TRY(finish_make(call));
    *out_attr = call->attr;
    return 0;
}

int vv_fs_mknod(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent, const char *name,
                size_t name_len, const struct vv_create *create, struct vv_attr *out_attr)
{
    struct vv_create made = *create;
    struct make args = {.fs = fs, .call = call, .create = &made};
    made.mode &= S_IFMT | 07777;
    switch (made.mode & S_IFMT) {
    case 0:
        made.mode |= S_IFREG;
        break;
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
        break;
    case S_IFDIR:
        return -EPERM;
    default:
        return -EINVAL;
    }
    set_place(&args, parent, name, name_len);
    return run_make(&args, out_attr);
}

int vv_fs_mkdir(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent, const char *name,
                size_t name_len, const struct vv_create *create, struct vv_attr *out_attr)
{
    struct vv_create made = *create;
    struct make args = {.fs = fs, .call = call, .create = &made};
    /* mkdir(2) takes the sticky bit, and setgid only from the parent. */
    made.mode = S_IFDIR | (made.mode & (0777 | S_ISVTX));
    set_place(&args, parent, name, name_len);
    return run_make(&args, out_attr);
}

int vv_fs_symlink_set(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                      const char *name, size_t name_len, struct vv_bytes target,
                      const struct vv_create *create, struct vv_attr *out_attr)
{
    struct vv_create made = *create;
    struct make args = {.fs = fs, .call = call, .create = &made};
    made.mode = S_IFLNK | 0777;
    args.target = (const char *)target.ptr;
    args.target_len = target.len;
    if (target.len == 0)
        return -ENOENT;
    if (target.len > VV_SYMLINK_MAX)
        return -ENAMETOOLONG;
    if (memchr(target.ptr, 0, target.len))
        return -EINVAL;
    set_place(&args, parent, name, name_len);
    return run_make(&args, out_attr);
}

int vv_fs_symlink(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                  const char *name, size_t name_len, const char *target, size_t target_len,
                  struct vv_attr *out_attr)
{
    static const struct vv_create plain;
    struct vv_bytes bytes = {(const uint8_t *)target, target_len};
    return vv_fs_symlink_set(fs, call, parent, name, name_len, bytes, &plain, out_attr);
}

/* With a handle: the call owns it until it has succeeded wholly. */
static int run_open(struct make *call, struct vv_attr *out_attr, struct vv_handle **out_handle)
{
    CLEANUP(vv_handle_release_ptr) struct vv_handle *handle = NULL;
    if ((call->flags & O_ACCMODE) == O_ACCMODE)
        return -EINVAL;
    TRY(vv_handle_new(call->fs, call->flags, &handle));
    call->handle = handle;
    TRY(vv_volume_run(call->fs->volume, VV_OP_WRITE, 0, make, call));
    vv_handle_establish(handle);
    if (call->is_tmpfile) {
        handle->open->is_orphan = true;
        handle->open->is_linkable = !(call->flags & O_EXCL);
    }
    TRY(finish_make(call));
    *out_attr = call->attr;
    *out_handle = handle;
    handle = NULL;
    return 0;
}

int vv_fs_create(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent, const char *name,
                 size_t name_len, const struct vv_create *create, int flags,
                 struct vv_attr *out_attr, struct vv_handle **out_handle)
{
    struct vv_create made = *create;
    struct make args = {.fs = fs, .call = call, .create = &made, .flags = flags};
    made.mode = S_IFREG | (made.mode & 07777);
    args.is_opening = true;
    if (vv_name_is_dots(name, name_len))
        return -EISDIR;
    set_place(&args, parent, name, name_len);
    return run_open(&args, out_attr, out_handle);
}

int vv_fs_tmpfile(struct vv_fs *fs, const struct vv_fs_call *call, uint64_t parent,
                  const struct vv_create *create, int flags, struct vv_attr *out_attr,
                  struct vv_handle **out_handle)
{
    struct vv_create made = *create;
    struct make args = {.fs = fs, .call = call, .create = &made, .flags = flags};
    made.mode = S_IFREG | (made.mode & 07777);
    args.is_tmpfile = true;
    if ((flags & O_ACCMODE) == O_RDONLY)
        return -EINVAL;
    set_place(&args, parent, NULL, 0);
    return run_open(&args, out_attr, out_handle);
}
