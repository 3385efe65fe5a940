/* Receiving and serving requests.
 *
 * The mount's fibers take turns: one waits for the next request; when it has one, it wakes another
 * to wait in its place and serves its own. So nothing is started or handed over for a request that
 * does not suspend, and any number (up to VV_FUSE_FIBERS_MAX) may be suspended. */
#include "front/fuse/fuse_impl.h"

#include <string.h>

#include "base/hash.h"
#include "base/log.h"

const char vv_fuse_fiber_name[] = "fuse";

static void serve(void *arg);

/* ---- what the kernel knows ---- */

static size_t known_slot(uint64_t inode)
{
    return (size_t)(vv_mix64(inode) & (VV_FUSE_KNOWN_SLOTS - 1));
}

void vv_fuse_known_add(struct vv_fuse *fuse, uint64_t inode, int64_t count)
{
    fuse->known[known_slot(inode)] += (uint64_t)count;
}

void vv_fuse_known_tell(struct vv_fuse *fuse, uint64_t inode, uint64_t parent)
{
    fuse->known[known_slot(inode)]++;
    fuse->told[vv_mix64(inode) & (VV_FUSE_TOLD_SLOTS - 1)] = (struct vv_fuse_told){inode, parent};
}

uint64_t vv_fuse_told_parent(const struct vv_fuse *fuse, uint64_t inode)
{
    const struct vv_fuse_told *told = &fuse->told[vv_mix64(inode) & (VV_FUSE_TOLD_SLOTS - 1)];
    return told->inode == inode ? told->parent : 0;
}

bool vv_fuse_is_known(const struct vv_fuse *fuse, uint64_t inode)
{
    return inode == FUSE_ROOT_ID || fuse->known[known_slot(inode)] > 0;
}

static struct vv_fuse_removed *removed_find(const struct vv_fuse *fuse, uint64_t inode)
{
    struct vv_map_node *node = fuse->removed.count > 0 ? vv_map_find(&fuse->removed, vv_mix64(inode)) : NULL;
    for (; node; node = vv_map_next(node)) {
        struct vv_fuse_removed *removed = vv_container_of(node, struct vv_fuse_removed, node);
        if (vv_handle_inode(removed->handle) == inode)
            return removed;
    }
    return NULL;
}

static void removed_free(struct vv_fuse *fuse, struct vv_fuse_removed *removed)
{
    vv_map_remove(&fuse->removed, &removed->node);
    vv_fs_release(removed->handle);
    vv_free(removed);
}

void vv_fuse_forget_inode(struct vv_fuse *fuse, uint64_t inode, uint64_t count)
{
    struct vv_fuse_removed *removed = removed_find(fuse, inode);
    vv_fuse_known_add(fuse, inode, -(int64_t)count);
    if (removed)
        removed_free(fuse, removed);
}

int vv_fuse_removed_new(struct vv_fuse_request *request, struct vv_fuse_removed **out_removed)
{
    struct vv_fuse_removed *removed = vv_zalloc(sizeof(*removed));
    if (!removed)
        return -ENOMEM;
    request->call.removed_dir = &removed->handle;
    *out_removed = removed;
    return 0;
}

void vv_fuse_removed_keep(struct vv_fuse_request *request, struct vv_fuse_removed *removed)
{
    request->call.removed_dir = NULL;
    if (removed->handle)
        vv_map_insert(&request->fuse->removed, &removed->node, vv_mix64(vv_handle_inode(removed->handle)));
    else
        vv_free(removed);
}

/* ---- fibers ---- */

int vv_fuse_fiber_start(struct vv_fuse *fuse, void (*fn)(void *), void *arg, const char *name)
{
    TRY(vv_fiber_start(fn, arg, name));
    fuse->fibers++;
    return 0;
}

void vv_fuse_fiber_ended(struct vv_fuse *fuse)
{
    fuse->fibers--;
    vv_waitq_wake_all(&fuse->ended);
}

/* The kernel has let go: nobody receives any more, and who waits for a lock stops. */
static void end_session(struct vv_fuse *fuse)
{
    if (fuse->is_gone)
        return;
    fuse->is_gone = true;
    vv_waitq_wake_all(&fuse->idle);
    vv_fuse_lock_cancel_all(fuse);
    if (fuse->options.on_gone)
        fuse->options.on_gone(fuse->options.arg);
}

/* Become the fiber that receives. False when the fiber is to end. */
static bool take_turn(struct vv_fuse *fuse)
{
    while (fuse->is_receiving && !fuse->is_gone) {
        if (fuse->idle_count >= VV_FUSE_IDLE_FIBERS_MAX)
            return false;
        fuse->idle_count++;
        vv_waitq_wait(&fuse->idle, VV_NEVER);
        fuse->idle_count--;
        fuse->has_successor = false;
    }
    return !fuse->is_gone;
}

/* Let another fiber receive while this one serves. One is enough, however many requests are served before it comes to
 * run: each that is woken in vain leaves another stack to be brought into the processor's caches. */
static void pass_turn(struct vv_fuse *fuse)
{
    fuse->is_receiving = false;
    if (fuse->has_successor)
        return;
    if (!vv_waitq_is_empty(&fuse->idle)) {
        vv_waitq_wake_one(&fuse->idle);
        fuse->has_successor = true;
        return;
    }
    if (fuse->fibers >= VV_FUSE_FIBERS_MAX)
        return; /* the first that is ready takes its turn */
    int err = vv_fuse_fiber_start(fuse, serve, fuse, vv_fuse_fiber_name);
    fuse->has_successor = err == 0;
    if (err < 0)
        vv_debug("fuse", "no further fiber: %s", vv_err_text(err));
}

/* ---- receiving ---- */

/* Wait for a request. Its length; -ENODEV. */
static ssize_t receive_bytes(struct vv_fuse *fuse, const struct iovec *iov, int count)
{
    while (!fuse->is_gone) {
        ssize_t len = vv_fuse_device_read(&fuse->device, iov, count);
        if (len >= 0 || (len != -EAGAIN && len != -EINTR && len != -ENOENT))
            return len;
        if (len != -EAGAIN)
            continue;
        fuse->served_in_row = 0;
        /* The end of the connection is an event, too. */
        TRY(vv_rt_wait_fd_new(fuse->device.fd, VV_RT_READ, VV_NEVER));
    }
    return -ENODEV;
}

static void request_done(struct vv_fuse_request *request)
{
    vv_fuse_buffer_give(request->fuse, request->buffer);
    vv_free(request->joined);
}

/* What was received cannot be served. Who sent it must not wait for ever, if it can be told who that is. Returns `err`. */
static int refuse(struct vv_fuse *fuse, const uint8_t *bytes, size_t len, int err)
{
    struct fuse_in_header header;
    if (len < sizeof(header))
        return err;
    memcpy(&header, bytes, sizeof(header));
    if (header.opcode != FUSE_FORGET && header.opcode != FUSE_BATCH_FORGET && header.opcode != FUSE_INTERRUPT)
        vv_fuse_reply_error(fuse, &header, err);
    return err;
}

/* A request in a buffer of bytes: short ones are copied off it. */
static int receive_plain(struct vv_fuse_request *request, struct vv_fuse_buffer *buffer)
{
    struct vv_fuse *fuse = request->fuse;
    struct iovec iov = {buffer->bytes, VV_FUSE_BUFFER_BYTES};
    ssize_t len = receive_bytes(fuse, &iov, 1);
    TRY(len < 0 ? (int)len : 0);
    const uint8_t *bytes = buffer->bytes;
    if ((size_t)len <= sizeof(request->small)) {
        memcpy(request->small, bytes, (size_t)len);
        bytes = request->small;
        request->buffer = NULL;
        vv_fuse_buffer_give(fuse, buffer);
    }
    int err = vv_fuse_decode(bytes, (size_t)len, &request->message);
    if (err < 0)
        return refuse(fuse, bytes, (size_t)len, err);
    bool is_bulk = request->message.header.opcode == FUSE_WRITE && len >= VV_FUSE_BULK_BYTES;
    fuse->bulk_left = is_bulk ? VV_FUSE_BULK_REQUESTS : 0;
    return 0;
}

/* A request that is no large WRITE after all: its bytes in one place. */
static int join(struct vv_fuse_request *request, size_t len)
{
    struct vv_payload *payload = request->buffer->payload;
    uint8_t *bytes = request->small;
    if (len > sizeof(request->small)) {
        bytes = request->joined = vv_alloc(len);
        if (!bytes)
            return refuse(request->fuse, request->small, VV_FUSE_WRITE_HEAD_BYTES, -ENOMEM);
        memcpy(bytes, request->small, VV_FUSE_WRITE_HEAD_BYTES);
    }
    if (len > VV_FUSE_WRITE_HEAD_BYTES)
        vv_payload_copy(payload, 0, bytes + VV_FUSE_WRITE_HEAD_BYTES,
                        len - VV_FUSE_WRITE_HEAD_BYTES);
    int err = vv_fuse_decode(bytes, len, &request->message);
    return err < 0 ? refuse(request->fuse, bytes, len, err) : 0;
}

/* A request whose data, if it is a WRITE, comes to lie in a payload. */
static int receive_payload(struct vv_fuse_request *request, struct vv_fuse_buffer *buffer)
{
    struct vv_fuse *fuse = request->fuse;
    struct iovec iov[1 + VV_FUSE_PAYLOAD_PIECES] = {{request->small, VV_FUSE_WRITE_HEAD_BYTES}};
    unsigned count = vv_payload_count(buffer->payload);
    for (unsigned i = 0; i < count; i++)
        iov[1 + i] = vv_payload_piece(buffer->payload, i);
    ssize_t got = receive_bytes(fuse, iov, 1 + (int)count);
    TRY(got < 0 ? (int)got : 0);
    size_t len = (size_t)got;
    if (len > sizeof(request->small) &&
        vv_fuse_decode_write(request->small, len, &request->message) == 0) {
        vv_payload_cut(buffer->payload, len - VV_FUSE_WRITE_HEAD_BYTES);
        request->is_in_payload = true;
        fuse->bulk_left = VV_FUSE_BULK_REQUESTS;
        return 0;
    }
    if (--fuse->bulk_left == 0)
        vv_fuse_payloads_drop(fuse);
    int err = join(request, len);
    if (err == 0 && !request->joined) {
        request->buffer = NULL;
        vv_fuse_buffer_give(fuse, buffer);
    }
    return err;
}

/* The next request into *request, which then owns its bytes. */
static int receive(struct vv_fuse *fuse, struct vv_fuse_request *request)
{
    request->fuse = fuse;
    request->buffer = NULL;
    request->joined = NULL;
    request->is_in_payload = false;
    if (fuse->bulk_left > 0)
        request->buffer = vv_fuse_payload_take(fuse);
    bool has_payload = request->buffer != NULL;
    if (!has_payload)
        request->buffer = vv_fuse_buffer_take(fuse);
    if (!request->buffer)
        return -ENOMEM;
    int err = has_payload ? receive_payload(request, request->buffer)
                          : receive_plain(request, request->buffer);
    if (err < 0) {
        request_done(request);
        return err;
    }
    const struct fuse_in_header *header = &request->message.header;
    /* A caller who is not named (ALLOW_IDMAP) may do what he asks for. Where it matters whether he
     * is root, the operation asks who he is. */
    bool is_named = header->uid != VV_FUSE_ID_NONE;
    request->call = (struct vv_fs_call){
        .cred = {.uid = is_named ? header->uid : 0,
                 .gid = is_named ? header->gid : 0,
                 .is_checked = true},
        .door = fuse->options.door,
    };
    request->change_count = fuse->change_count;
    return 0;
}

static void dispatch(struct vv_fuse_request *request)
{
    struct vv_fuse *fuse = request->fuse;
    const struct fuse_in_header *header = &request->message.header;
    const struct vv_fuse_op *op = vv_fuse_op_of(header->opcode);
    int err = -ENOSYS;
    if (op && op->is_changing && fuse->options.is_read_only)
        err = -EROFS;
    else if (op)
        err = op->serve(request);
    if (err < 0) {
        vv_debug("fuse", "%s of inode %llu: %s", vv_fuse_opcode_name(header->opcode),
                 (unsigned long long)header->nodeid, vv_err_text(err));
        vv_fuse_reply_error(fuse, header, err);
    }
    request_done(request);
}

/* A fiber of the mount. */
static void serve(void *arg)
{
    struct vv_fuse *fuse = arg;
    struct vv_fuse_request request;
    fuse->has_successor = false;
    while (take_turn(fuse)) {
        fuse->is_receiving = true;
        int err = receive(fuse, &request);
        if (err == -ENOMEM || err == -VV_ERR_FORMAT) {
            vv_error("fuse", "receiving a request: %s", vv_err_text(err));
            vv_rt_sleep_ns(VV_NS_PER_MS * 10);
            fuse->is_receiving = false;
            continue;
        }
        if (err < 0) {
            fuse->is_receiving = false;
            if (err != -ENODEV)
                vv_warn("fuse", "the mount is lost: %s", vv_err_text(err));
            end_session(fuse);
            break;
        }
        pass_turn(fuse);
        dispatch(&request);
        if (++fuse->served_in_row >= VV_FUSE_YIELD_REQUESTS) {
            fuse->served_in_row = 0;
            vv_fiber_yield();
        }
    }
    vv_fuse_fiber_ended(fuse);
}

/* ---- life ---- */

int vv_fuse_session_start(struct vv_fuse *fuse)
{
    vv_waitq_init(&fuse->idle);
    vv_waitq_init(&fuse->ended);
    vv_fuse_buffers_init(fuse);
    vv_list_init(&fuse->opens);
    vv_list_init(&fuse->lock_waiters);
    fuse->told = vv_calloc(VV_FUSE_TOLD_SLOTS, sizeof(*fuse->told));
    fuse->known = vv_calloc(VV_FUSE_KNOWN_SLOTS, sizeof(*fuse->known));
    fuse->checked_writes = vv_calloc(VV_FUSE_READ_SLOTS, sizeof(*fuse->checked_writes));
    if (!fuse->known || !fuse->told || !fuse->checked_writes)
        return -ENOMEM;
    TRY(vv_map_init(&fuse->removed));
    return vv_fuse_fiber_start(fuse, serve, fuse, vv_fuse_fiber_name);
}

void vv_fuse_session_free(struct vv_fuse *fuse)
{
    /* What the kernel had open when the connection was cut. */
    if (fuse->opens.next) {
        vv_list_each_safe (node, &fuse->opens)
            vv_fuse_open_free(vv_list_entry(node, struct vv_fuse_open, node));
    }
    while (fuse->removed.count > 0)
        removed_free(fuse, vv_container_of(vv_map_walk(&fuse->removed, NULL), struct vv_fuse_removed, node));
    vv_map_done(&fuse->removed);
    vv_fuse_buffers_free(fuse);
    vv_free(fuse->checked_writes);
    vv_free(fuse->told);
    vv_free(fuse->known);
}
