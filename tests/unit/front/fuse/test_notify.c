/* Invalidations on a pipe instead of the kernel's device: what is sent, and that nothing is kept once they are stopped. */
#include "front/fuse/notify.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tap.h"

static int pipe_fds[2];

/* The next message; the code of its notification, -1 when there is none. */
static int next_message(void *out, size_t len)
{
    struct fuse_out_header header;
    if (read(pipe_fds[0], &header, sizeof(header)) != (ssize_t)sizeof(header))
        return -1;
    size_t rest = header.len - sizeof(header);
    if (rest > len || read(pipe_fds[0], out, rest) != (ssize_t)rest)
        return -1;
    return header.error;
}

static void test_sending(struct vv_fuse_notifier *notifier)
{
    union {
        struct fuse_notify_inval_inode_out inode;
        struct fuse_notify_inval_entry_out entry;
        char bytes[64];
    } out;
    vv_fuse_notify_inode(notifier, 7, 0, 4096, 100);
    tap_is_int(vv_fuse_notifier_wait(notifier, vv_rt_now_ns() + VV_NS_PER_S), 0, "an inode is told of");
    tap_is_int(next_message(&out, sizeof(out)), FUSE_NOTIFY_INVAL_INODE, "by its notification");
    tap_ok(out.inode.ino == 7 && out.inode.off == 4096 && out.inode.len == 100, "with its range");
    vv_fuse_notify_entry(notifier, 5, "name", 4);
    tap_is_int(vv_fuse_notifier_wait(notifier, vv_rt_now_ns() + VV_NS_PER_S), 0, "and an entry");
    tap_is_int(next_message(&out, sizeof(out)), FUSE_NOTIFY_INVAL_ENTRY, "by its own");
    tap_ok(out.entry.parent == 5 && memcmp(out.bytes + sizeof(out.entry), "name", 5) == 0, "with its name");
    tap_is_int(next_message(&out, sizeof(out)), FUSE_NOTIFY_INVAL_INODE, "then its directory's listing");
}

/* Requests that are under way when the connection is cut still want to tell of what they change. */
static void test_stopped(struct vv_fuse_notifier *notifier)
{
    size_t before = vv_alloc_domain_count(0);
    uint64_t begun_ns = vv_rt_now_ns();
    char byte;
    vv_fuse_notify_inode(notifier, 7, 0, 0, 1);
    vv_fuse_notify_entry(notifier, 5, "name", 4);
    tap_is_int(vv_fuse_notifier_wait(notifier, begun_ns + 5 * VV_NS_PER_S), 0,
               "nobody waits for a stopped notifier");
    tap_ok(vv_rt_now_ns() - begun_ns < VV_NS_PER_S, "not even for a while");
    tap_is_int((int64_t)vv_alloc_domain_count(0), (int64_t)before, "and it keeps nothing");
    tap_is_int(read(pipe_fds[0], &byte, 1), -1, "nor sends anything");
}

static void run(void *arg)
{
    struct vv_fuse_device device = {.fd = pipe_fds[1]};
    struct vv_fuse_notifier notifier;
    (void)arg;
    tap_is_int(vv_fuse_notifier_start(&notifier, &device), 0, "it starts");
    test_sending(&notifier);
    vv_fuse_notifier_stop(&notifier);
    test_stopped(&notifier);
}

int main(void)
{
    struct vv_rt_options options = {.workers = 1};
    vv_alloc_track(true);
    if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return 1;
    tap_is_int(vv_rt_run(&options, run, NULL), 0, "the runtime ends");
    return tap_done();
}
