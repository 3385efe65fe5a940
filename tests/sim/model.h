/* A model of a POSIX tree, written against POSIX and Linux's manual pages alone: nothing of the
 * engine is used. One model is what one owner (client) of the simulated world has; its roots lie
 * somewhere in the tree of the volume. Doing the same operations to copies of a model gives equal
 * models, numbers of inodes included. Plain malloc; out of memory aborts. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "content.h"
#include "op.h"

struct model_child {
    char *name; /* owned */
    uint32_t inode;
};

struct model_xattr {
    char *name;     /* owned */
    uint8_t *value; /* owned */
    size_t len;
};

struct model_inode {
    uint32_t number; /* 0 = this slot is empty */
    uint32_t mode, uid, gid, rdev, nlink;
    uint32_t opens;   /* handles that keep it */
    uint32_t parent;  /* of a directory; 0 for roots */
    int64_t mtime;    /* as set by an operation; -1 = by the clock */
    uint64_t real;    /* the number in the volume or on the host; 0 = not known yet */
    uint64_t changed; /* the index of the last operation that changed it: see model->clock */
    bool is_root;
    bool is_linkable;             /* made by tmpfile and never linked */
    struct content content;       /* files */
    char *target;                 /* symlinks; owned */
    struct model_child *children; /* directories; owned */
    uint32_t child_count, child_capacity;
    struct model_xattr *xattrs; /* owned */
    uint32_t xattr_count;
};

struct model_root {
    char path[64];
    uint32_t inode;
    bool is_hidden; /* a directory shared with others: has no entry of its own, nor attributes */
};

#define MODEL_ROOTS_MAX 4

struct model {
    struct model_inode **inodes; /* by number; owned */
    uint32_t inode_count;        /* one more than the highest number */
    uint32_t living;             /* inodes that are there */
    struct model_root roots[MODEL_ROOTS_MAX];
    unsigned root_count;
    struct {
        uint32_t inode; /* 0 = closed */
        uint32_t flags; /* as given to open */
    } handles[OP_HANDLES_MAX];
    uint64_t clock; /* operations done; the caller counts it up */
};

/* What an operation gave besides its error. */
struct model_result {
    uint32_t inode;  /* made, found or opened */
    int other_errno; /* an errno that would be as right as the one returned; 0 = none */
    uint64_t value;  /* bytes read or copied, offset found */
};

struct model *model_new(void);
void model_free(struct model *model);
struct model *model_copy(const struct model *model);
/* A directory (or, with S_IFREG, a file of `size` zeros) at an absolute path. */
uint32_t model_add_root(struct model *model, const char *path, uint32_t mode, uint64_t size,
                        bool is_hidden);
/* Forget all handles, and the inodes that only they kept: what a crash does. */
void model_forget_handles(struct model *model);

/* NULL when there is no such inode. */
struct model_inode *model_inode(const struct model *model, uint32_t number);
/* The inode of a name; 0 = none. "." and ".." are not understood. */
uint32_t model_lookup(const struct model *model, uint32_t dir, const char *name);
const struct model_xattr *model_xattr(const struct model_inode *inode, const char *name);
/* Is `inode` the directory `dir` or inside of it? */
bool model_is_below(const struct model *model, uint32_t inode, uint32_t dir);
/* The absolute path of a directory, or of dir/name when name is not NULL. */
void model_path(const struct model *model, uint32_t dir, const char *name, char *buf, size_t size);

/* Do an operation that changes something (op_is_reading is false). 0 or the negative errno that
 * Linux would give; then nothing has changed. */
int model_apply(struct model *model, const struct op *op, struct model_result *out_result);
/* What a fsync of the inode, or of everything (inode 0), must make durable: the number of
 * operations, from the first, up to the last that changed it. */
uint64_t model_changed(const struct model *model, uint32_t inode);

/* ---- canonical form ---- */

/* One name of an inode, with everything of the inode that is compared. */
struct model_entry {
    char *path;   /* owned */
    uint64_t key; /* equal for the names of one inode; not compared */
    uint32_t mode, uid, gid, rdev, nlink;
    uint64_t size;
    int64_t mtime;       /* -1 = by the clock */
    struct hash content; /* of bytes, or of a symlink's target */
    struct hash xattrs;
    const char *first_path; /* of several names of the inode the first; points to an entry's path */
};

struct model_dump {
    struct model_entry *entries; /* owned; by path after model_dump_finish */
    size_t count, capacity;
};

/* Zero-initialised = empty. */
void model_dump_done(struct model_dump *dump);
/* A zeroed entry with a copy of `path`; valid until the next call. */
struct model_entry *model_dump_add(struct model_dump *dump, const char *path);
/* Sort, and find the names that belong together. */
void model_dump_finish(struct model_dump *dump);
struct hash model_dump_hash(const struct model_dump *dump);
/* Tells what differs, `is`s being what was found; at most `max` lines. Returns the number of
 * differences. */
size_t model_dump_diff(const struct model_dump *is, const struct model_dump *should, size_t max,
                       void (*line)(void *arg, const char *text), void *arg);
/* The whole model. Roots that are hidden are left out, what is in them is not. */
void model_dump(const struct model *model, struct model_dump *out_dump);
struct hash model_hash(const struct model *model);
/* The hash of one xattr, to be added up. */
struct hash model_xattr_hash(const char *name, const void *value, size_t len);
struct hash model_target_hash(const char *target, size_t len);

#endif
