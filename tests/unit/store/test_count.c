#include "store/store.h"

#include "contract.h"

static void counts_main(void *arg)
{
    struct vv_store_backend *backend;
    struct vv_store *inner;
    struct vv_store *store;
    struct vv_store_entry entry;
    uint64_t size;
    char buf[10];
    if (vv_store_backend_new(&backend) < 0 || vv_store_mem_open(backend, &inner) < 0)
        return;
    tap_is_int(vv_store_count_new(inner, &store), 0, "a wrapper");
    tap_is_int(put_text(store, "a", "12345"), 0, "put");
    tap_is_int(put_text(store, "a", "12345"), -EEXIST, "put");
    tap_is_int(vv_store_get(store, "a", buf, 10, 2), 3, "get");
    tap_is_int(vv_store_get(store, "b", buf, 10, 2), -ENOENT, "get");
    tap_is_int(vv_store_size(store, "a", &size), 0, "size");
    tap_is_int(vv_store_list(store, "", "", &entry, 1), 1, "list");
    tap_is_int(vv_store_sync(store, "a"), 0, "sync");
    tap_is_int(vv_store_remove(store, "a"), 0, "remove");
    tap_is_int(vv_store_space(store, &size, &size), -EOPNOTSUPP, "space");
    const struct vv_store_counts *counts = vv_store_counts(store);
    tap_is_int((int64_t)counts->puts, 2, "puts");
    tap_is_int((int64_t)counts->gets, 2, "gets");
    tap_is_int((int64_t)counts->sizes, 1, "sizes");
    tap_is_int((int64_t)counts->lists, 1, "lists");
    tap_is_int((int64_t)counts->syncs, 1, "syncs");
    tap_is_int((int64_t)counts->removes, 1, "removes");
    tap_is_int((int64_t)counts->bytes_put, 5, "bytes put: those of successes");
    tap_is_int((int64_t)counts->bytes_got, 3, "bytes got");
    tap_is_int((int64_t)counts->errors, 2, "errors");
    tap_is_int((int64_t)counts->in_flight, 0, "none in flight");
    tap_is_int((int64_t)counts->in_flight_max, 1, "one at a time");
    tap_ok(race_is_fair(store), "several at a time");
    tap_is_int((int64_t)counts->in_flight_max, RACERS, "are counted");
    check_contract(store);
    vv_store_close(store);
    vv_store_backend_free(backend);
}

int main(void)
{
    vv_alloc_track(true);
    run_real(counts_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
