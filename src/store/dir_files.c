#include "store/dir_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"

static uint64_t hash_name(const char *name)
{
    return vv_xxh3(name, strlen(name), 0);
}

static struct vv_dir_file *find_file(struct vv_dir *dir, const char *name)
{
    struct vv_map_node *at = vv_map_find(&dir->files, hash_name(name));
    for (; at; at = vv_map_next(at)) {
        struct vv_dir_file *file = vv_container_of(at, struct vv_dir_file, map_node);
        if (strcmp(file->name, name) == 0)
            return file;
    }
    return NULL;
}

static void close_file(struct vv_dir_file *file)
{
    assert(file->refs == 0);
    vv_file_close(file->file);
    vv_free(file);
}

/* Take it out of the map and the list; whoever holds the last reference closes it. */
static void detach_file(struct vv_dir *dir, struct vv_dir_file *file)
{
    vv_map_remove(&dir->files, &file->map_node);
    vv_list_remove(&file->lru);
    file->is_forgotten = true;
}

int vv_dir_files_init(struct vv_dir *dir)
{
    vv_list_init(&dir->files_lru);
    return vv_map_init(&dir->files);
}

void vv_dir_files_done(struct vv_dir *dir)
{
    while (dir->files.count > 0) {
        struct vv_dir_file *file = vv_list_first(&dir->files_lru, struct vv_dir_file, lru);
        detach_file(dir, file);
        close_file(file);
    }
    vv_map_done(&dir->files);
}

/* An object that is not there shows in several ways. */
static int to_absent(int err)
{
    return err == -ENOTDIR || err == -EISDIR ? -ENOENT : err;
}

static int open_file(struct vv_dir *dir, const char *name, struct vv_dir_file **out_file)
{
    char path[VV_DIR_PATH_MAX];
    struct vv_dir_file *file = vv_zalloc(sizeof(*file) + strlen(name) + 1);
    if (!file)
        return -ENOMEM;
    vv_dir_path(dir, name, path);
    int err = vv_file_open(path, VV_FILE_READ, &file->file);
    if (err < 0) {
        vv_free(file);
        return to_absent(err);
    }
    vv_list_init(&file->lru);
    memcpy(file->name, name, strlen(name));
    *out_file = file;
    return 0;
}

static struct vv_dir_file *ref_file(struct vv_dir_file *file)
{
    vv_list_remove(&file->lru);
    file->refs++;
    return file;
}

int vv_dir_file_get(struct vv_dir *dir, const char *name, struct vv_dir_file **out_file)
{
    struct vv_dir_file *file = find_file(dir, name);
    if (file) {
        *out_file = ref_file(file);
        return 0;
    }
    uint64_t forget_count = dir->forget_count;
    TRY(open_file(dir, name, &file));
    struct vv_dir_file *other = find_file(dir, name);
    if (other) {
        *out_file = ref_file(other);
        close_file(file);
        return 0;
    }
    *out_file = ref_file(file);
    /* An object removed while we opened it may be read this once, but not remembered. */
    file->is_forgotten = forget_count != dir->forget_count;
    if (!file->is_forgotten)
        vv_map_insert(&dir->files, &file->map_node, hash_name(name));
    return 0;
}

void vv_dir_file_unref(struct vv_dir *dir, struct vv_dir_file *file)
{
    assert(file->refs > 0);
    if (--file->refs > 0)
        return;
    if (file->is_forgotten) {
        close_file(file);
        return;
    }
    vv_list_push_back(&dir->files_lru, &file->lru);
    if (dir->files.count > VV_DIR_FILES_MAX) {
        struct vv_dir_file *oldest = vv_list_first(&dir->files_lru, struct vv_dir_file, lru);
        detach_file(dir, oldest);
        close_file(oldest);
    }
}

void vv_dir_file_forget(struct vv_dir *dir, const char *name)
{
    dir->forget_count++;
    struct vv_dir_file *file = find_file(dir, name);
    if (!file)
        return;
    detach_file(dir, file);
    if (file->refs == 0)
        close_file(file);
}
