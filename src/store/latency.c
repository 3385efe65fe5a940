#include "store/store.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "rt/rt.h"
#include "store/store_impl.h"

/* One direction of the line to the store. Requests at the same time share it, one after the other.
 */
struct line {
    uint64_t free_ns; /* when what has been accepted so far is through */
};

struct latency {
    struct vv_store store;
    struct vv_store *inner;
    uint64_t ns;
    uint64_t bytes_per_s; /* of each line; 0: unbounded */
    struct line up;
    struct line down;
};

static struct latency *latency_of(struct vv_store *store)
{
    return vv_container_of(store, struct latency, store);
}

static void transfer(const struct latency *latency, struct line *line, uint64_t bytes)
{
    if (latency->bytes_per_s == 0 || bytes == 0)
        return;
    uint64_t now_ns = vv_rt_now_ns();
    double takes_ns = (double)bytes * (double)VV_NS_PER_S / (double)latency->bytes_per_s;
    if (line->free_ns < now_ns)
        line->free_ns = now_ns;
    line->free_ns += (uint64_t)takes_ns;
    vv_rt_sleep_ns(line->free_ns - now_ns);
}

/* Half of the round trip lies before the effect and half behind it. Returns the inner store. */
static struct vv_store *travel_to(struct latency *latency, uint64_t bytes)
{
    transfer(latency, &latency->up, bytes);
    if (latency->ns > 0)
        vv_rt_sleep_ns(latency->ns / 2);
    return latency->inner;
}

static ssize_t travel_back(struct latency *latency, uint64_t bytes, ssize_t result)
{
    transfer(latency, &latency->down, bytes);
    if (latency->ns > 0)
        vv_rt_sleep_ns(latency->ns - latency->ns / 2);
    return result;
}

static int latency_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct latency *latency = latency_of(store);
    struct vv_store *inner = travel_to(latency, vv_store_iov_bytes(iov, count));
    return (int)travel_back(latency, 0, vv_store_put(inner, name, iov, count));
}

static ssize_t latency_get(struct vv_store *store, const char *name, void *buf, size_t len,
                           uint64_t offset)
{
    struct latency *latency = latency_of(store);
    ssize_t got = vv_store_get(travel_to(latency, 0), name, buf, len, offset);
    return travel_back(latency, got > 0 ? (uint64_t)got : 0, got);
}

static int latency_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    struct latency *latency = latency_of(store);
    return (int)travel_back(latency, 0, vv_store_size(travel_to(latency, 0), name, out_size));
}

static ssize_t latency_list(struct vv_store *store, const char *prefix, const char *after,
                            struct vv_store_entry *out_entries, size_t max)
{
    struct latency *latency = latency_of(store);
    struct vv_store *inner = travel_to(latency, 0);
    return travel_back(latency, 0, vv_store_list(inner, prefix, after, out_entries, max));
}

static int latency_remove(struct vv_store *store, const char *name)
{
    struct latency *latency = latency_of(store);
    return (int)travel_back(latency, 0, vv_store_remove(travel_to(latency, 0), name));
}

static int latency_sync(struct vv_store *store, const char *name)
{
    struct latency *latency = latency_of(store);
    return (int)travel_back(latency, 0, vv_store_sync(travel_to(latency, 0), name));
}

static int latency_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    struct latency *latency = latency_of(store);
    /* A bucket has no such request: it says so without asking anybody. */
    int err = vv_store_space(latency->inner, out_free, out_total);
    if (err == -EOPNOTSUPP)
        return err;
    travel_to(latency, 0);
    return (int)travel_back(latency, 0, err);
}

static void latency_close(struct vv_store *store)
{
    struct latency *latency = latency_of(store);
    vv_store_close(latency->inner);
    vv_free(latency);
}

static const struct vv_store_ops latency_ops = {
    .type = "latency",
    .put = latency_put,
    .get = latency_get,
    .size = latency_size,
    .list = latency_list,
    .remove = latency_remove,
    .sync = latency_sync,
    .space = latency_space,
    .close = latency_close,
};

int vv_store_latency_new(struct vv_store *inner, uint64_t ns, uint64_t bytes_per_s,
                         struct vv_store **out_store)
{
    struct latency *latency = vv_zalloc(sizeof(*latency));
    if (!latency)
        return -ENOMEM;
    latency->store.ops = &latency_ops;
    latency->inner = inner;
    latency->ns = ns;
    latency->bytes_per_s = bytes_per_s;
    *out_store = &latency->store;
    return 0;
}
