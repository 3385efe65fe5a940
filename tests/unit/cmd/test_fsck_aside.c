/* fsck: what is set aside of a file, against the inode's record and the marks in its extents' records. Each damage is
 * found, and the inode is named; what is right is not found. */
#include "cmd/fsck_aside_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/log.h"
#include "fs/fs.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"
#include "unit/cmd/fsck_volume.h"

#define ALLOCATIONS_MAX 100000
#define FILE_BLOCKS 24u /* three extents, full of data; the one in the middle is damaged */

enum whose { OF_FILE, OF_DIRECTORY, OF_NOBODY };

struct damage {
    const char *name;
    bool is_clean;
    enum whose whose;   /* the record's inode */
    const char *record; /* NULL: none */
    size_t len;
    uint64_t blocks;  /* that the inode's record says */
    uint8_t marks;    /* in the record of extent 1, whose blocks are 8 to 15 of the file */
    uint8_t others;   /* in those of extents 0 and 2 */
    uint64_t skipped; /* blocks of the data id before the file's first part */
    bool is_cut_out;  /* extent 1 lies in no part */
    bool is_hidden;   /* by a tombstone over extent 1 */
    unsigned problems; /* 0: one or more */
    bool is_failing;  /* each allocation of the check once, too */
};

/* Every second block; one stretch more than there may be. */
static char long_record[VV_ASIDE_RECORD_MAX + 1];

#define RECORD(text) .record = text, .len = sizeof(text) - 1
#define CLEAN .is_clean = true

static const struct damage damages[] = {
    {"nothing", CLEAN},
    {"set aside behind the end", CLEAN, RECORD("\1\30\7"), .blocks = 7},
    {"two stretches", CLEAN, RECORD("\1\30\7\1\3"), .blocks = 10},
    {"written there", CLEAN, RECORD("\1\10\10"), .blocks = 8, .marks = 0xff},
    {"written there in part", CLEAN, RECORD("\1\12\2\20\5"), .blocks = 7, .marks = 0x0c},
    {"in a file that begins elsewhere", CLEAN, RECORD("\1\0\10"), .blocks = 8, .marks = 0xff,
     .skipped = 8},
    {"marks that a tombstone hides", CLEAN, .marks = 0xff, .is_hidden = true},
    {"unmarked data that a tombstone hides", CLEAN, RECORD("\1\10\10"), .blocks = 8,
     .is_hidden = true},
    {"unmarked data in no part", CLEAN, RECORD("\1\30\1"), .blocks = 1,
     .is_cut_out = true},
    {"in all of the file, and data in no part", CLEAN, RECORD("\1\0\20"), .blocks = 16,
     .others = 0xff, .is_cut_out = true},

    {"data that is not marked", RECORD("\1\10\10"), .blocks = 8},
    {"data of which one block is not marked", RECORD("\1\10\10"), .blocks = 8, .marks = 0xfe,
     .is_failing = true},
    {"one block too many is marked", RECORD("\1\11\7"), .blocks = 7, .marks = 0xff},
    {"marks, and nothing set aside", .marks = 0x10},
    {"marks, and set aside elsewhere", RECORD("\1\30\7"), .blocks = 7, .marks = 0x10},
    {"set aside where only the data id has them", RECORD("\1\10\10"), .blocks = 8, .marks = 0xff,
     .skipped = 8},
    {"marks in no part", RECORD("\1\30\7"), .blocks = 7, .marks = 0x10, .is_cut_out = true},
    {"another number of blocks", RECORD("\1\30\7"), .blocks = 8},
    {"the inode does not know", RECORD("\1\30\7")},
    {"no record", .blocks = 7},
    {"of a directory", .whose = OF_DIRECTORY, RECORD("\1\30\7")},
    {"of no inode", .whose = OF_NOBODY, RECORD("\1\30\7")},
    {"an empty record", RECORD(""), .blocks = 7},
    {"a record of nothing", RECORD("\1"), .blocks = 7},
    {"a record of another version", RECORD("\2\30\7"), .blocks = 7},
    {"a record that is cut off", RECORD("\1\30"), .blocks = 7},
    {"marks, and a record that is cut off", RECORD("\1\10"), .blocks = 8, .marks = 0xff,
     .problems = 2},
    {"an empty stretch", RECORD("\1\30\7\1\0"), .blocks = 7},
    {"stretches that touch", RECORD("\1\30\7\0\3"), .blocks = 10},
    {"a stretch beyond the largest file", RECORD("\1\30\377\377\377\377\377\377\377\177"),
     .blocks = 7},
    {"a record that is too long", .record = long_record, .len = sizeof long_record, .blocks = 4096},
    {"a damaged record, of nobody", .whose = OF_NOBODY, RECORD("\1\30")},
};

struct test {
    const struct damage *damage;
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    uint64_t file, directory;
    uint64_t memory_bytes;
    int err;
    bool is_judged;
    struct vv_fsck_report report;
};

static void must(struct test *test, int64_t result)
{
    if (result < 0 && test->err == 0)
        test->err = (int)result;
}

/* ---- making ---- */

static void make_files(struct test *test)
{
    static uint8_t bytes[FILE_BLOCKS * VV_BLOCK_BYTES];
    struct vv_fs_call call = {.cred.is_checked = true};
    struct vv_create create = {.mode = 0644};
    struct vv_attr attr = {0};
    struct vv_fs *fs = NULL;
    struct vv_handle *handle = NULL;
    must(test, vv_fs_open(test->volume, &fs));
    if (test->err < 0)
        return;
    must(test, vv_fs_mkdir(fs, &call, VV_ROOT_INODE, "directory", 9, &create, &attr));
    test->directory = attr.inode;
    must(test, vv_fs_create(fs, &call, VV_ROOT_INODE, "file", 4, &create, O_RDWR, &attr, &handle));
    test->file = attr.inode;
    vv_rt_random(bytes, sizeof bytes);
    must(test, vv_fs_write(fs, &call, attr.inode, handle, bytes, sizeof bytes, 0, 0));
    vv_fs_release(handle);
    must(test, vv_volume_sync(test->volume, 0));
    /* A later commit, for a tombstone to be of. */
    must(test, vv_fs_mkdir(fs, &call, VV_ROOT_INODE, "later", 5, &create, &attr));
    must(test, vv_volume_settle(test->volume));
    vv_fs_close(fs);
}

static int put(struct vv_op *op, struct vv_bytes key, const void *value, size_t len)
{
    return vv_op_put(op, key, (struct vv_bytes){value, len});
}

static int put_aside(const struct test *test, struct vv_op *op)
{
    const struct damage *damage = test->damage;
    struct vv_fs_key key;
    if (damage->record == NULL)
        return 0;
    vv_key_aside(&key, damage->whose == OF_FILE        ? test->file
                       : damage->whose == OF_DIRECTORY ? test->directory
                                                       : 1ull << 20);
    return put(op, vv_fs_key_bytes(&key), damage->record, damage->len);
}

static int put_mark(struct vv_op *op, uint64_t data_id, uint64_t index, uint8_t marks,
                    struct vv_extent_record *out_record)
{
    struct vv_bytes value;
    uint8_t key[VV_VOLUME_KEY_MAX], bytes[VV_EXTENT_RECORD_MAX];
    struct vv_bytes extent_key = {key, vv_key_extent(key, data_id, index)};
    int found = vv_op_get(op, extent_key, &value);
    TRY(found);
    TRY(found > 0 ? vv_extent_decode(value, out_record) : -ENOENT);
    out_record->aside = marks;
    return put(op, extent_key, bytes, vv_extent_encode(out_record, bytes));
}

/* The marks, and the sum that then is right. */
static int put_marks(const struct test *test, struct vv_op *op, uint64_t data_id)
{
    const struct damage *damage = test->damage;
    struct vv_extent_record record;
    uint8_t key[VV_VOLUME_KEY_MAX], bytes[40];
    TRY(put_mark(op, data_id, 0, damage->others, &record));
    TRY(put_mark(op, data_id, 2, damage->others, &record));
    TRY(put_mark(op, data_id, 1, damage->marks, &record));
    if (damage->is_hidden) {
        struct vv_writer writer = vv_writer_of(bytes, sizeof bytes);
        struct vv_bytes range_key = {key, vv_key_range(key, data_id, 1, record.commit + 1)};
        vv_writer_varint(&writer, 2);
        vv_writer_varint(&writer, test->file);
        TRY(put(op, range_key, bytes, writer.len));
    }
    struct vv_writer writer = vv_writer_of(bytes, sizeof bytes);
    struct vv_bytes sum_key = {key, vv_key_allocated(key, test->file, data_id)};
    int64_t counted = FILE_BLOCKS - __builtin_popcount(damage->marks) -
                      2 * __builtin_popcount(damage->others);
    vv_writer_svarint(&writer, counted * VV_EXTENT_BLOCK);
    vv_writer_svarint(&writer, 0);
    return put(op, sum_key, bytes, writer.len);
}

static int do_damage(struct vv_op *op, void *arg)
{
    const struct test *test = arg;
    const struct damage *damage = test->damage;
    struct vv_fs_key key;
    struct vv_bytes value;
    struct vv_inode inode;
    struct vv_parts parts;
    uint8_t parts_bytes[VV_PARTS_BUF_BYTES], record[VV_INODE_RECORD_MAX];
    vv_key_inode(&key, test->file);
    int found = vv_op_get(op, vv_fs_key_bytes(&key), &value);
    TRY(found);
    TRY(found > 0 ? vv_inode_decode(value, test->file, &inode) : -ENOENT);
    TRY(vv_parts_decode(inode.parts, &parts));
    TRY(put_marks(test, op, parts.at[0].data_id));
    TRY(put_aside(test, op));
    parts.at[0].start = damage->skipped * VV_BLOCK_BYTES;
    if (damage->is_cut_out) {
        parts.at[1] = parts.at[0];
        parts.at[0].length = VV_EXTENT_BYTES;
        parts.at[1].start = 2 * VV_EXTENT_BYTES;
        parts.count = 2;
    }
    inode.parts = vv_parts_encode(&parts, parts_bytes);
    inode.aside_blocks = damage->blocks;
    TRY(vv_op_touch(op, test->file));
    return put(op, vv_fs_key_bytes(&key), record, vv_inode_encode(&inode, record));
}

/* ---- running ---- */

static void create(struct test *test)
{
    must(test, vv_store_mem_open(test->backend, &test->store));
    must(test, fsck_volume_make(test->store, &test->ring));
}

static int open_volume(struct test *test, bool is_read_only)
{
    struct vv_volume_options options = {.store = test->store,
                                        .ring = test->ring,
                                        .is_read_only = is_read_only,
                                        .memory_bytes = 16 << 20,
                                        .segment_bytes = 128 << 10};
    return vv_volume_open(&options, &test->volume);
}

/* Each allocation of a check fails once: then it has not been checked, or as well as ever. */
static void fail_allocations(struct test *test, const struct vv_fsck_options *options)
{
    bool has_failed = true;
    int64_t n = 0;
    for (; has_failed && n < ALLOCATIONS_MAX && test->err == 0; n++) {
        struct vv_fsck_report report = {0};
        vv_alloc_fail_at(n, false);
        int err = vv_fsck_volume(test->volume, options, &report);
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        if (err != -ENOMEM)
            must(test, err);
        if (err == 0 && report.kind_counts[VV_FSCK_ASIDE] == 0)
            must(test, -VV_ERR_CORRUPT);
        vv_fsck_report_done(&report);
    }
    tap_ok(n > 10 && n < ALLOCATIONS_MAX && test->err == 0, "%s: each of %lld allocations fails",
           test->damage->name, (long long)n);
}

/* Only what is damaged, and it says of which inode. */
static bool is_right(const struct test *test)
{
    const struct damage *damage = test->damage;
    const struct vv_fsck_report *report = &test->report;
    char name[40];
    uint64_t inode = damage->whose == OF_FILE        ? test->file
                     : damage->whose == OF_DIRECTORY ? test->directory
                                                     : 1ull << 20;
    size_t named = 0;
    snprintf(name, sizeof name, "inode %llu", (unsigned long long)inode);
    for (size_t i = 0; i < report->kept; i++)
        named += strstr(report->problems[i].text, name) != NULL;
    if (damage->is_clean)
        return report->problem_count == 0 && !report->is_incomplete;
    if (damage->problems > 0 && report->problem_count != damage->problems)
        return false;
    return report->kind_counts[VV_FSCK_ASIDE] > 0 && !report->is_incomplete &&
           report->kind_counts[VV_FSCK_ASIDE] == report->problem_count &&
           named == report->problem_count;
}

static void judge(struct test *test)
{
    const struct vv_fsck_report *report = &test->report;
    test->is_judged = true;
    if (tap_ok(test->err == 0 && is_right(test), "%s", test->damage->name))
        return;
    tap_note("%s, %s", vv_err_text(test->err), report->is_incomplete ? report->not_checked : "");
    for (size_t at = 0; at < report->kept; at++)
        tap_note("%s: %s", vv_fsck_kind_name(report->problems[at].kind), report->problems[at].text);
}

static void scenario(void *arg)
{
    struct test *test = arg;
    create(test);
    must(test, open_volume(test, false));
    if (test->err < 0)
        return;
    make_files(test);
    must(test, vv_volume_run(test->volume, VV_OP_WRITE, 0, do_damage, test));
    must(test, vv_volume_close(test->volume));
    must(test, open_volume(test, true));
    if (test->err < 0)
        return;
    struct vv_fsck_options options = {
        .store = test->store, .ring = test->ring, .memory_bytes = test->memory_bytes};
    if (test->damage->is_failing)
        fail_allocations(test, &options);
    must(test, vv_fsck_volume(test->volume, &options, &test->report));
    must(test, vv_volume_close(test->volume));
    judge(test);
    vv_fsck_report_done(&test->report);
    vv_keyring_free(test->ring);
    vv_store_close(test->store);
}

static void run(const struct damage *damage, uint64_t memory_bytes)
{
    struct test test = {.damage = damage, .memory_bytes = memory_bytes};
    if (vv_store_backend_new(&test.backend) < 0)
        abort();
    struct vv_sim_options options = {.seed = 1, .latency_min_ns = 1000, .latency_max_ns = 100000};
    int err = vv_sim_run(&options, scenario, &test);
    if (err < 0 || !test.is_judged)
        tap_ok(false, "%s: world %d, %s", damage->name, err, vv_err_text(test.err));
    vv_store_backend_free(test.backend);
}

int main(void)
{
    vv_log_set_level(VV_LOG_ERROR);
    vv_alloc_track(true);
    memset(long_record, 1, sizeof long_record);
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++)
        run(&damages[i], i % 2 ? 4096 : 1 << 20);
    return tap_done();
}
