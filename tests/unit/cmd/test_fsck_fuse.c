/* What a FUSE mount leaves on a volume when its allocations fail: each request in turn is served with its n-th allocation
 * failing, alone or with all after it for a second. It is answered as if there was memory, or has changed nothing; and in the
 * end the files are those that were made, and fsck finds nothing. */
#include "cmd/fsck.h"

#include <stdio.h>

#include "base/text.h"
#include "unit/front/fuse/mount.h"

#define FILE_BYTES 40000u   /* two extents */
#define FAILURES_MAX 400    /* allocations of one request */
#define FILES_MAX 2000
#define STICKY_STRIDE 5
#define LIST_BYTES 4096

static struct mount mount;

/* One file's life. */
struct run {
    unsigned number;
    char name[16], new_name[16];
    uint64_t inode, fh, dir_fh;
};

static bool is_kept[FILES_MAX]; /* by number: its file stays, under the new name */
static unsigned runs;

static uint8_t *content_of(unsigned number)
{
    static uint8_t bytes[FILE_BYTES];
    for (size_t i = 0; i < FILE_BYTES; i++)
        bytes[i] = (uint8_t)(number + i / 11 * (number % 5));
    return bytes;
}

/* ---- the steps: 0, what went wrong, or -EBADMSG when an answer is not right ---- */

static int look_for_none(struct run *run)
{
    int64_t got = ask_lookup(MOUNT_ROOT, run->name);
    return got > 0 ? -EBADMSG : (int)got;
}

static int create(struct run *run)
{
    return ask_create(MOUNT_ROOT, run->name, &run->inode, &run->fh);
}

static int write_all(struct run *run)
{
    ssize_t got = ask_write(run->inode, run->fh, 0, (struct vv_bytes){content_of(run->number), FILE_BYTES});
    TRY(got);
    return got == FILE_BYTES ? 0 : -EBADMSG;
}

static int read_all(struct run *run)
{
    ssize_t got = ask_read(FUSE_READ, run->inode, run->fh, 0, FILE_BYTES);
    TRY(got);
    return got == FILE_BYTES && memcmp(kernel.reply, content_of(run->number), FILE_BYTES) == 0 ? 0 : -EBADMSG;
}

static int open_dir(struct run *run)
{
    return ask_open(FUSE_OPENDIR, MOUNT_ROOT, O_RDONLY, &run->dir_fh);
}

/* How often a name is in one listing's reply; *io_offset goes on behind it. */
static unsigned count_name(size_t len, const char *name, uint64_t *io_offset)
{
    unsigned count = 0;
    for (size_t at = 0; at < len;) {
        struct fuse_dirent dirent;
        at += sizeof(struct fuse_entry_out);
        memcpy(&dirent, kernel.reply + at, FUSE_NAME_OFFSET);
        const uint8_t *found = kernel.reply + at + FUSE_NAME_OFFSET;
        count += dirent.namelen == strlen(name) && memcmp(found, name, dirent.namelen) == 0;
        *io_offset = dirent.off;
        at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
    }
    return count;
}

static int list(struct run *run)
{
    unsigned count = 0;
    uint64_t offset = 0;
    ssize_t got;
    do {
        got = ask_read(FUSE_READDIRPLUS, MOUNT_ROOT, run->dir_fh, offset, LIST_BYTES);
        TRY(got);
        count += count_name((size_t)got, run->name, &offset);
    } while (got > 0);
    return count == 1 ? 0 : -EBADMSG;
}

static int release_dir(struct run *run)
{
    return ask_release(FUSE_RELEASEDIR, MOUNT_ROOT, run->dir_fh);
}

static int rename_it(struct run *run)
{
    return ask_rename(MOUNT_ROOT, run->name, MOUNT_ROOT, run->new_name);
}

static int look_for_new(struct run *run)
{
    int64_t got = ask_lookup(MOUNT_ROOT, run->new_name);
    TRY(got);
    return got == (int64_t)run->inode ? 0 : -EBADMSG;
}

static int synchronise(struct run *run)
{
    struct fuse_fsync_in in = {.fh = run->fh};
    struct kernel_ask ask = {.opcode = FUSE_FSYNC, .nodeid = run->inode, .fixed = KERNEL_FIXED(in)};
    return (int)kernel_call(ask);
}

static int unlink_it(struct run *run)
{
    if (run->number % 3 == 0) /* some stay */
        return 0;
    TRY(ask_name(FUSE_UNLINK, MOUNT_ROOT, run->new_name));
    is_kept[run->number] = false;
    return 0;
}

static int release(struct run *run)
{
    return ask_release(FUSE_RELEASE, run->inode, run->fh);
}

static const struct step {
    const char *name;
    int (*serve)(struct run *run);
    bool is_endless; /* cannot fail */
} steps[] = {
    {"LOOKUP of nothing", look_for_none, false},
    {"CREATE", create, false},
    {"WRITE", write_all, false},
    {"READ", read_all, false},
    {"OPENDIR", open_dir, false},
    {"READDIRPLUS", list, false},
    {"RELEASEDIR", release_dir, true},
    {"RENAME", rename_it, false},
    {"LOOKUP", look_for_new, false},
    {"FSYNC", synchronise, false},
    {"UNLINK", unlink_it, false},
    {"RELEASE", release, true},
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

/* ---- failing ---- */

static bool is_over;

/* Memory comes back after a second. */
static void give_memory(void *arg)
{
    (void)arg;
    vv_rt_sleep_ns(VV_NS_PER_S);
    vv_alloc_fail_at(-1, false);
    is_over = true;
}

static int serve_failing(const struct step *step, struct run *run, int64_t n, bool is_sticky)
{
    is_over = !is_sticky;
    if (is_sticky && vv_fiber_start(give_memory, NULL, "memory") < 0)
        return -EAGAIN;
    vv_alloc_fail_at(n, is_sticky);
    int err = step->serve(run);
    vv_alloc_fail_at(-1, false);
    while (!is_over)
        vv_rt_sleep_ns(VV_NS_PER_MS * 100);
    return err;
}

/* A file's life, in which the n-th allocation of one step fails. Was there one? */
static bool live(const struct step *failing, int64_t n, bool is_sticky, unsigned *io_refused)
{
    struct run run = {.number = runs++};
    bool has_failed = false;
    vv_format(run.name, sizeof(run.name), "old%u", run.number);
    vv_format(run.new_name, sizeof(run.new_name), "new%u", run.number);
    is_kept[run.number] = true;
    for (const struct step *step = steps; step < steps + STEPS; step++) {
        int err = 0;
        if (step == failing) {
            err = serve_failing(step, &run, n, is_sticky);
            has_failed = vv_alloc_failed();
            *io_refused += err < 0;
            if (err < 0 && (step->is_endless || (err != -ENOMEM && err != -EIO)))
                tap_ok(false, "%s without allocation %lld: %d", step->name, (long long)n, err);
        }
        /* What was refused has changed nothing, so it can be done. */
        if (step != failing || err < 0)
            err = step->serve(&run);
        if (err < 0)
            tap_ok(false, "%s, when allocation %lld of %s failed: %d", step->name, (long long)n, failing->name, err);
    }
    return has_failed;
}

static void test_step(const struct step *step, bool is_sticky)
{
    unsigned refused = 0;
    int64_t n = 0;
    while (n < FAILURES_MAX && runs < FILES_MAX && live(step, n, is_sticky, &refused))
        n += is_sticky ? STICKY_STRIDE : 1;
    tap_ok(n < FAILURES_MAX && runs < FILES_MAX, "%s with %s of %lld allocations failing: %u refused", step->name,
           is_sticky ? "all behind some" : "each", (long long)n, refused);
}

/* ---- what is left ---- */

static void test_left(void)
{
    unsigned kept = 0, right = 0;
    for (struct run run = {0}; run.number < runs; run.number++) {
        vv_format(run.name, sizeof(run.name), "old%u", run.number);
        vv_format(run.new_name, sizeof(run.new_name), "new%u", run.number);
        int64_t inode = ask_lookup(MOUNT_ROOT, run.new_name);
        bool is_right = look_for_none(&run) == 0 && (inode > 0) == is_kept[run.number];
        run.inode = (uint64_t)inode;
        if (inode > 0) {
            int err = ask_open(FUSE_OPEN, run.inode, O_RDONLY, &run.fh);
            is_right = is_right && err == 0 && read_all(&run) == 0 && release(&run) == 0;
        }
        kept += is_kept[run.number];
        right += is_right;
    }
    tap_ok(kept > 10 && kept < runs, "%u files of %u are to be there", kept, runs);
    tap_is_int(right, runs, "and no others, with what was written");
    tap_ok(mount.fuse->opens.next == &mount.fuse->opens, "and none is open");
}

/* The volume opened for fsck stays, for who closes the mount. */
static void test_fsck(void)
{
    struct rig *rig = &mount.rig;
    struct vv_volume_options options = {.store = rig->store, .ring = rig->ring, .is_read_only = true,
                                        .memory_bytes = 16 << 20};
    struct vv_fsck_options fsck = {.store = rig->store, .ring = rig->ring, .memory_bytes = 1 << 20,
                                   .is_checking_data = true};
    struct vv_fsck_report report = {0};
    tap_is_int(vv_volume_close(rig->volume), 0, "the volume closes");
    tap_is_int(vv_volume_open(&options, &rig->volume), 0, "and opens to be checked");
    tap_is_int(vv_fsck_volume(rig->volume, &fsck, &report), 0, "fsck");
    for (size_t i = 0; i < report.kept; i++)
        tap_note("%s: %s", vv_fsck_kind_name(report.problems[i].kind), report.problems[i].text);
    tap_ok(report.problem_count == 0 && !report.is_incomplete, "finds nothing, in %llu inodes and %llu frames",
           (unsigned long long)report.inodes, (unsigned long long)report.frames_checked);
    tap_is_int((int64_t)report.orphans, 0, "and no orphans");
    vv_fsck_report_done(&report);
}

static void test(void *arg)
{
    (void)arg;
    mount_open(&mount);
    for (int is_sticky = 0; is_sticky < 2; is_sticky++)
        for (size_t i = 0; i < STEPS; i++)
            test_step(&steps[i], is_sticky);
    test_left();
    mount_close_door(&mount);
    vv_fs_close(mount.fs);
    mount.fs = NULL;
    test_fsck();
    mount_close(&mount);
}

int main(void)
{
    return mount_main(test);
}
