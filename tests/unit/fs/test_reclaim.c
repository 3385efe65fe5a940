/* What happens to inodes that nobody can reach any more, with crashes. */
#include "rig.h"

static uint64_t top;

static uint64_t rich_file(const char *name, int xattr_count)
{
    uint64_t file = (uint64_t)make_node(ROOT, top, name, S_IFREG | 0644);
    static char data[9000];
    write_at(file, data, sizeof(data), 0);
    for (int i = 0; i < xattr_count; i++) {
        char text[32];
        snprintf(text, sizeof(text), "user.number%d", i);
        if (vv_fs_setxattr(fs, ROOT, file, text, "value", 5, 0) < 0)
            exit(1);
    }
    return file;
}

static size_t count_of(char table)
{
    size_t count = 0;
    for (size_t i = 0; i < volume->record_count; i++)
        count += volume->records[i].key[0] == (uint8_t)table;
    return count;
}

static void test_closed(void)
{
    uint64_t bare = rich_file("bare", 0);
    tap_is_int(unlink_name(ROOT, top, "bare"), 0, "a closed file without attributes");
    tap_ok(!has_record(bare) && !is_orphan(bare), "goes with its last link");
    uint64_t rich = rich_file("rich", 1000);
    hard_link(ROOT, rich, top, "rich2");
    tap_is_int(unlink_name(ROOT, top, "rich"), 0, "one with two links");
    tap_ok(has_record(rich) && !is_orphan(rich), "stays");
    tap_is_int(unlink_name(ROOT, top, "rich2"), 0, "and with many attributes");
    tap_ok(is_orphan(rich), "becomes an orphan");
    settle();
    tap_ok(!has_record(rich) && !is_orphan(rich) && count_of('X') == 0,
           "and goes in the background, attributes and all");
    tap_is_int(fsck(), 0, "records agree");
}

/* A crash is a file system that is left as it is; the next one begins with the same volume. */
static void crash(void)
{
    struct vv_fs *old = fs;
    old->is_closing = true;
    volume->is_read_only = true; /* so that the old reclaimer does nothing more */
    vv_waitq_wake_all(&old->reclaim_wake);
    settle();
    volume->is_read_only = false;
    rig_open();
}

static void test_crash(void)
{
    struct vv_handle *handles[5];
    uint64_t files[5];
    for (int i = 0; i < 5; i++) {
        char name[8] = {(char)('a' + i), 0};
        files[i] = rich_file(name, i * 100);
        handles[i] = open_of(ROOT, files[i], O_RDONLY);
        unlink_name(ROOT, top, name);
    }
    tap_is_int((int64_t)count_of('T'), 5, "five open files are unlinked");
    struct vv_fs *old = fs;
    crash();
    settle();
    tap_is_int((int64_t)count_of('T'), 0, "after a crash they are reclaimed");
    tap_is_int((int64_t)count_of('X'), 0, "with their attributes");
    tap_is_int(fsck(), 0, "records agree");
    /* The old one finds nothing to do when its handles go. */
    old->is_closing = false;
    if (vv_reclaim_start(old) < 0)
        exit(1);
    for (int i = 0; i < 5; i++)
        vv_fs_release(handles[i]);
    vv_fs_close(old);
}

/* Opened again, and closed, while the reclaimer is at work. */
static void test_race(void)
{
    for (int i = 0; i < 30; i++) {
        uint64_t file = rich_file("race", 300);
        struct vv_handle *handle = open_of(ROOT, file, O_RDONLY);
        unlink_name(ROOT, top, "race");
        vv_fs_release(handle);
        for (int yields = 0; yields < i; yields++)
            vv_fiber_yield();
        struct vv_handle *second = NULL;
        int err = vv_fs_open_file(fs, ROOT, file, O_RDONLY, &second);
        if (err < 0 && err != -ESTALE)
            tap_ok(false, "opening an orphan: %d", err);
        vv_fs_release(second);
        settle();
        if (has_record(file) || is_orphan(file))
            tap_ok(false, "an orphan stays, %d", i);
    }
    tap_is_int((int64_t)fs->opens.count, 0, "opening orphans again leaves nothing behind");
}

/* Without memory to queue it, an orphan is found by its record. */
static void test_memory(void)
{
    uint64_t file = rich_file("memory", 10);
    for (int n = 0; n < 1000; n++) {
        vv_alloc_fail_at(n, true);
        int err = unlink_name(ROOT, top, "memory");
        vv_alloc_fail_at(-1, false);
        if (err == 0)
            break;
        if (err != -ENOMEM)
            tap_ok(false, "unlink without memory: %d", err);
    }
    settle();
    tap_ok(!has_record(file) && !is_orphan(file), "reclaimed in spite of a lack of memory");
}

static void test_closing(void)
{
    uint64_t file = rich_file("closing", 500);
    struct vv_handle *handle = open_of(ROOT, file, O_RDONLY);
    unlink_name(ROOT, top, "closing");
    vv_fs_release(handle);
    rig_reopen();
    tap_ok(!is_orphan(file), "closing waits for the reclaimer");
}

static void test_all(void)
{
    top = (uint64_t)make_dir(ROOT, ROOT_DIR, "top", 0777);
    test_closed();
    test_crash();
    test_race();
    test_memory();
    test_closing();
}

int main(void)
{
    return rig_main(test_all);
}
