#include "log/journal.h"

#include "rig.h"

#define FILE_BYTES (64u << 10)
#define FIBERS 60

struct disk_test {
    void (*fn)(struct vv_keyring *ring, struct vv_sim_disk *disk);
    struct vv_keyring *ring;
    struct vv_sim_disk *disk;
};

static void disk_process(void *arg)
{
    struct disk_test *test = arg;
    test->fn(test->ring, test->disk);
}

static void disk_main(void *arg)
{
    struct disk_test *test = arg;
    uint8_t volume_id[16] = {9};
    if (vv_keyring_new(volume_id, &test->ring) < 0)
        abort();
    test->disk = vv_sim_disk_new(0);
    int process = vv_sim_process_start(test->disk, disk_process, test);
    if (process > 0)
        vv_sim_process_wait(process);
    vv_keyring_free(test->ring);
}

static void on_disk(void (*fn)(struct vv_keyring *ring, struct vv_sim_disk *disk))
{
    struct disk_test test = {.fn = fn};
    run_world(3, disk_main, &test);
}

static struct vv_journal *open_journal(struct vv_keyring *ring)
{
    struct vv_journal *journal = NULL;
    int err = vv_journal_open("journal", ring, &rig_settings, FILE_BYTES, &journal);
    if (err)
        tap_is_int(err, 0, "opens");
    return journal;
}

static int append_text(struct vv_journal *journal, uint64_t commit, const char *text)
{
    struct iovec iov[2] = {{(void *)(uintptr_t)text, 1},
                           {(void *)(uintptr_t)(text + 1), strlen(text) - 1}};
    return vv_journal_append(journal, commit, iov, 2);
}

static int append_long(struct vv_journal *journal, uint64_t commit, size_t len)
{
    uint8_t *bytes = vv_alloc(len);
    vv_rt_random(bytes, len);
    struct iovec iov = {bytes, len};
    int err = vv_journal_append(journal, commit, &iov, 1);
    vv_free(bytes);
    return err;
}

/* What a scan gave: the texts, one after the other. */
struct scanned {
    char text[256];
    size_t len;
    uint64_t count;
    size_t bytes;
    int fail;
};

static int note_record(void *arg, uint64_t commit, struct vv_bytes plain)
{
    struct scanned *scanned = arg;
    (void)commit;
    for (size_t i = 0; i < plain.len && scanned->len + 1 < sizeof(scanned->text); i++)
        scanned->text[scanned->len++] = (char)plain.ptr[i];
    scanned->count++;
    scanned->bytes += plain.len;
    return scanned->fail;
}

static void test_append_and_scan(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    struct scanned scanned = {0};
    uint64_t last = 99;
    struct vv_journal *other;
    struct vv_journal *journal = open_journal(ring);
    tap_ok(vv_journal_is_empty(journal), "a new journal is empty");
    uint8_t id[16];
    memcpy(id, vv_journal_id(journal), 16);
    tap_is_int(vv_journal_open("journal", ring, &rig_settings, 0, &other), -VV_ERR_LOCKED,
               "it is locked");
    tap_is_int(vv_journal_scan(journal, 6, note_record, &scanned, &last), 0, "scans");
    tap_ok(scanned.count == 0 && last == 6, "nothing");
    tap_is_int(append_text(journal, 7, "seven "), 0, "appends");
    tap_is_int(append_text(journal, 8, "eight "), 0, "appends");
    tap_is_int(append_text(journal, 9, "nine"), 0, "appends");
    tap_ok(vv_journal_bytes_written(journal) == 3 * 512, "small records take a block each");
    tap_ok(vv_journal_bytes_held(journal) == FILE_BYTES, "in one file");
    vv_journal_close(journal);
    journal = open_journal(ring);
    tap_ok(!vv_journal_is_empty(journal), "it is not empty any more");
    tap_is_bytes(vv_journal_id(journal), id, 16, "it has its id");
    tap_is_int(vv_journal_scan(journal, 7, note_record, &scanned, &last), 0, "scans");
    tap_ok(last == 9 && scanned.count == 2, "from the number asked for");
    tap_is_str(scanned.text, "eight nine", "in order");
    tap_is_int(append_text(journal, 10, "ten"), 0, "and goes on");
    vv_journal_close(journal);
    journal = open_journal(ring);
    memset(&scanned, 0, sizeof(scanned));
    tap_is_int(vv_journal_scan(journal, 7, note_record, &scanned, &last), 0, "scans");
    tap_is_str(scanned.text, "eight nineten", "over both files");
    vv_journal_close(journal);
    journal = open_journal(ring);
    memset(&scanned, 0, sizeof(scanned));
    scanned.fail = -EDOM;
    tap_is_int(vv_journal_scan(journal, 7, note_record, &scanned, &last), -EDOM, "may be ended");
    tap_is_int(vv_journal_reset(journal, 20), 0, "resets");
    tap_is_int(append_text(journal, 20, "twenty"), 0, "begins at another number");
    vv_journal_close(journal);
    journal = open_journal(ring);
    memset(&scanned, 0, sizeof(scanned));
    tap_is_int(vv_journal_scan(journal, 19, note_record, &scanned, &last), 0, "scans");
    tap_ok(last == 20 && scanned.count == 1, "what was before is forgotten");
    vv_journal_close(journal);
}

static void test_recycling(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    struct vv_journal *journal = open_journal(ring);
    int err = vv_journal_reset(journal, 1);
    for (uint64_t commit = 1; commit <= 200 && !err; commit++) {
        err = append_long(journal, commit, commit % 7 * 1000);
        vv_journal_trim(journal, commit > 3 ? commit - 3 : 0);
    }
    tap_is_int(err, 0, "appends much");
    tap_ok(vv_journal_bytes_written(journal) > 8 * FILE_BYTES, "more than its files hold");
    tap_ok(vv_journal_bytes_held(journal) <= 3 * FILE_BYTES, "files are used again");
    tap_is_int(append_long(journal, 201, 3 * FILE_BYTES), 0, "a record longer than a file");
    tap_is_int(append_long(journal, 202, VV_JOURNAL_RECORD_MAX + 1), -VV_ERR_LIMIT, "too long");
    tap_is_int(append_text(journal, 202, "short"), 0, "does not take the number");
    vv_journal_close(journal);
    journal = open_journal(ring);
    struct scanned scanned = {0};
    uint64_t last;
    tap_is_int(vv_journal_scan(journal, 197, note_record, &scanned, &last), 0, "scans");
    tap_ok(last == 202 && scanned.count == 5, "what was not trimmed is there");
    vv_journal_close(journal);
}

static void test_shrinking(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    struct vv_journal *journal = open_journal(ring);
    int err = vv_journal_reset(journal, 1);
    for (uint64_t commit = 1; commit <= 600 && !err; commit++)
        err = append_long(journal, commit, 1000);
    tap_ok(!err && vv_journal_bytes_held(journal) > 12 * FILE_BYTES, "nothing goes to the bucket");
    vv_journal_trim(journal, 599);
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_ok(vv_journal_bytes_held(journal) <= 5 * FILE_BYTES, "files are removed when all has");
    for (uint64_t commit = 601; commit <= 700 && !err; commit++) {
        err = append_long(journal, commit, 1000);
        vv_journal_trim(journal, commit - 1);
    }
    tap_is_int(err, 0, "and it goes on");
    vv_journal_close(journal);
    struct scanned scanned = {0};
    uint64_t last;
    journal = open_journal(ring);
    tap_is_int(vv_journal_scan(journal, 699, note_record, &scanned, &last), 0, "scans");
    tap_ok(last == 700 && scanned.count == 1, "the last is there");
    vv_journal_close(journal);
}

/* Records of an older session lie where the new one ends, with the very numbers that come next. */
static void test_old_sessions(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    struct scanned scanned = {0};
    uint64_t last;
    struct vv_journal *journal = open_journal(ring);
    int err = vv_journal_reset(journal, 1);
    for (uint64_t commit = 1; commit <= 300 && !err; commit++)
        err = append_text(journal, commit, "old ");
    tap_ok(!err && vv_journal_bytes_held(journal) > 2 * FILE_BYTES, "an old session in many files");
    vv_journal_close(journal);
    journal = open_journal(ring);
    tap_is_int(vv_journal_reset(journal, 3), 0, "a new one begins at a lower number");
    tap_is_int(append_long(journal, 3, 1000), 0, "and ends where the old one's next record lies");
    tap_ok(vv_journal_bytes_written(journal) == 3 * 512, "which is a fourth block");
    vv_journal_close(journal);
    journal = open_journal(ring);
    tap_is_int(vv_journal_scan(journal, 2, note_record, &scanned, &last), 0, "scans");
    tap_ok(last == 3 && scanned.count == 1, "nothing of the old one");
    vv_journal_close(journal);
}

/* ---- several at once ---- */

struct group {
    struct vv_journal *journal;
    uint64_t next_commit;
    uint64_t last_returned;
    bool is_in_order;
    unsigned running;
    int err;
    struct vv_waitq done;
};

/* Fibers run in any order; each takes the number that is next when it calls. */
static void run_appender(void *arg)
{
    struct group *group = arg;
    uint64_t commit = group->next_commit++;
    int err = append_long(group->journal, commit, commit % 4 == 1 ? 7000 : 300);
    group->is_in_order &= group->last_returned + 1 == commit;
    group->last_returned = commit;
    group->err = group->err ? group->err : err;
    group->running--;
    vv_waitq_wake_all(&group->done);
}

static void test_groups(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    struct group group = {.journal = open_journal(ring), .next_commit = 1, .is_in_order = true};
    vv_waitq_init(&group.done);
    group.err = vv_journal_reset(group.journal, 1);
    for (int i = 0; i < FIBERS; i++) {
        group.running++;
        if (vv_fiber_start(run_appender, &group, "appender") < 0)
            abort();
        if (i % 5 == 0)
            vv_fiber_yield();
    }
    while (group.running > 0)
        vv_waitq_wait(&group.done, VV_NEVER);
    tap_is_int(group.err, 0, "many append at once");
    tap_ok(group.is_in_order, "and return in order");
    vv_journal_close(group.journal);
    struct vv_journal *journal = open_journal(ring);
    struct scanned scanned = {0};
    uint64_t last;
    tap_is_int(vv_journal_scan(journal, 0, note_record, &scanned, &last), 0, "scans");
    tap_ok(last == FIBERS, "all are there");
    vv_journal_close(journal);
}

/* ---- failures ---- */

/* Change a byte of the first file, at `offset`. */
static void damage(uint64_t offset)
{
    struct vv_file *file;
    uint8_t byte;
    if (vv_file_open("journal/00000001.wal", VV_FILE_READ | VV_FILE_WRITE, &file) < 0)
        abort();
    struct iovec iov = {&byte, 1};
    if (vv_file_pread(file, &byte, 1, offset) != 1)
        abort();
    byte ^= 1;
    if (vv_file_pwritev_sync(file, &iov, 1, offset) < 0)
        abort();
    vv_file_close(file);
}

static int scan_error(struct vv_keyring *ring, uint64_t after, uint64_t *last)
{
    struct vv_journal *journal = open_journal(ring);
    struct scanned scanned = {0};
    *last = 0;
    int err = vv_journal_scan(journal, after, note_record, &scanned, last);
    vv_journal_close(journal);
    return err;
}

static void test_damage(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    struct vv_journal *journal = open_journal(ring);
    int err = vv_journal_reset(journal, 1);
    for (uint64_t commit = 1; commit <= 10 && !err; commit++)
        err = append_text(journal, commit, "text");
    tap_is_int(err, 0, "appends");
    vv_journal_close(journal);
    uint64_t last;
    damage(4 * 512 + 150);
    tap_is_int(scan_error(ring, 0, &last), -VV_ERR_CORRUPT, "a damaged body in the middle");
    tap_is_int(scan_error(ring, 5, &last), 0, "does not matter when it is in the bucket");
    damage(4 * 512 + 150);
    damage(4 * 512 + 9);
    tap_is_int(scan_error(ring, 0, &last), -VV_ERR_CORRUPT, "a damaged header in the middle");
    damage(4 * 512 + 9);
    tap_ok(scan_error(ring, 0, &last) == 0 && last == 10, "mended, all is there");
    damage(9 * 512 + 150);
    tap_ok(scan_error(ring, 0, &last) == 0 && last == 9, "damage at the end is like a torn write");
    damage(0);
    tap_ok(scan_error(ring, 10, &last) == 0 && last == 10, "nor when all is in the bucket");
}

static void test_full_disk(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    struct vv_journal *journal = open_journal(ring);
    vv_sim_disk_set_capacity(disk, vv_sim_disk_used(disk) + FILE_BYTES + 8192);
    int err = vv_journal_reset(journal, 1);
    uint64_t commit = 1;
    while (!err && commit < 1000)
        err = append_text(journal, commit++, "text");
    tap_is_int(err, -ENOSPC, "a full disk");
    tap_ok(vv_journal_is_broken(journal), "breaks the journal");
    tap_is_int(append_text(journal, commit, "text"), -ENOSPC, "for good");
    tap_is_int(vv_journal_reset(journal, 1), -ENOSPC, "a reset does not mend it");
    vv_journal_close(journal);
    journal = open_journal(ring);
    struct scanned scanned = {0};
    uint64_t last;
    tap_is_int(vv_journal_scan(journal, 0, note_record, &scanned, &last), 0, "scans");
    tap_ok(last >= commit - 2, "what was acknowledged is there");
    vv_journal_close(journal);
}

static void test_errors(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    struct vv_journal *journal = open_journal(ring);
    int err = vv_journal_reset(journal, 1);
    err = err ? err : append_text(journal, 1, "one");
    tap_is_int(err, 0, "appends");
    vv_sim_disk_set_errors(disk, 10000);
    tap_is_int(append_text(journal, 2, "two"), -EIO, "a failing disk");
    vv_sim_disk_set_errors(disk, 0);
    tap_is_int(append_text(journal, 3, "three"), -EIO, "breaks the journal for good");
    tap_ok(vv_journal_is_broken(journal), "as it says");
    vv_journal_close(journal);
    unsigned opened = 0;
    for (int i = 0; i < 200; i++) {
        uint64_t last = 0;
        struct scanned scanned = {0};
        vv_sim_disk_set_errors(disk, 500);
        err = vv_journal_open("journal", ring, &rig_settings, FILE_BYTES, &journal);
        if (!err)
            err = vv_journal_scan(journal, 0, note_record, &scanned, &last);
        opened += err == 0;
        if (err == 0 && last < 1)
            tap_ok(false, "an error is not the end of the records");
        vv_sim_disk_set_errors(disk, 0);
        vv_journal_close(journal);
        journal = NULL;
    }
    tap_ok(opened > 20 && opened < 200, "I/O errors are reported: %u of 200 opened", opened);
}

static void close_later(void *arg)
{
    vv_rt_sleep_ns(5 * VV_NS_PER_S);
    vv_file_close(arg);
}

/* A process that was killed may have a write on its way, which holds the lock of the file that it goes to. */
static void test_dead_writes(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    struct vv_journal *journal = open_journal(ring);
    struct scanned scanned = {0};
    uint64_t last = 0;
    struct vv_file *file = NULL;
    struct vv_journal *other;
    tap_is_int(vv_journal_reset(journal, 1), 0, "is begun");
    tap_is_int(append_text(journal, 1, "one"), 0, "appends");
    tap_is_int(vv_file_open("journal/00000001.wal", VV_FILE_READ, &file), 0, "its file");
    tap_is_int(vv_file_lock(file), -EWOULDBLOCK, "is locked while it is open");
    vv_journal_close(journal);
    tap_is_int(vv_file_lock(file), 0, "and not afterwards");
    uint64_t from_ns = vv_rt_now_ns();
    int err = vv_journal_open("journal", ring, &rig_settings, FILE_BYTES, &other);
    tap_is_int(err, -VV_ERR_LOCKED, "a write that never ends is an error");
    tap_ok(vv_rt_now_ns() - from_ns >= 60 * VV_NS_PER_S, "after a minute");
    from_ns = vv_rt_now_ns();
    tap_is_int(vv_fiber_start(close_later, file, "a dead process's write"), 0, "one that does end");
    journal = open_journal(ring);
    tap_ok(vv_rt_now_ns() - from_ns >= 5 * VV_NS_PER_S, "is waited for");
    tap_is_int(vv_journal_scan(journal, 0, note_record, &scanned, &last), 0, "scans");
    tap_is_str(scanned.text, "one", "what was there");
    vv_journal_close(journal);
}

static void test_no_memory(struct vv_keyring *ring, struct vv_sim_disk *disk)
{
    (void)disk;
    bool is_right = true;
    bool has_failed = true;
    uint64_t commit = 1;
    for (int64_t n = 0; has_failed; n++) {
        struct vv_journal *journal = NULL;
        struct scanned scanned = {0};
        uint64_t last = 0;
        vv_alloc_fail_at(n, false);
        int err = vv_journal_open("journal", ring, &rig_settings, FILE_BYTES, &journal);
        if (!err)
            err = vv_journal_scan(journal, commit - 1, note_record, &scanned, &last);
        if (!err)
            err = append_text(journal, commit, "text");
        has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        is_right &= err == 0 || (err == -ENOMEM && has_failed);
        commit += err == 0;
        vv_journal_close(journal);
    }
    tap_ok(is_right, "with the n-th allocation failing");
}

int main(void)
{
    rig_main();
    on_disk(test_append_and_scan);
    on_disk(test_recycling);
    on_disk(test_shrinking);
    on_disk(test_old_sessions);
    on_disk(test_groups);
    on_disk(test_damage);
    on_disk(test_full_disk);
    on_disk(test_errors);
    on_disk(test_dead_writes);
    on_disk(test_no_memory);
    return tap_done();
}
