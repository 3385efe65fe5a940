#include "op.h"

#include <stdio.h>
#include <string.h>

#include "rng.h"

static const char *const kind_names[OP_KINDS] = {
    [OP_CREATE] = "create",
    [OP_TMPFILE] = "tmpfile",
    [OP_MKNOD] = "mknod",
    [OP_MKDIR] = "mkdir",
    [OP_SYMLINK] = "symlink",
    [OP_LINK] = "link",
    [OP_UNLINK] = "unlink",
    [OP_RMDIR] = "rmdir",
    [OP_RENAME] = "rename",
    [OP_OPEN] = "open",
    [OP_RELEASE] = "release",
    [OP_WRITE] = "write",
    [OP_APPEND] = "append",
    [OP_FALLOCATE] = "fallocate",
    [OP_SETATTR] = "setattr",
    [OP_SETXATTR] = "setxattr",
    [OP_REMOVEXATTR] = "removexattr",
    [OP_COPY] = "copy",
    [OP_LOOKUP] = "lookup",
    [OP_GETATTR] = "getattr",
    [OP_READ] = "read",
    [OP_READDIR] = "readdir",
    [OP_READLINK] = "readlink",
    [OP_GETXATTR] = "getxattr",
    [OP_LISTXATTR] = "listxattr",
    [OP_SEEK] = "seek",
    [OP_FSYNC] = "fsync",
    [OP_SYNC] = "sync",
};

const char *op_kind_name(enum op_kind kind)
{
    return kind < OP_KINDS ? kind_names[kind] : "?";
}

bool op_is_reading(enum op_kind kind)
{
    return kind >= OP_LOOKUP;
}

bool op_is_replied(const struct op *op)
{
    switch (op->kind) {
    case OP_CREATE:
        return op->handle < 0;
    case OP_MKNOD:
    case OP_MKDIR:
    case OP_SYMLINK:
    case OP_LINK:
    case OP_UNLINK:
    case OP_RMDIR:
    case OP_RENAME:
        return true;
    default:
        return false;
    }
}

/* Long names are cut. */
static void name_to_text(const struct op_name *name, char *buf, size_t size)
{
    if (name->len > 24)
        snprintf(buf, size, "%.20s~%u", name->text, name->len);
    else
        snprintf(buf, size, "%.24s", name->text);
}

void op_to_text(const struct op *op, char *buf, size_t size)
{
    char name[48];
    char name2[48];
    name_to_text(&op->name, name, sizeof(name));
    name_to_text(&op->name2, name2, sizeof(name2));
    int len = snprintf(buf, size, "%s", op_kind_name(op->kind));
    size_t at = (size_t)len < size ? (size_t)len : size - 1;
    switch (op->kind) {
    case OP_RENAME:
        snprintf(buf + at, size - at, " #%u/%s -> #%u/%s flags %x", op->dir, name, op->dir2, name2,
                 op->flags);
        break;
    case OP_CREATE:
    case OP_TMPFILE:
    case OP_MKNOD:
    case OP_MKDIR:
    case OP_SYMLINK:
    case OP_UNLINK:
    case OP_RMDIR:
    case OP_LOOKUP:
        snprintf(buf + at, size - at, " #%u/%s mode %o flags %x handle %d len %llu", op->dir, name,
                 op->mode, op->flags, op->handle, (unsigned long long)op->len);
        break;
    case OP_LINK:
        snprintf(buf + at, size - at, " #%u -> #%u/%s", op->inode, op->dir, name);
        break;
    case OP_COPY:
        snprintf(buf + at, size - at, " #%u+%llu -> #%u+%llu len %llu", op->inode,
                 (unsigned long long)op->offset, op->inode2, (unsigned long long)op->offset2,
                 (unsigned long long)op->len);
        break;
    case OP_SETXATTR:
    case OP_REMOVEXATTR:
    case OP_GETXATTR:
        snprintf(buf + at, size - at, " #%u %s len %llu flags %x", op->inode, name,
                 (unsigned long long)op->len, op->flags);
        break;
    case OP_SETATTR:
        snprintf(buf + at, size - at, " #%u mask %x mode %o owner %u:%u mtime %lld size %llu",
                 op->inode, op->mask, op->mode, op->uid, op->gid, (long long)op->mtime,
                 (unsigned long long)op->len);
        break;
    default:
        snprintf(buf + at, size - at, " #%u handle %d offset %llu len %llu flags %x seed %llx",
                 op->inode, op->handle, (unsigned long long)op->offset, (unsigned long long)op->len,
                 op->flags, (unsigned long long)op->seed);
        break;
    }
}

static void fill_random(struct rng *rng, uint8_t *bytes, size_t len)
{
    for (; len >= 8; bytes += 8, len -= 8) {
        uint64_t value = rng_next(rng);
        memcpy(bytes, &value, 8);
    }
    uint64_t value = rng_next(rng);
    memcpy(bytes, &value, len);
}

/* Words from a short list, which compress to about a third. */
static void fill_words(struct rng *rng, uint8_t *bytes, size_t len)
{
    static const char words[16][8] = {"varve   ", "lake    ",  "sediment",  "layer 01",
                                      "layer 02", "summer\n ", "winter\n ", "clay    ",
                                      "silt    ", "core    ",  "depth   ",  "0000mm  ",
                                      "0001mm  ", "date?   ",  "pollen  ",  "ash     "};
    for (; len >= 8; bytes += 8, len -= 8)
        memcpy(bytes, words[rng_next(rng) >> 60], 8);
    memset(bytes, '.', len);
}

void op_fill(uint64_t seed, void *buf, size_t len)
{
    struct rng rng = {seed};
    uint64_t shape = rng_below(&rng, 8);
    if (shape < 4)
        fill_random(&rng, buf, len);
    else if (shape < 6)
        fill_words(&rng, buf, len);
    else if (shape == 6)
        memset(buf, (int)(1 + rng_below(&rng, 255)), len);
    else
        memset(buf, 0, len);
}

void op_target(uint64_t seed, char *buf, size_t len)
{
    struct rng rng = {seed};
    for (size_t i = 0; i < len; i++)
        buf[i] = "abcdefghijklmnop/.-_ 0123456789Z"[rng_below(&rng, 32)];
}
