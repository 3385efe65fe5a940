/* What the kernel may keep: how long replies say so, of which changes it is told, and who waits until it has taken notice. */
#include "front/fuse/fuse.h"

#include <linux/fs.h>

#include "mount.h"
#include "notifier.h"

#define OTHER_DOOR 2
#define SOME_LEN 1000u

static struct mount mount;
static uint64_t inode, fh;
static const struct vv_fs_call other = {.cred = {.is_checked = true}, .door = OTHER_DOOR};

static struct vv_bytes some_bytes(void)
{
    static const uint8_t bytes[SOME_LEN] = {1, 2, 3};
    return (struct vv_bytes){bytes, sizeof(bytes)};
}

static bool is_note(unsigned i, struct note want)
{
    const struct note *got = &notifier.notes[i];
    return i < notifier.count && got->inode == want.inode && got->parent == want.parent && got->offset == want.offset &&
           got->len == want.len && strcmp(got->name, want.name) == 0;
}

/* ---- other doors ---- */

static int write_elsewhere(uint64_t number, uint64_t offset)
{
    struct vv_bytes bytes = some_bytes();
    ssize_t got = vv_fs_write(mount.fs, &other, number, NULL, bytes.ptr, bytes.len, offset, 0);
    return got == SOME_LEN ? 0 : -EIO;
}

static void test_other_doors(void)
{
    notifier.count = 0;
    tap_is_int(write_elsewhere(inode, 5000), 0, "another door writes to a file");
    tap_ok(notifier.count == 1 && is_note(0, (struct note){.inode = inode, .parent = MOUNT_ROOT, .offset = 5000,
                                                            .len = SOME_LEN}),
           "the kernel is told where, and by which directory it knows it");
    struct vv_create create = {.mode = S_IFREG | 0644};
    struct vv_attr attr;
    notifier.count = 0;
    tap_is_int(vv_fs_mknod(mount.fs, &other, MOUNT_ROOT, "made", 4, &create, &attr), 0, "makes a file");
    bool is_told = false;
    for (unsigned i = 0; i < notifier.count; i++)
        is_told |= is_note(i, (struct note){.parent = MOUNT_ROOT, .name = "made"});
    tap_ok(is_told, "it is told of the entry");
    uint64_t skipped = mount.fuse->stats.invalidations_skipped;
    notifier.count = 0;
    tap_is_int(write_elsewhere(attr.inode, 0), 0, "writes to a file that the kernel does not know");
    tap_is_int(notifier.count, 0, "of which it is told nothing");
    tap_ok(mount.fuse->stats.invalidations_skipped > skipped, "and that is counted");
    tap_is_int(ask_lookup(MOUNT_ROOT, "made"), (int64_t)attr.inode, "the kernel looks it up");
    tap_is_int(write_elsewhere(attr.inode, 0), 0, "another write");
    tap_is_int(notifier.count, 1, "of which it is told");
    struct fuse_forget_in in = {.nlookup = 1};
    kernel_tell((struct kernel_ask){.opcode = FUSE_FORGET, .nodeid = attr.inode, .fixed = KERNEL_FIXED(in)});
    tap_is_int(write_elsewhere(attr.inode, 0), 0, "another one when it was forgotten");
    tap_is_int(notifier.count, 1, "of which it is not");
    tap_is_int(ask_write(inode, fh, 0, some_bytes()), SOME_LEN, "a write through the mount itself");
    tap_is_int(notifier.count, 1, "neither");
}

/* The other door's answer is held back until the kernel has taken notice, within bounds. */
static bool is_written;

static void write_slowly(void *arg)
{
    (void)arg;
    is_written = write_elsewhere(inode, 0) == 0;
}

static void test_held_back(void)
{
    notifier.is_slow = true;
    is_written = false;
    tap_is_int(vv_fiber_start(write_slowly, NULL, "other"), 0, "another door writes");
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_ok(!is_written, "and waits while the kernel takes its time");
    tap_is_int(ask_lookup(MOUNT_ROOT, "file"), (int64_t)inode, "whose requests are served");
    notifier_hurry();
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(is_written, "until it has taken notice");
    uint64_t late = mount.fuse->stats.invalidations_late;
    notifier.is_slow = true;
    uint64_t begun_ns = vv_rt_now_ns();
    tap_is_int(write_elsewhere(inode, 0), 0, "or for so long");
    uint64_t waited_ns = vv_rt_now_ns() - begun_ns;
    notifier_hurry();
    tap_ok(waited_ns >= VV_FUSE_INVALIDATE_MAX_S * VV_NS_PER_S &&
               waited_ns < (VV_FUSE_INVALIDATE_MAX_S + 1) * VV_NS_PER_S,
           "%.3f s", (double)waited_ns / 1e9);
    tap_is_int((int64_t)(mount.fuse->stats.invalidations_late - late), 1, "which is counted");
}

/* ---- timeouts ---- */

/* A CREATE that a third door's caches hold up, while `is_changed` another door changes something. What the kernel may keep. */
static uint64_t held_timeout_s(const char *name, bool is_changed)
{
    struct vv_fs_watch watch;
    struct fuse_create_in in = {.flags = O_RDWR | O_CREAT, .mode = S_IFREG | 0644};
    struct fuse_entry_out entry = {0};
    struct fuse_open_out open = {0};
    slow_begin(&mount, &watch, 3);
    struct kernel_ask ask = {
        .opcode = FUSE_CREATE, .nodeid = MOUNT_ROOT, .fixed = KERNEL_FIXED(in), .tail = KERNEL_NAME(name)};
    struct kernel_call *call = kernel_post(ask);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(call->is_read && !call->is_answered, "a CREATE is under way");
    vv_fs_watch_remove(mount.fs, &watch); /* so that this is not held up */
    if (is_changed)
        tap_is_int(write_elsewhere(inode, 0), 0, "another door changes something");
    slow_end();
    tap_is_int(kernel_finish(call), sizeof(entry) + sizeof(open), "it is answered");
    memcpy(&entry, kernel.reply, sizeof(entry));
    memcpy(&open, kernel.reply + sizeof(entry), sizeof(open));
    tap_is_int(ask_release(FUSE_RELEASE, entry.nodeid, open.fh), 0, "and released");
    return entry.entry_valid == entry.attr_valid ? entry.attr_valid : UINT64_MAX;
}

static uint64_t lookup_timeout_s(const char *name)
{
    struct fuse_entry_out entry = {0};
    if (ask_name(FUSE_LOOKUP, MOUNT_ROOT, name) > 0)
        memcpy(&entry, kernel.reply, sizeof(entry));
    return entry.entry_valid;
}

static void test_timeouts(void)
{
    tap_is_int((int64_t)lookup_timeout_s("file"), VV_FUSE_TIMEOUT_S, "an entry may be kept");
    tap_is_int((int64_t)lookup_timeout_s("none"), VV_FUSE_TIMEOUT_S, "and that there is none");
    tap_is_int((int64_t)held_timeout_s("quiet", false), VV_FUSE_TIMEOUT_S, "also when it took long");
    uint64_t uncached = mount.fuse->stats.uncached_replies;
    tap_is_int((int64_t)held_timeout_s("loud", true), 0, "but not when another door changed something meanwhile");
    tap_ok(mount.fuse->stats.uncached_replies > uncached, "which is counted");
    tap_is_int((int64_t)lookup_timeout_s("loud"), VV_FUSE_TIMEOUT_S, "the next may be kept again");
}

/* ---- direct writes, appends, ioctls ---- */

static struct kernel_call *post_flagged(uint32_t flags, uint64_t offset)
{
    struct fuse_write_in in = {.fh = fh, .offset = offset, .size = SOME_LEN, .flags = flags};
    return kernel_post((struct kernel_ask){
        .opcode = FUSE_WRITE, .nodeid = inode, .fixed = KERNEL_FIXED(in), .tail = some_bytes()});
}

static void test_direct(void)
{
    notifier.count = 0;
    tap_is_int(finish_write(post_flagged(O_DIRECT, 0)), SOME_LEN, "a direct write to what nobody has read");
    tap_is_int(notifier.count, 0, "drops nothing");
    tap_is_int(ask_read(FUSE_READ, inode, fh, 0, SOME_LEN), SOME_LEN, "it is read");
    notifier.is_slow = true;
    struct kernel_call *call = post_flagged(O_DIRECT, 4096);
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_ok(!call->is_answered, "then a direct write is not answered");
    tap_ok(notifier.count == 1 && is_note(0, (struct note){.inode = inode, .offset = 4096, .len = SOME_LEN}),
           "before the kernel was told to drop what it covers");
    notifier_hurry();
    tap_is_int(finish_write(call), SOME_LEN, "and has done so");
    tap_is_int(finish_write(post_flagged(0, 0)), SOME_LEN, "a write that is not direct");
    tap_is_int(notifier.count, 1, "drops nothing");
    for (unsigned i = 0; i < VV_FUSE_CHECKED_WRITES; i++)
        if (finish_write(post_flagged(O_DIRECT, 0)) != SOME_LEN)
            tap_ok(false, "a direct write");
    tap_is_int(notifier.count, VV_FUSE_CHECKED_WRITES, "so many that follow do");
    notifier.count = 0;
    tap_is_int(finish_write(post_flagged(O_DIRECT, 0)), SOME_LEN, "one more");
    tap_is_int(notifier.count, 0, "does not: no read can be under way since then");
}

static void test_append(void)
{
    struct vv_attr attr;
    tap_is_int(vv_fs_getattr(mount.fs, inode, &attr), 0, "a file has a size");
    notifier.count = 0;
    tap_is_int(finish_write(post_flagged(O_APPEND, attr.size)), SOME_LEN, "an append to where it ends");
    tap_is_int(notifier.count, 0, "is as the kernel believes");
    tap_is_int(finish_write(post_flagged(O_APPEND, attr.size)), SOME_LEN, "one to where it ended before");
    tap_ok(notifier.count == 1 && is_note(0, (struct note){.inode = inode, .len = UINT64_MAX}),
           "is not: the kernel drops its pages");
    uint64_t size = attr.size;
    tap_is_int(vv_fs_getattr(mount.fs, inode, &attr), 0, "the file");
    tap_is_int((int64_t)(attr.size - size), 2 * SOME_LEN, "has both");
}

static void test_ioctl(void)
{
    struct fuse_ioctl_in in = {.fh = fh, .cmd = FS_IOC_SETFLAGS, .in_size = 4};
    uint32_t flags = FS_NODUMP_FL;
    struct kernel_ask ask = {
        .opcode = FUSE_IOCTL, .nodeid = inode, .fixed = KERNEL_FIXED(in), .tail = KERNEL_FIXED(flags)};
    notifier.count = 0;
    notifier.is_slow = true;
    struct kernel_call *call = kernel_post(ask);
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_ok(!call->is_answered && notifier.count == 1 && is_note(0, (struct note){.inode = inode}),
           "flags are set when the kernel has dropped the attributes");
    notifier_hurry();
    tap_is_int(kernel_finish(call), sizeof(struct fuse_ioctl_out), "then it is answered");
}

static void test(void *arg)
{
    (void)arg;
    mount_open(&mount);
    tap_is_int(ask_create(MOUNT_ROOT, "file", &inode, &fh), 0, "a file");
    test_other_doors();
    test_held_back();
    test_timeouts();
    test_direct();
    test_append();
    test_ioctl();
    tap_is_int(ask_release(FUSE_RELEASE, inode, fh), 0, "released");
    kernel_end();
    vv_rt_sleep_ns(VV_NS_PER_MS);
    notifier.count = 0;
    tap_is_int(write_elsewhere(inode, 0), 0, "when the kernel is gone, others write");
    tap_is_int(notifier.count, 0, "and nobody is told");
    mount_close(&mount);
}

int main(void)
{
    return mount_main(test);
}
