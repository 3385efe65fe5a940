#include "store/store.h"

#include <assert.h>
#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "store/store_impl.h"

struct count {
    struct vv_store store;
    struct vv_store *inner;
    struct vv_store_counts counts;
};

/* A request begins: the inner store to ask, `*counter` counted. */
static struct vv_store *begin(struct count *count, uint64_t *counter)
{
    struct vv_store_counts *counts = &count->counts;
    (*counter)++;
    counts->in_flight++;
    if (counts->in_flight > counts->in_flight_max)
        counts->in_flight_max = counts->in_flight;
    return count->inner;
}

/* A request ends; returns its result. */
static ssize_t end(struct count *count, ssize_t result)
{
    assert(count->counts.in_flight > 0);
    count->counts.in_flight--;
    count->counts.errors += result < 0;
    return result;
}

static struct count *count_of(struct vv_store *store)
{
    return vv_container_of(store, struct count, store);
}

static int count_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct count *self = count_of(store);
    int err = (int)end(self, vv_store_put(begin(self, &self->counts.puts), name, iov, count));
    if (err == 0)
        self->counts.bytes_put += vv_store_iov_bytes(iov, count);
    return err;
}

static ssize_t count_get(struct vv_store *store, const char *name, void *buf, size_t len,
                         uint64_t offset)
{
    struct count *self = count_of(store);
    ssize_t got = end(self, vv_store_get(begin(self, &self->counts.gets), name, buf, len, offset));
    if (got > 0)
        self->counts.bytes_got += (uint64_t)got;
    return got;
}

static int count_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    struct count *self = count_of(store);
    return (int)end(self, vv_store_size(begin(self, &self->counts.sizes), name, out_size));
}

static ssize_t count_list(struct vv_store *store, const char *prefix, const char *after,
                          struct vv_store_entry *out_entries, size_t max)
{
    struct count *self = count_of(store);
    struct vv_store *inner = begin(self, &self->counts.lists);
    return end(self, vv_store_list(inner, prefix, after, out_entries, max));
}

static int count_remove(struct vv_store *store, const char *name)
{
    struct count *self = count_of(store);
    return (int)end(self, vv_store_remove(begin(self, &self->counts.removes), name));
}

static int count_sync(struct vv_store *store, const char *name)
{
    struct count *self = count_of(store);
    return (int)end(self, vv_store_sync(begin(self, &self->counts.syncs), name));
}

static int count_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    return vv_store_space(count_of(store)->inner, out_free, out_total);
}

static void count_close(struct vv_store *store)
{
    struct count *self = count_of(store);
    vv_store_close(self->inner);
    vv_free(self);
}

static const struct vv_store_ops count_ops = {
    .type = "count",
    .put = count_put,
    .get = count_get,
    .size = count_size,
    .list = count_list,
    .remove = count_remove,
    .sync = count_sync,
    .space = count_space,
    .close = count_close,
};

int vv_store_count_new(struct vv_store *inner, struct vv_store **out_store)
{
    struct count *self = vv_zalloc(sizeof(*self));
    if (!self)
        return -ENOMEM;
    self->store.ops = &count_ops;
    self->inner = inner;
    *out_store = &self->store;
    return 0;
}

const struct vv_store_counts *vv_store_counts(const struct vv_store *store)
{
    assert(store->ops == &count_ops);
    return &vv_container_of(store, struct count, store)->counts;
}
