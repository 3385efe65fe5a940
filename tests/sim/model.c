#include "model.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static void *checked(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

/* ---- inodes ---- */

struct model *model_new(void)
{
    struct model *model = checked(calloc(1, sizeof(*model)));
    model->inode_count = 1;
    model->inodes = checked(calloc(1, sizeof(*model->inodes)));
    return model;
}

static void inode_free(struct model_inode *inode)
{
    for (uint32_t i = 0; i < inode->child_count; i++)
        free(inode->children[i].name);
    for (uint32_t i = 0; i < inode->xattr_count; i++) {
        free(inode->xattrs[i].name);
        free(inode->xattrs[i].value);
    }
    content_done(&inode->content);
    free(inode->children);
    free(inode->xattrs);
    free(inode->target);
    free(inode);
}

void model_free(struct model *model)
{
    if (!model)
        return;
    for (uint32_t i = 1; i < model->inode_count; i++) {
        if (model->inodes[i])
            inode_free(model->inodes[i]);
    }
    free(model->inodes);
    free(model);
}

static struct model_inode *inode_copy(const struct model_inode *from)
{
    struct model_inode *copy = checked(malloc(sizeof(*copy)));
    *copy = *from;
    content_copy(&from->content, &copy->content);
    copy->target = from->target ? checked(strdup(from->target)) : NULL;
    copy->child_capacity = from->child_count;
    copy->children = checked(calloc(from->child_count + 1, sizeof(*copy->children)));
    for (uint32_t i = 0; i < from->child_count; i++) {
        copy->children[i].name = checked(strdup(from->children[i].name));
        copy->children[i].inode = from->children[i].inode;
    }
    copy->xattrs = checked(calloc(from->xattr_count + 1, sizeof(*copy->xattrs)));
    for (uint32_t i = 0; i < from->xattr_count; i++) {
        const struct model_xattr *xattr = &from->xattrs[i];
        copy->xattrs[i].name = checked(strdup(xattr->name));
        copy->xattrs[i].value = checked(malloc(xattr->len + 1));
        memcpy(copy->xattrs[i].value, xattr->value, xattr->len);
        copy->xattrs[i].len = xattr->len;
    }
    return copy;
}

struct model *model_copy(const struct model *model)
{
    struct model *copy = checked(malloc(sizeof(*copy)));
    *copy = *model;
    copy->inodes = checked(calloc(model->inode_count, sizeof(*copy->inodes)));
    for (uint32_t i = 1; i < model->inode_count; i++) {
        if (model->inodes[i])
            copy->inodes[i] = inode_copy(model->inodes[i]);
    }
    return copy;
}

struct model_inode *model_inode(const struct model *model, uint32_t number)
{
    return number < model->inode_count ? model->inodes[number] : NULL;
}

static struct model_inode *inode_new(struct model *model, uint32_t mode)
{
    uint32_t number = model->inode_count++;
    model->inodes = checked(realloc(model->inodes, model->inode_count * sizeof(*model->inodes)));
    struct model_inode *inode = checked(calloc(1, sizeof(*inode)));
    model->inodes[number] = inode;
    model->living++;
    inode->number = number;
    inode->mode = mode;
    inode->mtime = -1;
    inode->nlink = S_ISDIR(mode) ? 2 : 1;
    inode->changed = model->clock + 1;
    return inode;
}

/* It is gone when neither a name nor a handle keeps it. */
static void inode_tidy(struct model *model, struct model_inode *inode)
{
    if (inode->nlink > 0 || inode->opens > 0 || inode->is_root)
        return;
    model->inodes[inode->number] = NULL;
    model->living--;
    inode_free(inode);
}

uint32_t model_add_root(struct model *model, const char *path, uint32_t mode, uint64_t size,
                        bool is_hidden)
{
    assert(model->root_count < MODEL_ROOTS_MAX);
    struct model_root *root = &model->roots[model->root_count++];
    struct model_inode *inode = inode_new(model, mode);
    snprintf(root->path, sizeof(root->path), "%s", path);
    root->inode = inode->number;
    root->is_hidden = is_hidden;
    inode->is_root = true;
    inode->changed = 0;
    inode->content.size = size;
    return inode->number;
}

void model_forget_handles(struct model *model)
{
    memset(model->handles, 0, sizeof(model->handles));
    for (uint32_t i = 1; i < model->inode_count; i++) {
        if (model->inodes[i]) {
            model->inodes[i]->opens = 0;
            inode_tidy(model, model->inodes[i]);
        }
    }
}

/* The inode's data or attributes change by the clock. */
static void touch(struct model *model, struct model_inode *inode)
{
    inode->changed = model->clock + 1;
}

static void touch_data(struct model *model, struct model_inode *inode)
{
    touch(model, inode);
    inode->mtime = -1;
}

/* ---- names ---- */

static int child_index(const struct model_inode *dir, const char *name)
{
    for (uint32_t i = 0; i < dir->child_count; i++) {
        if (strcmp(dir->children[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

uint32_t model_lookup(const struct model *model, uint32_t dir, const char *name)
{
    const struct model_inode *inode = model_inode(model, dir);
    int index = inode ? child_index(inode, name) : -1;
    return index < 0 ? 0 : inode->children[index].inode;
}

static void child_add(struct model *model, struct model_inode *dir, const char *name,
                      struct model_inode *inode)
{
    if (dir->child_count == dir->child_capacity) {
        dir->child_capacity = 2 * dir->child_capacity + 8;
        dir->children =
            checked(realloc(dir->children, dir->child_capacity * sizeof(*dir->children)));
    }
    dir->children[dir->child_count++] = (struct model_child){checked(strdup(name)), inode->number};
    if (S_ISDIR(inode->mode)) {
        dir->nlink++;
        inode->parent = dir->number;
    }
    touch_data(model, dir);
}

static void child_remove(struct model *model, struct model_inode *dir, const char *name)
{
    int index = child_index(dir, name);
    assert(index >= 0);
    if (S_ISDIR(model_inode(model, dir->children[index].inode)->mode))
        dir->nlink--;
    free(dir->children[index].name);
    dir->children[index] = dir->children[--dir->child_count];
    touch_data(model, dir);
}

bool model_is_below(const struct model *model, uint32_t inode, uint32_t dir)
{
    while (inode != 0 && inode != dir)
        inode = model_inode(model, inode)->parent;
    return inode == dir;
}

static const char *name_in(const struct model_inode *dir, uint32_t inode)
{
    for (uint32_t i = 0; i < dir->child_count; i++) {
        if (dir->children[i].inode == inode)
            return dir->children[i].name;
    }
    return "?";
}

void model_path(const struct model *model, uint32_t dir, const char *name, char *buf, size_t size)
{
    char *end = buf + size - 1;
    char *at = end;
    *at = 0;
    for (;;) {
        size_t len = name ? strlen(name) + 1 : 0;
        assert((size_t)(at - buf) >= len);
        at -= len;
        if (name) {
            *at = '/';
            memcpy(at + 1, name, len - 1);
        }
        const struct model_inode *inode = model_inode(model, dir);
        if (inode->parent == 0)
            break;
        dir = inode->parent;
        name = name_in(model_inode(model, dir), inode->number);
    }
    const char *root = "";
    for (unsigned i = 0; i < model->root_count; i++) {
        if (model->roots[i].inode == dir)
            root = model->roots[i].path;
    }
    size_t len = strlen(root);
    assert((size_t)(at - buf) >= len);
    at -= len;
    memcpy(at, root, len);
    memmove(buf, at, (size_t)(end - at) + 1);
}

/* ---- operations on names ---- */

/* A new name must be short enough and free. */
static int check_new_name(const struct model *model, uint32_t dir, const struct op_name *name)
{
    if (name->len > OP_NAME_MAX)
        return -ENAMETOOLONG;
    return model_lookup(model, dir, name->text) ? -EEXIST : 0;
}

static int open_handle(struct model *model, int slot, uint32_t number, uint32_t flags)
{
    if (slot < 0)
        return 0;
    assert(model->handles[slot].inode == 0);
    model->handles[slot].inode = number;
    model->handles[slot].flags = flags;
    model_inode(model, number)->opens++;
    return 0;
}

static int open_existing(struct model *model, const struct op *op, uint32_t number)
{
    struct model_inode *inode = model_inode(model, number);
    if (S_ISLNK(inode->mode))
        return -ELOOP;
    if (S_ISDIR(inode->mode) && (op->kind == OP_CREATE || (op->flags & (O_ACCMODE | O_TRUNC))))
        return -EISDIR;
    if (S_ISREG(inode->mode) && (op->flags & O_TRUNC)) {
        content_resize(&inode->content, 0);
        touch_data(model, inode);
    }
    return open_handle(model, op->handle, number, op->flags);
}

static int apply_create(struct model *model, const struct op *op, struct model_result *result)
{
    int err = check_new_name(model, op->dir, &op->name);
    bool is_opening = op->kind == OP_CREATE && op->handle >= 0;
    if (err == -EEXIST && is_opening && !(op->flags & O_EXCL)) {
        result->inode = model_lookup(model, op->dir, op->name.text);
        return open_existing(model, op, result->inode);
    }
    if (err < 0)
        return err;
    struct model_inode *inode = inode_new(model, op->mode);
    inode->uid = op->uid;
    inode->gid = op->gid;
    inode->rdev = op->rdev;
    if (op->kind == OP_SYMLINK) {
        inode->target = checked(calloc(1, op->len + 1));
        op_target(op->seed, inode->target, op->len);
        inode->content.size = op->len;
    }
    child_add(model, model_inode(model, op->dir), op->name.text, inode);
    result->inode = inode->number;
    return open_handle(model, is_opening ? op->handle : -1, inode->number, op->flags);
}

static int apply_tmpfile(struct model *model, const struct op *op, struct model_result *result)
{
    struct model_inode *inode = inode_new(model, op->mode);
    inode->uid = op->uid;
    inode->gid = op->gid;
    inode->nlink = 0;
    inode->is_linkable = true;
    result->inode = inode->number;
    return open_handle(model, op->handle, inode->number, op->flags);
}

static int apply_link(struct model *model, const struct op *op, struct model_result *result)
{
    struct model_inode *inode = model_inode(model, op->inode);
    int err = check_new_name(model, op->dir, &op->name);
    if (S_ISDIR(inode->mode)) {
        result->other_errno = -err;
        return -EPERM;
    }
    if (inode->nlink == 0 && !inode->is_linkable) {
        result->other_errno = -err;
        return -ENOENT;
    }
    if (err < 0)
        return err;
    inode->nlink++;
    inode->is_linkable = false;
    touch(model, inode);
    child_add(model, model_inode(model, op->dir), op->name.text, inode);
    result->inode = inode->number;
    return 0;
}

static int apply_unlink(struct model *model, const struct op *op)
{
    if (op->name.len > OP_NAME_MAX)
        return -ENAMETOOLONG;
    struct model_inode *dir = model_inode(model, op->dir);
    struct model_inode *inode = model_inode(model, model_lookup(model, op->dir, op->name.text));
    if (!inode)
        return -ENOENT;
    if (op->kind == OP_UNLINK && S_ISDIR(inode->mode))
        return -EISDIR;
    if (op->kind == OP_RMDIR && !S_ISDIR(inode->mode))
        return -ENOTDIR;
    if (op->kind == OP_RMDIR && inode->child_count > 0)
        return -ENOTEMPTY;
    child_remove(model, dir, op->name.text);
    touch(model, inode);
    inode->nlink = op->kind == OP_RMDIR ? 0 : inode->nlink - 1;
    inode_tidy(model, inode);
    return 0;
}

/* Which errors a rename meets, in Linux's order; `to` may be NULL. */
static int check_rename(const struct model *model, const struct op *op,
                        const struct model_inode *from, const struct model_inode *to,
                        struct model_result *result)
{
    bool is_exchange = op->flags & RENAME_EXCHANGE;
    if (is_exchange && (op->flags & RENAME_NOREPLACE))
        return -EINVAL;
    if (op->name.len > OP_NAME_MAX || op->name2.len > OP_NAME_MAX) {
        result->other_errno = ENOENT;
        return -ENAMETOOLONG;
    }
    if (!from)
        return -ENOENT;
    if ((op->flags & RENAME_NOREPLACE) && to)
        return -EEXIST;
    if (is_exchange && !to)
        return -ENOENT;
    if (S_ISDIR(from->mode) && model_is_below(model, op->dir2, from->number))
        return -EINVAL;
    if (to && S_ISDIR(to->mode) && model_is_below(model, op->dir, to->number)) {
        result->other_errno = !is_exchange && !S_ISDIR(from->mode) ? EISDIR : 0;
        return is_exchange ? -EINVAL : -ENOTEMPTY;
    }
    if (!to || is_exchange || from == to)
        return 0;
    if (S_ISDIR(from->mode) && !S_ISDIR(to->mode))
        return -ENOTDIR;
    if (!S_ISDIR(from->mode) && S_ISDIR(to->mode))
        return -EISDIR;
    return S_ISDIR(to->mode) && to->child_count > 0 ? -ENOTEMPTY : 0;
}

static int apply_rename(struct model *model, const struct op *op, struct model_result *result)
{
    struct model_inode *dir = model_inode(model, op->dir);
    struct model_inode *dir2 = model_inode(model, op->dir2);
    struct model_inode *from = model_inode(model, model_lookup(model, op->dir, op->name.text));
    struct model_inode *to = model_inode(model, model_lookup(model, op->dir2, op->name2.text));
    int err = check_rename(model, op, from, to, result);
    if (err < 0 || from == to)
        return err;
    child_remove(model, dir, op->name.text);
    touch(model, from);
    if (to) {
        child_remove(model, dir2, op->name2.text);
        touch(model, to);
    }
    child_add(model, dir2, op->name2.text, from);
    if (to && (op->flags & RENAME_EXCHANGE)) {
        child_add(model, dir, op->name.text, to);
    } else if (to) {
        to->nlink = S_ISDIR(to->mode) ? 0 : to->nlink - 1;
        inode_tidy(model, to);
    }
    return 0;
}

/* ---- operations on data and attributes ---- */

static int check_handle(const struct model *model, const struct op *op, unsigned needed)
{
    if (op->handle < 0)
        return 0;
    unsigned access = model->handles[op->handle].flags & O_ACCMODE;
    return access == O_RDWR || access == needed ? 0 : -EBADF;
}

static int apply_write(struct model *model, const struct op *op, struct model_result *result)
{
    int err = check_handle(model, op, O_WRONLY);
    if (err < 0)
        return err;
    struct model_inode *inode = model_inode(model, op->inode);
    uint8_t *bytes = checked(malloc(op->len + 1));
    op_fill(op->seed, bytes, op->len);
    content_write(&inode->content, op->kind == OP_APPEND ? inode->content.size : op->offset, bytes,
                  op->len);
    free(bytes);
    if (op->len > 0)
        touch_data(model, inode);
    result->value = op->len;
    return 0;
}

static int apply_shift(struct content *content, const struct op *op)
{
    bool is_collapse = op->flags == FALLOC_FL_COLLAPSE_RANGE;
    if (op->offset % CONTENT_BLOCK || op->len % CONTENT_BLOCK)
        return -EINVAL;
    if (is_collapse && op->offset + op->len >= content->size)
        return -EINVAL;
    if (!is_collapse && op->offset >= content->size)
        return -EINVAL;
    if (is_collapse)
        content_collapse(content, op->offset, op->len);
    else
        content_insert(content, op->offset, op->len);
    return 0;
}

static int apply_fallocate(struct model *model, const struct op *op)
{
    struct model_inode *inode = model_inode(model, op->inode);
    struct content *content = &inode->content;
    bool is_keeping = op->flags & FALLOC_FL_KEEP_SIZE;
    uint64_t size = content->size;
    if (op->len == 0)
        return -EINVAL;
    int err = check_handle(model, op, O_WRONLY);
    if (err < 0)
        return err;
    if (op->flags & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) {
        err = apply_shift(content, op);
        if (err < 0)
            return err;
    } else {
        if (op->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
            content_clear(content, op->offset, op->len);
        if (!is_keeping && size < op->offset + op->len)
            content->size = op->offset + op->len;
    }
    /* Whether an allocation that changes nothing visible sets mtime is up to the file system. */
    touch_data(model, inode);
    return 0;
}

static int apply_setattr(struct model *model, const struct op *op)
{
    struct model_inode *inode = model_inode(model, op->inode);
    if (op->mask & OP_SET_SIZE) {
        content_resize(&inode->content, op->len);
        inode->mtime = -1;
    }
    if (op->mask & OP_SET_MODE)
        inode->mode = (inode->mode & S_IFMT) | (op->mode & 07777);
    if (op->mask & OP_SET_OWNER) {
        inode->uid = op->uid;
        inode->gid = op->gid;
    }
    if (op->mask & OP_SET_MTIME)
        inode->mtime = op->mtime;
    touch(model, inode);
    return 0;
}

static int apply_copy(struct model *model, const struct op *op, struct model_result *result)
{
    struct model_inode *from = model_inode(model, op->inode);
    struct model_inode *to = model_inode(model, op->inode2);
    uint8_t *bytes = checked(malloc(op->len + 1));
    size_t len = content_read(&from->content, op->offset, bytes, op->len);
    content_write(&to->content, op->offset2, bytes, len);
    free(bytes);
    if (len > 0)
        touch_data(model, to);
    result->value = len;
    return 0;
}

/* ---- xattrs ---- */

const struct model_xattr *model_xattr(const struct model_inode *inode, const char *name)
{
    for (uint32_t i = 0; i < inode->xattr_count; i++) {
        if (strcmp(inode->xattrs[i].name, name) == 0)
            return &inode->xattrs[i];
    }
    return NULL;
}

/* user.* is for files and directories alone. */
static bool may_have_xattr(const struct model_inode *inode, const char *name)
{
    return S_ISREG(inode->mode) || S_ISDIR(inode->mode) || strncmp(name, "user.", 5) != 0;
}

static int apply_setxattr(struct model *model, const struct op *op)
{
    struct model_inode *inode = model_inode(model, op->inode);
    struct model_xattr *xattr = (struct model_xattr *)model_xattr(inode, op->name.text);
    if (!may_have_xattr(inode, op->name.text))
        return -EPERM;
    if (op->flags == XATTR_CREATE && xattr)
        return -EEXIST;
    if (op->flags == XATTR_REPLACE && !xattr)
        return -ENODATA;
    if (!xattr) {
        inode->xattrs =
            checked(realloc(inode->xattrs, (inode->xattr_count + 1) * sizeof(*inode->xattrs)));
        xattr = &inode->xattrs[inode->xattr_count++];
        *xattr = (struct model_xattr){checked(strdup(op->name.text)), NULL, 0};
    }
    xattr->len = op->len;
    xattr->value = checked(realloc(xattr->value, op->len + 1));
    op_fill(op->seed, xattr->value, op->len);
    touch(model, inode);
    return 0;
}

static int apply_removexattr(struct model *model, const struct op *op)
{
    struct model_inode *inode = model_inode(model, op->inode);
    struct model_xattr *xattr = (struct model_xattr *)model_xattr(inode, op->name.text);
    if (!may_have_xattr(inode, op->name.text))
        return -EPERM;
    if (!xattr)
        return -ENODATA;
    free(xattr->name);
    free(xattr->value);
    *xattr = inode->xattrs[--inode->xattr_count];
    touch(model, inode);
    return 0;
}

/* ---- all ---- */

static int apply_release(struct model *model, const struct op *op)
{
    struct model_inode *inode = model_inode(model, model->handles[op->handle].inode);
    model->handles[op->handle].inode = 0;
    inode->opens--;
    inode_tidy(model, inode);
    return 0;
}

int model_apply(struct model *model, const struct op *op, struct model_result *out_result)
{
    *out_result = (struct model_result){0, 0, 0};
    switch (op->kind) {
    case OP_CREATE:
    case OP_MKNOD:
    case OP_MKDIR:
    case OP_SYMLINK:
        return apply_create(model, op, out_result);
    case OP_TMPFILE:
        return apply_tmpfile(model, op, out_result);
    case OP_LINK:
        return apply_link(model, op, out_result);
    case OP_UNLINK:
    case OP_RMDIR:
        return apply_unlink(model, op);
    case OP_RENAME:
        return apply_rename(model, op, out_result);
    case OP_OPEN:
        out_result->inode = op->inode;
        return open_existing(model, op, op->inode);
    case OP_RELEASE:
        return apply_release(model, op);
    case OP_WRITE:
    case OP_APPEND:
        return apply_write(model, op, out_result);
    case OP_FALLOCATE:
        return apply_fallocate(model, op);
    case OP_SETATTR:
        return apply_setattr(model, op);
    case OP_SETXATTR:
        return apply_setxattr(model, op);
    case OP_REMOVEXATTR:
        return apply_removexattr(model, op);
    case OP_COPY:
        return apply_copy(model, op, out_result);
    default:
        return 0;
    }
}

uint64_t model_changed(const struct model *model, uint32_t inode)
{
    return inode == 0 ? model->clock : model_inode(model, inode)->changed;
}
