/* Mounting without memory, read-only mounts, and as many requests and waiting locks at once as there may be. */
#include "front/fuse/fuse.h"

#include "mount.h"

#define REQUESTS (VV_FUSE_FIBERS_MAX + 200)
#define LOCKS (VV_FUSE_LOCK_WAITERS_MAX + 1)

static struct mount mount;
static uint64_t inode, fh;
static struct kernel_call *calls[LOCKS];

/* ---- mounting ---- */

static void test_no_memory(void)
{
    int64_t n = -1;
    int err;
    uint32_t process = (uint32_t)vv_sim_process_self();
    size_t count = vv_alloc_domain_count(process);
    do {
        vv_alloc_fail_at(++n, false);
        err = mount_door(&mount, (struct vv_fuse_options){0});
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        if (err < 0 && (err != -ENOMEM || kernel.is_open || vv_alloc_domain_count(process) != count))
            tap_ok(false, "mounting without allocation %lld: %d, %zu allocations are left", (long long)n, err,
                   vv_alloc_domain_count(process) - count);
        if (err == 0 && has_failed) /* it could do without */
            mount_close_door(&mount);
        err = has_failed ? -ENOMEM : err;
    } while (err < 0 && n < 100);
    tap_ok(n > 4 && n < 100, "mounting with each of %lld allocations failing leaves nothing", (long long)n);
    tap_is_int(err, 0, "and then it is mounted");
    tap_is_int(mount_init(38, MOUNT_OFFERED, sizeof(struct fuse_init_in)), sizeof(struct fuse_init_out), "INIT");
}

/* ---- read-only ---- */

static void test_read_only(void)
{
    static const uint32_t opcodes[] = {
        FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD, FUSE_MKDIR, FUSE_UNLINK, FUSE_RMDIR, FUSE_RENAME, FUSE_LINK, FUSE_WRITE,
        FUSE_SETXATTR, FUSE_REMOVEXATTR, FUSE_CREATE, FUSE_FALLOCATE, FUSE_RENAME2, FUSE_COPY_FILE_RANGE, FUSE_TMPFILE,
        VV_FUSE_COPY_FILE_RANGE_64};
    struct vv_fuse_options options = {.is_read_only = true};
    uint64_t some;
    tap_is_int(mount_door(&mount, options), 0, "a read-only mount");
    tap_is_int(mount_init(38, MOUNT_OFFERED, sizeof(struct fuse_init_in)), sizeof(struct fuse_init_out), "INIT");
    tap_is_int(ask_lookup(MOUNT_ROOT, "file"), (int64_t)inode, "finds the file");
    for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
        struct kernel_ask ask = {.opcode = opcodes[i], .nodeid = inode, .tail = KERNEL_NAME("file")};
        tap_is_int(kernel_call(ask), -EROFS, "and refuses %s", vv_fuse_opcode_name(opcodes[i]));
    }
    tap_is_int(ask_open(FUSE_OPEN, inode, O_RDWR, &some), -EROFS, "and opens it for nobody who may write");
    tap_is_int(ask_open(FUSE_OPEN, inode, O_RDONLY | O_TRUNC, &some), -EROFS, "or cut it off");
    tap_is_int(ask_open(FUSE_OPEN, inode, O_RDONLY, &some), 0, "but for readers");
    mount_close_door(&mount);
}

/* ---- many at once ---- */

static unsigned finish_all(unsigned count, ssize_t wanted)
{
    unsigned right = 0;
    for (unsigned i = 0; i < count; i++)
        right += kernel_finish(calls[i]) == wanted;
    return right;
}

static void test_many(void)
{
    struct vv_fs_watch watch;
    struct fuse_setattr_in in = {.valid = FATTR_MODE};
    slow_begin(&mount, &watch, 2);
    for (unsigned i = 0; i < REQUESTS; i++) {
        in.mode = S_IFREG | (i % 2 ? 0644 : 0640);
        calls[i] = kernel_post((struct kernel_ask){.opcode = FUSE_SETATTR, .nodeid = inode, .fixed = KERNEL_FIXED(in)});
    }
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_is_int(mount.fuse->fibers, VV_FUSE_FIBERS_MAX, "%d requests at once keep all fibers busy", REQUESTS);
    tap_ok(calls[VV_FUSE_FIBERS_MAX - 1]->is_read && !calls[VV_FUSE_FIBERS_MAX]->is_read, "and no more are read");
    slow_end();
    tap_is_int(finish_all(REQUESTS, sizeof(struct fuse_attr_out)), REQUESTS, "until they go on: all are served");
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_ok(mount.fuse->fibers <= VV_FUSE_IDLE_FIBERS_MAX + 1, "%u fibers are kept", mount.fuse->fibers);
    vv_fs_watch_remove(mount.fs, &watch);
}

/* flock: who waits for one is not looked at for deadlocks, which takes its time among so many. */
static struct kernel_call *post_flock(uint32_t opcode, uint64_t owner, uint32_t type)
{
    struct fuse_lk_in in = {.fh = fh, .owner = owner, .lk.type = type, .lk_flags = FUSE_LK_FLOCK};
    return kernel_post((struct kernel_ask){.opcode = opcode, .nodeid = inode, .fixed = KERNEL_FIXED(in)});
}

static void test_locks(void)
{
    tap_is_int(kernel_finish(post_flock(FUSE_SETLK, 1, F_WRLCK)), 0, "a lock");
    for (unsigned i = 0; i < LOCKS; i++)
        calls[i] = post_flock(FUSE_SETLKW, 2 + i, F_WRLCK);
    tap_is_int(kernel_finish(calls[LOCKS - 1]), -ENOLCK, "one more than %d can't wait for it", VV_FUSE_LOCK_WAITERS_MAX);
    tap_is_int(mount.fuse->stats.lock_waiters, VV_FUSE_LOCK_WAITERS_MAX, "so many do");
    tap_is_int(ask_lookup(MOUNT_ROOT, "file"), (int64_t)inode, "and other requests are served");
    struct fuse_interrupt_in in = {.unique = calls[7]->header.unique};
    kernel_tell((struct kernel_ask){.opcode = FUSE_INTERRUPT, .fixed = KERNEL_FIXED(in)});
    tap_is_int(kernel_finish(calls[7]), -EINTR, "one gives up");
    tap_is_int(kernel_finish(post_flock(FUSE_SETLK, 1, F_UNLCK)), 0, "it is unlocked");
    tap_is_int(kernel_finish(calls[0]), 0, "and the first has it");
    mount_close_door(&mount);
    tap_ok(true, "the others go with the mount");
}

static void test(void *arg)
{
    (void)arg;
    mount_open(&mount);
    mount_close_door(&mount);
    test_no_memory();
    tap_is_int(ask_create(MOUNT_ROOT, "file", &inode, &fh), 0, "a file");
    test_many();
    test_locks();
    test_read_only();
    mount_close(&mount);
}

int main(void)
{
    return mount_main(test);
}
