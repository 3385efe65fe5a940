#include "front/nfs/nfs_impl.h"

struct vv_nfs_buffer *vv_nfs_buffer_new(struct vv_nfs *nfs, size_t size)
{
    bool is_large = size > VV_NFS_SMALL_BYTES;
    struct vv_nfs_buffer *buffer = is_large ? nfs->free_large : NULL;
    if (buffer) {
        nfs->free_large = buffer->next;
        nfs->free_large_count--;
        return buffer;
    }
    size_t capacity = is_large && size < VV_NFS_RECORD_MAX ? VV_NFS_RECORD_MAX : size;
    buffer = vv_alloc_aligned(64, sizeof(*buffer) + capacity);
    if (buffer)
        *buffer = (struct vv_nfs_buffer){.size = capacity};
    return buffer;
}

void vv_nfs_buffer_free(struct vv_nfs *nfs, struct vv_nfs_buffer *buffer)
{
    if (!buffer)
        return;
    if (buffer->size != VV_NFS_RECORD_MAX || nfs->free_large_count >= VV_NFS_LARGE_WARM_MAX) {
        vv_free(buffer);
        return;
    }
    buffer->next = nfs->free_large;
    nfs->free_large = buffer;
    nfs->free_large_count++;
}

void vv_nfs_buffers_done(struct vv_nfs *nfs)
{
    while (nfs->free_large) {
        struct vv_nfs_buffer *buffer = nfs->free_large;
        nfs->free_large = buffer->next;
        vv_free(buffer);
    }
    nfs->free_large_count = 0;
}
