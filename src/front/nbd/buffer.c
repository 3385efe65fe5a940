#include "front/nbd/nbd_impl.h"

/* All that are kept have this size, so that any of them serves. */
#define LARGE_BYTES (1u << 20)

struct vv_nbd_buffer *vv_nbd_buffer_new(struct vv_nbd *nbd, size_t size)
{
    bool is_large = size > VV_NBD_LARGE_BYTES && size <= LARGE_BYTES;
    struct vv_nbd_buffer *buffer = is_large ? nbd->free_large : NULL;
    if (buffer) {
        nbd->free_large = buffer->next;
        nbd->free_large_count--;
        return buffer;
    }
    size_t capacity = is_large ? LARGE_BYTES : size;
    buffer = vv_alloc_aligned(64, sizeof(*buffer) + capacity);
    if (buffer)
        *buffer = (struct vv_nbd_buffer){.size = capacity};
    return buffer;
}

void vv_nbd_buffer_free(struct vv_nbd *nbd, struct vv_nbd_buffer *buffer)
{
    if (!buffer)
        return;
    if (buffer->size != LARGE_BYTES || nbd->free_large_count >= VV_NBD_LARGE_WARM_MAX) {
        vv_free(buffer);
        return;
    }
    buffer->next = nbd->free_large;
    nbd->free_large = buffer;
    nbd->free_large_count++;
}

void vv_nbd_buffers_done(struct vv_nbd *nbd)
{
    while (nbd->free_large) {
        struct vv_nbd_buffer *buffer = nbd->free_large;
        nbd->free_large = buffer->next;
        vv_free(buffer);
    }
    nbd->free_large_count = 0;
}
