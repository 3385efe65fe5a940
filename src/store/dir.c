#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/plant.h"
#include "base/text.h"
#include "store/dir_impl.h"

#define PIECE_BYTES (8u << 20) /* written by one call of a worker; a multiple of a page */
#define PIECE_IOV_MAX 64
#define PUT_TRIES_MAX 3 /* of a put whose temporary file another opening took for a leftover */

static struct vv_dir *dir_of(struct vv_store *store)
{
    return vv_container_of(store, struct vv_dir, store);
}

void vv_dir_path(const struct vv_dir *dir, const char *name, char *out)
{
    if (name[0] == 0)
        vv_format(out, VV_DIR_PATH_MAX, "%s", dir->root);
    else
        vv_format(out, VV_DIR_PATH_MAX, "%s/%s", dir->root, name);
}

/* ---- put ---- */

/* Where a put stands in the caller's buffers. */
struct piece_source {
    const struct iovec *iov;
    int count;
    size_t skip; /* bytes of iov[0] that are written already */
};

/* The next piece: how many entries of out[PIECE_IOV_MAX], none at the end. */
static int next_piece(struct piece_source *source, struct iovec *out, uint64_t *out_bytes)
{
    uint64_t bytes = 0;
    int count = 0;
    while (source->count > 0 && count < PIECE_IOV_MAX && bytes < PIECE_BYTES) {
        size_t left = source->iov->iov_len - source->skip;
        size_t len = left < PIECE_BYTES - bytes ? left : (size_t)(PIECE_BYTES - bytes);
        if (len > 0)
            out[count++] = (struct iovec){(uint8_t *)source->iov->iov_base + source->skip, len};
        bytes += len;
        source->skip += len;
        if (len == left) {
            source->iov++;
            source->count--;
            source->skip = 0;
        }
    }
    *out_bytes = bytes;
    return count;
}

/* Write all of it and make it durable. */
static int write_file(struct vv_file *file, const struct iovec *iov, int count)
{
    struct piece_source source = {.iov = iov, .count = count};
    struct iovec piece[PIECE_IOV_MAX];
    uint64_t offset = 0;
    for (;;) {
        uint64_t bytes;
        int n = next_piece(&source, piece, &bytes);
        if (n == 0)
            return vv_file_datasync(file);
        if (source.count == 0)
            return vv_file_pwritev_sync(file, piece, n, offset);
        TRY(vv_file_pwritev(file, piece, n, offset));
        offset += bytes;
    }
}

/* The object's file and its name made durable. */
static int sync_object(struct vv_dir *dir, struct vv_dir_node *node, const char *name)
{
    struct vv_dir_file *file;
    TRY(vv_dir_file_get(dir, name, &file));
    int err = vv_file_datasync(file->file);
    vv_dir_file_unref(dir, file);
    return err < 0 ? err : vv_dir_node_sync(dir, node);
}

/* The name was taken. If it is an earlier try of ours, the caller will count it as success, so it
 * must be as durable as a success is. */
static int settle_existing(struct vv_dir *dir, struct vv_dir_node *node, const char *name)
{
    char path[VV_DIR_PATH_MAX];
    struct vv_path_stat stat;
    vv_dir_path(dir, name, path);
    int err = vv_path_stat(path, &stat);
    if (err == 0 && stat.is_dir)
        return -EISDIR;
    if (err == 0 && !vv_planted(VV_PLANT_NO_REPLAY_SYNC))
        err = sync_object(dir, node, name);
    return err == 0 || err == -ENOENT ? -EEXIST : -VV_ERR_UNKNOWN;
}

/* What a failed link(2) says about the object. An I/O error may come after the name was made. */
static int link_error(int err)
{
    return err == -EIO || err == -ETIMEDOUT ? -VV_ERR_UNKNOWN : err;
}

/* Give the finished temporary file its name. -ESTALE: it has gone, try again. */
static int publish(struct vv_dir *dir, struct vv_dir_node *node, const struct vv_dir_tmp *tmp,
                   const char *name)
{
    char tmp_path[VV_DIR_PATH_MAX];
    char path[VV_DIR_PATH_MAX];
    TRY(vv_dir_node_make(dir, node));
    vv_dir_tmp_path(dir, tmp, tmp_path);
    vv_dir_path(dir, name, path);
    int err = vv_path_link(tmp_path, path);
    return err == -ENOENT ? -ESTALE : link_error(err);
}

static int put_once(struct vv_dir *dir, struct vv_dir_node *node, const char *name,
                    const struct iovec *iov, int count)
{
    struct vv_dir_tmp *tmp;
    TRY(vv_dir_tmp_take(dir, &tmp));
    int err = write_file(vv_dir_tmp_file(tmp), iov, count);
    if (err == 0)
        err = publish(dir, node, tmp, name);
    vv_dir_tmp_drop(dir, tmp);
    if (err == -EEXIST)
        return settle_existing(dir, node, name);
    if (err < 0)
        return err;
    return vv_dir_node_sync(dir, node) < 0 ? -VV_ERR_UNKNOWN : 0;
}

static int dir_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct vv_dir *dir = dir_of(store);
    struct vv_dir_node *node;
    TRY(vv_dir_node_get(dir, name, &node));
    int err = -ESTALE;
    for (int i = 0; err == -ESTALE && i < PUT_TRIES_MAX; i++)
        err = put_once(dir, node, name, iov, count);
    vv_dir_node_unref(dir, node);
    return err == -ESTALE ? -EAGAIN : err;
}

/* ---- the others ---- */

static ssize_t dir_get(struct vv_store *store, const char *name, void *buf, size_t len,
                       uint64_t offset)
{
    struct vv_dir *dir = dir_of(store);
    struct vv_dir_file *file;
    TRY(vv_dir_file_get(dir, name, &file));
    ssize_t got = vv_file_pread(file->file, buf, len, offset);
    vv_dir_file_unref(dir, file);
    return got == -EISDIR ? -ENOENT : got;
}

static int dir_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    char path[VV_DIR_PATH_MAX];
    struct vv_path_stat stat;
    vv_dir_path(dir_of(store), name, path);
    int err = vv_path_stat(path, &stat);
    if (err == -ENOTDIR || (err == 0 && stat.is_dir))
        return -ENOENT;
    TRY(err);
    *out_size = stat.size;
    return 0;
}

static ssize_t dir_list(struct vv_store *store, const char *prefix, const char *after,
                        struct vv_store_entry *out_entries, size_t max)
{
    return vv_dir_list(dir_of(store), prefix, after, out_entries, max);
}

static int dir_remove(struct vv_store *store, const char *name)
{
    struct vv_dir *dir = dir_of(store);
    char path[VV_DIR_PATH_MAX];
    vv_dir_path(dir, name, path);
    int err = vv_path_unlink(path);
    /* After, not before: a get in between would remember the file again. */
    vv_dir_file_forget(dir, name);
    return err == -ENOENT || err == -ENOTDIR || err == -EISDIR ? 0 : err;
}

static int dir_sync(struct vv_store *store, const char *name)
{
    struct vv_dir *dir = dir_of(store);
    struct vv_dir_node *node;
    TRY(vv_dir_node_get(dir, name, &node));
    int err = sync_object(dir, node, name);
    vv_dir_node_unref(dir, node);
    return err;
}

static int dir_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    return vv_path_space(dir_of(store)->root, out_free, out_total);
}

static void dir_close(struct vv_store *store)
{
    struct vv_dir *dir = dir_of(store);
    vv_dir_tmp_done(dir);
    vv_dir_files_done(dir);
    vv_dir_nodes_done(dir);
    vv_free(dir);
}

static const struct vv_store_ops dir_ops = {
    .type = "dir",
    .put = dir_put,
    .get = dir_get,
    .size = dir_size,
    .list = dir_list,
    .remove = dir_remove,
    .sync = dir_sync,
    .space = dir_space,
    .close = dir_close,
};

/* ---- opening ---- */

/* The root's path without slashes at its end. */
static int set_root(struct vv_dir *dir, const char *path)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    if (len == 0)
        return -EINVAL;
    if (len > VV_DIR_ROOT_MAX)
        return -ENAMETOOLONG;
    memcpy(dir->root, path, len);
    return 0;
}

static int prepare_root(struct vv_dir *dir, bool is_creating)
{
    struct vv_path_stat stat;
    if (is_creating) {
        int err = vv_path_mkdir(dir->root);
        if (err < 0 && err != -EEXIST)
            return err;
    }
    TRY(vv_path_stat(dir->root, &stat));
    if (!stat.is_dir)
        return -ENOTDIR;
    return is_creating ? vv_dir_node_sync(dir, dir->root_node) : 0;
}

int vv_store_dir_open(const char *path, bool is_creating, struct vv_store **out_store)
{
    struct vv_dir *dir = vv_zalloc(sizeof(*dir));
    if (!dir)
        return -ENOMEM;
    dir->store.ops = &dir_ops;
    vv_list_init(&dir->files_lru);
    vv_dir_tmp_init(dir);
    int err = set_root(dir, path);
    if (err == 0)
        err = vv_dir_nodes_init(dir);
    if (err == 0)
        err = vv_dir_files_init(dir);
    if (err == 0)
        err = prepare_root(dir, is_creating);
    if (err < 0) {
        dir_close(&dir->store);
        return err;
    }
    *out_store = &dir->store;
    return 0;
}
