#include "expect.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRONG(...)                                                                                 \
    do {                                                                                           \
        snprintf(text, size, __VA_ARGS__);                                                         \
        return -1;                                                                                 \
    } while (0)

void sight_reset(struct sight *sight)
{
    sight->err = 0;
    sight->value = 0;
    sight->name_count = 0;
    memset(&sight->entry, 0, sizeof(sight->entry));
}

void sight_name(struct sight *sight, const char *name, size_t len, uint64_t key)
{
    size_t index = sight->name_count++;
    if (index >= SIGHT_NAMES_MAX || len > OP_NAME_MAX)
        return;
    memcpy(sight->names[index], name, len);
    sight->names[index][len] = 0;
    sight->keys[index] = key;
}

/* Every errno class is right or wrong; there is one right one. */
static int check_errno(int is, int should, char *text, size_t size)
{
    if (is == should)
        return 0;
    WRONG("gave %s, should give %s", is ? strerror(-is) : "success",
          should ? strerror(-should) : "success");
}

static int check_attr(const struct model_inode *inode, const struct sight *sight, char *text,
                      size_t size)
{
    const struct model_entry *entry = &sight->entry;
    uint64_t bytes = inode->content.size;
    if (entry->mode != inode->mode)
        WRONG("mode %o, should be %o", entry->mode, inode->mode);
    if (entry->uid != inode->uid || entry->gid != inode->gid)
        WRONG("owner %u:%u, should be %u:%u", entry->uid, entry->gid, inode->uid, inode->gid);
    if (entry->nlink != inode->nlink)
        WRONG("nlink %u, should be %u", entry->nlink, inode->nlink);
    if (!S_ISDIR(inode->mode) && entry->size != bytes)
        WRONG("size %" PRIu64 ", should be %" PRIu64, entry->size, bytes);
    if ((S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) && entry->rdev != inode->rdev)
        WRONG("rdev %x, should be %x", entry->rdev, inode->rdev);
    if (inode->mtime >= 0 && entry->mtime != inode->mtime)
        WRONG("mtime %" PRId64 ", should be %" PRId64, entry->mtime, inode->mtime);
    if (inode->mtime < 0 && entry->mtime < OP_MTIME_MAX)
        WRONG("mtime %" PRId64 ", should be the clock's", entry->mtime);
    if (inode->real && entry->key && entry->key != inode->real)
        WRONG("inode %" PRIu64 ", should be %" PRIu64, entry->key, inode->real);
    return 0;
}

static int check_read(const struct model *model, const struct op *op, const struct sight *sight,
                      char *text, size_t size)
{
    const struct model_inode *inode = model_inode(model, op->inode);
    bool is_writable_only =
        op->handle >= 0 && (model->handles[op->handle].flags & O_ACCMODE) == O_WRONLY;
    if (is_writable_only || sight->err < 0)
        return check_errno(sight->err, is_writable_only ? -EBADF : 0, text, size);
    uint8_t *should = malloc(op->len + 1);
    if (!should)
        abort();
    size_t len = content_read(&inode->content, op->offset, should, op->len);
    size_t same = 0;
    while (same < len && same < sight->value && should[same] == sight->bytes[same])
        same++;
    uint8_t wanted = same < len ? should[same] : 0;
    free(should);
    if (sight->value != len)
        WRONG("read %" PRIu64 " bytes, should be %zu", sight->value, len);
    if (same < len)
        WRONG("byte %" PRIu64 " is %02x, should be %02x", op->offset + same, sight->bytes[same],
              wanted);
    return 0;
}

static bool has_name(const struct sight *sight, const char *name, size_t *out_index)
{
    for (size_t i = 0; i < sight->name_count && i < SIGHT_NAMES_MAX; i++) {
        if (strcmp(sight->names[i], name) == 0) {
            *out_index = i;
            return true;
        }
    }
    return false;
}

static int check_readdir(const struct model *model, const struct op *op, const struct sight *sight,
                         char *text, size_t size)
{
    const struct model_inode *dir = model_inode(model, op->dir);
    if (sight->err < 0)
        return check_errno(sight->err, 0, text, size);
    for (uint32_t i = 0; i < dir->child_count; i++) {
        size_t at;
        if (!has_name(sight, dir->children[i].name, &at))
            WRONG("entry %s is missing", dir->children[i].name);
        uint64_t real = model_inode(model, dir->children[i].inode)->real;
        if (real && sight->keys[at] && sight->keys[at] != real)
            WRONG("entry %s is inode %" PRIu64 ", should be %" PRIu64, dir->children[i].name,
                  sight->keys[at], real);
    }
    if (sight->name_count != dir->child_count)
        WRONG("%zu entries, should be %u", sight->name_count, dir->child_count);
    return 0;
}

static int check_getxattr(const struct model *model, const struct op *op, const struct sight *sight,
                          char *text, size_t size)
{
    const struct model_inode *inode = model_inode(model, op->inode);
    const struct model_xattr *xattr = model_xattr(inode, op->name.text);
    if (!xattr && sight->err == -EPERM && !S_ISREG(inode->mode) && !S_ISDIR(inode->mode))
        return 0;
    if (!xattr || sight->err < 0)
        return check_errno(sight->err, xattr ? 0 : -ENODATA, text, size);
    if (sight->value != xattr->len || memcmp(sight->bytes, xattr->value, xattr->len) != 0)
        WRONG("value of %" PRIu64 " bytes differs from the right one of %zu", sight->value,
              xattr->len);
    return 0;
}

static int check_listxattr(const struct model *model, const struct op *op,
                           const struct sight *sight, char *text, size_t size)
{
    const struct model_inode *inode = model_inode(model, op->inode);
    if (sight->err < 0)
        return check_errno(sight->err, 0, text, size);
    for (uint32_t i = 0; i < inode->xattr_count; i++) {
        size_t at;
        if (!has_name(sight, inode->xattrs[i].name, &at))
            WRONG("xattr %s is missing", inode->xattrs[i].name);
    }
    if (sight->name_count != inode->xattr_count)
        WRONG("%zu xattrs, should be %u", sight->name_count, inode->xattr_count);
    return 0;
}

/* Data may be reported where zeros are (written zeros, whole extents), never the reverse. */
static int check_seek(const struct model *model, const struct op *op, const struct sight *sight,
                      char *text, size_t size)
{
    const struct content *content = &model_inode(model, op->inode)->content;
    if (op->offset >= content->size)
        return check_errno(sight->err, -ENXIO, text, size);
    if (op->flags == SEEK_DATA && sight->err == -ENXIO &&
        content_is_zero(content, op->offset, content->size - op->offset))
        return 0;
    if (sight->err < 0)
        return check_errno(sight->err, 0, text, size);
    if (sight->value < op->offset || sight->value > content->size)
        WRONG("found offset %" PRIu64 " outside of the file", sight->value);
    if (op->flags == SEEK_DATA && sight->value == content->size)
        WRONG("data found at the end");
    if (op->flags == SEEK_DATA && !content_is_zero(content, op->offset, sight->value - op->offset))
        WRONG("data before %" PRIu64 " was taken for a hole", sight->value);
    if (op->flags == SEEK_HOLE && !content_is_zero(content, sight->value, 1))
        WRONG("data at %" PRIu64 " was taken for a hole", sight->value);
    return 0;
}

static int check_inode(const struct model *model, const struct op *op, const struct sight *sight,
                       char *text, size_t size)
{
    uint32_t number = op->inode;
    int should = 0;
    if (op->kind == OP_LOOKUP) {
        number = model_lookup(model, op->dir, op->name.text);
        should = op->name.len > OP_NAME_MAX ? -ENAMETOOLONG : number == 0 ? -ENOENT : 0;
    }
    if (should < 0 || sight->err < 0)
        return check_errno(sight->err, should, text, size);
    return check_attr(model_inode(model, number), sight, text, size);
}

int expect_check(const struct model *model, const struct op *op, const struct sight *sight,
                 char *text, size_t size)
{
    const struct model_inode *inode = model_inode(model, op->inode);
    switch (op->kind) {
    case OP_LOOKUP:
    case OP_GETATTR:
        return check_inode(model, op, sight, text, size);
    case OP_READ:
        return check_read(model, op, sight, text, size);
    case OP_READDIR:
        return check_readdir(model, op, sight, text, size);
    case OP_READLINK:
        if (!S_ISLNK(inode->mode) || sight->err < 0)
            return check_errno(sight->err, S_ISLNK(inode->mode) ? 0 : -EINVAL, text, size);
        if (sight->value != inode->content.size ||
            memcmp(sight->bytes, inode->target, sight->value) != 0)
            WRONG("another target of %" PRIu64 " bytes", sight->value);
        return 0;
    case OP_GETXATTR:
        return check_getxattr(model, op, sight, text, size);
    case OP_LISTXATTR:
        return check_listxattr(model, op, sight, text, size);
    case OP_SEEK:
        return check_seek(model, op, sight, text, size);
    default:
        return check_errno(sight->err, 0, text, size);
    }
}
