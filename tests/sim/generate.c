#include "generate.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NAMES 24 /* different names in a directory, but for long ones */
#define HUGE_OFFSET (3ull << 40)
#define TRIES 12
#define PAIRS 30

/* How often each kind of operation comes, by profile: mixed, names, overwrite, ranges, big. */
static const uint8_t weights[OP_KINDS][PROFILES] = {
    [OP_CREATE] = {9, 12, 3, 4, 3},     [OP_TMPFILE] = {1, 3, 1, 1, 1},
    [OP_MKNOD] = {1, 3, 0, 0, 0},       [OP_MKDIR] = {3, 9, 1, 1, 1},
    [OP_SYMLINK] = {2, 5, 0, 0, 0},     [OP_LINK] = {2, 8, 1, 1, 1},
    [OP_UNLINK] = {6, 12, 1, 2, 2},     [OP_RMDIR] = {2, 6, 0, 0, 0},
    [OP_RENAME] = {6, 16, 1, 1, 1},     [OP_OPEN] = {4, 4, 2, 2, 2},
    [OP_RELEASE] = {4, 6, 1, 1, 1},     [OP_WRITE] = {18, 4, 60, 20, 40},
    [OP_APPEND] = {6, 2, 4, 4, 12},     [OP_FALLOCATE] = {6, 1, 4, 30, 4},
    [OP_SETATTR] = {7, 6, 3, 10, 4},    [OP_SETXATTR] = {4, 5, 1, 1, 1},
    [OP_REMOVEXATTR] = {2, 3, 1, 1, 1}, [OP_COPY] = {2, 1, 2, 6, 4},
    [OP_LOOKUP] = {3, 5, 1, 1, 1},      [OP_GETATTR] = {4, 5, 2, 3, 2},
    [OP_READ] = {12, 3, 20, 16, 24},    [OP_READDIR] = {2, 5, 1, 1, 1},
    [OP_READLINK] = {1, 2, 0, 0, 0},    [OP_GETXATTR] = {2, 3, 1, 1, 1},
    [OP_LISTXATTR] = {1, 1, 0, 0, 0},   [OP_SEEK] = {2, 1, 2, 6, 2},
    [OP_FSYNC] = {3, 3, 3, 3, 3},       [OP_SYNC] = {1, 1, 1, 1, 1},
};

const char *profile_name(enum profile profile)
{
    static const char *const names[PROFILES] = {"mixed", "names", "overwrite", "ranges", "big"};
    return names[profile];
}

/* ---- choosing things ---- */

/* The prefix keeps the names of several owners apart in a shared directory. */
static void make_name(struct generator *generator, uint32_t dir, struct op_name *name)
{
    struct rng *rng = &generator->rng;
    const char *prefix = dir == generator->hidden ? generator->prefix : "";
    uint64_t id = rng_below(rng, NAMES);
    unsigned len = 0;
    if (rng_chance(rng, 4))
        len = OP_NAME_MAX + 1;
    else if (id % 8 == 7)
        len = OP_NAME_MAX - (unsigned)(id / 8);
    else if (id % 8 == 6)
        len = 40;
    int at = snprintf(name->text, sizeof(name->text), "%s%s%llu", prefix,
                      id % 8 == 5 ? "\xc3\xa9 \xff" : "n", (unsigned long long)id);
    for (; (unsigned)at < len; at++)
        name->text[at] = (char)('a' + at % 26);
    name->text[at] = 0;
    name->len = (uint16_t)at;
}

static void set_name(struct op_name *name, const char *text)
{
    name->len = (uint16_t)snprintf(name->text, sizeof(name->text), "%s", text);
}

/* A random inode that has a name or a handle and one of whose type bits is in the set; 0 = none
 * found. */
static uint32_t pick_inode(struct generator *generator, const struct model *model, bool is_dir_ok,
                           bool is_file_ok, bool is_other_ok)
{
    uint32_t start = (uint32_t)rng_below(&generator->rng, model->inode_count);
    for (uint32_t i = 0; i < model->inode_count; i++) {
        const struct model_inode *inode = model_inode(model, (start + i) % model->inode_count);
        if (!inode || inode->number == generator->hidden)
            continue;
        if (S_ISDIR(inode->mode) ? is_dir_ok : S_ISREG(inode->mode) ? is_file_ok : is_other_ok)
            return inode->number;
    }
    return 0;
}

/* A directory that is still linked; hidden roots are chosen more often than by their number. */
static uint32_t pick_dir(struct generator *generator, const struct model *model)
{
    if (generator->hidden && rng_chance(&generator->rng, 500))
        return generator->hidden;
    for (int i = 0; i < TRIES; i++) {
        uint32_t number = pick_inode(generator, model, true, false, false);
        const struct model_inode *inode = model_inode(model, number);
        if (inode && inode->nlink > 0)
            return number;
    }
    return model->roots[0].inode;
}

/* An existing name if `is_there` (and there is one), else a random one. */
static void pick_name(struct generator *generator, const struct model *model, bool is_there,
                      uint32_t *out_dir, struct op_name *out_name)
{
    for (int i = 0; i < (is_there ? TRIES : 1); i++) {
        *out_dir = pick_dir(generator, model);
        const struct model_inode *dir = model_inode(model, *out_dir);
        make_name(generator, *out_dir, out_name);
        if (is_there && dir->child_count > 0) {
            set_name(out_name, dir->children[rng_below(&generator->rng, dir->child_count)].name);
            return;
        }
    }
}

static int free_handle(const struct model *model)
{
    for (int i = 0; i < OP_HANDLES_MAX; i++) {
        if (model->handles[i].inode == 0)
            return i;
    }
    return -1;
}

static int used_handle(struct generator *generator, const struct model *model)
{
    int start = (int)rng_below(&generator->rng, OP_HANDLES_MAX);
    for (int i = 0; i < OP_HANDLES_MAX; i++) {
        int slot = (start + i) % OP_HANDLES_MAX;
        if (model->handles[slot].inode != 0)
            return slot;
    }
    return -1;
}

/* A file, perhaps through a handle; files without a name only through one. */
static bool pick_file(struct generator *generator, const struct model *model, struct op *op)
{
    op->handle = -1;
    int slot = used_handle(generator, model);
    if (slot >= 0 && rng_chance(&generator->rng, 300)) {
        op->handle = slot;
        op->inode = model->handles[slot].inode;
        return S_ISREG(model_inode(model, op->inode)->mode);
    }
    for (int i = 0; i < TRIES; i++) {
        op->inode = pick_inode(generator, model, false, true, false);
        if (op->inode == 0)
            return false;
        if (model_inode(model, op->inode)->nlink > 0)
            return true;
    }
    return false;
}

/* Inodes for attributes: anything that has a name. */
static bool pick_any(struct generator *generator, const struct model *model, struct op *op)
{
    for (int i = 0; i < TRIES; i++) {
        op->inode = pick_inode(generator, model, true, true, true);
        const struct model_inode *inode = model_inode(model, op->inode);
        if (inode && inode->nlink > 0 && op->inode != generator->region)
            return true;
    }
    return false;
}

static uint32_t pick_mode(struct generator *generator, uint32_t type)
{
    static const uint32_t modes[8] = {0644, 0600, 0755, 0777, 0400, 0, 01777, 0620};
    return type | modes[rng_below(&generator->rng, 8)];
}

static uint32_t pick_access(struct generator *generator)
{
    uint64_t dice = rng_below(&generator->rng, 10);
    return dice < 7 ? O_RDWR : dice < 9 ? O_WRONLY : O_RDONLY;
}

/* A stretch of a file of `size` bytes to read or write. */
static void pick_range(struct generator *generator, const struct model_inode *inode, struct op *op)
{
    struct rng *rng = &generator->rng;
    uint64_t size = inode->content.size;
    uint64_t limit = generator->file_bytes_max;
    op->len = rng_log_between(rng, 1, generator->profile == PROFILE_OVERWRITE ? 8192 : OP_DATA_MAX);
    if (generator->profile == PROFILE_BIG && rng_chance(rng, 600))
        op->len = rng_between(rng, 16384, OP_DATA_MAX);
    if (size > 0 && !rng_chance(rng, 150))
        op->offset = rng_below(rng, size);
    else if (rng_chance(rng, 300))
        op->offset = size;
    else
        op->offset = rng_below(rng, limit);
    if (rng_chance(rng, 300))
        op->offset -= op->offset % 4096;
    if (rng_chance(rng, 150))
        op->len = 4096 * rng_between(rng, 1, 8);
    if (rng_chance(rng, 8) && !generator->is_host)
        op->offset = HUGE_OFFSET + rng_below(rng, 1 << 20);
    if (generator->region == op->inode && op->offset + op->len > size) {
        op->len = op->len < size ? op->len : size;
        op->offset = rng_below(rng, size - op->len + 1);
    }
}

/* ---- operations; false = there is nothing to do it on ---- */

static void make_create(struct generator *generator, const struct model *model, struct op *op)
{
    struct rng *rng = &generator->rng;
    pick_name(generator, model, rng_chance(rng, 150), &op->dir, &op->name);
    op->mode = pick_mode(generator, S_IFREG);
    op->handle = rng_chance(rng, 500) ? free_handle(model) : -1;
    op->flags = pick_access(generator) | (rng_chance(rng, 500) ? O_EXCL : 0) |
                (rng_chance(rng, 200) ? O_TRUNC : 0);
    /* Opening what is there is done to files and directories alone: the rest is the kernel's
     * business. */
    const struct model_inode *old = model_inode(model, model_lookup(model, op->dir, op->name.text));
    if (old && !S_ISREG(old->mode) && !S_ISDIR(old->mode))
        op->flags |= O_EXCL;
    if ((op->flags & O_ACCMODE) == O_RDONLY)
        op->flags &= ~(unsigned)O_TRUNC;
}

static bool make_new(struct generator *generator, const struct model *model, struct op *op)
{
    struct rng *rng = &generator->rng;
    op->handle = -1;
    switch (op->kind) {
    case OP_CREATE:
        make_create(generator, model, op);
        return true;
    case OP_TMPFILE:
        op->dir = pick_dir(generator, model);
        op->mode = pick_mode(generator, S_IFREG);
        op->handle = free_handle(model);
        op->flags = O_RDWR;
        return op->handle >= 0 && op->dir != generator->hidden;
    case OP_MKNOD:
        pick_name(generator, model, rng_chance(rng, 100), &op->dir, &op->name);
        op->mode = pick_mode(generator, rng_chance(rng, 500) ? S_IFIFO : S_IFCHR);
        op->rdev = S_ISCHR(op->mode) ? (7 << 8) | 9 : 0;
        return true;
    case OP_SYMLINK:
        pick_name(generator, model, rng_chance(rng, 100), &op->dir, &op->name);
        op->mode = S_IFLNK | 0777;
        op->len = rng_log_between(rng, 1, OP_TARGET_MAX);
        return true;
    default:
        pick_name(generator, model, rng_chance(rng, 150), &op->dir, &op->name);
        op->mode = pick_mode(generator, S_IFDIR);
        return true;
    }
}

static bool make_link(struct generator *generator, const struct model *model, struct op *op)
{
    pick_name(generator, model, rng_chance(&generator->rng, 100), &op->dir, &op->name);
    op->inode = pick_inode(generator, model, rng_chance(&generator->rng, 30), true, true);
    for (int i = 0; i < OP_HANDLES_MAX; i++) {
        const struct model_inode *inode = model_inode(model, model->handles[i].inode);
        if (inode && inode->nlink == 0 && inode->mode != 0 && !generator->is_host)
            op->inode = inode->number; /* a name for a tmpfile, or for what was unlinked */
    }
    return op->inode != 0 && op->inode != generator->region &&
           !model_inode(model, op->inode)->is_root;
}

static bool make_remove(struct generator *generator, const struct model *model, struct op *op)
{
    for (int i = 0; i < TRIES; i++) {
        pick_name(generator, model, !rng_chance(&generator->rng, 60), &op->dir, &op->name);
        const struct model_inode *inode =
            model_inode(model, model_lookup(model, op->dir, op->name.text));
        bool is_fit = inode && S_ISDIR(inode->mode) == (op->kind == OP_RMDIR);
        if (is_fit || rng_chance(&generator->rng, 150))
            return true;
    }
    return true;
}

static bool make_rename(struct generator *generator, const struct model *model, struct op *op)
{
    struct rng *rng = &generator->rng;
    pick_name(generator, model, !rng_chance(rng, 40), &op->dir, &op->name);
    pick_name(generator, model, rng_chance(rng, 400), &op->dir2, &op->name2);
    uint64_t dice = rng_below(rng, 20);
    op->flags = dice < 3 ? RENAME_EXCHANGE : dice < 6 ? RENAME_NOREPLACE : 0;
    if (rng_chance(rng, 5))
        op->flags = RENAME_EXCHANGE | RENAME_NOREPLACE;
    return true;
}

static bool make_fallocate(struct generator *generator, const struct model *model, struct op *op)
{
    static const uint32_t modes[] = {
        FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_KEEP_SIZE,
        FALLOC_FL_ZERO_RANGE,
        0,
        FALLOC_FL_COLLAPSE_RANGE,
        FALLOC_FL_INSERT_RANGE,
    };
    struct rng *rng = &generator->rng;
    if (!pick_file(generator, model, op))
        return false;
    const struct model_inode *inode = model_inode(model, op->inode);
    pick_range(generator, inode, op);
    bool is_region = op->inode == generator->region;
    op->flags = modes[rng_below(rng, is_region ? 2 : 7)];
    if (op->offset >= HUGE_OFFSET && !is_region)
        op->flags = modes[rng_below(rng, 2)];
    if (op->flags & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) {
        if (inode->content.size > HUGE_OFFSET)
            return false;
        if (!rng_chance(rng, 50)) {
            op->offset -= op->offset % CONTENT_BLOCK;
            op->len = CONTENT_BLOCK * rng_between(rng, 1, 12);
        }
        if (op->flags & FALLOC_FL_INSERT_RANGE && inode->content.size > generator->file_bytes_max)
            op->flags = FALLOC_FL_COLLAPSE_RANGE;
    }
    return true;
}

static bool make_setattr(struct generator *generator, const struct model *model, struct op *op)
{
    struct rng *rng = &generator->rng;
    if (rng_chance(rng, generator->profile == PROFILE_RANGES ? 800 : 450)) {
        if (!pick_file(generator, model, op) || op->inode == generator->region)
            return false;
        op->handle = -1;
        op->mask = OP_SET_SIZE;
        uint64_t size = model_inode(model, op->inode)->content.size;
        if (size > 0 && rng_chance(rng, 600))
            op->len = rng_below(rng, size);
        else
            op->len = rng_chance(rng, 300) ? 0 : rng_below(rng, generator->file_bytes_max);
        return model_inode(model, op->inode)->nlink > 0;
    }
    if (!pick_any(generator, model, op))
        return false;
    const struct model_inode *inode = model_inode(model, op->inode);
    op->mask = (uint32_t)rng_between(rng, 1, 7);
    if (S_ISLNK(inode->mode))
        op->mask &= ~OP_SET_MODE;
    op->mode = pick_mode(generator, 0);
    op->uid = (uint32_t)rng_below(rng, 3) * 1000;
    op->gid = (uint32_t)rng_below(rng, 3) * 100;
    op->mtime = (int64_t)rng_below(rng, OP_MTIME_MAX);
    return op->mask != 0;
}

static bool make_xattr(struct generator *generator, const struct model *model, struct op *op)
{
    struct rng *rng = &generator->rng;
    char name[300];
    if (!pick_any(generator, model, op))
        return false;
    const struct model_inode *inode = model_inode(model, op->inode);
    snprintf(name, sizeof(name), "%s.x%u", rng_chance(rng, 800) ? "user" : "trusted",
             (unsigned)rng_below(rng, 5));
    bool is_setting = op->kind == OP_SETXATTR;
    if (inode->xattr_count > 0 && rng_chance(rng, is_setting ? 200 : 900))
        snprintf(name, sizeof(name), "%s", inode->xattrs[rng_below(rng, inode->xattr_count)].name);
    set_name(&op->name, name);
    op->len = rng_chance(rng, 50) ? 0 : rng_log_between(rng, 1, generator->is_host ? 100 : 700);
    if (rng_chance(rng, 10) && !generator->is_host)
        op->len = rng_between(rng, 1000, OP_XATTR_MAX);
    uint64_t dice = rng_below(rng, 10);
    op->flags = !is_setting ? 0 : dice == 0 ? XATTR_CREATE : dice == 1 ? XATTR_REPLACE : 0;
    return true;
}

static bool make_copy(struct generator *generator, const struct model *model, struct op *op)
{
    if (!generator->is_copying || !pick_file(generator, model, op))
        return false;
    pick_range(generator, model_inode(model, op->inode), op);
    struct op to = {.kind = OP_COPY};
    if (!pick_file(generator, model, &to) || to.inode == op->inode ||
        to.inode == generator->region || op->inode == generator->region)
        return false;
    op->inode2 = to.inode;
    op->offset2 = rng_below(&generator->rng, generator->file_bytes_max);
    if (rng_chance(&generator->rng, 400))
        op->offset2 -= op->offset2 % 32768;
    if (rng_chance(&generator->rng, 400))
        op->len = rng_between(&generator->rng, 1, OP_COPY_MAX);
    op->handle = -1;
    return model_inode(model, op->inode)->nlink > 0 && model_inode(model, op->inode2)->nlink > 0;
}

static bool make_data(struct generator *generator, const struct model *model, struct op *op)
{
    switch (op->kind) {
    case OP_OPEN:
        op->handle = -1;
        op->inode = pick_inode(generator, model, false, true, false);
        op->handle = free_handle(model);
        op->flags = pick_access(generator);
        if (rng_chance(&generator->rng, 100) && op->flags != O_RDONLY &&
            op->inode != generator->region)
            op->flags |= O_TRUNC;
        return op->handle >= 0 && op->inode != 0 && model_inode(model, op->inode)->nlink > 0;
    case OP_RELEASE:
        op->handle = used_handle(generator, model);
        return op->handle >= 0;
    case OP_FALLOCATE:
        return make_fallocate(generator, model, op);
    case OP_COPY:
        return make_copy(generator, model, op);
    default:
        if (!pick_file(generator, model, op))
            return false;
        pick_range(generator, model_inode(model, op->inode), op);
        if (op->kind == OP_SEEK) {
            op->flags = rng_chance(&generator->rng, 500) ? SEEK_DATA : SEEK_HOLE;
            return op->inode != generator->region;
        }
        return op->kind != OP_APPEND ||
               (op->inode != generator->region &&
                model_inode(model, op->inode)->content.size < 2 * generator->file_bytes_max);
    }
}

static bool make_look(struct generator *generator, const struct model *model, struct op *op)
{
    op->handle = -1;
    switch (op->kind) {
    case OP_LOOKUP:
        pick_name(generator, model, rng_chance(&generator->rng, 700), &op->dir, &op->name);
        return true;
    case OP_READDIR:
        op->dir = pick_dir(generator, model);
        return true;
    case OP_READLINK:
        op->inode = pick_inode(generator, model, false, false, true);
        return op->inode != 0;
    case OP_FSYNC:
        op->inode = pick_inode(generator, model, true, true, false);
        return op->inode != 0;
    case OP_SYNC:
        return true;
    default:
        return pick_any(generator, model, op);
    }
}

static bool make(struct generator *generator, const struct model *model, struct op *op)
{
    switch (op->kind) {
    case OP_CREATE:
    case OP_TMPFILE:
    case OP_MKNOD:
    case OP_MKDIR:
    case OP_SYMLINK:
        return make_new(generator, model, op);
    case OP_LINK:
        return make_link(generator, model, op);
    case OP_UNLINK:
    case OP_RMDIR:
        return make_remove(generator, model, op);
    case OP_RENAME:
        return make_rename(generator, model, op);
    case OP_SETATTR:
        return make_setattr(generator, model, op);
    case OP_SETXATTR:
    case OP_REMOVEXATTR:
    case OP_GETXATTR:
        return make_xattr(generator, model, op);
    case OP_LOOKUP:
    case OP_GETATTR:
    case OP_READDIR:
    case OP_READLINK:
    case OP_LISTXATTR:
    case OP_FSYNC:
    case OP_SYNC:
        return make_look(generator, model, op);
    default:
        return make_data(generator, model, op);
    }
}

/* ---- what to do next ---- */

static enum op_kind pick_kind(struct generator *generator)
{
    unsigned sum = 0;
    for (int i = 0; i < OP_KINDS; i++)
        sum += weights[i][generator->profile];
    uint64_t dice = rng_below(&generator->rng, sum);
    enum op_kind kind = 0;
    while (dice >= weights[kind][generator->profile])
        dice -= weights[kind++][generator->profile];
    return kind;
}

/* Now and then somebody writes and syncs, again and again: commits that begin before they are asked for. */
static enum op_kind next_kind(struct generator *generator)
{
    if (generator->pairs_left > 0)
        return --generator->pairs_left % 2 == 0 ? OP_SYNC : OP_WRITE;
    enum op_kind kind = pick_kind(generator);
    if (kind == OP_SYNC && rng_chance(&generator->rng, 500))
        generator->pairs_left = PAIRS * 2;
    return kind;
}

static uint64_t bytes_held(const struct model *model)
{
    uint64_t sum = 0;
    for (uint32_t i = 1; i < model->inode_count; i++)
        sum += model->inodes[i] ? content_held(&model->inodes[i]->content) : 0;
    return sum;
}

/* Truncation, mostly to nothing. */
static bool make_shrink(struct generator *generator, const struct model *model, struct op *op)
{
    op->kind = OP_SETATTR;
    if (!pick_file(generator, model, op) || op->inode == generator->region ||
        model_inode(model, op->inode)->nlink == 0)
        return false;
    uint64_t size = model_inode(model, op->inode)->content.size;
    op->handle = -1;
    op->mask = OP_SET_SIZE;
    op->len = size > 0 && rng_chance(&generator->rng, 300) ? rng_below(&generator->rng, size) : 0;
    return true;
}

static bool make_smaller(struct generator *generator, const struct model *model, struct op *op)
{
    uint64_t dice = rng_below(&generator->rng, 10);
    if (dice < 3)
        return make_shrink(generator, model, op);
    op->kind = dice < 8 ? OP_UNLINK : dice < 9 ? OP_RMDIR : OP_RELEASE;
    return make(generator, model, op);
}

void generate(struct generator *generator, const struct model *model, struct op *out_op)
{
    bool is_large =
        model->living > generator->inodes_max || bytes_held(model) > generator->total_bytes_max;
    for (;;) {
        memset(out_op, 0, sizeof(*out_op));
        out_op->handle = -1;
        out_op->seed = rng_next(&generator->rng);
        if (generator->is_freeing || (is_large && rng_chance(&generator->rng, 500))) {
            if (make_smaller(generator, model, out_op))
                return;
            if (generator->is_freeing && rng_chance(&generator->rng, 500)) {
                out_op->kind = OP_SYNC;
                return;
            }
            continue;
        }
        out_op->kind = next_kind(generator);
        if (make(generator, model, out_op))
            return;
    }
}
