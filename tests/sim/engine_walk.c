#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt/rt.h"

#define PATH_BYTES 4096
#define CHUNK (128u << 10)   /* of one read */
#define WHOLE_MAX (3u << 20) /* files up to this are read from end to end, holes included */
#define PAUSE_NS (200 * VV_NS_PER_MS)
#define ENTRIES_MAX 4096 /* of one directory */

struct listed {
    uint64_t inode;
    uint32_t type;
    char *name;
};

struct walk {
    struct vv_fs *fs;
    unsigned tries;
    char *text;
    size_t size;
    uint8_t *bytes;        /* CHUNK */
    struct listed *listed; /* of the directory being read */
    size_t listed_count;
    uint64_t last_cookie, dotdot;
    bool is_out_of_order;
};

/* Do something that may fail in passing until it succeeds. */
#define REPEAT(walk, result, call)                                                                 \
    for (unsigned repeat_left = (walk)->tries;; repeat_left--) {                                   \
        (result) = (call);                                                                         \
        if ((result) >= 0 || repeat_left <= 1 || (result) == -VV_ERR_FENCED)                       \
            break;                                                                                 \
        vv_rt_sleep_ns(PAUSE_NS);                                                                  \
    }

#define CONTRADICTION(walk, ...)                                                                   \
    do {                                                                                           \
        snprintf((walk)->text, (walk)->size, __VA_ARGS__);                                         \
        return -VV_ERR_CORRUPT;                                                                    \
    } while (0)

/* ---- directories ---- */

static void forget_listed(struct walk *walk)
{
    for (size_t i = 0; i < walk->listed_count; i++)
        free(walk->listed[i].name);
    walk->listed_count = 0;
    walk->last_cookie = 0;
    walk->dotdot = 0;
    walk->is_out_of_order = false;
}

static int list_entry(void *arg, const struct vv_dirent *entry)
{
    struct walk *walk = arg;
    walk->is_out_of_order |= entry->cookie <= walk->last_cookie;
    walk->last_cookie = entry->cookie;
    if (strcmp(entry->name, "..") == 0)
        walk->dotdot = entry->inode;
    if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
        return 1;
    if (walk->listed_count == ENTRIES_MAX)
        return 0;
    walk->listed[walk->listed_count++] =
        (struct listed){entry->inode, entry->type, strdup(entry->name)};
    return 1;
}

static int list_again(struct walk *walk, uint64_t inode)
{
    forget_listed(walk);
    return vv_fs_readdir(walk->fs, inode, 0, list_entry, walk);
}

static int list_dir(struct walk *walk, uint64_t inode, const char *path)
{
    int err;
    REPEAT(walk, err, list_again(walk, inode));
    if (err < 0)
        return err;
    if (walk->is_out_of_order)
        CONTRADICTION(walk, "%.200s: cookies are not ascending", path);
    return 0;
}

/* ---- one inode ---- */

/* Read [from, to) into content. */
static int read_range(struct walk *walk, uint64_t inode, uint64_t from, uint64_t to, uint64_t base,
                      struct content *content)
{
    while (from < to) {
        size_t len = to - from < CHUNK ? to - from : CHUNK;
        ssize_t got;
        REPEAT(walk, got, vv_fs_read(walk->fs, &engine_call, inode, NULL, walk->bytes, len, from));
        if (got < 0)
            return (int)got;
        if ((size_t)got != len)
            CONTRADICTION(walk, "inode %" PRIu64 ": read %zd of %zu bytes at %" PRIu64, inode, got,
                          len, from);
        content_write(content, from - base, walk->bytes, len);
        from += len;
    }
    return 0;
}

/* The data of a file, holes left out by seeking. */
static int read_data(struct walk *walk, uint64_t inode, uint64_t size, struct content *content)
{
    uint64_t at = 0;
    while (at < size) {
        uint64_t data;
        uint64_t hole;
        int err;
        REPEAT(walk, err, vv_fs_seek(walk->fs, inode, at, SEEK_DATA, &data));
        if (err == -ENXIO)
            return 0;
        if (err < 0)
            return err;
        REPEAT(walk, err, vv_fs_seek(walk->fs, inode, data, SEEK_HOLE, &hole));
        if (err < 0)
            return err;
        if (data < at || hole <= data || hole > size)
            CONTRADICTION(walk,
                          "inode %" PRIu64 ": from %" PRIu64 " data is [%" PRIu64 ", %" PRIu64 ")",
                          inode, at, data, hole);
        TRY(read_range(walk, inode, data, hole, 0, content));
        at = hole;
    }
    return 0;
}

static int walk_file(struct walk *walk, const struct vv_attr *attr, struct hash *out_hash)
{
    struct content content = {0};
    int err = attr->size <= WHOLE_MAX ? read_range(walk, attr->inode, 0, attr->size, 0, &content)
                                      : read_data(walk, attr->inode, attr->size, &content);
    content.size = attr->size;
    *out_hash = content_hash(&content);
    content_done(&content);
    return err;
}

static int walk_link(struct walk *walk, const struct vv_attr *attr, struct hash *out_hash)
{
    ssize_t len;
    REPEAT(walk, len,
           vv_fs_readlink(walk->fs, &engine_call, attr->inode, (char *)walk->bytes, CHUNK));
    if (len < 0)
        return (int)len;
    *out_hash = model_target_hash((const char *)walk->bytes, (size_t)len);
    return 0;
}

static int walk_xattrs(struct walk *walk, uint64_t inode, struct hash *sum)
{
    char list[4096];
    ssize_t len;
    REPEAT(walk, len, vv_fs_listxattr(walk->fs, &engine_call, inode, list, sizeof(list)));
    if (len < 0)
        return (int)len;
    for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1) {
        ssize_t got;
        REPEAT(walk, got,
               vv_fs_getxattr(walk->fs, &engine_call, inode, list + at, walk->bytes, CHUNK));
        if (got < 0)
            return (int)got;
        hash_add(sum, model_xattr_hash(list + at, walk->bytes, (size_t)got));
    }
    return 0;
}

/* Add the entry of an inode. */
static int walk_inode(struct walk *walk, uint64_t inode, const char *path, struct model_dump *dump)
{
    struct vv_attr attr;
    struct hash content = {0, 0};
    struct hash xattrs = {0, 0};
    int err;
    REPEAT(walk, err, vv_fs_getattr(walk->fs, inode, &attr));
    if (err == -ENOENT)
        CONTRADICTION(walk, "%.200s: its inode %" PRIu64 " is not there", path, inode);
    if (err < 0)
        return err;
    if (S_ISREG(attr.mode))
        err = walk_file(walk, &attr, &content);
    else if (S_ISLNK(attr.mode))
        err = walk_link(walk, &attr, &content);
    if (err == 0)
        err = walk_xattrs(walk, inode, &xattrs);
    if (err < 0)
        return err;
    struct model_entry *entry = model_dump_add(dump, path);
    entry->key = inode;
    entry->mode = attr.mode;
    entry->uid = attr.uid;
    entry->gid = attr.gid;
    entry->nlink = attr.nlink;
    entry->rdev = (attr.rdev_major << 8) | attr.rdev_minor;
    entry->size = S_ISREG(attr.mode) || S_ISLNK(attr.mode) ? attr.size : 0;
    entry->mtime = attr.mtime.tv_sec < OP_MTIME_MAX ? attr.mtime.tv_sec : -1;
    entry->content = content;
    entry->xattrs = xattrs;
    return 0;
}

/* ---- the tree ---- */

/* The children of a directory whose names begin with prefix. */
static int walk_children(struct walk *walk, uint64_t dir, const char *path, const char *prefix,
                         struct model_dump *dump)
{
    char child[PATH_BYTES];
    TRY(list_dir(walk, dir, path));
    for (size_t i = 0; i < walk->listed_count; i++) {
        const struct listed *listed = &walk->listed[i];
        if (strncmp(listed->name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(child, sizeof(child), "%s/%s", path, listed->name);
        TRY(walk_inode(walk, listed->inode, child, dump));
        if ((dump->entries[dump->count - 1].mode & S_IFMT) != listed->type)
            CONTRADICTION(walk, "%.200s: the directory calls it %o, it is %o", child, listed->type,
                          dump->entries[dump->count - 1].mode);
    }
    return 0;
}

static int walk_below(struct walk *walk, struct model_dump *dump)
{
    /* What is added is visited by the same loop later on. */
    for (size_t i = 0; i < dump->count; i++) {
        char path[PATH_BYTES];
        uint64_t inode = dump->entries[i].key;
        if (!S_ISDIR(dump->entries[i].mode))
            continue;
        snprintf(path, sizeof(path), "%s", dump->entries[i].path);
        TRY(walk_children(walk, inode, path, "", dump));
        for (size_t j = 0; j < walk->listed_count; j++) {
            struct vv_attr attr;
            int err;
            if (j % 8 != i % 8)
                continue;
            const char *name = walk->listed[j].name;
            REPEAT(walk, err,
                   vv_fs_lookup(walk->fs, &engine_call, inode, name, strlen(name), &attr));
            if (err < 0 && err != -ENOENT)
                return err;
            if (err == -ENOENT || attr.inode != walk->listed[j].inode)
                CONTRADICTION(walk, "%.200s: the entry %.100s is listed, but not found", path,
                              name);
        }
    }
    return 0;
}

static int walk_region(struct walk *walk, uint64_t inode, struct engine_part *part)
{
    struct content content = {0};
    int err = read_range(walk, inode, part->region_offset, part->region_offset + part->region_bytes,
                         part->region_offset, &content);
    content.size = part->region_bytes;
    if (err == 0) {
        struct model_entry *entry = model_dump_add(&part->dump, SHARED_FILE);
        entry->key = inode;
        entry->mode = S_IFREG | 0644;
        entry->nlink = 1;
        entry->mtime = -1;
        entry->size = part->region_bytes;
        entry->content = content_hash(&content);
    }
    content_done(&content);
    return err;
}

static int walk_part(struct walk *walk, struct engine_part *part, uint64_t shared, uint64_t file)
{
    struct vv_attr attr;
    int err;
    model_dump_done(&part->dump);
    REPEAT(walk, err, engine_resolve(walk->fs, part->root, &attr));
    if (err < 0)
        return err;
    TRY(walk_inode(walk, attr.inode, part->root, &part->dump));
    TRY(walk_children(walk, shared, SHARED_DIR, part->prefix, &part->dump));
    TRY(walk_below(walk, &part->dump));
    if (part->region_bytes > 0)
        TRY(walk_region(walk, file, part));
    model_dump_finish(&part->dump);
    return 0;
}

int engine_resolve(struct vv_fs *fs, const char *path, struct vv_attr *out_attr)
{
    uint64_t inode = VV_ROOT_INODE;
    TRY(vv_fs_getattr(fs, inode, out_attr));
    while (*path) {
        size_t len = strcspn(++path, "/");
        TRY(vv_fs_lookup(fs, &engine_call, inode, path, len, out_attr));
        inode = out_attr->inode;
        path += len;
    }
    return 0;
}

int engine_walk(struct vv_fs *fs, struct engine_part *parts, unsigned count, unsigned tries,
                char *text, size_t size)
{
    struct walk walk = {.fs = fs, .tries = tries, .text = text, .size = size};
    struct vv_attr shared;
    struct vv_attr file;
    int err;
    walk.bytes = malloc(CHUNK);
    walk.listed = calloc(ENTRIES_MAX, sizeof(*walk.listed));
    if (!walk.bytes || !walk.listed)
        abort();
    REPEAT(&walk, err, engine_resolve(fs, SHARED_DIR, &shared));
    if (err == 0)
        REPEAT(&walk, err, engine_resolve(fs, SHARED_FILE, &file));
    for (unsigned i = 0; i < count && err == 0; i++)
        err = walk_part(&walk, &parts[i], shared.inode, file.inode);
    forget_listed(&walk);
    free(walk.listed);
    free(walk.bytes);
    return err;
}
