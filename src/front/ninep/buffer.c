#include "front/ninep/ninep_impl.h"

/* Large buffers all have the largest size, so that any of them serves. */
static size_t large_size(void)
{
    return VV_NINEP_MSIZE_MAX;
}

struct vv_ninep_buffer *vv_ninep_buffer_new(struct vv_ninep *ninep, size_t size)
{
    bool is_large = size > VV_NINEP_LARGE_BYTES;
    struct vv_ninep_buffer *buffer = is_large ? ninep->free_large : NULL;
    if (buffer) {
        ninep->free_large = buffer->next;
        ninep->free_large_count--;
        return buffer;
    }
    size_t capacity = is_large && size < large_size() ? large_size() : size;
    buffer = vv_alloc_aligned(64, sizeof(*buffer) + capacity);
    if (buffer)
        *buffer = (struct vv_ninep_buffer){.size = capacity};
    return buffer;
}

void vv_ninep_buffer_free(struct vv_ninep *ninep, struct vv_ninep_buffer *buffer)
{
    if (!buffer)
        return;
    if (buffer->size != large_size() || ninep->free_large_count >= VV_NINEP_LARGE_WARM_MAX) {
        vv_free(buffer);
        return;
    }
    buffer->next = ninep->free_large;
    ninep->free_large = buffer;
    ninep->free_large_count++;
}

void vv_ninep_buffers_done(struct vv_ninep *ninep)
{
    while (ninep->free_large) {
        struct vv_ninep_buffer *buffer = ninep->free_large;
        ninep->free_large = buffer->next;
        vv_free(buffer);
    }
    ninep->free_large_count = 0;
}
