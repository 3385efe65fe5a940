/* The kernel's end of a FUSE mount, for tests without one: requests are handed to the door, and its replies are judged as
 * the kernel judges them. It defines the functions of front/fuse/device.h, so that the linker leaves the real ones out:
 * include it in one file of a program. Everything else of the door is the product's.
 *
 * Nothing here uses base/alloc.h but the copy of the mount point, so each allocation that a test lets fail is the
 * product's. Reading waits in virtual time, so who waits in vain is told -ETIMEDOUT at once. Only for the simulated
 * runtime, where nobody else's thread may post: requests that end in a notification need notifier.h as well. */
#ifndef UNIT_FRONT_FUSE_KERNEL_H
#define UNIT_FRONT_FUSE_KERNEL_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "front/fuse/codec.h"
#include "front/fuse/device.h"
#include "rt/rt.h"
#include "tap.h"

#define UNUSED __attribute__((unused))
#define KERNEL_WAIT_S 60               /* for an answer, of virtual time */
#define KERNEL_REPLY_BYTES (2u << 20)  /* more than any reply has */
#define KERNEL_ERROR_MIN (-511)        /* the kernel takes no others */

/* A request, and what was answered. */
struct kernel_call {
    struct vv_list node;   /* in kernel.calls */
    struct vv_list unread; /* in kernel.unread, until the door has read it */
    struct fuse_in_header header;
    size_t least, most; /* bytes that its reply may have behind the header */
    bool is_answerable; /* FORGET, BATCH_FORGET and INTERRUPT are not */
    bool is_read, is_answered;
    int error; /* 0 or below */
    uint8_t *reply;
    size_t reply_len;
    size_t len;
    uint8_t bytes[];
};

/* What a test asks. `fixed` and `tail` follow the header. */
struct kernel_ask {
    uint32_t opcode;
    uint64_t nodeid;
    struct vv_bytes fixed, tail;
    uint64_t unique; /* 0 = a new one */
    uint32_t uid;
    int32_t lie;     /* added to the header's length */
    uint16_t extlen; /* the header's total_extlen */
};

#define KERNEL_FIXED(in) {(const uint8_t *)&(in), sizeof(in)}
/* Text with the NUL that ends it. */
#define KERNEL_NAME(text) {(const uint8_t *)(text), strlen(text) + 1}

static struct {
    struct vv_list calls, unread; /* oldest first */
    struct vv_waitq readers, askers;
    uint64_t unique;
    bool is_open, is_ended;
    int read_error;      /* the next read's, once */
    bool is_taking_back; /* nobody waits for answers any more */
    bool is_busy;        /* an unmount without force is refused */
    unsigned syncs;
    unsigned wrong_count; /* replies that the kernel would not take */
    uint8_t reply[KERNEL_REPLY_BYTES]; /* of the last ask */
} kernel;

/* ---- the judge ---- */

/* The bytes that the reply to a request has, by its opcode and what it asks for. */
static void kernel_reply_size(struct kernel_call *call, const uint8_t *body, size_t len)
{
    struct fuse_read_in read = {0};
    struct fuse_getxattr_in getxattr = {0};
    memcpy(&read, body, len < sizeof(read) ? len : sizeof(read));
    memcpy(&getxattr, body, len < sizeof(getxattr) ? len : sizeof(getxattr));
    bool is_variable = false;
    switch (call->header.opcode) {
    case FUSE_LOOKUP: case FUSE_SYMLINK: case FUSE_MKNOD: case FUSE_MKDIR: case FUSE_LINK:
        call->most = sizeof(struct fuse_entry_out);
        break;
    case FUSE_CREATE: case FUSE_TMPFILE:
        call->most = sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out);
        break;
    case FUSE_GETATTR: case FUSE_SETATTR:
        call->most = sizeof(struct fuse_attr_out);
        break;
    case FUSE_OPEN: case FUSE_OPENDIR:
        call->most = sizeof(struct fuse_open_out);
        break;
    case FUSE_WRITE: case FUSE_COPY_FILE_RANGE:
        call->most = sizeof(struct fuse_write_out);
        break;
    case FUSE_STATFS:
        call->most = sizeof(struct fuse_statfs_out);
        break;
    case FUSE_GETLK:
        call->most = sizeof(struct fuse_lk_out);
        break;
    case FUSE_LSEEK:
        call->most = sizeof(struct fuse_lseek_out);
        break;
    case FUSE_IOCTL: {
        struct fuse_ioctl_in ioctl = {0};
        memcpy(&ioctl, body, len < sizeof(ioctl) ? len : sizeof(ioctl));
        call->most = sizeof(struct fuse_ioctl_out) + ioctl.out_size;
        is_variable = true;
        break;
    }
    case VV_FUSE_STATX:
        call->most = sizeof(struct vv_fuse_statx_out);
        break;
    case FUSE_INIT:
        call->most = sizeof(struct fuse_init_out);
        break;
    case FUSE_READ: case FUSE_READDIR: case FUSE_READDIRPLUS:
        call->most = read.size;
        is_variable = true;
        break;
    case FUSE_READLINK:
        call->most = 4095;
        is_variable = true;
        break;
    case FUSE_GETXATTR: case FUSE_LISTXATTR:
        call->most = getxattr.size ? getxattr.size : sizeof(struct fuse_getxattr_out);
        is_variable = getxattr.size != 0;
        break;
    }
    call->least = is_variable ? 0 : call->most;
    call->is_answerable = call->header.opcode != FUSE_FORGET && call->header.opcode != FUSE_INTERRUPT &&
                          call->header.opcode != FUSE_BATCH_FORGET;
}

static int kernel_refuse(const struct fuse_out_header *header, const char *why)
{
    kernel.wrong_count++;
    tap_note("a reply of %u bytes, error %d, to request %llu: %s", header->len, header->error,
             (unsigned long long)header->unique, why);
    return -EINVAL;
}

static struct kernel_call *kernel_waiting_for(uint64_t unique)
{
    vv_list_each (node, &kernel.calls) {
        struct kernel_call *call = vv_list_entry(node, struct kernel_call, node);
        if (call->header.unique == unique && call->is_read && !call->is_answered)
            return call;
    }
    return NULL;
}

/* ---- the device ---- */

int vv_fuse_device_open(struct vv_fuse_device *device, const struct vv_fuse_options *options)
{
    *device = (struct vv_fuse_device){.fd = -1, .mountpoint = vv_strdup(options->mountpoint)};
    kernel.is_open = device->mountpoint != NULL;
    return kernel.is_open ? 0 : -ENOMEM;
}

void vv_fuse_device_close(struct vv_fuse_device *device)
{
    vv_free(device->mountpoint);
    *device = (struct vv_fuse_device){.fd = -1};
    kernel.is_open = false;
}

ssize_t vv_fuse_device_read(struct vv_fuse_device *device, const struct iovec *iov, int count)
{
    (void)device;
    while (vv_list_is_empty(&kernel.unread) && !kernel.is_ended && kernel.read_error == 0)
        vv_waitq_wait(&kernel.readers, VV_NEVER);
    int err = kernel.is_ended ? -ENODEV : kernel.read_error;
    kernel.read_error = 0;
    TRY(err);
    struct kernel_call *call = vv_list_first(&kernel.unread, struct kernel_call, unread);
    vv_list_remove(&call->unread);
    call->is_read = true;
    size_t at = 0;
    for (int i = 0; i < count && at < call->len; i++) {
        size_t part = call->len - at < iov[i].iov_len ? call->len - at : iov[i].iov_len;
        memcpy(iov[i].iov_base, call->bytes + at, part);
        at += part;
    }
    if (at < call->len) {
        kernel.wrong_count++;
        tap_note("a request of %zu bytes was read into %zu", call->len, at);
    }
    return (ssize_t)at;
}

int vv_fuse_device_write(struct vv_fuse_device *device, struct iovec *iov, int count)
{
    (void)device;
    static uint8_t bytes[KERNEL_REPLY_BYTES];
    struct fuse_out_header header = {0};
    size_t len = 0;
    for (int i = 0; i < count; len += iov[i++].iov_len)
        if (iov[i].iov_len > 0 && iov[i].iov_len <= sizeof(bytes) - len)
            memcpy(bytes + len, iov[i].iov_base, iov[i].iov_len);
    memcpy(&header, bytes, sizeof(header));
    if (len < sizeof(header) || len > sizeof(bytes) || header.len != len)
        return kernel_refuse(&header, "its length is not what was written");
    if (header.unique == 0)
        return kernel_refuse(&header, "a notification");
    if (header.error > 0 || header.error < KERNEL_ERROR_MIN || (header.error && len != sizeof(header)))
        return kernel_refuse(&header, "no error that the kernel takes");
    if (kernel.is_ended)
        return -ENODEV;
    struct kernel_call *call = kernel_waiting_for(header.unique);
    if (!call || !call->is_answerable)
        return kernel_refuse(&header, "to nothing that is waited for");
    size_t body_len = len - sizeof(header);
    if (header.error == 0 && (body_len < call->least || body_len > call->most))
        return kernel_refuse(&header, "not the size that its request asks for");
    call->is_answered = true;
    call->error = kernel.is_taking_back ? -EINTR : header.error;
    call->reply_len = body_len;
    call->reply = malloc(body_len + 1);
    memcpy(call->reply, bytes + sizeof(header), body_len);
    vv_waitq_wake_all(&kernel.askers);
    return kernel.is_taking_back ? -ENOENT : 0;
}

/* The connection is at its end: by umount, by an abort, or because nobody is left. */
static void kernel_end(void)
{
    kernel.is_ended = true;
    vv_waitq_wake_all(&kernel.readers);
}

int vv_fuse_device_unmount(struct vv_fuse_device *device, enum vv_fuse_unmount how)
{
    (void)device;
    if (kernel.is_busy && how == VV_FUSE_UNMOUNT_POLITE)
        return -EBUSY;
    kernel_end();
    return 0;
}

void vv_fuse_device_sync(struct vv_fuse_device *device)
{
    (void)device;
    kernel.syncs++;
}

size_t vv_fuse_device_groups(pid_t pid, uint32_t *out_groups, size_t count)
{
    (void)pid;
    (void)out_groups;
    (void)count;
    return 0;
}

void vv_fuse_device_ids(pid_t pid, uint32_t *io_uid, uint32_t *io_gid)
{
    (void)pid;
    (void)io_uid;
    (void)io_gid;
}

bool vv_fuse_device_is_admin(pid_t pid)
{
    (void)pid;
    return false;
}

int vv_fuse_device_peek(pid_t pid, uint64_t address, void *out, size_t len)
{
    (void)pid;
    (void)address;
    (void)out;
    (void)len;
    return -EPERM;
}

/* ---- asking ---- */

/* Before each mount. */
static UNUSED void kernel_start(void)
{
    kernel.is_ended = kernel.is_taking_back = kernel.is_busy = false;
    kernel.read_error = 0;
    vv_list_init(&kernel.calls);
    vv_list_init(&kernel.unread);
    vv_waitq_init(&kernel.readers);
    vv_waitq_init(&kernel.askers);
}

static void kernel_drop(struct kernel_call *call)
{
    vv_list_remove(&call->node);
    if (!call->is_read)
        vv_list_remove(&call->unread);
    free(call->reply);
    free(call);
}

static UNUSED void kernel_drop_all(void)
{
    vv_list_each_safe (node, &kernel.calls)
        kernel_drop(vv_list_entry(node, struct kernel_call, node));
}

/* Bytes for the door to read; no more than `len` of them are looked at to see what it is. */
static struct kernel_call *kernel_post_bytes(const void *bytes, size_t len)
{
    struct kernel_call *call = calloc(1, sizeof(*call) + len);
    memcpy(call->bytes, bytes, len);
    call->len = len;
    size_t header_len = len < sizeof(call->header) ? len : sizeof(call->header);
    memcpy(&call->header, bytes, header_len);
    kernel_reply_size(call, call->bytes + header_len, len - header_len);
    vv_list_push_back(&kernel.calls, &call->node);
    vv_list_push_back(&kernel.unread, &call->unread);
    vv_waitq_wake_all(&kernel.readers);
    return call;
}

static UNUSED struct kernel_call *kernel_post(struct kernel_ask ask)
{
    size_t len = sizeof(struct fuse_in_header) + ask.fixed.len + ask.tail.len;
    struct fuse_in_header header = {.len = (uint32_t)((int64_t)len + ask.lie),
                                    .opcode = ask.opcode,
                                    .unique = ask.unique ? ask.unique : (kernel.unique += 2),
                                    .nodeid = ask.nodeid,
                                    .uid = ask.uid,
                                    .gid = ask.uid,
                                    .pid = 1,
                                    .total_extlen = ask.extlen};
    uint8_t *bytes = malloc(len);
    memcpy(bytes, &header, sizeof(header));
    if (ask.fixed.len > 0)
        memcpy(bytes + sizeof(header), ask.fixed.ptr, ask.fixed.len);
    if (ask.tail.len > 0)
        memcpy(bytes + sizeof(header) + ask.fixed.len, ask.tail.ptr, ask.tail.len);
    struct kernel_call *call = kernel_post_bytes(bytes, len);
    free(bytes);
    return call;
}

/* Wait for the answer. 0, its error, -ETIMEDOUT. */
static UNUSED int kernel_wait(struct kernel_call *call)
{
    uint64_t deadline_ns = vv_rt_now_ns() + KERNEL_WAIT_S * VV_NS_PER_S;
    while (!call->is_answered)
        TRY(vv_waitq_wait(&kernel.askers, deadline_ns));
    return call->error;
}

/* Wait, keep its bytes in kernel.reply, and forget the request. Their number, its error, -ETIMEDOUT. */
static UNUSED ssize_t kernel_finish(struct kernel_call *call)
{
    int err = kernel_wait(call);
    if (err == -ETIMEDOUT)
        return err; /* an answer may still come */
    ssize_t len = (ssize_t)call->reply_len;
    memcpy(kernel.reply, call->reply, call->reply_len);
    kernel_drop(call);
    return err < 0 ? err : len;
}

/* Post and finish. */
static UNUSED ssize_t kernel_call(struct kernel_ask ask)
{
    return kernel_finish(kernel_post(ask));
}

/* A request that is not answered; who asked goes on when it was read. */
static UNUSED void kernel_tell(struct kernel_ask ask)
{
    struct kernel_call *call = kernel_post(ask);
    for (int i = 0; i < 1000 && !call->is_read; i++)
        vv_rt_sleep_ns(VV_NS_PER_MS);
    vv_fiber_yield();
    tap_ok(call->is_read && !call->is_answered, "%s is read, and not answered", vv_fuse_opcode_name(ask.opcode));
    kernel_drop(call);
}

#endif
