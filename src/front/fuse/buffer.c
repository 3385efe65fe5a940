/* Large buffers: for requests and replies, and payloads into which WRITEs are received. Both count against one limit. */
#include "front/fuse/fuse_impl.h"

#include <assert.h>

static_assert(VV_FUSE_PAYLOAD_PIECES * VV_EXTENT_BYTES == VV_FUSE_IO_BYTES_MAX,
              "a payload holds the longest WRITE");

void vv_fuse_buffers_init(struct vv_fuse *fuse)
{
    uint64_t memory_bytes = fuse->options.memory_bytes;
    uint64_t count = memory_bytes / VV_FUSE_BUFFERS_SHARE / VV_FUSE_BUFFER_BYTES;
    if (memory_bytes == 0 || count > VV_FUSE_BUFFERS_MAX)
        count = VV_FUSE_BUFFERS_MAX;
    fuse->buffer_max = count < VV_FUSE_BUFFERS_MIN ? VV_FUSE_BUFFERS_MIN : (unsigned)count;
    vv_waitq_init(&fuse->buffer_waiters);
}

static struct vv_fuse_buffer *buffer_new(struct vv_fuse *fuse, bool is_payload)
{
    struct vv_fuse_buffer *buffer = vv_zalloc(sizeof(*buffer));
    if (!buffer)
        return NULL;
    int err = 0;
    if (is_payload)
        err = vv_fs_payload_new(fuse->fs, 0, VV_FUSE_IO_BYTES_MAX, &buffer->payload);
    else
        buffer->bytes = vv_alloc_aligned(4096, VV_FUSE_BUFFER_BYTES);
    if (err < 0 || (!is_payload && !buffer->bytes)) {
        vv_free(buffer);
        return NULL;
    }
    fuse->buffer_count++;
    return buffer;
}

static void buffer_free(struct vv_fuse *fuse, struct vv_fuse_buffer *buffer)
{
    vv_payload_free(buffer->payload);
    vv_free(buffer->bytes);
    vv_free(buffer);
    fuse->buffer_count--;
}

static struct vv_fuse_buffer *pop(struct vv_fuse *fuse, bool is_payload)
{
    struct vv_fuse_buffer *buffer = fuse->free_buffers[is_payload];
    if (!buffer)
        return NULL;
    fuse->free_buffers[is_payload] = buffer->next;
    fuse->free_buffer_count--;
    return buffer;
}

/* One of the other kind that is not used makes room. */
static bool has_room(struct vv_fuse *fuse, bool is_payload)
{
    if (fuse->buffer_count < fuse->buffer_max)
        return true;
    struct vv_fuse_buffer *other = pop(fuse, !is_payload);
    if (other)
        buffer_free(fuse, other);
    return other != NULL;
}

struct vv_fuse_buffer *vv_fuse_buffer_take(struct vv_fuse *fuse)
{
    while (!fuse->free_buffers[false] && !has_room(fuse, false))
        vv_waitq_wait(&fuse->buffer_waiters, VV_NEVER);
    struct vv_fuse_buffer *buffer = pop(fuse, false);
    return buffer ? buffer : buffer_new(fuse, false);
}

struct vv_fuse_buffer *vv_fuse_payload_take(struct vv_fuse *fuse)
{
    if (!fuse->free_buffers[true] && !has_room(fuse, true))
        return NULL;
    struct vv_fuse_buffer *buffer = pop(fuse, true);
    if (!buffer)
        return buffer_new(fuse, true);
    if (vv_payload_renew(buffer->payload) == 0)
        return buffer;
    buffer_free(fuse, buffer);
    return NULL;
}

void vv_fuse_buffer_give(struct vv_fuse *fuse, struct vv_fuse_buffer *buffer)
{
    if (!buffer)
        return;
    bool is_payload = buffer->payload != NULL;
    bool is_wanted = !is_payload || fuse->bulk_left > 0;
    if (!is_wanted || (fuse->free_buffer_count >= VV_FUSE_BUFFERS_WARM_MAX &&
                       vv_waitq_is_empty(&fuse->buffer_waiters))) {
        buffer_free(fuse, buffer);
    } else {
        buffer->next = fuse->free_buffers[is_payload];
        fuse->free_buffers[is_payload] = buffer;
        fuse->free_buffer_count++;
    }
    vv_waitq_wake_one(&fuse->buffer_waiters);
}

void vv_fuse_payloads_drop(struct vv_fuse *fuse)
{
    struct vv_fuse_buffer *buffer;
    while ((buffer = pop(fuse, true)))
        buffer_free(fuse, buffer);
}

void vv_fuse_buffers_free(struct vv_fuse *fuse)
{
    struct vv_fuse_buffer *buffer;
    vv_fuse_payloads_drop(fuse);
    while ((buffer = pop(fuse, false)))
        buffer_free(fuse, buffer);
}
