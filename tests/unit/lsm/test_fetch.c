/* Fetching: how many round trips it takes, that keys do not disturb each other, and what it pins.
 */
#include "lsm/lsm_impl.h"

#include "rig.h"

#define KEYS 4000
#define LATENCY_NS (30 * VV_NS_PER_MS)

/* Three levels: old versions of all keys below, newer ones of some above. */
static void build(struct rig *rig)
{
    uint64_t commit = 0;
    for (unsigned round = 0; round < 6; round++) {
        commit++;
        for (unsigned i = 0; i < KEYS; i++) {
            if (round == 0 || i % (round * 7) == 0)
                rig_write(rig, commit, i, round);
        }
        if (rig_flush(rig, commit) < 0 || (round == 3 && rig_compact(rig) < 0))
            tap_ok(false, "a tree is built");
    }
}

static unsigned version_of(unsigned number)
{
    for (unsigned round = 5; round > 0; round--) {
        if (number % (round * 7) == 0)
            return round;
    }
    return 0;
}

static int fetch(struct rig *rig, const unsigned *numbers, size_t count, struct vv_lsm_pins *pins)
{
    static char texts[512][16];
    struct vv_bytes keys[512];
    for (size_t i = 0; i < count; i++)
        keys[i] = rig_key(numbers[i], texts[i]);
    return vv_lsm_fetch(rig->lsm, keys, count, pins);
}

static void test_round_trips(struct rig *rig)
{
    unsigned numbers[300];
    struct vv_lsm_pins pins;
    struct vv_lsm_stats stats;
    vv_lsm_stats(rig->lsm, &stats);
    tap_note("tables: %d %d %d", (int)stats.tables[0], (int)stats.tables[1], (int)stats.tables[2]);
    for (unsigned i = 0; i < 300; i++)
        numbers[i] = (unsigned)(model_mix(i) % KEYS);

    vv_lsm_pins_init(&pins);
    uint64_t from_ns = vv_rt_now_ns();
    tap_is_int(fetch(rig, numbers, 1, &pins), 0, "a key of a cold tree is fetched");
    uint64_t trips = (vv_rt_now_ns() - from_ns) / LATENCY_NS;
    tap_ok(trips <= 4, "in %d round trips: all filters at once, then a block a level", (int)trips);
    vv_lsm_pins_done(&pins);

    rig_reopen(rig, 64 << 10);
    vv_lsm_pins_init(&pins);
    from_ns = vv_rt_now_ns();
    tap_is_int(fetch(rig, numbers, 30, &pins), 0, "thirty keys are fetched");
    trips = (vv_rt_now_ns() - from_ns) / LATENCY_NS;
    tap_ok(trips <= 5, "in %d round trips", (int)trips);
    vv_lsm_pins_done(&pins);

    rig_reopen(rig, 64 << 10);
    vv_lsm_pins_init(&pins);
    from_ns = vv_rt_now_ns();
    tap_is_int(fetch(rig, numbers, 300, &pins), 0, "three hundred keys are fetched");
    trips = (vv_rt_now_ns() - from_ns) / LATENCY_NS;
    tap_ok(trips <= 300 / VV_LSM_PARALLEL_MAX * 3, "in %d round trips", (int)trips);
    bool is_right = true;
    for (unsigned i = 0; i < 300; i++) {
        char key[16];
        char value[64];
        struct vv_lsm_value got = {0};
        is_right &= vv_lsm_get(rig->lsm, rig_key(numbers[i], key), &got) == 1;
        struct vv_bytes want = rig_value(numbers[i], version_of(numbers[i]), value);
        is_right &= vv_bytes_compare((struct vv_bytes){got.ptr, got.len}, want) == 0;
    }
    tap_ok(is_right, "all of them are in memory then, although the cache is small");
    uint64_t gets = vv_store_counts(rig->store)->gets;
    tap_is_int(fetch(rig, numbers, 300, &pins), 0, "fetching again");
    tap_is_int((int64_t)(vv_store_counts(rig->store)->gets - gets), 0, "takes no request");
    vv_lsm_pins_done(&pins);
}

/* Absent keys take filters only, nearly always. */
static void test_absent(struct rig *rig)
{
    struct vv_lsm_pins pins;
    vv_lsm_pins_init(&pins);
    uint64_t found = 0;
    for (unsigned i = 0; i < 50; i++) {
        char text[24];
        struct vv_lsm_value value;
        snprintf(text, sizeof(text), "key %06u absent", i * 60);
        struct vv_bytes key = text_bytes(text);
        if (vv_lsm_fetch(rig->lsm, &key, 1, &pins) < 0)
            tap_ok(false, "an absent key is fetched");
        found += vv_lsm_get(rig->lsm, key, &value) != 0;
    }
    tap_is_int((int64_t)found, 0, "absent keys are absent");
    vv_lsm_pins_done(&pins);
}

/* One damaged block: its keys fail, all others are read, in the same call. */
static void test_damage(struct rig *rig)
{
    struct vv_table_ref *tables;
    size_t count;
    unsigned numbers[400];
    struct vv_lsm_pins pins;
    if (vv_lsm_tables(rig->lsm, NULL, &tables, &count) < 0)
        return;
    rig_damage(rig, &tables[count - 1], 8 * 3000);
    rig_reopen(rig, 64 << 10);
    for (unsigned i = 0; i < 400; i++)
        numbers[i] = i * (KEYS / 400);
    vv_lsm_pins_init(&pins);
    tap_is_int(fetch(rig, numbers, 400, &pins), -VV_ERR_AUTH, "a damaged block is an error");
    unsigned failed = 0;
    unsigned wrong = 0;
    for (unsigned i = 0; i < 400; i++) {
        char key[16];
        struct vv_lsm_value value;
        failed += vv_lsm_get(rig->lsm, rig_key(numbers[i], key), &value) == -VV_ERR_MISS;
        int found = rig_read(rig, numbers[i], version_of(numbers[i]));
        wrong += found != 1 && found != -VV_ERR_AUTH;
    }
    tap_ok(failed > 0 && failed < 100, "%u of 400 keys are not read", failed);
    tap_is_int((int64_t)wrong, 0, "no key is wrong");
    vv_lsm_pins_done(&pins);
    vv_table_refs_free(tables, count);
}

static void test_failures(struct rig *rig)
{
    unsigned numbers[40];
    bool is_done = false;
    bool is_right = true;
    for (unsigned i = 0; i < 40; i++)
        numbers[i] = i * 97;
    for (int64_t n = 0; !is_done && n < 3000; n++) {
        struct vv_lsm_pins pins;
        vv_lsm_pins_init(&pins);
        rig_reopen(rig, 64 << 10);
        vv_alloc_fail_at(n, false);
        int err = fetch(rig, numbers, 40, &pins);
        is_done = !vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= err == 0 || err == -ENOMEM;
        vv_lsm_pins_done(&pins);
    }
    tap_ok(is_done && is_right, "each allocation fails once");

    struct vv_store_fault_plan *plan = vv_store_fault_plan(rig->faults);
    unsigned errors = 0;
    plan->fail_permille = 100;
    for (unsigned i = 0; i < 100; i++) {
        struct vv_lsm_pins pins;
        vv_lsm_pins_init(&pins);
        rig_reopen(rig, 64 << 10);
        int err = fetch(rig, numbers, 40, &pins);
        errors += err == -EIO;
        is_right &= err == 0 || err == -EIO;
        vv_lsm_pins_done(&pins);
    }
    plan->fail_permille = 0;
    tap_ok(is_right && errors > 0, "requests fail now and then (%u)", errors);
    for (unsigned i = 0; i < KEYS; i += 13)
        is_right &= rig_read(rig, i, version_of(i)) == 1;
    tap_ok(is_right, "all is well afterwards");
}

static void test_all(void *arg)
{
    (void)arg;
    struct rig rig;
    rig_latency_ns = LATENCY_NS;
    rig_open_sized(&rig, 64 << 10, 16 << 10, 32 << 10);
    build(&rig);
    rig_reopen(&rig, 64 << 10);
    test_round_trips(&rig);
    test_absent(&rig);
    test_failures(&rig);
    test_damage(&rig);
    rig_close(&rig);
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(4, test_all, NULL);
    return tap_done();
}
