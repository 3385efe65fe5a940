#include "front/fuse/notify.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "front/fuse/codec.h"

struct item {
    struct vv_list node;
    struct vv_post post;
    struct vv_fuse_notifier *notifier;
    uint64_t inode;  /* or the directory, of an entry */
    uint64_t parent; /* of an inode; 0 = not known */
    int64_t offset;  /* -1 = attributes only */
    int64_t len;     /* 0 = to the end */
    size_t name_len; /* > 0: an entry */
    char name[];
};

static int tell_kernel(struct vv_fuse_device *device, int code, struct iovec *iov, int count)
{
    struct fuse_out_header header = {.len = sizeof(header), .error = code};
    iov[0] = (struct iovec){&header, sizeof(header)};
    for (int i = 1; i < count; i++)
        header.len += (uint32_t)iov[i].iov_len;
    int err = vv_fuse_device_write(device, iov, count);
    /* The kernel not knowing it, or being gone, is as good as it having forgotten. */
    if (err < 0 && err != -ENOENT && err != -ENODEV && err != -ENOTCONN && err != -ENOTDIR)
        vv_warn("fuse", "the kernel refused an invalidation: %s", vv_err_text(err));
    return err;
}

static int send_inode(struct vv_fuse_device *device, uint64_t inode, int64_t offset, int64_t len)
{
    struct fuse_notify_inval_inode_out out = {.ino = inode, .off = offset, .len = len};
    struct iovec iov[2] = {{0}, {&out, sizeof(out)}};
    return tell_kernel(device, FUSE_NOTIFY_INVAL_INODE, iov, 2);
}

static void send_entry(struct vv_fuse_device *device, uint64_t parent, char *name, size_t name_len)
{
    struct fuse_notify_inval_entry_out out = {.parent = parent, .namelen = (uint32_t)name_len};
    struct iovec iov[3] = {{0}, {&out, sizeof(out)}, {name, name_len + 1}};
    tell_kernel(device, FUSE_NOTIFY_INVAL_ENTRY, iov, 3);
}

/* A reply that tells of an inode takes effect when the process that waits for it has made the inode
 * of it, under the lock of the directory. Until then the kernel does not know the inode, and what
 * it is about to keep is old. Invalidating an entry that can't be there waits for that lock. */
static void invalidate_inode(struct vv_fuse_device *device, const struct item *item)
{
    int err = send_inode(device, item->inode, item->offset, item->len);
    if (err != -ENOENT || item->parent == 0)
        return;
    char name[] = "/";
    send_entry(device, item->parent, name, 1);
    send_inode(device, item->inode, item->offset, item->len);
}

/* On the reactor, after the thread has sent an item. */
static void finish(void *arg)
{
    struct item *item = arg;
    struct vv_fuse_notifier *notifier = item->notifier;
    notifier->done++;
    vv_free(item);
    vv_waitq_wake_all(&notifier->waiters);
}

static struct item *take(struct vv_fuse_notifier *notifier)
{
    struct item *item = NULL;
    pthread_mutex_lock(&notifier->lock);
    while (vv_list_is_empty(&notifier->queue) && !notifier->is_stopping)
        pthread_cond_wait(&notifier->work, &notifier->lock);
    if (!vv_list_is_empty(&notifier->queue)) {
        item = vv_list_first(&notifier->queue, struct item, node);
        vv_list_remove(&item->node);
    }
    pthread_mutex_unlock(&notifier->lock);
    return item;
}

static void *run(void *arg)
{
    struct vv_fuse_notifier *notifier = arg;
    for (struct item *item = take(notifier); item; item = take(notifier)) {
        if (item->name_len > 0) {
            send_entry(notifier->device, item->inode, item->name, item->name_len);
            /* The entry's notification has waited for listings under way (it takes the directory's
             * lock), so what they put into the directory's cache is dropped by this one. */
            send_inode(notifier->device, item->inode, 0, 0);
        } else {
            invalidate_inode(notifier->device, item);
        }
        item->post = (struct vv_post){.fn = finish, .arg = item};
        vv_reactor_post(notifier->reactor, &item->post);
    }
    return NULL;
}

int vv_fuse_notifier_start(struct vv_fuse_notifier *notifier, struct vv_fuse_device *device)
{
    *notifier = (struct vv_fuse_notifier){.device = device, .reactor = vv_reactor_self()};
    vv_list_init(&notifier->queue);
    vv_waitq_init(&notifier->waiters);
    pthread_mutex_init(&notifier->lock, NULL);
    pthread_cond_init(&notifier->work, NULL);
    /* Signals are for the reactor's thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&notifier->thread, NULL, run, notifier);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    notifier->is_started = err == 0;
    return -err;
}

static void join(void *arg)
{
    struct vv_fuse_notifier *notifier = arg;
    pthread_join(notifier->thread, NULL);
}

void vv_fuse_notifier_stop(struct vv_fuse_notifier *notifier)
{
    if (!notifier->is_started)
        return;
    while (notifier->done < notifier->queued)
        vv_waitq_wait(&notifier->waiters, VV_NEVER);
    pthread_mutex_lock(&notifier->lock);
    notifier->is_stopping = true;
    pthread_cond_signal(&notifier->work);
    pthread_mutex_unlock(&notifier->lock);
    notifier->is_started = false; /* requests that are still served queue nothing from here on */
    vv_rt_offload(join, notifier);
    pthread_cond_destroy(&notifier->work);
    pthread_mutex_destroy(&notifier->lock);
}

/* NULL without memory, and when nobody would send it: the connection is at its end. */
static struct item *item_new(struct vv_fuse_notifier *notifier, uint64_t inode, size_t name_len)
{
    if (!notifier->is_started)
        return NULL;
    struct item *item = vv_zalloc(sizeof(*item) + name_len + 1);
    if (!item) {
        if (notifier->lost++ == 0)
            vv_error("fuse", "no memory to invalidate: the mount may show old contents");
        return NULL;
    }
    item->notifier = notifier;
    item->inode = inode;
    item->name_len = name_len;
    return item;
}

static void push(struct vv_fuse_notifier *notifier, struct item *item)
{
    notifier->queued++;
    pthread_mutex_lock(&notifier->lock);
    vv_list_push_back(&notifier->queue, &item->node);
    pthread_cond_signal(&notifier->work);
    pthread_mutex_unlock(&notifier->lock);
}

void vv_fuse_notify_inode(struct vv_fuse_notifier *notifier, uint64_t inode, uint64_t parent,
                          uint64_t offset, uint64_t len)
{
    struct item *item = item_new(notifier, inode, 0);
    if (!item)
        return;
    uint64_t end;
    bool is_to_end = __builtin_add_overflow(offset, len, &end) || end > INT64_MAX;
    item->parent = parent;
    item->offset = len > 0 ? (int64_t)(offset & INT64_MAX) : -1;
    item->len = is_to_end ? 0 : (int64_t)len;
    push(notifier, item);
}

void vv_fuse_notify_entry(struct vv_fuse_notifier *notifier, uint64_t parent, const char *name,
                          size_t name_len)
{
    struct item *item = item_new(notifier, parent, name_len);
    if (!item)
        return;
    memcpy(item->name, name, name_len);
    push(notifier, item);
}

int vv_fuse_notifier_wait(struct vv_fuse_notifier *notifier, uint64_t deadline_ns)
{
    uint64_t wanted = notifier->queued;
    while (notifier->done < wanted)
        TRY(vv_waitq_wait(&notifier->waiters, deadline_ns));
    return 0;
}
