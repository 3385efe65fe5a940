#include "store/store.h"

#include "contract.h"

struct world {
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_store_fault_plan *plan;
};

/* A fault wrapper around a mem store, or, with `is_wrapped`, around a wrapped one, which makes late
 * puts with fibers. */
static struct world open_world(struct vv_store_backend *backend, bool is_wrapped)
{
    struct world world = {.backend = backend};
    struct vv_store *inner = NULL;
    int err = backend ? 0 : vv_store_backend_new(&world.backend);
    if (err == 0)
        err = vv_store_mem_open(world.backend, &inner);
    if (err == 0 && is_wrapped)
        err = vv_store_count_new(inner, &inner);
    if (err == 0)
        err = vv_store_fault_new(inner, &world.store);
    if (err < 0)
        tap_ok(false, "a faulty store can be made");
    else
        world.plan = vv_store_fault_plan(world.store);
    return world;
}

static void close_world(const struct world *world)
{
    vv_store_close(world->store);
    vv_store_backend_free(world->backend);
}

static void fail_main(void *arg)
{
    struct world world = open_world(NULL, arg);
    uint64_t size;
    check_contract(world.store);
    world.plan->fail_permille = 1000;
    tap_is_int(put_text(world.store, "a", "x"), -EIO, "put fails");
    tap_is_int(vv_store_size(world.store, "a", &size), -EIO, "size fails");
    tap_is_str(list_text(world.store, "", "", 1), "EIO", "list fails");
    world.plan->fail_permille = 0;
    tap_is_int(vv_store_size(world.store, "a", &size), -ENOENT, "without effect");
    world.plan->put_fail = ENOSPC;
    tap_is_int(put_text(world.store, "a", "x"), -ENOSPC, "puts fail");
    tap_is_int(vv_store_size(world.store, "a", &size), -ENOENT, "and nothing else");
    world.plan->put_fail = -EROFS;
    tap_is_int(put_text(world.store, "a", "x"), -EROFS, "either sign is fine");
    world.plan->all_fail = EACCES;
    tap_is_int(put_text(world.store, "a", "x"), -EROFS, "both");
    tap_is_int(vv_store_remove(world.store, "a"), -EACCES, "everything fails");
    world.plan->all_fail = 0;
    world.plan->put_fail = 0;
    world.plan->slow_permille = 1000;
    world.plan->slow_max_ns = 1000000;
    uint64_t start_ns = vv_rt_now_ns();
    for (int i = 0; i < 10; i++)
        tap_is_int(vv_store_remove(world.store, "a"), 0, "slow");
    uint64_t took_ns = vv_rt_now_ns() - start_ns;
    tap_ok(took_ns > 1000000 && took_ns < 10001000, "ten times up to 1 ms");
    close_world(&world);
}

static int count_objects(struct vv_store *store)
{
    static struct vv_store_entry entries[VV_STORE_LIST_MAX];
    return (int)vv_store_list(store, "", "", entries, VV_STORE_LIST_MAX);
}

static void unknown_main(void *arg)
{
    struct world world = open_world(NULL, arg);
    char name[16];
    bool is_unknown = true;
    world.plan->unknown_permille = 1000;
    world.plan->late_max_ns = VV_NS_PER_S;
    for (int i = 0; i < 400; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        is_unknown &= put_text(world.store, name, name) == -VV_ERR_UNKNOWN;
    }
    tap_ok(is_unknown, "all puts are unknown");
    int early = count_objects(world.store);
    vv_rt_sleep_ns(VV_NS_PER_S / 2);
    int middle = count_objects(world.store);
    vv_rt_sleep_ns(VV_NS_PER_S);
    int late = count_objects(world.store);
    tap_ok(early > 60 && early < 150, "about a quarter has effect at once (%d)", early);
    tap_ok(middle > early + 10 && middle < late - 10, "some soon (%d)", middle);
    tap_ok(late > 150 && late < 250, "about half at last (%d)", late);
    int whole = 0;
    world.plan->unknown_permille = 0;
    for (int i = 0; i < 400; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        whole += holds_text(world.store, name, name);
    }
    tap_is_int(whole, late, "and all are whole");
    close_world(&world);
}

/* Closing hurries what a fiber would do later. */
static void close_main(void *arg)
{
    struct world world = open_world(NULL, true);
    char name[16];
    world.plan->unknown_permille = 1000;
    world.plan->late_max_ns = 1000 * VV_NS_PER_S;
    for (int i = 0; i < 40; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        (void)!put_text(world.store, name, name);
    }
    uint64_t start_ns = vv_rt_now_ns();
    int early = count_objects(world.store);
    vv_store_close(world.store);
    tap_ok(vv_rt_now_ns() - start_ns < VV_NS_PER_S, "closing takes no time");
    struct world again = open_world(world.backend, false);
    tap_ok(count_objects(again.store) > early, "and late puts have happened");
    close_world(&again);
}

/* ---- late puts of a process that is gone ---- */

static void doomed_main(void *arg)
{
    struct world world = open_world(arg, false);
    char name[16];
    world.plan->unknown_permille = 1000;
    world.plan->late_max_ns = VV_NS_PER_S;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        (void)!put_text(world.store, name, name);
    }
    vv_sim_process_kill(vv_sim_process_self());
}

static void killed_main(void *arg)
{
    struct world world = open_world(NULL, false);
    int process = vv_sim_process_start(NULL, doomed_main, world.backend);
    if (process > 0)
        vv_sim_process_wait(process);
    int early = count_objects(world.store);
    tap_is_int(put_text(world.store, "o/x", ""), 0, "somebody else puts");
    vv_rt_sleep_ns(2 * VV_NS_PER_S);
    int late = count_objects(world.store);
    tap_ok(late > early + 5, "late puts outlive their process (%d, then %d)", early, late);
    char name[16];
    int whole = 0;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        whole += holds_text(world.store, name, name);
    }
    tap_is_int(whole + 1, late, "and are whole");
    close_world(&world);
}

/* A late put finds its name taken. */
static void overtaken_main(void *arg)
{
    struct world world = open_world(NULL, arg);
    int late = 0;
    bool is_ours = true;
    char name[16];
    world.plan->late_max_ns = VV_NS_PER_S;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "o/%d", i);
        world.plan->unknown_permille = 1000;
        (void)!put_text(world.store, name, "late");
        world.plan->unknown_permille = 0;
        int err = put_text(world.store, name, "ours");
        late += err == -EEXIST;
        is_ours &= err == -EEXIST || err == 0;
        vv_rt_sleep_ns(2 * VV_NS_PER_S);
        is_ours &= holds_text(world.store, name, err == 0 ? "ours" : "late");
    }
    tap_ok(is_ours && late > 0 && late < 60, "a late put overwrites nothing");
    close_world(&world);
}

static void broken_main(void *arg)
{
    struct world world = open_world(NULL, arg);
    uint64_t size;
    char name[16];
    world.plan->is_put_overwriting = true;
    tap_is_int(put_text(world.store, "a", "one"), 0, "put");
    tap_is_int(put_text(world.store, "a", "two"), 0, "put-if-absent is ignored");
    tap_ok(holds_text(world.store, "a", "two"), "and overwrites");
    world.plan->is_put_overwriting = false;
    world.plan->is_put_early = true;
    tap_is_int(put_text(world.store, "b", "b"), 0, "put");
    tap_is_int(vv_store_size(world.store, "b", &size), -ENOENT, "is answered early");
    tap_is_int(put_text(world.store, "a", "three"), -EEXIST, "though it sees what is there");
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_ok(holds_text(world.store, "b", "b"), "and comes in the end");
    world.plan->is_put_early = false;
    vv_rt_sleep_ns(VV_NS_PER_S);
    world.plan->list_lag_ns = VV_NS_PER_S;
    for (int i = 0; i < 10; i++) {
        (void)snprintf(name, sizeof(name), "a%d", i);
        tap_is_int(put_text(world.store, name, "y"), 0, "put");
    }
    tap_is_str(list_text(world.store, "", "", 100), "a b", "lists lag");
    tap_is_str(list_text(world.store, "", "", 2), "a b", "pages are full all the same");
    vv_rt_sleep_ns(VV_NS_PER_S + 1000);
    tap_is_str(list_text(world.store, "", "", 3), "a a0 a1", "then they do not");
    close_world(&world);
}

int main(void)
{
    vv_alloc_track(true);
    static int yes = 1;
    for (int i = 0; i < 2; i++) {
        void *is_wrapped = i ? &yes : NULL;
        run_sim(1, fail_main, is_wrapped);
        run_sim(2, unknown_main, is_wrapped);
        run_sim(3, overtaken_main, is_wrapped);
        run_sim(4, broken_main, is_wrapped);
    }
    run_sim(5, close_main, NULL);
    run_sim(6, killed_main, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
