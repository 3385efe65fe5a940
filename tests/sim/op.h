/* An operation of the simulator as a value: generated from a model, done by a model, by the engine
 * or by the host's file system. Inodes are named by the model's numbers. Plain values; everything
 * that an operation writes follows from its seed, so that a history of operations is small. */
#ifndef SIM_OP_H
#define SIM_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OP_NAME_MAX 255
#define OP_HANDLES_MAX 4         /* open files of one owner */
#define OP_DATA_MAX (100u << 10) /* bytes of one read or write */
#define OP_TARGET_MAX 700
#define OP_XATTR_MAX 65536
#define OP_COPY_MAX (256u << 10)

enum op_kind {
    /* what changes something */
    OP_CREATE, /* and open: flags O_EXCL, O_TRUNC, access mode; handle may be -1 (mknod) */
    OP_TMPFILE,
    OP_MKNOD, /* a FIFO or a device: mode, rdev */
    OP_MKDIR,
    OP_SYMLINK,
    OP_LINK, /* inode -> dir/name */
    OP_UNLINK,
    OP_RMDIR,
    OP_RENAME,  /* dir/name -> dir2/name2 */
    OP_OPEN,    /* inode into a handle; flags O_TRUNC, access mode */
    OP_RELEASE, /* handle */
    OP_WRITE,
    OP_APPEND,
    OP_FALLOCATE, /* flags = mode */
    OP_SETATTR,   /* mask */
    OP_SETXATTR,
    OP_REMOVEXATTR,
    OP_COPY, /* inode, offset -> inode2, offset2 */
    /* what does not */
    OP_LOOKUP,
    OP_GETATTR,
    OP_READ,
    OP_READDIR,
    OP_READLINK,
    OP_GETXATTR,
    OP_LISTXATTR,
    OP_SEEK, /* flags = SEEK_DATA or SEEK_HOLE */
    OP_FSYNC,
    OP_SYNC,
    OP_KINDS
};

#define OP_SET_MODE 1u
#define OP_SET_OWNER 2u /* uid and gid */
#define OP_SET_MTIME 4u
#define OP_SET_SIZE 8u

struct op_name {
    uint16_t len;
    char text[OP_NAME_MAX + 2]; /* one longer than allowed fits; NUL-ended */
};

struct op {
    enum op_kind kind;
    uint32_t inode, inode2;
    uint32_t dir, dir2;
    int handle; /* slot, or -1 */
    uint32_t flags;
    uint32_t mask;
    uint32_t mode, uid, gid, rdev;
    int64_t mtime; /* seconds; always below OP_MTIME_MAX */
    uint64_t offset, offset2, len;
    uint64_t seed;
    struct op_name name, name2;
};

/* Times set by operations are before this, times of the clock are after it. */
#define OP_MTIME_MAX 100000000

const char *op_kind_name(enum op_kind kind);
bool op_is_reading(enum op_kind kind);
/* Does the engine keep a reply for it (struct vv_fs_reply)? For some kinds only without a handle. */
bool op_is_replied(const struct op *op);
/* A line for people. */
void op_to_text(const struct op *op, char *buf, size_t size);
/* The bytes that an operation writes: random, compressible, repeating or zero, by its seed. */
void op_fill(uint64_t seed, void *buf, size_t len);
/* The target of a symlink: `len` printable characters. */
void op_target(uint64_t seed, char *buf, size_t len);

#endif
