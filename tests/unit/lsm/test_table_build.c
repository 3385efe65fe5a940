/* Building tables: what the index and the blocks look like for all sorts of keys and values. */
#include "lsm/table_build_impl.h"

#include "base/hash.h"
#include "lsm/lsm_impl.h"
#include "rig.h"

/* What is to be in a table. */
struct plan {
    size_t count;
    uint8_t keys[3000][VV_LSM_KEY_MAX];
    size_t key_lens[3000];
    size_t value_lens[3000];
    unsigned order[3000];
    size_t seen;
};

static uint8_t value_bytes[VV_LSM_VALUE_MAX];

static int compare(const void *a, const void *b, void *arg)
{
    const struct plan *plan = arg;
    unsigned i = *(const unsigned *)a;
    unsigned j = *(const unsigned *)b;
    return vv_bytes_compare((struct vv_bytes){plan->keys[i], plan->key_lens[i]},
                            (struct vv_bytes){plan->keys[j], plan->key_lens[j]});
}

/* Random keys of random lengths over a small alphabet; equal ones are left out. */
static void make_plan(struct plan *plan, uint64_t seed, size_t count, size_t key_max,
                      size_t value_max)
{
    plan->count = 0;
    plan->seen = 0;
    for (size_t i = 0; i < count; i++) {
        plan->key_lens[i] = 1 + model_mix(seed + i * 3) % key_max;
        for (size_t j = 0; j < plan->key_lens[i]; j++)
            plan->keys[i][j] = (uint8_t)(model_mix(seed + i * 1000 + j) % 3 * 127);
        plan->value_lens[i] = model_mix(seed + i * 7) % (value_max + 1);
        plan->order[i] = (unsigned)i;
    }
    qsort_r(plan->order, count, sizeof(unsigned), compare, plan);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || compare(&plan->order[plan->count - 1], &plan->order[i], plan) != 0)
            plan->order[plan->count++] = plan->order[i];
    }
}

static enum vv_lsm_kind kind_of(size_t i)
{
    return i % 5 == 0 ? VV_LSM_DELETE : VV_LSM_PUT;
}

static int see(void *arg, enum vv_lsm_kind kind, struct vv_bytes key, struct vv_bytes value)
{
    struct plan *plan = arg;
    unsigned i = plan->order[plan->seen++];
    size_t len = kind_of(i) == VV_LSM_DELETE ? 0 : plan->value_lens[i];
    if (kind != kind_of(i) || value.len != len ||
        vv_bytes_compare(key, (struct vv_bytes){plan->keys[i], plan->key_lens[i]}) != 0 ||
        (len > 0 && memcmp(value.ptr, value_bytes, len) != 0))
        return -EBADMSG;
    return 0;
}

static int build(struct rig *rig, struct plan *plan, uint64_t counter, struct vv_table_ref *ref)
{
    struct vv_table_builder *builder;
    *ref = (struct vv_table_ref){.epoch = 7, .counter = counter};
    int err = vv_table_builder_new(rig->ring, &rig->settings, 7, counter, &builder);
    if (err < 0)
        return err;
    for (size_t at = 0; at < plan->count && err == 0; at++) {
        unsigned i = plan->order[at];
        struct vv_bytes key = {plan->keys[i], plan->key_lens[i]};
        size_t len = kind_of(i) == VV_LSM_DELETE ? 0 : plan->value_lens[i];
        err = vv_table_builder_add(builder, kind_of(i), key, vv_xxh3(key.ptr, key.len, 0),
                                   (struct vv_bytes){value_bytes, len});
    }
    if (err == 0)
        err = vv_table_builder_finish(builder);
    if (err == 0)
        err = vv_table_builder_ref(builder, ref);
    if (err == 0) {
        char name[VV_TABLE_NAME_MAX];
        int count;
        const struct iovec *iov = vv_table_builder_iov(builder, &count);
        vv_table_name(7, counter, name, sizeof(name));
        err = vv_store_put(rig->store, name, iov, count);
    }
    vv_table_builder_free(builder);
    return err;
}

static void test_shapes(struct rig *rig, struct plan *plan)
{
    static const struct {
        size_t count, key_max, value_max;
    } shapes[] = {
        {1, 1, 0},         {1, VV_LSM_KEY_MAX, VV_LSM_VALUE_MAX},
        {2, 3, 10},        {363, 5, 0},
        {3000, 40, 100},   {2000, VV_LSM_KEY_MAX, 0},
        {400, 200, 40000}, {64, 6, VV_LSM_VALUE_MAX},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct vv_table_ref ref;
        rig->settings.cipher = i % 3;
        rig->settings.compression = i % 2 ? VV_COMPRESSION_ZSTD : VV_COMPRESSION_LZ4;
        make_plan(plan, i, shapes[i].count, shapes[i].key_max, shapes[i].value_max);
        int err = build(rig, plan, i, &ref);
        if (err == 0)
            err = vv_table_check(rig->lsm, &ref, see, plan);
        tap_is_int(err, 0, "a table of %zu records", plan->count);
        tap_is_int((int64_t)plan->seen, (int64_t)plan->count, "all there");
        ref.entries++;
        plan->seen = 0;
        tap_is_int(vv_table_check(rig->lsm, &ref, NULL, NULL), -VV_ERR_CORRUPT,
                   "another count is noticed");
        ref.entries--;
        ref.max_key[ref.max_key_len - 1] ^= 1;
        tap_is_int(vv_table_check(rig->lsm, &ref, NULL, NULL), -VV_ERR_CORRUPT,
                   "another last key is noticed");
        vv_free(ref.min_key);
        vv_free(ref.max_key);
    }
}

static void test_no_memory(struct rig *rig, struct plan *plan)
{
    make_plan(plan, 99, 2000, 40, 400);
    bool is_done = false;
    bool is_right = true;
    for (int64_t n = 0; !is_done; n++) {
        struct vv_table_ref ref;
        vv_alloc_fail_at(n, false);
        int err = build(rig, plan, 1000 + (uint64_t)n, &ref);
        is_done = !vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= err == 0 || err == -ENOMEM;
        vv_free(ref.min_key);
        vv_free(ref.max_key);
    }
    tap_ok(is_right, "each allocation fails once");
}

static void test_names(void)
{
    static const char *const bad[] = {
        "",
        "sst/2a/0000000000000007-000000000000012b",
        "sst/2a/0000000000000007-000000000000012A",
        "sst/2a/0000000000000007-000000000000012a0",
        "sst/2a/0000000000000007+000000000000012a",
        "sst/2a/0000000000000007-000000000000012",
        "data/2a/0000000000000007-000000000000012a",
    };
    char name[VV_TABLE_NAME_MAX];
    uint64_t epoch;
    uint64_t counter;
    vv_table_name(7, 0x12a, name, sizeof(name));
    tap_is_str(name, "sst/2a/0000000000000007-000000000000012a", "a table's name");
    tap_ok(vv_table_name_parse(name, &epoch, &counter) == 0 && epoch == 7 && counter == 0x12a,
           "is read back");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        tap_is_int(vv_table_name_parse(bad[i], &epoch, &counter), -EINVAL, "'%s' is none", bad[i]);
}

static void test_all(void *arg)
{
    struct rig rig;
    for (size_t i = 0; i < sizeof(value_bytes); i++)
        value_bytes[i] = (uint8_t)(model_mix(i / 4) >> (i % 4));
    rig_open(&rig);
    test_names();
    test_shapes(&rig, arg);
    test_no_memory(&rig, arg);
    rig_close(&rig);
}

int main(void)
{
    static struct plan plan;
    vv_alloc_track(true);
    run_sim(9, test_all, &plan);
    return tap_done();
}
