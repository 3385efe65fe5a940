/* A store that counts requests, fails one of them, damages what it gets of one object, and takes its time. */
#ifndef VV_TEST_WATCH_H
#define VV_TEST_WATCH_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/rt.h"
#include "store/store.h"

struct watch {
    struct vv_store store;
    struct vv_store *inner;
    unsigned requests, removals, lists_of_data;
    int fail_at; /* the request number from now on that fails; < 0 = none */
    bool has_failed;
    bool is_sparing_puts;                /* they are not counted and do not fail */
    uint64_t table_ns, remove_ns;        /* what putting a table and removing takes more */
    char damaged[VV_STORE_NAME_MAX + 1]; /* empty = none */
    uint64_t damaged_at;                 /* byte of the object */
};

static struct watch *watch_of(struct vv_store *store)
{
    return vv_container_of(store, struct watch, store);
}

static int ask(struct watch *watch)
{
    watch->requests++;
    if (watch->fail_at < 0 || watch->fail_at-- > 0)
        return 0;
    watch->has_failed = true;
    return -EIO;
}

static int watch_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    if (!watch_of(store)->is_sparing_puts)
        TRY(ask(watch_of(store)));
    if (strncmp(name, "sst/", 4) == 0 && watch_of(store)->table_ns > 0)
        vv_rt_sleep_ns(watch_of(store)->table_ns);
    return vv_store_put(watch_of(store)->inner, name, iov, count);
}

static ssize_t watch_get(struct vv_store *store, const char *name, void *buf, size_t len,
                         uint64_t offset)
{
    struct watch *watch = watch_of(store);
    TRY(ask(watch));
    ssize_t got = vv_store_get(watch->inner, name, buf, len, offset);
    if (got > 0 && strcmp(name, watch->damaged) == 0 && watch->damaged_at >= offset &&
        watch->damaged_at - offset < (uint64_t)got)
        ((uint8_t *)buf)[watch->damaged_at - offset] ^= 1;
    return got;
}

static int watch_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    TRY(ask(watch_of(store)));
    return vv_store_size(watch_of(store)->inner, name, out_size);
}

static ssize_t watch_list(struct vv_store *store, const char *prefix, const char *after,
                          struct vv_store_entry *out_entries, size_t max)
{
    watch_of(store)->lists_of_data += strcmp(prefix, "data/") == 0;
    TRY(ask(watch_of(store)));
    return vv_store_list(watch_of(store)->inner, prefix, after, out_entries, max);
}

static int watch_remove(struct vv_store *store, const char *name)
{
    TRY(ask(watch_of(store)));
    if (watch_of(store)->remove_ns > 0)
        vv_rt_sleep_ns(watch_of(store)->remove_ns);
    watch_of(store)->removals++;
    return vv_store_remove(watch_of(store)->inner, name);
}

static void watch_close(struct vv_store *store)
{
    vv_store_close(watch_of(store)->inner);
    vv_free(watch_of(store));
}

static const struct vv_store_ops watch_ops = {
    .type = "watch",
    .put = watch_put,
    .get = watch_get,
    .size = watch_size,
    .list = watch_list,
    .remove = watch_remove,
    .close = watch_close,
};

/* One that fails nothing. The inner store is closed with it, and may be given later. */
static inline struct watch *watch_new(struct vv_store *inner)
{
    struct watch *watch = vv_zalloc(sizeof *watch);
    if (watch == NULL)
        abort();
    watch->store.ops = &watch_ops;
    watch->inner = inner;
    watch->fail_at = -1;
    return watch;
}

#endif
