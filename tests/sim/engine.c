#include "engine.h"

#include <assert.h>
#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"

const struct vv_fs_call engine_call = {.cred = {.uid = 0, .gid = 0}, .door = 1};

static uint64_t real_of(const struct model *model, uint32_t number)
{
    const struct model_inode *inode = model_inode(model, number);
    return inode ? inode->real : 0;
}

static struct vv_handle *handle_of(const struct engine *engine, const struct op *op)
{
    return op->handle >= 0 ? engine->handles[op->handle] : NULL;
}

/* Where an operation's offset is in the volume's file. */
static uint64_t offset_of(const struct engine *engine, uint32_t inode, uint64_t offset)
{
    return inode == engine->region ? engine->region_offset + offset : offset;
}

/* ---- replies ---- */

void engine_ask(struct engine *engine, unsigned owner, uint64_t called)
{
    engine->reply = (struct vv_fs_reply){.door = VV_REPLY_NFS3, .kind = VV_REPLY_NFS3};
    vv_store_u64(engine->reply.id, called);
    vv_store_u32(engine->reply.id + 8, owner);
}

void engine_asked(const struct vv_fs_reply *reply, unsigned *out_owner, uint64_t *out_called)
{
    *out_called = vv_load_u64(reply->id);
    *out_owner = vv_load_u32(reply->id + 8);
}

/* ---- changing ---- */

static struct vv_fs_call replied(const struct engine *engine, const struct op *op)
{
    struct vv_fs_call call = engine_call;
    call.reply = op_is_replied(op) && engine->reply.door != 0 ? &engine->reply : NULL;
    return call;
}

static int apply_new(struct engine *engine, const struct model *model, const struct op *op,
                     uint64_t *out_real)
{
    const struct vv_fs_call call = replied(engine, op);
    uint64_t parent = real_of(model, op->dir);
    struct vv_create create = {
        .mode = op->mode, .rdev_major = op->rdev >> 8, .rdev_minor = op->rdev & 0xff};
    char target[OP_TARGET_MAX];
    struct vv_attr attr = {0};
    int err;
    switch (op->kind) {
    case OP_CREATE:
        if (op->handle < 0)
            err = vv_fs_mknod(engine->fs, &call, parent, op->name.text, op->name.len,
                              &create, &attr);
        else
            err = vv_fs_create(engine->fs, &call, parent, op->name.text, op->name.len,
                               &create, (int)op->flags, &attr, &engine->handles[op->handle]);
        break;
    case OP_TMPFILE:
        err = vv_fs_tmpfile(engine->fs, &call, parent, &create, (int)op->flags, &attr,
                            &engine->handles[op->handle]);
        break;
    case OP_MKNOD:
        err = vv_fs_mknod(engine->fs, &call, parent, op->name.text, op->name.len, &create,
                          &attr);
        break;
    case OP_MKDIR:
        err = vv_fs_mkdir(engine->fs, &call, parent, op->name.text, op->name.len, &create,
                          &attr);
        break;
    default:
        op_target(op->seed, target, op->len);
        err = vv_fs_symlink(engine->fs, &call, parent, op->name.text, op->name.len, target,
                            op->len, &attr);
        break;
    }
    *out_real = attr.inode;
    return err;
}

static int apply_names(struct engine *engine, const struct model *model, const struct op *op)
{
    const struct vv_fs_call call = replied(engine, op);
    uint64_t dir = real_of(model, op->dir);
    struct vv_attr attr;
    switch (op->kind) {
    case OP_LINK:
        return vv_fs_link(engine->fs, &call, real_of(model, op->inode), dir, op->name.text,
                          op->name.len, &attr);
    case OP_UNLINK:
        return vv_fs_unlink(engine->fs, &call, dir, op->name.text, op->name.len);
    case OP_RMDIR:
        return vv_fs_rmdir(engine->fs, &call, dir, op->name.text, op->name.len);
    default:
        return vv_fs_rename(engine->fs, &call, dir, op->name.text, op->name.len,
                            real_of(model, op->dir2), op->name2.text, op->name2.len, op->flags);
    }
}

static int apply_write(struct engine *engine, const struct model *model, const struct op *op,
                       uint64_t *out_value)
{
    op_fill(op->seed, engine->bytes, op->len);
    ssize_t done =
        vv_fs_write(engine->fs, &engine_call, real_of(model, op->inode), handle_of(engine, op),
                    engine->bytes, op->len, offset_of(engine, op->inode, op->offset),
                    op->kind == OP_APPEND ? VV_WRITE_APPEND : 0);
    *out_value = done > 0 ? (uint64_t)done : 0;
    return done < 0 ? (int)done : 0;
}

static int apply_setattr(struct engine *engine, const struct model *model, const struct op *op)
{
    struct vv_attr set = {.mode = op->mode, .uid = op->uid, .gid = op->gid, .size = op->len};
    struct vv_attr attr;
    uint32_t mask = 0;
    set.mtime.tv_sec = op->mtime;
    mask |= op->mask & OP_SET_MODE ? VV_SET_MODE : 0;
    mask |= op->mask & OP_SET_OWNER ? VV_SET_UID | VV_SET_GID : 0;
    mask |= op->mask & OP_SET_MTIME ? VV_SET_MTIME : 0;
    mask |= op->mask & OP_SET_SIZE ? VV_SET_SIZE : 0;
    return vv_fs_setattr(engine->fs, &engine_call, real_of(model, op->inode), NULL, &set, mask,
                         &attr);
}

static int apply_xattr(struct engine *engine, const struct model *model, const struct op *op)
{
    uint64_t inode = real_of(model, op->inode);
    if (op->kind == OP_REMOVEXATTR)
        return vv_fs_removexattr(engine->fs, &engine_call, inode, op->name.text);
    op_fill(op->seed, engine->bytes, op->len);
    return vv_fs_setxattr(engine->fs, &engine_call, inode, op->name.text, engine->bytes, op->len,
                          (int)op->flags);
}

static int apply_release(struct engine *engine, const struct op *op)
{
    vv_fs_release(engine->handles[op->handle]);
    engine->handles[op->handle] = NULL;
    return 0;
}

int engine_apply(struct engine *engine, const struct model *model, const struct op *op,
                 uint64_t *out_value, uint64_t *out_real)
{
    ssize_t done;
    *out_value = 0;
    *out_real = 0;
    switch (op->kind) {
    case OP_CREATE:
    case OP_TMPFILE:
    case OP_MKNOD:
    case OP_MKDIR:
    case OP_SYMLINK:
        return apply_new(engine, model, op, out_real);
    case OP_LINK:
    case OP_UNLINK:
    case OP_RMDIR:
    case OP_RENAME:
        return apply_names(engine, model, op);
    case OP_OPEN:
        *out_real = real_of(model, op->inode);
        return vv_fs_open_file(engine->fs, &engine_call, *out_real, (int)op->flags,
                               &engine->handles[op->handle]);
    case OP_RELEASE:
        return apply_release(engine, op);
    case OP_WRITE:
    case OP_APPEND:
        return apply_write(engine, model, op, out_value);
    case OP_FALLOCATE:
        return vv_fs_fallocate(engine->fs, &engine_call, real_of(model, op->inode),
                               handle_of(engine, op), (int)op->flags,
                               offset_of(engine, op->inode, op->offset), op->len);
    case OP_SETATTR:
        return apply_setattr(engine, model, op);
    case OP_SETXATTR:
    case OP_REMOVEXATTR:
        return apply_xattr(engine, model, op);
    case OP_COPY:
        done = vv_fs_copy_range(engine->fs, &engine_call, real_of(model, op->inode), op->offset,
                                real_of(model, op->inode2), op->offset2, op->len);
        *out_value = done > 0 ? (uint64_t)done : 0;
        return done < 0 ? (int)done : 0;
    default:
        assert(!"an operation that changes something");
        return -EINVAL;
    }
}

void engine_release_all(struct engine *engine)
{
    for (int i = 0; i < OP_HANDLES_MAX; i++) {
        if (engine->handles[i])
            vv_fs_release(engine->handles[i]);
        engine->handles[i] = NULL;
    }
}

/* ---- looking ---- */

static void see_attr(const struct vv_attr *attr, struct model_entry *entry)
{
    entry->key = attr->inode;
    entry->mode = attr->mode;
    entry->uid = attr->uid;
    entry->gid = attr->gid;
    entry->nlink = attr->nlink;
    entry->rdev = (attr->rdev_major << 8) | attr->rdev_minor;
    entry->size = S_ISREG(attr->mode) || S_ISLNK(attr->mode) ? attr->size : 0;
    entry->mtime = attr->mtime.tv_sec;
}

/* Names of other owners are not this one's business. */
struct look_dir {
    struct sight *sight;
    const char *prefix;
    uint64_t last_cookie;
    bool is_out_of_order;
};

static int look_entry(void *arg, const struct vv_dirent *entry)
{
    struct look_dir *look = arg;
    look->is_out_of_order |= entry->cookie <= look->last_cookie;
    look->last_cookie = entry->cookie;
    if (strcmp(entry->name, ".") != 0 && strcmp(entry->name, "..") != 0 &&
        strncmp(entry->name, look->prefix, strlen(look->prefix)) == 0)
        sight_name(look->sight, entry->name, entry->name_len, entry->inode);
    return 1;
}

static int look_readdir(struct engine *engine, const struct model *model, const struct op *op,
                        struct sight *sight)
{
    struct look_dir look = {sight, op->dir == engine->hidden ? engine->prefix : "", 0, false};
    int err = vv_fs_readdir(engine->fs, real_of(model, op->dir), 0, look_entry, &look);
    return err == 0 && look.is_out_of_order ? -VV_ERR_CORRUPT : err;
}

static int look_listxattr(struct engine *engine, uint64_t inode, struct sight *sight)
{
    char *list = (char *)sight->bytes;
    ssize_t len = vv_fs_listxattr(engine->fs, &engine_call, inode, list, SIGHT_BYTES_MAX);
    for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1)
        sight_name(sight, list + at, strlen(list + at), 0);
    return len < 0 ? (int)len : 0;
}

static ssize_t look_bytes(struct engine *engine, const struct model *model, const struct op *op,
                          struct sight *sight)
{
    uint64_t inode = real_of(model, op->inode);
    uint64_t size = op->len;
    switch (op->kind) {
    case OP_READLINK:
        return vv_fs_readlink(engine->fs, &engine_call, inode, (char *)sight->bytes,
                              SIGHT_BYTES_MAX);
    case OP_GETXATTR:
        return vv_fs_getxattr(engine->fs, &engine_call, inode, op->name.text, sight->bytes,
                              SIGHT_BYTES_MAX);
    default:
        if (op->inode == engine->region) {
            uint64_t end = model_inode(model, op->inode)->content.size;
            uint64_t left = op->offset < end ? end - op->offset : 0;
            size = size < left ? size : left;
        }
        return vv_fs_read(engine->fs, &engine_call, inode, handle_of(engine, op), sight->bytes,
                          size, offset_of(engine, op->inode, op->offset));
    }
}

int engine_look(struct engine *engine, const struct model *model, const struct op *op,
                struct sight *sight)
{
    struct vv_attr attr = {0};
    ssize_t got = 0;
    sight_reset(sight);
    switch (op->kind) {
    case OP_LOOKUP:
        got = vv_fs_lookup(engine->fs, &engine_call, real_of(model, op->dir), op->name.text,
                           op->name.len, &attr);
        see_attr(&attr, &sight->entry);
        break;
    case OP_GETATTR:
        got = vv_fs_getattr(engine->fs, real_of(model, op->inode), &attr);
        see_attr(&attr, &sight->entry);
        break;
    case OP_READDIR:
        got = look_readdir(engine, model, op, sight);
        break;
    case OP_LISTXATTR:
        got = look_listxattr(engine, real_of(model, op->inode), sight);
        break;
    case OP_SEEK:
        got = vv_fs_seek(engine->fs, real_of(model, op->inode), op->offset, (int)op->flags,
                         &sight->value);
        break;
    default:
        got = look_bytes(engine, model, op, sight);
        sight->value = got > 0 ? (uint64_t)got : 0;
        break;
    }
    sight->err = got < 0 ? -vv_err_errno((int)got) : 0;
    return got < 0 ? (int)got : 0;
}
