/* Telling the kernel that something it may have cached has changed.
 *
 * A notification makes the kernel take locks that are held by whoever waits for a reply of ours, so
 * it is written by a thread of its own, never by the reactor: the thread may wait as long as the
 * requests in its way need. Everything here is called on the reactor but the thread's function. */
#ifndef VV_FRONT_FUSE_NOTIFY_H
#define VV_FRONT_FUSE_NOTIFY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "front/fuse/device.h"
#include "rt/rt.h"

struct vv_fuse_notifier {
    struct vv_fuse_device *device;
    struct vv_reactor *reactor;
    pthread_t thread;
    pthread_mutex_t lock; /* guards queue and is_stopping */
    pthread_cond_t work;
    struct vv_list queue; /* struct item */
    bool is_stopping;
    bool is_started;
    uint64_t queued; /* items ever queued; the reactor's */
    uint64_t done;   /* items ever done; in order */
    uint64_t lost;   /* could not be queued: no memory */
    struct vv_waitq waiters;
};

MUST_CHECK int vv_fuse_notifier_start(struct vv_fuse_notifier *notifier,
                                      struct vv_fuse_device *device);
/* Wait for what is queued and end the thread. The connection must be alive or cut, but not just
 * unserved. Suspends. Safe on a zeroed notifier. What is to be told afterwards is dropped. */
void vv_fuse_notifier_stop(struct vv_fuse_notifier *notifier);
/* Forget attributes, ACLs and (len > 0) the data of [offset, offset + len). `parent`: the directory
 * with whose entry the kernel was last told of the inode, 0 = none. Does not suspend. */
void vv_fuse_notify_inode(struct vv_fuse_notifier *notifier, uint64_t inode, uint64_t parent,
                          uint64_t offset, uint64_t len);
/* Forget a name, there or not, and the listing of its directory. Does not suspend. */
void vv_fuse_notify_entry(struct vv_fuse_notifier *notifier, uint64_t parent, const char *name,
                          size_t name_len);
/* Until everything queued so far is done. Suspends. 0, -ETIMEDOUT. */
MUST_CHECK int vv_fuse_notifier_wait(struct vv_fuse_notifier *notifier, uint64_t deadline_ns);

#endif
