#include "store/dir_impl.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/text.h"

struct vv_dir_tmp {
    struct vv_dir *dir;
    struct vv_file *file;
    uint64_t number;
};

/* For what only wastes space when it fails. */
static void ignore_error(int err)
{
    (void)err;
}

/* ---- leftovers ---- */

struct leftovers {
    const char *attempt; /* what begins so is not left over but ours */
    char *names;         /* one after the other, each ended by 0 */
    size_t len;
};

static int note_leftover(void *arg, const char *name, bool is_dir)
{
    struct leftovers *leftovers = arg;
    size_t size = strlen(name) + 1;
    if (is_dir || size > VV_STORE_NAME_MAX)
        return 0;
    if (strncmp(name, leftovers->attempt, strlen(leftovers->attempt)) == 0)
        return 0;
    char *names = vv_realloc(leftovers->names, leftovers->len + size);
    if (!names)
        return -ENOMEM;
    memcpy(names + leftovers->len, name, size);
    leftovers->names = names;
    leftovers->len += size;
    return 0;
}

/* Remove what earlier openings left. Other puts may begin meanwhile: their names are this
 * opening's. Should an earlier opening be alive after all, its put finds its file gone and tries
 * again. */
static void remove_leftovers(struct vv_dir *dir)
{
    struct leftovers leftovers = {.attempt = dir->attempt};
    char path[VV_DIR_PATH_MAX];
    dir->is_tmp_clean = true;
    vv_dir_path(dir, "tmp", path);
    ignore_error(vv_path_list(path, note_leftover, &leftovers));
    for (size_t at = 0; at < leftovers.len; at += strlen(leftovers.names + at) + 1) {
        vv_format(path, sizeof(path), "%s/tmp/%s", dir->root, leftovers.names + at);
        ignore_error(vv_path_unlink(path));
    }
    vv_free(leftovers.names);
}

/* ---- files ---- */

struct vv_file *vv_dir_tmp_file(struct vv_dir_tmp *tmp)
{
    return tmp->file;
}

void vv_dir_tmp_path(const struct vv_dir *dir, const struct vv_dir_tmp *tmp, char *out)
{
    vv_format(out, VV_DIR_PATH_MAX, "%s/tmp/%s-%llu", dir->root, dir->attempt,
              (unsigned long long)tmp->number);
}

static int open_file(struct vv_dir *dir, struct vv_dir_tmp *tmp)
{
    const unsigned flags = VV_FILE_WRITE | VV_FILE_CREATE | VV_FILE_EXCLUSIVE | VV_FILE_DIRECT;
    char path[VV_DIR_PATH_MAX];
    char tmp_dir[VV_DIR_PATH_MAX];
    vv_dir_tmp_path(dir, tmp, path);
    int err = vv_file_open(path, flags, &tmp->file);
    if (err != -ENOENT)
        return err;
    vv_dir_path(dir, "tmp", tmp_dir);
    err = vv_path_mkdir(tmp_dir);
    if (err < 0 && err != -EEXIST)
        return err;
    return vv_file_open(path, flags, &tmp->file);
}

static int new_tmp(struct vv_dir *dir, struct vv_dir_tmp **out_tmp)
{
    struct vv_dir_tmp *tmp = vv_zalloc(sizeof(*tmp));
    if (!tmp)
        return -ENOMEM;
    tmp->dir = dir;
    tmp->number = dir->tmp_count++;
    int err = open_file(dir, tmp);
    if (err < 0) {
        vv_free(tmp);
        return err;
    }
    *out_tmp = tmp;
    return 0;
}

static void remove_tmp(struct vv_dir_tmp *tmp)
{
    char path[VV_DIR_PATH_MAX];
    vv_dir_tmp_path(tmp->dir, tmp, path);
    vv_file_close(tmp->file);
    ignore_error(vv_path_unlink(path));
    vv_free(tmp);
}

static void make_spare(struct vv_dir *dir)
{
    struct vv_dir_tmp *tmp;
    if (dir->spare || dir->is_closing || new_tmp(dir, &tmp) < 0)
        return;
    if (dir->spare || dir->is_closing)
        remove_tmp(tmp);
    else
        dir->spare = tmp;
}

static void drop_main(void *arg)
{
    struct vv_dir_tmp *tmp = arg;
    struct vv_dir *dir = tmp->dir;
    remove_tmp(tmp);
    make_spare(dir);
    dir->dropping--;
    vv_waitq_wake_all(&dir->dropped);
}

void vv_dir_tmp_drop(struct vv_dir *dir, struct vv_dir_tmp *tmp)
{
    if (dir->dropping < VV_DIR_DROPPING_MAX && vv_fiber_start(drop_main, tmp, "store-drop") == 0)
        dir->dropping++;
    else
        remove_tmp(tmp);
}

int vv_dir_tmp_take(struct vv_dir *dir, struct vv_dir_tmp **out_tmp)
{
    if (!dir->is_tmp_clean)
        remove_leftovers(dir);
    if (!dir->spare)
        return new_tmp(dir, out_tmp);
    *out_tmp = dir->spare;
    dir->spare = NULL;
    return 0;
}

void vv_dir_tmp_init(struct vv_dir *dir)
{
    uint8_t attempt[8];
    vv_rt_random(attempt, sizeof(attempt));
    vv_hex(attempt, sizeof(attempt), dir->attempt);
    vv_waitq_init(&dir->dropped);
}

void vv_dir_tmp_done(struct vv_dir *dir)
{
    dir->is_closing = true;
    while (dir->dropping > 0)
        (void)vv_waitq_wait(&dir->dropped, VV_NEVER);
    if (dir->spare)
        remove_tmp(dir->spare);
    dir->spare = NULL;
}
