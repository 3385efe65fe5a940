/* A store behind the disk cache. What is put is kept once it is known to be there, so that nothing is ever read
 * back that is not in the store. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "cache/disk_impl.h"

struct cached {
    struct vv_store store;
    struct vv_store *inner;
    struct vv_disk *disk;
    uint8_t volume_id[16];
};

static struct cached *cached_of(struct vv_store *store)
{
    return vv_container_of(store, struct cached, store);
}

static int cached_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct cached *self = cached_of(store);
    int err = vv_store_put(self->inner, name, iov, count);
    if (err == 0 && vv_disk_keeps(name))
        vv_disk_write(self->disk, self->volume_id, name, 0, iov, count, true);
    return err;
}

static ssize_t cached_get(struct vv_store *store, const char *name, void *buf, size_t len,
                          uint64_t offset)
{
    struct cached *self = cached_of(store);
    struct vv_disk_stats *stats = &self->disk->stats;
    bool is_end = false;
    if (!vv_disk_keeps(name))
        return vv_store_get(self->inner, name, buf, len, offset);
    size_t held = vv_disk_read(self->disk, self->volume_id, name, buf, len, offset, &is_end);
    stats->bytes_hit += held;
    if (held == len || is_end) {
        stats->hits++;
        return (ssize_t)held;
    }
    uint8_t *rest = (uint8_t *)buf + held;
    ssize_t got = vv_store_get(self->inner, name, rest, len - held, offset + held);
    stats->misses++;
    TRY(got);
    stats->bytes_missed += (uint64_t)got;
    struct iovec iov = {rest, (size_t)got};
    if (got > 0)
        vv_disk_write(self->disk, self->volume_id, name, offset + held, &iov, 1,
                      (size_t)got < len - held);
    return (ssize_t)held + got;
}

static int cached_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    return vv_store_size(cached_of(store)->inner, name, out_size);
}

static ssize_t cached_list(struct vv_store *store, const char *prefix, const char *after,
                           struct vv_store_entry *out_entries, size_t max)
{
    return vv_store_list(cached_of(store)->inner, prefix, after, out_entries, max);
}

static int cached_remove(struct vv_store *store, const char *name)
{
    struct cached *self = cached_of(store);
    vv_disk_forget(self->disk, self->volume_id, name);
    return vv_store_remove(self->inner, name);
}

static int cached_sync(struct vv_store *store, const char *name)
{
    return vv_store_sync(cached_of(store)->inner, name);
}

static int cached_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    return vv_store_space(cached_of(store)->inner, out_free, out_total);
}

static void cached_close(struct vv_store *store)
{
    struct cached *self = cached_of(store);
    vv_store_close(self->inner);
    vv_free(self);
}

static const struct vv_store_ops cached_ops = {
    .type = "cached",
    .put = cached_put,
    .get = cached_get,
    .size = cached_size,
    .list = cached_list,
    .remove = cached_remove,
    .sync = cached_sync,
    .space = cached_space,
    .close = cached_close,
};

int vv_store_cached_new(struct vv_store *inner, struct vv_disk *disk, const uint8_t volume_id[16],
                        struct vv_store **out_store)
{
    struct cached *self = vv_zalloc(sizeof(*self));
    if (!self)
        return -ENOMEM;
    self->store.ops = &cached_ops;
    self->inner = inner;
    self->disk = disk;
    memcpy(self->volume_id, volume_id, 16);
    *out_store = &self->store;
    return 0;
}
