/* Commits as bytes, and back. */
#include "lsm/lsm_impl.h"

#include "rig.h"

static void merge_text(struct rig *rig, uint64_t commit, const char *key, int64_t a, int64_t b)
{
    if (vv_lsm_reserve(rig->lsm, 1, 80) < 0)
        tap_ok(false, "there is memory");
    vv_lsm_merge(rig->lsm, commit, text_bytes(key), a, b);
}

static void put_text(struct rig *rig, uint64_t commit, const char *key, const char *value)
{
    if (vv_lsm_reserve(rig->lsm, 1, 80) < 0)
        tap_ok(false, "there is memory");
    vv_lsm_put(rig->lsm, commit, text_bytes(key), text_bytes(value));
}

static void delete_text(struct rig *rig, uint64_t commit, const char *key)
{
    if (vv_lsm_reserve(rig->lsm, 1, 80) < 0)
        tap_ok(false, "there is memory");
    vv_lsm_delete(rig->lsm, commit, text_bytes(key));
}

/* The payload of commits as text: "P key=value D key M key+1-2 ", in the order of the payload. */
static const char *changes(struct rig *rig, uint64_t first, uint64_t last)
{
    static char text[1024];
    struct vv_writer writer = vv_writer_new();
    text[0] = '\0';
    if (vv_lsm_changes_encode(rig->lsm, first, last, &writer) < 0)
        return "an error";
    if (writer.len > vv_lsm_changes_bytes(rig->lsm, first, last))
        tap_ok(false, "no more bytes than foretold");
    struct vv_cursor cursor = vv_cursor_of(writer.ptr, writer.len);
    enum vv_lsm_kind kind;
    struct vv_bytes key;
    struct vv_bytes value;
    int64_t a = 0;
    int64_t b = 0;
    size_t len = 0;
    while (vv_lsm_record_decode(&cursor, &kind, &key, &value) == 1) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%c%.*s", "DPM"[kind], (int)key.len,
                                (const char *)key.ptr);
        bool is_sum = kind == VV_LSM_MERGE || (kind == VV_LSM_PUT && key.ptr[0] == 's');
        if (is_sum && vv_sums_decode(value, &a, &b) == 0)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%+d%+d", (int)a, (int)b);
        else if (kind == VV_LSM_PUT)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "=%.*s", (int)value.len,
                                    (const char *)value.ptr);
        len += (size_t)snprintf(text + len, sizeof(text) - len, " ");
    }
    vv_writer_done(&writer);
    return text;
}

static void test_encode(struct rig *rig)
{
    put_text(rig, 1, "a", "1");
    put_text(rig, 1, "b", "1");
    put_text(rig, 1, "b", "2");
    merge_text(rig, 1, "s", 1, 2);
    merge_text(rig, 1, "s", 1, 2);
    delete_text(rig, 2, "a");
    merge_text(rig, 2, "s", 10, 20);
    put_text(rig, 3, "a", "3");
    delete_text(rig, 3, "s");
    merge_text(rig, 3, "s", 5, -5);
    tap_is_str(changes(rig, 1, 1), "Pa=1 Pb=2 Ms+2+4 ", "a commit");
    tap_is_str(changes(rig, 2, 2), "Da Ms+10+20 ", "the next");
    tap_is_str(changes(rig, 3, 3), "Pa=3 Ps+5-5 ", "a sum that begins anew is put");
    tap_is_str(changes(rig, 1, 2), "Da Ms+12+24 Pb=2 ", "two commits at once");
    tap_is_str(changes(rig, 1, 3), "Pa=3 Ps+5-5 Pb=2 ", "three");
    tap_is_str(changes(rig, 4, 9), "", "none");
    tap_is_int(vv_lsm_rotate(rig->lsm, 3), 0, "rotate");
    merge_text(rig, 4, "s", 1, 1);
    merge_text(rig, 4, "t", 1, 1);
    put_text(rig, 4, "b", "4");
    tap_is_str(changes(rig, 4, 4), "Ms+1+1 Mt+1+1 Pb=4 ", "a commit in a new memtable");
    tap_is_str(changes(rig, 3, 4), "Pa=3 Ps+6-4 Mt+1+1 Pb=4 ", "across two memtables");
    tap_is_str(changes(rig, 1, 4), "Pa=3 Ps+6-4 Mt+1+1 Pb=4 ", "all");
    merge_text(rig, 5, "t", 1, 1);
    delete_text(rig, 5, "s");
    tap_is_int(vv_lsm_rotate(rig->lsm, 5), 0, "rotate");
    merge_text(rig, 6, "t", 2, 2);
    merge_text(rig, 6, "s", 2, 2);
    tap_is_str(changes(rig, 5, 6), "Mt+3+3 Ps+2+2 ", "sums across memtables");
    tap_is_str(changes(rig, 6, 6), "Mt+2+2 Ms+2+2 ", "without what lies before");
}

static void test_decode(struct rig *rig)
{
    static const struct {
        const char *name;
        uint8_t bytes[12];
        size_t len;
    } bad[] = {
        {"a kind that is none", {3, 1, 'k', 0}, 4},
        {"a key that is cut", {0, 5, 'k', 'e'}, 4},
        {"a value that is cut", {1, 1, 'k', 5, 'v'}, 5},
        {"a merge that is no sum", {2, 1, 'k', 1, 2}, 5},
        {"a merge with more", {2, 1, 'k', 3, 2, 2, 2}, 7},
        {"no value", {1, 1, 'k'}, 3},
        {"a key that is too long", {0, 0x81, 0x04, 'k'}, 4},
        {"a good one before a bad one", {0, 1, 'z', 3, 1, 'k', 0}, 7},
    };
    size_t bytes = vv_lsm_memtable_bytes(rig->lsm);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        tap_is_int(vv_lsm_changes_apply(rig->lsm, 9, (struct vv_bytes){bad[i].bytes, bad[i].len}),
                   -VV_ERR_FORMAT, "%s", bad[i].name);
    tap_is_str(changes(rig, 9, 9), "", "nothing was applied");
    tap_is_int((int64_t)vv_lsm_memtable_bytes(rig->lsm), (int64_t)bytes, "nor allocated");
    tap_is_int(vv_lsm_changes_apply(rig->lsm, 9, (struct vv_bytes){NULL, 0}), 0, "an empty one");

    struct vv_writer writer = vv_writer_new();
    if (vv_lsm_changes_encode(rig->lsm, 1, 6, &writer) < 0)
        tap_ok(false, "a payload");
    struct vv_writer big = vv_writer_new();
    for (unsigned i = 0; i < 3000; i++) {
        vv_writer_u8(&big, VV_LSM_PUT);
        vv_writer_string(&big, &i, sizeof(i));
        vv_writer_string(&big, writer.ptr, writer.len);
    }
    struct vv_bytes payload = {big.ptr, big.len};
    bool is_done = false;
    for (int64_t n = 0; !is_done; n++) {
        vv_alloc_fail_at(n, false);
        int err = vv_lsm_changes_apply(rig->lsm, 9, payload);
        vv_alloc_fail_at(-1, false);
        is_done = err == 0;
        if (err < 0)
            tap_ok(err == -ENOMEM && changes(rig, 9, 9)[0] == '\0', "all or nothing");
    }
    struct vv_writer again = vv_writer_new();
    tap_is_int(vv_lsm_changes_encode(rig->lsm, 9, 9, &again), 0, "a large payload");
    tap_ok(again.len == big.len && memcmp(again.ptr, big.ptr, big.len) == 0, "comes back");
    vv_writer_done(&again);
    again = vv_writer_new();
    vv_alloc_fail_at(0, true);
    tap_is_int(vv_lsm_changes_encode(rig->lsm, 9, 9, &again), -ENOMEM, "no memory for it");
    vv_alloc_fail_at(-1, false);
    vv_writer_done(&again);
    vv_writer_done(&writer);
    vv_writer_done(&big);
}

static void test_all(void *arg)
{
    (void)arg;
    struct rig rig;
    rig_open(&rig);
    test_encode(&rig);
    test_decode(&rig);
    rig_close(&rig);
}

int main(void)
{
    vv_alloc_track(true);
    run_sim(8, test_all, NULL);
    return tap_done();
}
