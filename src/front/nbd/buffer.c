/* Buffers and jobs are kept for reuse: fresh memory is slow, and many of a few sizes are wanted. */
#include "front/nbd/nbd_impl.h"

/* Sizes that are kept, and how many of each; what is larger is not. */
static const struct {
    uint32_t bytes;
    unsigned warm_max;
} classes[VV_NBD_CLASSES] = {{4096, 64}, {65536, 16}, {1u << 20, 8}};

static unsigned class_of(size_t size)
{
    unsigned class = 0;
    while (class < VV_NBD_CLASSES && classes[class].bytes < size)
        class++;
    return class;
}

struct vv_nbd_buffer *vv_nbd_buffer_new(struct vv_nbd *nbd, size_t size)
{
    unsigned class = class_of(size);
    bool is_kept = class < VV_NBD_CLASSES;
    struct vv_nbd_buffer *buffer = is_kept ? nbd->warm[class].first : NULL;
    if (buffer) {
        nbd->warm[class].first = buffer->next;
        nbd->warm[class].count--;
        return buffer;
    }
    buffer = vv_alloc(sizeof(*buffer) + (is_kept ? classes[class].bytes : size));
    if (buffer)
        *buffer = (struct vv_nbd_buffer){.class = class};
    return buffer;
}

void vv_nbd_buffer_free(struct vv_nbd *nbd, struct vv_nbd_buffer *buffer)
{
    if (!buffer)
        return;
    unsigned class = buffer->class;
    if (class == VV_NBD_CLASSES || nbd->warm[class].count >= classes[class].warm_max) {
        vv_free(buffer);
        return;
    }
    buffer->next = nbd->warm[class].first;
    nbd->warm[class].first = buffer;
    nbd->warm[class].count++;
}

void vv_nbd_buffers_done(struct vv_nbd *nbd)
{
    for (unsigned class = 0; class < VV_NBD_CLASSES; class++) {
        while (nbd->warm[class].first) {
            struct vv_nbd_buffer *buffer = nbd->warm[class].first;
            nbd->warm[class].first = buffer->next;
            vv_free(buffer);
        }
        nbd->warm[class].count = 0;
    }
    while (nbd->warm_jobs) {
        struct vv_nbd_job *job = nbd->warm_jobs;
        nbd->warm_jobs = job->next_warm;
        vv_free(job);
    }
    nbd->warm_job_count = 0;
}

struct vv_nbd_job *vv_nbd_job_take(struct vv_nbd *nbd)
{
    struct vv_nbd_job *job = nbd->warm_jobs;
    if (!job)
        return vv_zalloc(sizeof(*job));
    nbd->warm_jobs = job->next_warm;
    nbd->warm_job_count--;
    *job = (struct vv_nbd_job){.charge = 0};
    return job;
}

void vv_nbd_job_give(struct vv_nbd *nbd, struct vv_nbd_job *job)
{
    if (nbd->warm_job_count >= VV_NBD_WARM_JOBS_MAX) {
        vv_free(job);
        return;
    }
    job->next_warm = nbd->warm_jobs;
    nbd->warm_jobs = job;
    nbd->warm_job_count++;
}
