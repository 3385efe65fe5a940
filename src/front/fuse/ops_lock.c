/* Locks: nodeid is the inode. The owner is what the kernel says it is; the client is the mount.
 *
 * The kernel says when a process closes a file (FLUSH) and when the last user of an open file has
 * gone (RELEASE), but names the owner only for POSIX locks and flock. Locks of open file
 * descriptions (F_OFD_SETLK) look like those of one more process, whose close never comes: so each
 * lock remembers through which open file it was set, and goes with that at the latest.
 *
 * A lock that has to wait gets a fiber of its own, so that those who wait for ever can't use up the
 * fibers that would serve the unlocking. INTERRUPT (a signal for the waiting process) names the
 * request. */
#include <fcntl.h>

#include "front/fuse/fuse_impl.h"

struct lock_wait {
    struct vv_list node; /* in fuse->lock_waiters */
    struct vv_fuse *fuse;
    struct fuse_in_header header;
    struct vv_fs_call call;
    struct vv_lock lock;
    bool is_cancelled;
};

static int take_lock(struct vv_fuse_request *request, struct vv_lock *out_lock)
{
    struct fuse_lk_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return -EINVAL;
    vv_fuse_decode_lock(&in.lk, out_lock);
    out_lock->owner = in.owner;
    out_lock->client = request->fuse->options.door;
    out_lock->opened = in.fh;
    out_lock->is_flock = in.lk_flags & FUSE_LK_FLOCK;
    if (out_lock->is_flock) {
        out_lock->start = 0;
        out_lock->end = UINT64_MAX;
    }
    return 0;
}

/* GETLK: lk_in. lk_out: the first lock in the way, or F_UNLCK. */
int vv_fuse_getlk(struct vv_fuse_request *request)
{
    struct vv_lock lock;
    TRY(take_lock(request, &lock));
    struct vv_fuse *fuse = request->fuse;
    TRY(vv_fs_getlk(fuse->fs, &request->call, request->message.header.nodeid, &lock));
    struct fuse_lk_out out;
    vv_fuse_encode_lock(&lock, &out.lk);
    vv_fuse_reply(request, &out, sizeof(out));
    return 0;
}

/* SETLK: lk_in. */
int vv_fuse_setlk(struct vv_fuse_request *request)
{
    struct vv_lock lock;
    TRY(take_lock(request, &lock));
    TRY(vv_fs_setlk(request->fuse->fs, &request->call, request->message.header.nodeid, &lock, false,
                    NULL));
    return vv_fuse_reply_ok(request);
}

static void wait_for_lock(void *arg)
{
    struct lock_wait *wait = arg;
    struct vv_fuse *fuse = wait->fuse;
    struct iovec iov[1];
    int err = vv_fs_setlk(fuse->fs, &wait->call, wait->header.nodeid, &wait->lock, true,
                          &wait->is_cancelled);
    if (err < 0)
        vv_fuse_reply_error(fuse, &wait->header, err);
    else
        vv_fuse_reply_iov(fuse, wait->header.unique, 0, iov, 1);
    vv_list_remove(&wait->node);
    vv_free(wait);
    fuse->stats.lock_waiters--;
    vv_fuse_fiber_ended(fuse);
}

/* SETLKW: lk_in. Waits. */
int vv_fuse_setlkw(struct vv_fuse_request *request)
{
    struct vv_fuse *fuse = request->fuse;
    struct vv_lock lock;
    TRY(take_lock(request, &lock));
    if (lock.type == F_UNLCK || fuse->stats.lock_waiters >= VV_FUSE_LOCK_WAITERS_MAX) {
        int err = vv_fs_setlk(fuse->fs, &request->call, request->message.header.nodeid, &lock,
                              false, NULL);
        TRY(err == -EAGAIN ? -ENOLCK : err);
        return vv_fuse_reply_ok(request);
    }
    struct lock_wait *wait = vv_zalloc(sizeof(*wait));
    if (!wait)
        return -ENOLCK;
    *wait = (struct lock_wait){
        .fuse = fuse, .header = request->message.header, .call = request->call, .lock = lock};
    int err = vv_fuse_fiber_start(fuse, wait_for_lock, wait, "fuse lock");
    if (err < 0) {
        vv_free(wait);
        return -ENOLCK;
    }
    vv_list_push_back(&fuse->lock_waiters, &wait->node);
    fuse->stats.lock_waiters++;
    return 0;
}

/* INTERRUPT: interrupt_in, the unique of another request. No reply. Only waiting locks can be
 * interrupted; everything else ends soon, or must not end half-way. */
int vv_fuse_interrupt(struct vv_fuse_request *request)
{
    struct fuse_interrupt_in in;
    if (!vv_fuse_take(request, &in, sizeof(in)))
        return 0;
    vv_list_each (node, &request->fuse->lock_waiters) {
        struct lock_wait *wait = vv_list_entry(node, struct lock_wait, node);
        if (wait->header.unique == in.unique)
            wait->is_cancelled = true;
    }
    vv_fs_lock_poke(request->fuse->fs);
    return 0;
}

void vv_fuse_lock_cancel_all(struct vv_fuse *fuse)
{
    vv_list_each (node, &fuse->lock_waiters)
        vv_list_entry(node, struct lock_wait, node)->is_cancelled = true;
    vv_fs_lock_poke(fuse->fs);
}
