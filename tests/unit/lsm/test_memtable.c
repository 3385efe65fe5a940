/* The memtable alone: order, versions, sums, memory. Needs no runtime but its random numbers. */
#include "lsm/memtable_impl.h"

#include <string.h>

#include "base/hash.h"
#include "rig.h"

static struct vv_budget budget;

static struct vv_memtable *new_memtable(void)
{
    struct vv_memtable *mem = NULL;
    if (vv_memtable_new(&budget, &mem) < 0)
        tap_ok(false, "a memtable is made");
    return mem;
}

static uint64_t hash_text(const char *text)
{
    return vv_xxh3(text, strlen(text), 0);
}

static void put(struct vv_memtable *mem, uint64_t commit, const char *key, const char *value)
{
    if (vv_memtable_reserve(mem, 1, strlen(key) + strlen(value)) < 0)
        tap_ok(false, "there is memory");
    vv_memtable_put(mem, commit, hash_text(key), text_bytes(key), text_bytes(value));
}

static void merge(struct vv_memtable *mem, uint64_t commit, const char *key, int64_t a, int64_t b)
{
    if (vv_memtable_reserve(mem, 1, strlen(key)) < 0)
        tap_ok(false, "there is memory");
    vv_memtable_merge(mem, commit, hash_text(key), text_bytes(key), a, b);
}

static void delete (struct vv_memtable *mem, uint64_t commit, const char *key)
{
    if (vv_memtable_reserve(mem, 1, strlen(key)) < 0)
        tap_ok(false, "there is memory");
    vv_memtable_delete(mem, commit, hash_text(key), text_bytes(key));
}

static const struct vv_mem_version *at(const struct vv_memtable *mem, const char *key,
                                       uint64_t commit)
{
    const struct vv_mem_entry *entry = vv_memtable_find(mem, hash_text(key), text_bytes(key));
    return entry ? vv_mem_version_at(entry, commit) : NULL;
}

static bool has_value(const struct vv_mem_version *version, const char *value)
{
    return version && version->kind == VV_LSM_PUT && version->value_len == strlen(value) &&
           memcmp(version->value, value, version->value_len) == 0;
}

static bool has_total(const struct vv_mem_version *version, int64_t a, int64_t b, bool is_complete)
{
    return version && version->kind == VV_LSM_MERGE && version->sums->total_a == a &&
           version->sums->total_b == b && version->is_complete == is_complete;
}

static void test_versions(void)
{
    struct vv_memtable *mem = new_memtable();
    put(mem, 5, "k", "five");
    put(mem, 7, "k", "seven");
    put(mem, 6, "k", "six");
    put(mem, 6, "k", "six again");
    delete (mem, 8, "k");
    tap_ok(!at(mem, "k", 4), "nothing before the first commit");
    tap_ok(has_value(at(mem, "k", 5), "five"), "as of a commit");
    tap_ok(has_value(at(mem, "k", 6), "six again"), "a record replaces one of its commit");
    tap_ok(has_value(at(mem, "k", 7), "seven"), "an older commit's record stays below");
    tap_is_int(at(mem, "k", 9)->kind, VV_LSM_DELETE, "the newest");
    tap_ok(!at(mem, "l", 9), "another key");
    tap_is_int((int64_t)vv_memtable_commit(mem, 6)->records, 1, "one record a key and commit");
    tap_is_int((int64_t)vv_memtable_commit(mem, 6)->bytes, 10, "bytes of a commit");
    tap_is_int((int64_t)vv_memtable_commit(mem, 8)->bytes, 1, "a delete is a key");
    tap_ok(!vv_memtable_commit(mem, 9), "no such commit");
    vv_memtable_unref(mem);
}

static void test_sums(void)
{
    struct vv_memtable *mem = new_memtable();
    merge(mem, 10, "s", 1, -1);
    merge(mem, 12, "s", 10, 5);
    merge(mem, 12, "s", 10, 5);
    tap_ok(has_total(at(mem, "s", 10), 1, -1, false), "what a commit added");
    tap_ok(has_total(at(mem, "s", 12), 21, 9, false), "the total of two commits");
    merge(mem, 11, "s", 100, 0);
    tap_ok(has_total(at(mem, "s", 11), 101, -1, false), "an older commit is finalised");
    tap_ok(has_total(at(mem, "s", 12), 121, 9, false), "and shows in the newer");
    delete (mem, 11, "s");
    tap_ok(has_total(at(mem, "s", 12), 20, 10, true), "a delete below resets");
    merge(mem, 11, "s", 3, 3);
    tap_ok(has_total(at(mem, "s", 11), 3, 3, true), "a merge after a delete in one commit");
    tap_ok(has_total(at(mem, "s", 12), 23, 13, true), "shows above as well");
    merge(mem, 10, "s", 1000, 1000);
    tap_ok(has_total(at(mem, "s", 11), 3, 3, true), "what lies below a reset does not");
    delete (mem, 12, "s");
    merge(mem, 13, "s", 7, 7);
    tap_ok(has_total(at(mem, "s", 13), 7, 7, true), "a delete in the newest");
    merge(mem, 1, "t", INT64_MAX, INT64_MIN);
    merge(mem, 2, "t", 1, -1);
    tap_ok(has_total(at(mem, "t", 2), INT64_MIN, INT64_MAX, false), "sums wrap around");
    uint8_t sums[VV_SUMS_LEN_MAX];
    int64_t a;
    int64_t b;
    size_t len = vv_sums_encode(INT64_MIN, INT64_MAX, sums);
    tap_ok(len <= sizeof(sums) && vv_sums_decode((struct vv_bytes){sums, len}, &a, &b) == 0 &&
               a == INT64_MIN && b == INT64_MAX,
           "sums as bytes");
    tap_is_int(vv_sums_decode((struct vv_bytes){sums, len - 1}, &a, &b), -VV_ERR_FORMAT,
               "not sums");
    len = vv_sums_encode(5, 6, sums);
    if (vv_memtable_reserve(mem, 1, 30) == 0)
        vv_memtable_put(mem, 3, hash_text("p"), text_bytes("p"), (struct vv_bytes){sums, len});
    merge(mem, 4, "p", 1, 1);
    tap_ok(has_total(at(mem, "p", 4), 6, 7, true), "a replayed sum is a base for merges");
    vv_memtable_unref(mem);
}

static void test_memory(void)
{
    struct vv_memtable *mem = new_memtable();
    char value[200];
    size_t after_first = 0;
    memset(value, 'v', sizeof(value));
    for (unsigned i = 0; i < 100000; i++) {
        value[100 + i % 100] = '\0'; /* of changing length */
        put(mem, 3, "hot", value);
        value[100 + i % 100] = 'v';
        if (i == 1000)
            after_first = mem->bytes;
    }
    tap_is_int((int64_t)mem->bytes, (int64_t)after_first, "rewriting in a commit takes no memory");
    for (unsigned i = 0; i < 100000; i++) {
        delete (mem, 3, "hot");
        put(mem, 3, "hot", "v");
        merge(mem, 3, "sum", 1, 1);
    }
    tap_is_int((int64_t)mem->bytes, (int64_t)after_first, "nor does deleting and merging");
    tap_is_int((int64_t)mem->bytes, (int64_t)budget.used, "the budget is charged");
    struct vv_memtable *other = mem;
    vv_memtable_ref(other);
    vv_memtable_unref(mem);
    tap_ok(budget.used > 0, "a reference keeps it");
    vv_memtable_seal(other);
    vv_memtable_unref(other);
    tap_is_int((int64_t)budget.used, 0, "and all is given back");
}

/* A reserve promises that much memory whatever the writes look like. */
static void test_reserve(void)
{
    struct vv_memtable *mem = new_memtable();
    static uint8_t value[VV_LSM_VALUE_MAX];
    uint8_t key[VV_LSM_KEY_MAX];
    uint64_t random = 1;
    for (unsigned round = 0; round < 300; round++) {
        size_t records = 1 + model_mix(++random) % 64;
        size_t bytes = 0;
        size_t lens[64][2];
        for (size_t i = 0; i < records; i++) {
            lens[i][0] = 9 + model_mix(++random) % (VV_LSM_KEY_MAX - 8);
            lens[i][1] = model_mix(++random) % (i == 0 ? sizeof(value) + 1 : 400);
            bytes += lens[i][0] + lens[i][1];
        }
        if (vv_memtable_reserve(mem, records, bytes) < 0)
            tap_ok(false, "there is memory");
        vv_alloc_fail_at(0, true);
        for (size_t i = 0; i < records; i++) {
            memset(key, (int)i, sizeof(key));
            vv_store_be64(key, model_mix(++random) % 1000);
            uint64_t hash = vv_xxh3(key, lens[i][0], 0);
            struct vv_bytes key_bytes = {key, lens[i][0]};
            uint64_t commit = 1 + model_mix(++random) % 40;
            if (random % 9 == 0)
                vv_memtable_merge(mem, commit, hash, key_bytes, 1, 1);
            else
                vv_memtable_put(mem, commit, hash, key_bytes, (struct vv_bytes){value, lens[i][1]});
        }
        vv_alloc_fail_at(-1, false);
    }
    tap_ok(true, "reserved writes do not allocate");
    tap_is_int(vv_memtable_reserve(mem, SIZE_MAX, 1), -ENOMEM, "too much to reserve");
    tap_is_int(vv_memtable_reserve(mem, 1, SIZE_MAX), -ENOMEM, "too much to reserve");
    vv_memtable_unref(mem);
}

/* All keys come out in order, in the order of writing and against it. */
static void test_order(unsigned count, unsigned kind)
{
    struct vv_memtable *mem = new_memtable();
    uint8_t key[12] = {0};
    for (unsigned i = 0; i < count; i++) {
        uint64_t number = kind == 0 ? i : kind == 1 ? count - i : model_mix(i) % (4 * count);
        vv_store_be64(key + 2, number / 7);
        size_t len = 10 + number % 3; /* some are the beginning of others */
        if (vv_memtable_reserve(mem, 1, sizeof(key)) < 0)
            tap_ok(false, "there is memory");
        struct vv_bytes bytes = {key, len};
        vv_memtable_put(mem, 1, vv_xxh3(key, len, 0), bytes, bytes);
        if (!vv_memtable_find(mem, vv_xxh3(key, len, 0), bytes))
            tap_ok(false, "what was put is found");
    }
    uint64_t seen = 0;
    bool is_ordered = true;
    const struct vv_mem_entry *last = NULL;
    for (const struct vv_mem_entry *entry = mem->head->next; entry; entry = entry->next) {
        struct vv_bytes bytes = vv_mem_entry_key(entry);
        if (last && vv_bytes_compare(vv_mem_entry_key(last), bytes) >= 0)
            is_ordered = false;
        const struct vv_mem_entry *before = vv_memtable_before(mem, bytes);
        if (before != (last ? last : mem->head))
            is_ordered = false;
        last = entry;
        seen++;
    }
    tap_ok(is_ordered, "order %u: keys ascend and are sought", kind);
    tap_is_int((int64_t)seen, (int64_t)mem->entry_count, "all of them");
    tap_ok(vv_memtable_before(mem, text_bytes("\xff")) == last, "the end");
    vv_memtable_unref(mem);
}

static void test_no_memory(void)
{
    bool is_done = false;
    for (int64_t n = 0; !is_done; n++) {
        struct vv_memtable *mem = NULL;
        vv_alloc_fail_at(n, false);
        int err = vv_memtable_new(&budget, &mem);
        if (err == 0)
            err = vv_memtable_reserve(mem, 1000, 1 << 20);
        is_done = err == 0;
        vv_alloc_fail_at(-1, false);
        if (err != 0 && err != -ENOMEM)
            tap_is_int(err, -ENOMEM, "no memory is said");
        vv_memtable_unref(mem);
    }
    tap_is_int((int64_t)budget.used, 0, "and nothing leaks");
}

static void test_all(void *arg)
{
    (void)arg;
    vv_budget_init(&budget, NULL, 1ull << 40);
    test_versions();
    test_sums();
    test_memory();
    test_reserve();
    for (unsigned kind = 0; kind < 3; kind++) {
        test_order(50, kind);
        test_order(40000, kind);
    }
    test_no_memory();
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(1, test_all, NULL);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "everything was freed");
    return tap_done();
}
