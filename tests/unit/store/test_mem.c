#include "store/store.h"

#include "contract.h"

static void contract_main(void *arg)
{
    struct vv_store_backend *backend;
    struct vv_store *store;
    tap_is_int(vv_store_backend_new(&backend), 0, "a backend");
    tap_is_int(vv_store_mem_open(backend, &store), 0, "a store on it");
    check_contract(store);
    vv_store_close(store);
    vv_store_backend_free(backend);
}

static void many_main(void *arg)
{
    static struct vv_store_entry entries[VV_STORE_LIST_MAX];
    struct vv_store_backend *backend;
    struct vv_store *store;
    char name[32];
    char after[VV_STORE_NAME_MAX + 1] = "";
    size_t total = 0;
    ssize_t count;
    if (vv_store_backend_new(&backend) < 0 || vv_store_mem_open(backend, &store) < 0)
        return;
    for (unsigned i = 0; i < 2500; i++) {
        (void)snprintf(name, sizeof(name), "n/%04u", i * 7919 % 2500);
        if (put_text(store, name, name) < 0)
            tap_ok(false, "put %s", name);
    }
    bool is_in_order = true;
    do {
        count = vv_store_list(store, "n/", after, entries, VV_STORE_LIST_MAX);
        for (ssize_t i = 0; i < count; i++) {
            (void)snprintf(name, sizeof(name), "n/%04zu", total++);
            is_in_order &= strcmp(entries[i].name, name) == 0 && entries[i].size == 6;
        }
        (void)snprintf(after, sizeof(after), "%s", count > 0 ? entries[count - 1].name : "");
    } while (count == VV_STORE_LIST_MAX);
    tap_is_int((int64_t)total, 2500, "pages give all names");
    tap_ok(is_in_order, "in order, with their sizes");
    vv_store_close(store);
    vv_store_backend_free(backend);
}

static void no_memory_main(void *arg)
{
    struct vv_store_backend *backend = NULL;
    struct vv_store *store = NULL;
    int failed = 0;
    int err = -ENOMEM;
    for (int n = 0; err < 0; n++) {
        vv_alloc_fail_at(n, false);
        err = backend ? 0 : vv_store_backend_new(&backend);
        if (err == 0 && !store)
            err = vv_store_mem_open(backend, &store);
        if (err == 0)
            err = put_text(store, "a", "text");
        vv_alloc_fail_at(-1, false);
        failed += err == -ENOMEM;
        if (err == -ENOMEM && store && vv_store_remove(store, "a") == 0)
            continue;
    }
    tap_is_int(err, 0, "n-th allocation failing: at last it succeeds");
    tap_ok(failed > 0, "after failing %d times", failed);
    tap_ok(holds_text(store, "a", "text"), "and the object is whole");
    vv_store_close(store);
    vv_store_backend_free(backend);
}

/* ---- objects outlive the process that put them ---- */

#define OBJECTS 40

struct shared {
    struct vv_store_backend *backend;
    int acknowledged;
};

static void writer_main(void *arg)
{
    struct shared *shared = arg;
    struct vv_store *store;
    char name[16];
    if (vv_store_mem_open(shared->backend, &store) < 0)
        return;
    for (int i = 0; i < OBJECTS; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        if (put_text(store, name, name) == 0)
            shared->acknowledged = i + 1;
    }
    vv_store_close(store);
}

static void killed_main(void *arg)
{
    struct shared shared = {0};
    struct vv_store *store;
    char name[16];
    bool is_whole = true;
    int found = 0;
    if (vv_store_backend_new(&shared.backend) < 0)
        return;
    int process = vv_sim_process_start(NULL, writer_main, &shared);
    vv_sim_process_kill_after(process, 1 + vv_sim_random(2 * OBJECTS));
    vv_sim_process_wait(process);
    if (vv_store_mem_open(shared.backend, &store) < 0)
        return;
    for (int i = 0; i < OBJECTS; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        uint64_t size;
        if (vv_store_size(store, name, &size) < 0)
            break;
        is_whole &= holds_text(store, name, name);
        found++;
    }
    /* One more may be there than was acknowledged. */
    if (!is_whole || found < shared.acknowledged || found > shared.acknowledged + 1)
        tap_ok(false, "acknowledged %d, found %d", shared.acknowledged, found);
    *(int *)arg += found < OBJECTS && found > shared.acknowledged;
    vv_store_close(store);
    vv_store_backend_free(shared.backend);
}

int main(void)
{
    vv_alloc_track(true);
    run_real(contract_main, NULL);
    run_real(many_main, NULL);
    run_real(no_memory_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    for (uint64_t seed = 0; seed < 3; seed++)
        run_sim(seed, contract_main, NULL);
    int unacknowledged = 0;
    for (uint64_t seed = 0; seed < 200; seed++)
        run_sim(seed, killed_main, &unacknowledged);
    tap_ok(unacknowledged > 0, "killed between effect and answer: %d times", unacknowledged);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
