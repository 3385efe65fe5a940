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
#define NOISE_ROUNDS 600
#define NOISE_AT_ONCE 8
#define NOISE_NODES 12

static struct mount mount;

/* One file's life. */
struct run {
    unsigned number;
    char name[16], new_name[16];
    uint64_t inode, fh, dir_fh, dir;
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

/* How often a name is in one listing's reply; *io_offset goes on behind it. Many, when an entry has no attributes: nobody
 * else is here who could have removed it meanwhile. */
static unsigned count_name(size_t len, const char *name, uint64_t *io_offset)
{
    unsigned count = 0;
    for (size_t at = 0; at < len;) {
        struct fuse_entry_out entry;
        struct fuse_dirent dirent;
        memcpy(&entry, kernel.reply + at, sizeof(entry));
        at += sizeof(entry);
        memcpy(&dirent, kernel.reply + at, FUSE_NAME_OFFSET);
        const uint8_t *found = kernel.reply + at + FUSE_NAME_OFFSET;
        count += dirent.namelen == strlen(name) && memcmp(found, name, dirent.namelen) == 0;
        count += found[0] != '.' && (entry.nodeid != dirent.ino || entry.attr.ino != dirent.ino) ? 100 : 0;
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

static int make_dir(struct run *run)
{
    struct fuse_mkdir_in in = {.mode = 0755};
    struct kernel_ask ask = {
        .opcode = FUSE_MKDIR, .nodeid = MOUNT_ROOT, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME(run->name)};
    struct fuse_entry_out out;
    TRY(kernel_call(ask));
    memcpy(&out, kernel.reply, sizeof(out));
    run->dir = out.nodeid;
    return 0;
}

static int remove_dir(struct run *run)
{
    return (int)ask_name(FUSE_RMDIR, MOUNT_ROOT, run->name);
}

/* Somebody is in it. */
static int look_at_removed(struct run *run)
{
    ssize_t got = kernel_call((struct kernel_ask){.opcode = FUSE_GETATTR, .nodeid = run->dir});
    return got < 0 ? (int)got : 0;
}

static int forget_removed(struct run *run)
{
    struct fuse_forget_in in = {.nlookup = 1};
    if (run->number % 2 == 0) /* of some the kernel knows to its end */
        kernel_tell((struct kernel_ask){.opcode = FUSE_FORGET, .nodeid = run->dir, .fixed = KERNEL_FIXED(in)});
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
    {"MKDIR", make_dir, false},
    {"RMDIR", remove_dir, false},
    {"GETATTR of what was removed", look_at_removed, false},
    {"FORGET", forget_removed, true},
    {"RELEASE", release, true},
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))

/* ---- failing ---- */

static bool is_over = true; /* memory has come back */

/* Memory comes back after a second. */
static void give_memory(void *arg)
{
    (void)arg;
    vv_rt_sleep_ns(VV_NS_PER_S);
    vv_alloc_fail_at(-1, false);
    is_over = true;
}

static void begin_failing(int64_t n, bool is_sticky)
{
    is_over = !is_sticky;
    if (is_sticky && vv_fiber_start(give_memory, NULL, "memory") < 0)
        abort();
    vv_alloc_fail_at(n, is_sticky);
}

static void end_failing(void)
{
    vv_alloc_fail_at(-1, false);
    while (!is_over)
        vv_rt_sleep_ns(VV_NS_PER_MS * 100);
}

static int serve_failing(const struct step *step, struct run *run, int64_t n, bool is_sticky)
{
    begin_failing(n, is_sticky);
    int err = step->serve(run);
    end_failing();
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

/* ---- noise ---- */

/* Whole requests whose values are drawn, several at once, some with allocations failing, and some whose answers nobody waits
 * for: what they do is nobody's wish, but each is answered, and fsck finds what they made to be well. */

static uint64_t nodes[NOISE_NODES];   /* what the kernel was told of; nodes[0] is a directory for this */
static uint64_t handles[NOISE_NODES]; /* their file handles */

static uint32_t draw(uint32_t bound)
{
    return (uint32_t)vv_sim_random(bound);
}

/* Opcodes with the size of what stands before their names. No IOCTL, and no flags of open files with WRITE: those end in
 * notifications, which are not for this kernel. */
static const struct noise {
    uint32_t opcode;
    size_t fixed_len;
    unsigned names;
    bool has_handle; /* comes first */
} noises[] = {
    {FUSE_LOOKUP, 0, 1, false},
    {FUSE_GETATTR, sizeof(struct fuse_getattr_in), 0, false},
    {FUSE_SETATTR, sizeof(struct fuse_setattr_in), 0, false},
    {FUSE_READLINK, 0, 0, false},
    {FUSE_SYMLINK, 0, 2, false},
    {FUSE_MKNOD, sizeof(struct fuse_mknod_in), 1, false},
    {FUSE_MKDIR, sizeof(struct fuse_mkdir_in), 1, false},
    {FUSE_UNLINK, 0, 1, false},
    {FUSE_RMDIR, 0, 1, false},
    {FUSE_RENAME, sizeof(struct fuse_rename_in), 2, false},
    {FUSE_RENAME2, sizeof(struct fuse_rename2_in), 2, false},
    {FUSE_LINK, sizeof(struct fuse_link_in), 1, false},
    {FUSE_OPEN, sizeof(struct fuse_open_in), 0, false},
    {FUSE_OPENDIR, sizeof(struct fuse_open_in), 0, false},
    {FUSE_READ, sizeof(struct fuse_read_in), 0, true},
    {FUSE_WRITE, sizeof(struct fuse_write_in), 0, true},
    {FUSE_READDIR, sizeof(struct fuse_read_in), 0, true},
    {FUSE_READDIRPLUS, sizeof(struct fuse_read_in), 0, true},
    {FUSE_STATFS, 0, 0, false},
    {FUSE_FSYNC, sizeof(struct fuse_fsync_in), 0, true},
    {FUSE_FLUSH, sizeof(struct fuse_flush_in), 0, true},
    {FUSE_SETXATTR, sizeof(struct fuse_setxattr_in), 1, false},
    {FUSE_GETXATTR, sizeof(struct fuse_getxattr_in), 1, false},
    {FUSE_LISTXATTR, sizeof(struct fuse_getxattr_in), 0, false},
    {FUSE_REMOVEXATTR, 0, 1, false},
    {FUSE_GETLK, sizeof(struct fuse_lk_in), 0, true},
    {FUSE_SETLK, sizeof(struct fuse_lk_in), 0, true},
    {FUSE_SETLKW, sizeof(struct fuse_lk_in), 0, true},
    {FUSE_ACCESS, sizeof(struct fuse_access_in), 0, false},
    {FUSE_CREATE, sizeof(struct fuse_create_in), 1, false},
    {FUSE_TMPFILE, sizeof(struct fuse_create_in), 1, false},
    {FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in), 0, true},
    {FUSE_LSEEK, sizeof(struct fuse_lseek_in), 0, true},
    {FUSE_COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), 0, true},
    {VV_FUSE_STATX, sizeof(struct vv_fuse_statx_in), 0, false},
};

/* A value that may mean something, of any size. */
static uint64_t draw_value(void)
{
    static const uint64_t values[] = {0, 1, 2, 3, 511, 4096, 32768, 40000, 1u << 20, INT32_MAX, UINT32_MAX, INT64_MAX,
                                      UINT64_MAX, S_IFREG | 0644, S_IFDIR | 02755, S_IFIFO | 0600, O_RDWR | O_TRUNC};
    const uint32_t count = sizeof(values) / sizeof(values[0]);
    uint32_t i = draw(count + 3);
    return i < count ? values[i] : i == count ? draw(70000) : nodes[draw(NOISE_NODES)];
}

static void put_u64(uint8_t *fixed, size_t at, uint64_t value)
{
    memcpy(fixed + at, &value, sizeof(value));
}

static void put_u32(uint8_t *fixed, size_t at, uint64_t value)
{
    uint32_t low = (uint32_t)value;
    memcpy(fixed + at, &low, sizeof(low));
}

/* What is likely to be served. */
static void put_sensible(uint32_t opcode, uint8_t *fixed)
{
    static const uint32_t flags[] = {O_RDONLY, O_RDWR, O_RDWR | O_TRUNC, O_WRONLY | O_EXCL};
    switch (opcode) {
    case FUSE_RENAME2:
        put_u32(fixed, 8, draw(8));
        break;
    case FUSE_OPEN: case FUSE_CREATE: case FUSE_TMPFILE:
        put_u32(fixed, 0, flags[draw(4)]);
        put_u32(fixed, 4, opcode == FUSE_OPEN ? draw(2) : 0644 | draw(8) << 9);
        break;
    case FUSE_READ: case FUSE_WRITE: case FUSE_FALLOCATE: case FUSE_LSEEK: case FUSE_COPY_FILE_RANGE:
        put_u64(fixed, 8, draw(200000));
        put_u64(fixed, 16, opcode == FUSE_LSEEK ? 3 + draw(2) : draw(200000));
        put_u32(fixed, 24, draw(4)); /* of these, FALLOCATE's mode */
        put_u64(fixed, 32, draw(200000));
        put_u64(fixed, 40, draw(200000));
        break;
    case FUSE_GETLK: case FUSE_SETLK: case FUSE_SETLKW:
        put_u64(fixed, 8, draw(3));
        put_u64(fixed, 16, draw(100));
        put_u64(fixed, 24, 100 + draw(100));
        put_u32(fixed, 32, draw(3));
        break;
    }
}

static void draw_fixed(const struct noise *noise, uint64_t handle, uint8_t fixed[128])
{
    memset(fixed, 0, 128);
    for (size_t at = 0; at < noise->fixed_len;) {
        uint64_t value = draw_value();
        size_t len = draw(2) || noise->fixed_len - at < 8 ? 4 : 8;
        memcpy(fixed + at, &value, len);
        at += len;
    }
    if (draw(4))
        put_sensible(noise->opcode, fixed);
    if (noise->has_handle)
        put_u64(fixed, 0, handle);
    if (noise->opcode == FUSE_SETATTR)
        put_u64(fixed, offsetof(struct fuse_setattr_in, fh), 0);
    /* Not the other files. */
    if (noise->opcode == FUSE_LINK || noise->opcode == FUSE_RENAME || noise->opcode == FUSE_RENAME2)
        put_u64(fixed, 0, nodes[draw(NOISE_NODES)]);
    if (noise->opcode == FUSE_COPY_FILE_RANGE) {
        put_u64(fixed, offsetof(struct fuse_copy_file_range_in, nodeid_out), nodes[draw(NOISE_NODES)]);
        put_u64(fixed, offsetof(struct fuse_copy_file_range_in, flags), 0);
    }
    if (noise->opcode == FUSE_WRITE)
        put_u32(fixed, offsetof(struct fuse_write_in, flags), 0);
}

static struct kernel_call *post_noise(void)
{
    static uint8_t tail[70000];
    uint8_t fixed[128];
    const struct noise *noise = &noises[draw(sizeof(noises) / sizeof(noises[0]))];
    unsigned i = draw(3) && !noise->has_handle ? 0 : draw(NOISE_NODES);
    bool is_attribute = noise->opcode == FUSE_SETXATTR || noise->opcode == FUSE_GETXATTR ||
                        noise->opcode == FUSE_REMOVEXATTR;
    size_t tail_len = 0;
    for (unsigned name = 0; name < noise->names; name++) {
        char text[24];
        vv_format(text, sizeof(text), "%s%u", is_attribute ? "user." : "", draw(6));
        memcpy(tail + tail_len, text, strlen(text) + 1);
        tail_len += strlen(text) + 1;
    }
    draw_fixed(noise, noise->has_handle && draw(4) ? handles[i] : 0, fixed);
    if (noise->opcode == FUSE_WRITE || noise->opcode == FUSE_SETXATTR) {
        uint32_t len = draw(4) ? draw(9000) : draw(sizeof(tail) - 100);
        tail_len += len;
        if (draw(8))
            put_u32(fixed, noise->opcode == FUSE_WRITE ? offsetof(struct fuse_write_in, size) : 0, len);
    }
    struct kernel_ask ask = {.opcode = noise->opcode,
                             .nodeid = nodes[i],
                             .uid = draw(2) * 1000,
                             .fixed = {fixed, noise->fixed_len},
                             .tail = {tail, tail_len}};
    return kernel_post(ask);
}

/* Learn inodes and handles, give handles back. */
static void learn(const struct kernel_call *call)
{
    struct fuse_entry_out entry = {0};
    struct fuse_open_out open = {0};
    uint32_t opcode = call->header.opcode;
    uint32_t i = 1 + draw(NOISE_NODES - 1);
    if (call->error != 0)
        return;
    bool is_made = call->most == sizeof(entry) + sizeof(open);
    if (is_made || call->most == sizeof(entry))
        memcpy(&entry, call->reply, sizeof(entry));
    if (is_made || opcode == FUSE_OPEN || opcode == FUSE_OPENDIR)
        memcpy(&open, call->reply + (is_made ? sizeof(entry) : 0), sizeof(open));
    uint64_t inode = entry.nodeid ? entry.nodeid : call->header.nodeid;
    if (entry.nodeid == 0 && open.fh == 0)
        return;
    if (handles[i])
        (void)ask_release(FUSE_RELEASE, nodes[i], handles[i]);
    nodes[i] = inode;
    handles[i] = open.fh;
}

/* No request of theirs is under way: requests that use a handle come before its release. */
static unsigned finish_noise(struct kernel_call **calls, unsigned count)
{
    unsigned lost = 0;
    for (unsigned i = 0; i < count; i++) {
        struct fuse_interrupt_in in = {.unique = calls[i]->header.unique};
        struct kernel_call *interrupt = NULL;
        if (calls[i]->header.opcode == FUSE_SETLKW)
            interrupt = kernel_post((struct kernel_ask){.opcode = FUSE_INTERRUPT, .fixed = KERNEL_FIXED(in)});
        if (kernel_wait(calls[i]) == -ETIMEDOUT && lost++ == 0)
            tap_note("no answer to %s of inode %llu", vv_fuse_opcode_name(calls[i]->header.opcode),
                     (unsigned long long)calls[i]->header.nodeid);
        for (int j = 0; interrupt && j < 1000 && !interrupt->is_read; j++)
            vv_rt_sleep_ns(VV_NS_PER_MS);
        if (interrupt)
            kernel_drop(interrupt);
    }
    for (unsigned i = 0; i < count; i++) {
        learn(calls[i]);
        kernel_drop(calls[i]);
    }
    return lost;
}

static void test_noise(void)
{
    struct fuse_mkdir_in in = {.mode = 0755};
    struct kernel_ask ask = {
        .opcode = FUSE_MKDIR, .nodeid = MOUNT_ROOT, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME("noise")};
    tap_is_int(kernel_call(ask), sizeof(struct fuse_entry_out), "a directory");
    unsigned lost = 0;
    for (unsigned i = 0; i < NOISE_NODES; i++)
        nodes[i] = (uint64_t)ask_lookup(MOUNT_ROOT, "noise");
    for (unsigned round = 0; round < NOISE_ROUNDS; round++) {
        struct kernel_call *calls[NOISE_AT_ONCE];
        unsigned count = 1 + draw(NOISE_AT_ONCE);
        kernel.is_taking_back = draw(6) == 0;
        if (draw(3) == 0)
            begin_failing(draw(100), draw(4) == 0);
        for (unsigned i = 0; i < count; i++)
            calls[i] = post_noise();
        lost += finish_noise(calls, count);
        kernel.is_taking_back = false;
        end_failing();
    }
    tap_is_int(lost, 0, "all of %d times up to %d requests at once are answered", NOISE_ROUNDS, NOISE_AT_ONCE);
    for (unsigned i = 0; i < NOISE_NODES; i++)
        if (handles[i])
            (void)ask_release(FUSE_RELEASE, nodes[i], handles[i]);
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
    test_noise();
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
