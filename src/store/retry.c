#include "store/store.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/list.h"
#include "rt/rt.h"
#include "store/store_impl.h"

struct retry {
    struct vv_store store;
    struct vv_store *inner;
    unsigned tries;
    uint64_t pause_min_ns;
    uint64_t pause_max_ns;
};

/* Where one request stands. */
struct progress {
    unsigned tries;
    uint64_t pause_ns;
    bool is_unknown; /* an earlier try may yet take effect */
};

static struct retry *retry_of(struct vv_store *store)
{
    return vv_container_of(store, struct retry, store);
}

static bool is_passing(ssize_t result)
{
    return result == -VV_ERR_UNKNOWN || result == -EIO || result == -EAGAIN || result == -ETIMEDOUT;
}

/* Shall a request with this result be sent again? Pauses first: between half of the current pause
 * and all of it, so that those who failed together do not come back together. */
static bool try_again(const struct retry *retry, struct progress *progress, ssize_t result)
{
    if (!is_passing(result) || ++progress->tries >= retry->tries)
        return false;
    if (progress->pause_ns == 0)
        progress->pause_ns = retry->pause_min_ns;
    uint64_t half_ns = progress->pause_ns / 2;
    vv_rt_sleep_ns(progress->pause_ns - half_ns + vv_rt_random_u64() % (half_ns + 1));
    progress->pause_ns =
        progress->pause_ns < retry->pause_max_ns / 2 ? 2 * progress->pause_ns : retry->pause_max_ns;
    return true;
}

static int retry_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    const struct retry *retry = retry_of(store);
    struct progress progress = {0};
    int err;
    do {
        err = vv_store_put(retry->inner, name, iov, count);
        progress.is_unknown |= err == -VV_ERR_UNKNOWN;
    } while (try_again(retry, &progress, err));
    /* "It did not take effect" may be said of the last try only, not of one before it. */
    return err != 0 && err != -EEXIST && progress.is_unknown ? -VV_ERR_UNKNOWN : err;
}

static ssize_t retry_get(struct vv_store *store, const char *name, void *buf, size_t len,
                         uint64_t offset)
{
    const struct retry *retry = retry_of(store);
    struct progress progress = {0};
    ssize_t got;
    do {
        got = vv_store_get(retry->inner, name, buf, len, offset);
    } while (try_again(retry, &progress, got));
    return got;
}

static int retry_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    const struct retry *retry = retry_of(store);
    struct progress progress = {0};
    int err;
    do {
        err = vv_store_size(retry->inner, name, out_size);
    } while (try_again(retry, &progress, err));
    return err;
}

static ssize_t retry_list(struct vv_store *store, const char *prefix, const char *after,
                          struct vv_store_entry *out_entries, size_t max)
{
    const struct retry *retry = retry_of(store);
    struct progress progress = {0};
    ssize_t count;
    do {
        count = vv_store_list(retry->inner, prefix, after, out_entries, max);
    } while (try_again(retry, &progress, count));
    return count;
}

static int retry_remove(struct vv_store *store, const char *name)
{
    const struct retry *retry = retry_of(store);
    struct progress progress = {0};
    int err;
    do {
        err = vv_store_remove(retry->inner, name);
    } while (try_again(retry, &progress, err));
    return err;
}

static int retry_sync(struct vv_store *store, const char *name)
{
    const struct retry *retry = retry_of(store);
    struct progress progress = {0};
    int err;
    do {
        err = vv_store_sync(retry->inner, name);
    } while (try_again(retry, &progress, err));
    return err;
}

static int retry_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    const struct retry *retry = retry_of(store);
    struct progress progress = {0};
    int err;
    do {
        err = vv_store_space(retry->inner, out_free, out_total);
    } while (try_again(retry, &progress, err));
    return err;
}

static void retry_close(struct vv_store *store)
{
    struct retry *retry = retry_of(store);
    vv_store_close(retry->inner);
    vv_free(retry);
}

static const struct vv_store_ops retry_ops = {
    .type = "retry",
    .put = retry_put,
    .get = retry_get,
    .size = retry_size,
    .list = retry_list,
    .remove = retry_remove,
    .sync = retry_sync,
    .space = retry_space,
    .close = retry_close,
};

int vv_store_retry_new(struct vv_store *inner, unsigned tries, uint64_t pause_min_ns,
                       uint64_t pause_max_ns, struct vv_store **out_store)
{
    struct retry *retry = vv_zalloc(sizeof(*retry));
    if (!retry)
        return -ENOMEM;
    retry->store.ops = &retry_ops;
    retry->inner = inner;
    retry->tries = tries;
    retry->pause_min_ns = pause_min_ns;
    retry->pause_max_ns = pause_max_ns;
    *out_store = &retry->store;
    return 0;
}
