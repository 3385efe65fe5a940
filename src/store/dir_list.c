#include "store/dir_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"

/* Something that is yet to be looked at: an object's name, or a directory's with a slash at its
 * end, which makes plain byte order the order in which object names come out. */
struct pending {
    char *name;
    bool is_dir;
};

/* A walk in name order without recursion: a stack whose top is the smallest name. */
struct walk {
    const char *prefix;
    const char *after;
    struct pending *stack;
    size_t count;
    size_t capacity;
    char dir_name[VV_STORE_NAME_MAX + 1]; /* being read: "" or ends with a slash */
};

static void walk_done(struct walk *walk)
{
    while (walk->count > 0)
        vv_free(walk->stack[--walk->count].name);
    vv_free(walk->stack);
}

static int push(struct walk *walk, const char *name, bool is_dir)
{
    if (walk->count == VV_DIR_LISTED_MAX)
        return -VV_ERR_LIMIT;
    if (walk->count == walk->capacity) {
        size_t capacity = walk->capacity > 0 ? 2 * walk->capacity : 64;
        struct pending *stack = vv_realloc(walk->stack, capacity * sizeof(*stack));
        if (!stack)
            return -ENOMEM;
        walk->stack = stack;
        walk->capacity = capacity;
    }
    char *copy = vv_strdup(name);
    if (!copy)
        return -ENOMEM;
    walk->stack[walk->count++] = (struct pending){.name = copy, .is_dir = is_dir};
    return 0;
}

/* Can the directory (with its slash) hold names that are asked for? */
static bool may_hold(const struct walk *walk, const char *name)
{
    size_t len = strlen(name);
    size_t prefix_len = strlen(walk->prefix);
    size_t common = len < prefix_len ? len : prefix_len;
    return memcmp(name, walk->prefix, common) == 0 && strncmp(name, walk->after, len) >= 0;
}

static bool is_wanted(const struct walk *walk, const char *name)
{
    return strncmp(name, walk->prefix, strlen(walk->prefix)) == 0 && strcmp(name, walk->after) > 0;
}

static int visit_entry(void *arg, const char *entry, bool is_dir)
{
    struct walk *walk = arg;
    char name[VV_STORE_NAME_MAX + 2];
    size_t len = strlen(walk->dir_name) + strlen(entry);
    if (len > VV_STORE_NAME_MAX)
        return 0;
    vv_format(name, sizeof(name), "%s%s", walk->dir_name, entry);
    if (!vv_store_name_is_valid(name))
        return 0;
    if (!is_dir)
        return is_wanted(walk, name) ? push(walk, name, false) : 0;
    if (len + 1 > VV_STORE_NAME_MAX)
        return 0;
    name[len] = '/';
    name[len + 1] = 0;
    return may_hold(walk, name) ? push(walk, name, true) : 0;
}

static int compare_descending(const void *a, const void *b)
{
    return strcmp(((const struct pending *)b)->name, ((const struct pending *)a)->name);
}

/* Push what is in the directory `walk->dir_name`. */
static int read_dir(struct vv_dir *dir, struct walk *walk)
{
    char path[VV_DIR_PATH_MAX];
    size_t count = walk->count;
    vv_dir_path(dir, walk->dir_name, path);
    int err = vv_path_list(path, visit_entry, walk);
    if (err == -ENOENT || err == -ENOTDIR)
        return 0;
    TRY(err);
    if (walk->count > count)
        qsort(walk->stack + count, walk->count - count, sizeof(*walk->stack), compare_descending);
    return 0;
}

/* Describe an object: 1, 0 when it has been removed meanwhile, or an error. */
static int fill_entry(struct vv_dir *dir, const char *name, struct vv_store_entry *out_entry)
{
    char path[VV_DIR_PATH_MAX];
    struct vv_path_stat stat;
    vv_dir_path(dir, name, path);
    int err = vv_path_stat(path, &stat);
    if (err == -ENOENT)
        return 0;
    TRY(err);
    (void)vv_copy_text(out_entry->name, sizeof(out_entry->name), name);
    out_entry->size = stat.size;
    return 1;
}

ssize_t vv_dir_list(struct vv_dir *dir, const char *prefix, const char *after,
                    struct vv_store_entry *out_entries, size_t max)
{
    struct walk walk CLEANUP(walk_done) = {.prefix = prefix, .after = after};
    const char *slash = strrchr(prefix, '/');
    size_t count = 0;
    vv_format(walk.dir_name, sizeof(walk.dir_name), "%.*s", slash ? (int)(slash - prefix + 1) : 0,
              prefix);
    TRY(read_dir(dir, &walk));
    while (walk.count > 0 && count < max) {
        struct pending next = walk.stack[--walk.count];
        char *name CLEANUP(vv_free_ptr) = next.name;
        if (next.is_dir) {
            (void)vv_copy_text(walk.dir_name, sizeof(walk.dir_name), name);
            TRY(read_dir(dir, &walk));
            continue;
        }
        int found = fill_entry(dir, name, &out_entries[count]);
        TRY(found);
        count += (size_t)found;
    }
    return (ssize_t)count;
}
