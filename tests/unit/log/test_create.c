#include "log/log.h"

#include "rig.h"

static int open_error(const struct rig *rig)
{
    struct seen seen = {0};
    struct vv_log *log;
    int err = rig_open(rig, rig->store, &seen, &log);
    if (!err)
        vv_log_close(log);
    return err;
}

static void test_create(void)
{
    struct rig rig = rig_new();
    uint8_t keys[VV_OBJECT_HEADER_LEN + 4];
    size_t keys_len = rig_keys(&rig, keys);
    uint8_t *found = NULL;
    size_t len = 0;
    uint64_t number = 0;
    tap_is_int(vv_volume_keys(rig.store, &found, &len, &number, NULL), -VV_ERR_NOT_VOLUME, "no volume");
    tap_is_int(vv_volume_create(rig.store, rig.ring, keys, keys_len, &rig_settings, &rig_counters),
               0, "creates");
    tap_ok(rig_has(&rig, "varve.volume") && rig_has(&rig, "keys/1") &&
               rig_has(&rig, "manifest/00000000000000000001"),
           "three objects");
    tap_is_int(vv_volume_keys(rig.store, &found, &len, &number, NULL), 0, "finds the keys");
    tap_ok(number == 1 && len == keys_len, "by the manifest's number");
    tap_is_bytes(found, keys, keys_len, "as they were");
    vv_free(found);
    tap_is_int(rig_create(&rig, rig.store), -VV_ERR_VOLUME_EXISTS, "once");
    tap_is_int(open_error(&rig), 0, "opens");
    tap_is_int(rig_create(&rig, rig.store), -VV_ERR_VOLUME_EXISTS, "not after opening either");
    rig_free(&rig);
}

/* A creation that stopped before its manifest can be repeated, with other keys too. */
static void test_half_way(void)
{
    struct rig rig = rig_new();
    tap_is_int(rig_create(&rig, rig.store), 0, "creates");
    tap_is_int(vv_store_remove(rig.store, "manifest/00000000000000000001"), 0, "as if it stopped");
    vv_keyring_free(rig.ring);
    memset(rig.volume_id, 8, sizeof(rig.volume_id));
    if (vv_keyring_new(rig.volume_id, &rig.ring) < 0)
        abort();
    tap_is_int(rig_create(&rig, rig.store), 0, "creates again");
    uint8_t *found = NULL;
    size_t len = 0;
    uint64_t number = 0;
    tap_is_int(vv_volume_keys(rig.store, &found, &len, &number, NULL), 0, "finds the keys");
    tap_ok(number == 2 && found[16] == 8, "the second ones");
    vv_free(found);
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    tap_ok(vv_store_get(rig.store, "varve.volume", bytes, sizeof(bytes), 0) == sizeof(bytes) &&
               bytes[16] == 8,
           "varve.volume is the new volume's");
    tap_is_int(open_error(&rig), 0, "opens");
    rig_free(&rig);
}

static void test_no_memory(void)
{
    bool is_right = true;
    bool has_failed = true;
    for (int64_t n = 0; has_failed; n++) {
        struct rig rig = rig_new();
        vv_alloc_fail_at(n, false);
        int err = rig_create(&rig, rig.store);
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= err == 0 || (err == -ENOMEM && has_failed);
        if (err) {
            err = rig_create(&rig, rig.store);
            is_right &= err == 0 || err == -VV_ERR_VOLUME_EXISTS;
        }
        is_right &= open_error(&rig) == 0;
        rig_free(&rig);
    }
    tap_ok(is_right, "with the n-th allocation failing it can be repeated");
}

/* ---- several at once ---- */

struct creator {
    struct rig rig; /* with a ring of its own */
    struct vv_store *store;
    int err;
    unsigned *running;
    struct vv_waitq *done;
};

static void run_creator(void *arg)
{
    struct creator *creator = arg;
    creator->err = rig_create(&creator->rig, creator->store);
    (*creator->running)--;
    vv_waitq_wake_all(creator->done);
}

static bool race(unsigned *won)
{
    struct rig rig = rig_new();
    struct creator creators[3];
    unsigned running = 3;
    struct vv_waitq done;
    vv_waitq_init(&done);
    for (uint8_t i = 0; i < 3; i++) {
        creators[i] = (struct creator){.rig = rig, .running = &running, .done = &done};
        memset(creators[i].rig.volume_id, 20 + i, 16);
        creators[i].store = rig_faulty(&rig);
        *vv_store_fault_plan(creators[i].store) =
            (struct vv_store_fault_plan){.slow_permille = 1000,
                                         .slow_max_ns = 3 * VV_NS_PER_MS,
                                         .unknown_permille = 200,
                                         .late_max_ns = 20 * VV_NS_PER_MS};
        if (vv_keyring_new(creators[i].rig.volume_id, &creators[i].rig.ring) < 0 ||
            vv_fiber_start(run_creator, &creators[i], "creator") < 0)
            abort();
    }
    while (running > 0)
        vv_waitq_wait(&done, VV_NEVER);
    bool is_right = true;
    for (int i = 0; i < 3; i++) {
        is_right &= creators[i].err == 0 || creators[i].err == -VV_ERR_VOLUME_EXISTS;
        *won += creators[i].err == 0;
        creators[i].rig.store = rig.store;
        /* Whoever was told that it has the volume can open it, and nobody else. */
        is_right &= (open_error(&creators[i].rig) == 0) == (creators[i].err == 0);
        vv_keyring_free(creators[i].rig.ring);
        vv_store_close(creators[i].store);
    }
    rig_free(&rig);
    return is_right;
}

static void test_race(void)
{
    bool is_right = true;
    unsigned won = 0;
    for (int i = 0; i < 50; i++)
        is_right &= race(&won);
    tap_ok(is_right, "of three that create at once, who is told so has the volume");
    tap_is_int(won, 50, "one each time");
}

static void test_main(void *arg)
{
    (void)arg;
    test_create();
    test_half_way();
    test_no_memory();
    test_race();
}

int main(void)
{
    rig_main();
    run_world(1, test_main, NULL);
    return tap_done();
}
