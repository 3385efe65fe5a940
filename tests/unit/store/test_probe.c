#include "store/store.h"

#include "contract.h"

static void good_main(void *arg)
{
    struct vv_store_backend *backend;
    struct vv_store *store;
    char text[200] = "untouched";
    if (vv_store_backend_new(&backend) < 0 || vv_store_mem_open(backend, &store) < 0)
        return;
    tap_is_int(vv_store_probe(store, text, sizeof(text)), 0, "a good store");
    tap_is_str(text, "untouched", "has nothing to be named");
    tap_is_str(list_text(store, "", "", 10), "", "and nothing is left in it");
    vv_store_close(store);
    vv_store_backend_free(backend);
}

static void dir_main(void *arg)
{
    struct vv_store *store;
    char text[200];
    tap_is_int(vv_store_dir_open("/store", true, &store), 0, "a directory");
    tap_is_int(vv_store_probe(store, text, sizeof(text)), 0, "is a good store");
    vv_store_close(store);
}

static void check_broken(const struct vv_store_fault_plan *plan, int want, const char *why)
{
    struct vv_store_backend *backend;
    struct vv_store *inner;
    struct vv_store *store;
    char text[200] = "";
    if (vv_store_backend_new(&backend) < 0 || vv_store_mem_open(backend, &inner) < 0 ||
        vv_store_fault_new(inner, &store) < 0)
        return;
    *vv_store_fault_plan(store) = *plan;
    tap_is_int(vv_store_probe(store, text, sizeof(text)), want, "broken: %s", why);
    tap_ok(strstr(text, why) != NULL, "is named: %s", text);
    vv_store_close(store);
    vv_store_backend_free(backend);
}

static void broken_main(void *arg)
{
    struct vv_store_fault_plan plan = {.is_put_overwriting = true};
    check_broken(&plan, -VV_ERR_STORE_UNSAFE, "put-if-absent is ignored");
    plan = (struct vv_store_fault_plan){.is_put_early = true};
    check_broken(&plan, -VV_ERR_STORE_UNSAFE, "before the object can be read");
    plan = (struct vv_store_fault_plan){.list_lag_ns = VV_NS_PER_S};
    check_broken(&plan, -VV_ERR_STORE_UNSAFE, "list lags");
    plan = (struct vv_store_fault_plan){.all_fail = EACCES};
    check_broken(&plan, -EACCES, "");
    plan = (struct vv_store_fault_plan){.put_fail = EROFS};
    check_broken(&plan, -EROFS, "");
    plan = (struct vv_store_fault_plan){.unknown_permille = 1000};
    check_broken(&plan, -VV_ERR_UNKNOWN, "");
}

/* ---- stores that are broken in ways that fault does not know ---- */

struct odd {
    struct vv_store store;
    struct vv_store *inner;
    bool is_racing;       /* looks first and puts then */
    bool is_range_broken; /* ignores the offset */
    bool is_remove_lazy;
};

static int odd_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct odd *odd = (struct odd *)store;
    uint64_t size;
    if (!odd->is_racing)
        return vv_store_put(odd->inner, name, iov, count);
    if (vv_store_size(odd->inner, name, &size) == 0)
        return -EEXIST;
    vv_rt_sleep_ns(VV_NS_PER_MS);
    int err = vv_store_put(odd->inner, name, iov, count);
    return err == -EEXIST ? 0 : err;
}

static ssize_t odd_get(struct vv_store *store, const char *name, void *buf, size_t len,
                       uint64_t offset)
{
    struct odd *odd = (struct odd *)store;
    return vv_store_get(odd->inner, name, buf, len, odd->is_range_broken ? 0 : offset);
}

static int odd_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    return vv_store_size(((struct odd *)store)->inner, name, out_size);
}

static ssize_t odd_list(struct vv_store *store, const char *prefix, const char *after,
                        struct vv_store_entry *out_entries, size_t max)
{
    return vv_store_list(((struct odd *)store)->inner, prefix, after, out_entries, max);
}

static int odd_remove(struct vv_store *store, const char *name)
{
    struct odd *odd = (struct odd *)store;
    return odd->is_remove_lazy ? 0 : vv_store_remove(odd->inner, name);
}

static void odd_close(struct vv_store *store)
{
    vv_store_close(((struct odd *)store)->inner);
}

static const struct vv_store_ops odd_ops = {.type = "odd",
                                            .put = odd_put,
                                            .get = odd_get,
                                            .size = odd_size,
                                            .list = odd_list,
                                            .remove = odd_remove,
                                            .close = odd_close};

static void check_odd(struct odd odd, const char *why)
{
    struct vv_store_backend *backend;
    char text[200] = "";
    odd.store.ops = &odd_ops;
    if (vv_store_backend_new(&backend) < 0 || vv_store_mem_open(backend, &odd.inner) < 0)
        return;
    tap_is_int(vv_store_probe(&odd.store, text, sizeof(text)), -VV_ERR_STORE_UNSAFE, "%s", why);
    tap_ok(strstr(text, why) != NULL, "is named: %s", text);
    vv_store_close(&odd.store);
    vv_store_backend_free(backend);
}

static void odd_main(void *arg)
{
    check_odd((struct odd){.is_racing = true}, "not atomic");
    check_odd((struct odd){.is_range_broken = true}, "ranges");
    check_odd((struct odd){.is_remove_lazy = true}, "removed");
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(1, good_main, NULL);
    run_sim_disk(2, dir_main, NULL);
    run_sim(3, broken_main, NULL);
    run_sim(4, odd_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
