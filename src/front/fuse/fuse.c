/* Mounting, unmounting, and what other doors change. */
#include "front/fuse/fuse.h"

#include "base/log.h"
#include "front/fuse/fuse_impl.h"

#define POLITE_TRIES 5
#define POLITE_PAUSE_MS 100
#define WRITE_BACK_QUIET_MS 50 /* no page has come for so long: the kernel has written back all */
#define WRITE_BACK_MAX_S 3     /* its users go on to make pages dirty */

/* ---- other doors' changes (struct vv_fs_watch) ---- */

static void on_inode(void *arg, uint64_t inode, uint64_t offset, uint64_t len)
{
    struct vv_fuse *fuse = arg;
    fuse->change_count++;
    if (fuse->is_gone || !vv_fuse_is_known(fuse, inode)) {
        fuse->stats.invalidations_skipped++;
        return;
    }
    fuse->stats.invalidations++;
    vv_fuse_notify_inode(&fuse->notifier, inode, vv_fuse_told_parent(fuse, inode), offset, len);
}

static void on_entry(void *arg, uint64_t parent, const char *name, size_t name_len)
{
    struct vv_fuse *fuse = arg;
    fuse->change_count++;
    if (fuse->is_gone || !vv_fuse_is_known(fuse, parent)) {
        fuse->stats.invalidations_skipped++;
        return;
    }
    fuse->stats.invalidations++;
    vv_fuse_notify_entry(&fuse->notifier, parent, name, name_len);
}

/* Between two mounts of one process: a request of each may hold the directory's lock that the
 * other's invalidation needs. So a request of a mount waits shortly; what it changed is then seen
 * through the other mount a moment after it was answered. */
static bool is_from_mount(void)
{
    return vv_fiber_name(vv_fiber_self()) == vv_fuse_fiber_name;
}

static void wait_done(void *arg)
{
    struct vv_fuse *fuse = arg;
    bool is_short = is_from_mount();
    uint64_t wait_ns = is_short ? VV_FUSE_INVALIDATE_MOUNT_MAX_MS * VV_NS_PER_MS
                                : VV_FUSE_INVALIDATE_MAX_S * VV_NS_PER_S;
    if (vv_fuse_notifier_wait(&fuse->notifier, vv_rt_now_ns() + wait_ns) == 0)
        return;
    fuse->stats.invalidations_late++;
    if (!is_short)
        vv_warn("fuse", "the kernel takes longer than %d s to invalidate",
                VV_FUSE_INVALIDATE_MAX_S);
}

/* ---- mounting ---- */

struct unmount_job {
    struct vv_fuse_device *device;
    enum vv_fuse_unmount how;
    int err;
};

static void unmount_device(void *arg)
{
    struct unmount_job *job = arg;
    job->err = vv_fuse_device_unmount(job->device, job->how);
}

static void sync_device(void *arg)
{
    vv_fuse_device_sync(arg);
}

static int unmount_once(struct vv_fuse *fuse, enum vv_fuse_unmount how)
{
    struct unmount_job job = {.device = &fuse->device, .how = how};
    vv_rt_offload(unmount_device, &job);
    return job.err;
}

struct open_job {
    struct vv_fuse *fuse;
    int err;
};

static void open_device(void *arg)
{
    struct open_job *job = arg;
    job->err = vv_fuse_device_open(&job->fuse->device, &job->fuse->options);
}

static void close_device(void *arg)
{
    vv_fuse_device_close(arg);
}

int vv_fuse_mount(struct vv_fs *fs, const struct vv_fuse_options *options,
                  struct vv_fuse **out_fuse)
{
    struct vv_fuse *fuse = vv_zalloc(sizeof(*fuse));
    if (!fuse)
        return -ENOMEM;
    fuse->fs = fs;
    fuse->options = *options;
    struct open_job job = {.fuse = fuse};
    vv_rt_offload(open_device, &job);
    if (job.err < 0) {
        vv_free(fuse);
        return job.err;
    }
    fuse->options.mountpoint = fuse->device.mountpoint;
    fuse->options.source = NULL;
    int err = vv_fuse_notifier_start(&fuse->notifier, &fuse->device);
    if (err == 0)
        err = vv_fuse_session_start(fuse);
    if (err < 0) {
        if (unmount_once(fuse, VV_FUSE_UNMOUNT_CUT) < 0)
            vv_error("fuse", "%s stays mounted and dead", fuse->device.mountpoint);
        fuse->is_gone = true;
        vv_fuse_unmount(fuse);
        return err;
    }
    fuse->watch = (struct vv_fs_watch){.door = options->door,
                                       .on_inode = on_inode,
                                       .on_entry = on_entry,
                                       .wait = wait_done,
                                       .arg = fuse};
    vv_fs_watch_add(fs, &fuse->watch);
    *out_fuse = fuse;
    return 0;
}

/* ---- unmounting ---- */

/* No more invalidations. */
static void stop_watching(struct vv_fuse *fuse)
{
    if (fuse->watch.on_inode)
        vv_fs_watch_remove(fuse->fs, &fuse->watch);
    fuse->watch.on_inode = NULL;
    vv_fuse_notifier_stop(&fuse->notifier);
}

/* The kernel writes back what it holds. Its sync of a FUSE mount begins that and does not wait for it. */
void vv_fuse_write_back(struct vv_fuse *fuse)
{
    uint64_t now_ns = vv_rt_now_ns();
    uint64_t deadline_ns = now_ns + WRITE_BACK_MAX_S * VV_NS_PER_S;
    vv_rt_offload(sync_device, &fuse->device);
    uint64_t synced_ns = vv_rt_now_ns();
    for (bool is_quiet = false; !is_quiet && !fuse->is_gone && now_ns < deadline_ns;) {
        vv_rt_sleep_ns(WRITE_BACK_QUIET_MS / 5 * VV_NS_PER_MS);
        now_ns = vv_rt_now_ns();
        uint64_t last_ns = fuse->cached_write_ns > synced_ns ? fuse->cached_write_ns : synced_ns;
        is_quiet = fuse->cached_writes == 0 && now_ns - last_ns >= WRITE_BACK_QUIET_MS * VV_NS_PER_MS;
    }
}

/* Until the kernel has let go. */
static void let_go(struct vv_fuse *fuse)
{
    int err = -EBUSY;
    for (int i = 0; i < POLITE_TRIES && err == -EBUSY && !fuse->is_gone; i++) {
        if (i > 0)
            vv_rt_sleep_ns(POLITE_PAUSE_MS * VV_NS_PER_MS);
        err = unmount_once(fuse, VV_FUSE_UNMOUNT_POLITE);
    }
    if (err < 0 && !fuse->is_gone) {
        vv_warn("fuse", "%s is busy: its users lose it", fuse->device.mountpoint);
        vv_fuse_write_back(fuse);
        err = unmount_once(fuse, VV_FUSE_UNMOUNT_CUT);
        if (err < 0)
            vv_error("fuse", "unmounting %s: %s", fuse->device.mountpoint, vv_err_text(err));
    }
    uint64_t deadline_ns = vv_rt_now_ns() + VV_FUSE_UNMOUNT_MAX_S * VV_NS_PER_S;
    while (!fuse->is_gone && vv_waitq_wait(&fuse->ended, deadline_ns) == 0)
        continue;
    /* Detached, still used, and we may not cut it: closing the descriptor will. The notifier may
     * need requests served to come to its end. */
    stop_watching(fuse);
    fuse->is_gone = true;
}

void vv_fuse_unmount(struct vv_fuse *fuse)
{
    if (!fuse)
        return;
    if (!fuse->is_gone)
        let_go(fuse);
    stop_watching(fuse);
    if (fuse->known && fuse->told) {
        vv_fuse_lock_cancel_all(fuse);
        vv_waitq_wake_all(&fuse->idle);
        /* The receiver, if the kernel has not let go. */
        vv_rt_wake_fd(fuse->device.fd);
        while (fuse->fibers > 0)
            vv_waitq_wait(&fuse->ended, VV_NEVER);
        struct vv_fs_call call = {.cred = {.is_checked = true}, .door = fuse->options.door};
        vv_fs_unlock_client(fuse->fs, &call, fuse->options.door);
    }
    vv_rt_forget_fd(fuse->device.fd);
    vv_rt_offload(close_device, &fuse->device);
    vv_fuse_session_free(fuse);
    vv_free(fuse);
}

bool vv_fuse_is_gone(const struct vv_fuse *fuse)
{
    return fuse->is_gone;
}

void vv_fuse_stats(const struct vv_fuse *fuse, struct vv_fuse_stats *out_stats)
{
    *out_stats = fuse->stats;
    out_stats->fibers = fuse->fibers;
}
