#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_BYTES 4096

static void *checked(void *ptr)
{
    if (!ptr)
        abort();
    return ptr;
}

/* ---- dumps ---- */

void model_dump_done(struct model_dump *dump)
{
    for (size_t i = 0; i < dump->count; i++)
        free(dump->entries[i].path);
    free(dump->entries);
    memset(dump, 0, sizeof(*dump));
}

struct model_entry *model_dump_add(struct model_dump *dump, const char *path)
{
    if (dump->count == dump->capacity) {
        dump->capacity = 2 * dump->capacity + 32;
        dump->entries = checked(realloc(dump->entries, dump->capacity * sizeof(*dump->entries)));
    }
    struct model_entry *entry = &dump->entries[dump->count++];
    memset(entry, 0, sizeof(*entry));
    entry->path = checked(strdup(path));
    return entry;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct model_entry *)a)->path, ((const struct model_entry *)b)->path);
}

void model_dump_finish(struct model_dump *dump)
{
    if (dump->count > 0)
        qsort(dump->entries, dump->count, sizeof(*dump->entries), by_path);
    for (size_t i = 0; i < dump->count; i++) {
        struct model_entry *entry = &dump->entries[i];
        entry->first_path = entry->path;
        if (S_ISDIR(entry->mode) || entry->nlink < 2)
            continue;
        size_t first = 0;
        while (dump->entries[first].key != entry->key)
            first++;
        entry->first_path = dump->entries[first].path;
    }
}

static struct hash entry_hash(const struct model_entry *entry)
{
    uint64_t words[] = {
        entry->mode,
        ((uint64_t)entry->uid << 32) | entry->gid,
        ((uint64_t)entry->nlink << 32) | entry->rdev,
        entry->size,
        (uint64_t)entry->mtime,
        entry->content.a,
        entry->content.b,
        entry->xattrs.a,
        entry->xattrs.b,
    };
    struct hash path = hash_bytes(entry->path, strlen(entry->path), 2);
    struct hash first = hash_bytes(entry->first_path, strlen(entry->first_path), 3);
    struct hash hash = hash_bytes(words, sizeof(words), 4);
    hash = hash_mix(hash, path.a ^ first.b);
    return hash_mix(hash, path.b ^ first.a);
}

struct hash model_dump_hash(const struct model_dump *dump)
{
    struct hash sum = {0, 0};
    for (size_t i = 0; i < dump->count; i++)
        hash_add(&sum, entry_hash(&dump->entries[i]));
    return sum;
}

/* ---- differences ---- */

static void entry_diff(const struct model_entry *is, const struct model_entry *should, char *buf,
                       size_t size)
{
    int at = snprintf(buf, size, "%.200s:", is->path);
#define DIFF(what, format, a, b)                                                                   \
    do {                                                                                           \
        if ((a) != (b) && (size_t)at < size)                                                       \
            at += snprintf(buf + at, size - (size_t)at, " " what " " format ", should be " format, \
                           (a), (b));                                                              \
    } while (0)
    DIFF("mode", "%o", is->mode, should->mode);
    DIFF("uid", "%u", is->uid, should->uid);
    DIFF("gid", "%u", is->gid, should->gid);
    DIFF("rdev", "%x", is->rdev, should->rdev);
    DIFF("nlink", "%u", is->nlink, should->nlink);
    DIFF("size", "%" PRIu64, is->size, should->size);
    DIFF("mtime", "%" PRId64, is->mtime, should->mtime);
    DIFF("content", "%" PRIx64, is->content.a, should->content.a);
    DIFF("xattrs", "%" PRIx64, is->xattrs.a, should->xattrs.a);
#undef DIFF
    if (strcmp(is->first_path, should->first_path) != 0 && (size_t)at < size)
        snprintf(buf + at, size - (size_t)at, " is linked with %.200s, should be with %.200s",
                 is->first_path, should->first_path);
}

size_t model_dump_diff(const struct model_dump *is, const struct model_dump *should, size_t max,
                       void (*line)(void *arg, const char *text), void *arg)
{
    char text[1024];
    size_t differences = 0;
    size_t i = 0;
    size_t j = 0;
    while (i < is->count || j < should->count) {
        int order = i == is->count       ? 1
                    : j == should->count ? -1
                                         : by_path(&is->entries[i], &should->entries[j]);
        const struct model_entry *a = order <= 0 ? &is->entries[i++] : NULL;
        const struct model_entry *b = order >= 0 ? &should->entries[j++] : NULL;
        if (a && b && hash_equal(entry_hash(a), entry_hash(b)))
            continue;
        if (a && b)
            entry_diff(a, b, text, sizeof(text));
        else
            snprintf(text, sizeof(text), "%.200s: %s (mode %o, size %" PRIu64 ")",
                     a ? a->path : b->path, a ? "should not be there" : "is missing",
                     a ? a->mode : b->mode, a ? a->size : b->size);
        if (differences++ < max && line)
            line(arg, text);
    }
    return differences;
}

/* ---- a model's dump ---- */

struct hash model_xattr_hash(const char *name, const void *value, size_t len)
{
    struct hash hash = hash_bytes(name, strlen(name), 5);
    struct hash bytes = hash_bytes(value, len, 6);
    return hash_mix(hash_mix(hash, bytes.a), bytes.b);
}

struct hash model_target_hash(const char *target, size_t len)
{
    return hash_bytes(target, len, 8);
}

static void dump_inode(const struct model_inode *inode, struct model_entry *entry)
{
    entry->key = inode->number;
    entry->mode = inode->mode;
    entry->uid = inode->uid;
    entry->gid = inode->gid;
    entry->nlink = inode->nlink;
    entry->rdev = inode->rdev;
    entry->mtime = inode->mtime;
    if (S_ISREG(inode->mode)) {
        entry->content = content_hash(&inode->content);
        entry->size = inode->content.size;
    } else if (S_ISLNK(inode->mode)) {
        entry->content = model_target_hash(inode->target, inode->content.size);
        entry->size = inode->content.size;
    }
    for (uint32_t i = 0; i < inode->xattr_count; i++)
        hash_add(&entry->xattrs, model_xattr_hash(inode->xattrs[i].name, inode->xattrs[i].value,
                                                  inode->xattrs[i].len));
}

static void dump_children(const struct model *model, const struct model_inode *dir,
                          const char *path, struct model_dump *dump)
{
    char child_path[PATH_BYTES];
    for (uint32_t i = 0; i < dir->child_count; i++) {
        const struct model_inode *inode = model_inode(model, dir->children[i].inode);
        snprintf(child_path, sizeof(child_path), "%s/%s", path, dir->children[i].name);
        dump_inode(inode, model_dump_add(dump, child_path));
    }
}

void model_dump(const struct model *model, struct model_dump *out_dump)
{
    memset(out_dump, 0, sizeof(*out_dump));
    for (unsigned i = 0; i < model->root_count; i++) {
        const struct model_root *root = &model->roots[i];
        const struct model_inode *inode = model_inode(model, root->inode);
        if (root->is_hidden)
            dump_children(model, inode, root->path, out_dump);
        else
            dump_inode(inode, model_dump_add(out_dump, root->path));
    }
    /* What is added here is visited by the same loop later on. */
    for (size_t i = 0; i < out_dump->count; i++) {
        char path[PATH_BYTES];
        if (!S_ISDIR(out_dump->entries[i].mode))
            continue;
        snprintf(path, sizeof(path), "%s", out_dump->entries[i].path);
        dump_children(model, model_inode(model, (uint32_t)out_dump->entries[i].key), path,
                      out_dump);
    }
    model_dump_finish(out_dump);
}

struct hash model_hash(const struct model *model)
{
    struct model_dump dump;
    model_dump(model, &dump);
    struct hash hash = model_dump_hash(&dump);
    model_dump_done(&dump);
    return hash;
}
