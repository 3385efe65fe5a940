/* Reading directories. */
#include <assert.h>
#include <string.h>

#include "fs/fs_impl.h"

#define COOKIE_SELF 1
#define COOKIE_PARENT 2

struct read_dir {
    struct vv_fs *fs;
    uint64_t inode;
    uint64_t parent; /* out */
    bool is_atime_due;
};

static int read_dir(struct vv_op *op, void *arg)
{
    struct read_dir *call = arg;
    struct vv_inode dir;
    TRY(vv_inode_load(call->fs, op, call->inode, &dir));
    if (!S_ISDIR(dir.mode))
        return -ENOTDIR;
    call->parent = dir.parent;
    call->is_atime_due = vv_atime_is_due(call->fs, &dir, NULL);
    return dir.nlink == 0 ? -ENOENT : 0;
}

static int visit_dots(const struct read_dir *call, uint64_t after,
                      int (*visit)(void *arg, const struct vv_dirent *entry), void *arg)
{
    for (uint64_t cookie = after + 1; cookie <= COOKIE_PARENT; cookie++) {
        struct vv_dirent entry = {.cookie = cookie, .type = S_IFDIR};
        entry.inode = cookie == COOKIE_SELF ? call->inode : call->parent;
        entry.name_len = (uint16_t)cookie;
        memcpy(entry.name, "..", cookie);
        int is_going_on = visit(arg, &entry);
        if (is_going_on <= 0)
            return is_going_on;
    }
    return 1;
}

/* The entry of a cookie record. */
static int decode(struct vv_bytes key, struct vv_bytes value, struct vv_dirent *out)
{
    struct vv_entry entry;
    struct vv_bytes name;
    if (key.len != 17)
        return -VV_ERR_FORMAT;
    TRY(vv_cookie_decode(value, &entry, &name));
    out->inode = entry.inode;
    out->type = entry.type;
    out->cookie = vv_load_be64(key.ptr + 9);
    out->name_len = (uint16_t)name.len;
    memcpy(out->name, name.ptr, name.len);
    out->name[name.len] = 0;
    return 0;
}

static int visit_entries(struct vv_lsm_iter *iter,
                         int (*visit)(void *arg, const struct vv_dirent *entry), void *arg)
{
    for (;;) {
        struct vv_bytes key;
        struct vv_bytes value;
        struct vv_dirent entry;
        int found = vv_lsm_iter_next(iter, &key, &value);
        if (found <= 0)
            return found;
        TRY(decode(key, value, &entry));
        int is_going_on = visit(arg, &entry);
        if (is_going_on <= 0)
            return is_going_on;
    }
}

int vv_fs_readdir(struct vv_fs *fs, uint64_t inode, uint64_t after,
                  int (*visit)(void *arg, const struct vv_dirent *entry), void *arg)
{
    struct read_dir args = {.fs = fs, .inode = inode};
    struct vv_lsm_iter *iter = NULL;
    struct vv_fs_key lower;
    struct vv_fs_key upper;
    TRY(vv_volume_run(fs->volume, VV_OP_READ, 0, read_dir, &args));
    if (args.is_atime_due && after == 0)
        vv_atime_update(fs, inode);
    if (after < COOKIE_PARENT) {
        int is_going_on = visit_dots(&args, after, visit, arg);
        if (is_going_on <= 0)
            return is_going_on;
        after = COOKIE_PARENT;
    }
    if (after == UINT64_MAX)
        return 0;
    vv_key_cookie(&lower, inode, after + 1);
    vv_key_cookie(&upper, inode + 1, 0);
    TRY(vv_volume_scan(fs->volume, vv_fs_key_bytes(&lower), vv_fs_key_bytes(&upper), &iter));
    int err = visit_entries(iter, visit, arg);
    vv_lsm_iter_close(iter);
    return err;
}
