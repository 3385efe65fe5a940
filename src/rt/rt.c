/* Hands the calls of rt.h on to the runtime of the calling thread, or of the file. */
#include "rt/rt.h"

#include <assert.h>

#include "rt/rt_impl.h"

/* ---- any thread: without a reactor the real world answers ---- */

uint64_t vv_rt_now_ns(void)
{
    struct vv_reactor *reactor = vv_reactor_self();
    return reactor ? reactor->ops->now_ns(reactor) : vv_real_now_ns(NULL);
}

struct timespec vv_rt_wall(void)
{
    struct vv_reactor *reactor = vv_reactor_self();
    return reactor ? reactor->ops->wall(reactor) : vv_real_wall(NULL);
}

void vv_rt_random(void *out, size_t len)
{
    struct vv_reactor *reactor = vv_reactor_self();
    if (reactor)
        reactor->ops->random(reactor, out, len);
    else
        vv_real_random(NULL, out, len);
}

uint64_t vv_rt_random_u64(void)
{
    uint64_t value;
    vv_rt_random(&value, sizeof(value));
    return value;
}

/* ---- workers and posts ---- */

static struct vv_reactor *own_reactor(void)
{
    struct vv_reactor *reactor = vv_reactor_self();
    assert(reactor && "only on a reactor");
    return reactor;
}

void vv_rt_offload(void (*fn)(void *), void *arg)
{
    struct vv_reactor *reactor = own_reactor();
    reactor->ops->offload(reactor, fn, arg);
}

unsigned vv_rt_worker_count(void)
{
    struct vv_reactor *reactor = own_reactor();
    return reactor->ops->worker_count(reactor);
}

void vv_reactor_post(struct vv_reactor *reactor, struct vv_post *post)
{
    reactor->ops->post(reactor, post);
}

/* ---- files ---- */

int vv_file_open(const char *path, unsigned flags, struct vv_file **out_file)
{
    return own_reactor()->ops->path->open(path, flags, out_file);
}

void vv_file_close(struct vv_file *file)
{
    if (file)
        file->ops->close(file);
}

ssize_t vv_file_pread(struct vv_file *file, void *buf, size_t len, uint64_t offset)
{
    return file->ops->pread(file, buf, len, offset);
}

int vv_file_pwritev(struct vv_file *file, struct iovec *iov, int count, uint64_t offset)
{
    return file->ops->pwritev(file, iov, count, offset);
}

int vv_file_datasync(struct vv_file *file)
{
    return file->ops->datasync(file);
}

int vv_file_pwritev_sync(struct vv_file *file, struct iovec *iov, int count, uint64_t offset)
{
    return file->ops->pwritev_sync(file, iov, count, offset);
}

int vv_file_size(struct vv_file *file, uint64_t *out_bytes)
{
    return file->ops->size(file, out_bytes);
}

int vv_file_truncate(struct vv_file *file, uint64_t size)
{
    return file->ops->truncate(file, size);
}

int vv_file_allocate(struct vv_file *file, uint64_t offset, uint64_t len)
{
    return file->ops->allocate(file, offset, len);
}

int vv_file_lock(struct vv_file *file)
{
    return file->ops->lock(file);
}

/* ---- paths ---- */

int vv_path_mkdir(const char *path)
{
    return own_reactor()->ops->path->mkdir(path);
}

int vv_path_unlink(const char *path)
{
    return own_reactor()->ops->path->unlink(path);
}

int vv_path_rmdir(const char *path)
{
    return own_reactor()->ops->path->rmdir(path);
}

int vv_path_rename(const char *from, const char *to)
{
    return own_reactor()->ops->path->rename(from, to);
}

int vv_path_link(const char *from, const char *to)
{
    return own_reactor()->ops->path->link(from, to);
}

int vv_path_sync_dir(const char *path)
{
    return own_reactor()->ops->path->sync_dir(path);
}

int vv_path_stat(const char *path, struct vv_path_stat *out_stat)
{
    return own_reactor()->ops->path->stat(path, out_stat);
}

int vv_path_space(const char *path, uint64_t *out_free, uint64_t *out_total)
{
    return own_reactor()->ops->path->space(path, out_free, out_total);
}

int vv_path_list(const char *path, int (*visit)(void *arg, const char *name, bool is_dir),
                 void *arg)
{
    return own_reactor()->ops->path->list(path, visit, arg);
}
