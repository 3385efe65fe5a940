/* Operations handed to the kernel without a worker: io_uring. */
#include "rt/real_impl.h"

#include <assert.h>
#include <errno.h>
#include <sys/epoll.h>

#include "base/log.h"

void vv_uring_init(struct vv_uring *uring, const struct vv_poll *poll, enum vv_rt_uring use)
{
    uring->use = use;
    if (use == VV_RT_URING_NEVER)
        return;
    struct io_uring_params params = {0};
    if (io_uring_queue_init_params(VV_URING_ENTRIES, &uring->ring, &params) < 0)
        return;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = uring->ring.ring_fd};
    if (epoll_ctl(poll->epoll_fd, EPOLL_CTL_ADD, uring->ring.ring_fd, &event) != 0) {
        io_uring_queue_exit(&uring->ring);
        return;
    }
    assert(params.cq_entries >= VV_URING_ENTRIES && "completions never overflow");
    uring->is_open = true;
    uring->is_on = true;
}

void vv_uring_done(struct vv_uring *uring)
{
    assert(uring->in_flight == 0 && "fibers wait for their operations");
    if (uring->is_open)
        io_uring_queue_exit(&uring->ring);
    uring->is_open = false;
    uring->is_on = false;
}

void vv_uring_reap(struct vv_uring *uring)
{
    if (!vv_uring_is_ready(uring))
        return;
    struct io_uring_cqe *cqe;
    unsigned head;
    unsigned count = 0;
    io_uring_for_each_cqe(&uring->ring, head, cqe) {
        struct vv_fiber *fiber = io_uring_cqe_get_data(cqe);
        vv_fiber_wake(fiber, cqe->res);
        vv_real_hurry(fiber);
        count++;
    }
    assert(count <= uring->in_flight);
    uring->in_flight -= count;
    io_uring_cq_advance(&uring->ring, count);
}

/* The other way is tried once in so many writes. */
#define TRY_INTERVAL 32
/* A single one that takes long says little. */
#define OUTLIER_FACTOR 4
#define MEAN_SHIFT 3

bool vv_uring_is_quicker(struct vv_uring *uring)
{
    if (!uring->is_on || uring->use != VV_RT_URING_QUICKER)
        return uring->is_on;
    bool is_quicker = uring->worker_ns == 0 || uring->ring_ns <= uring->worker_ns;
    bool is_trying = ++uring->asked % TRY_INTERVAL == 0;
    return is_quicker != is_trying;
}

void vv_uring_learn(struct vv_uring *uring, bool is_by_ring, uint64_t took_ns)
{
    uint64_t *mean_ns = is_by_ring ? &uring->ring_ns : &uring->worker_ns;
    if (*mean_ns == 0)
        *mean_ns = took_ns;
    if (took_ns > *mean_ns * OUTLIER_FACTOR)
        took_ns = *mean_ns * OUTLIER_FACTOR;
    *mean_ns += (took_ns >> MEAN_SHIFT);
    *mean_ns -= (*mean_ns >> MEAN_SHIFT);
}

/* Give the kernel the operation just prepared, and wait for its result. */
static int submit_and_wait(struct vv_uring *uring, struct io_uring_sqe *sqe)
{
    io_uring_sqe_set_data(sqe, vv_fiber_self());
    int submitted = io_uring_submit(&uring->ring);
    if (submitted != 1) {
        /* It stays in the queue, which the kernel will not be asked to look at again. */
        vv_warn("rt", "io_uring: %s; workers go on without it",
                vv_err_text(submitted < 0 ? submitted : -EIO));
        uring->is_on = false;
        return -EAGAIN;
    }
    uring->in_flight++;
    return vv_fiber_wait(VV_NEVER);
}

int vv_uring_pwritev_synced(struct vv_uring *uring, int fd, const struct iovec *iov, int count,
                            uint64_t offset)
{
    if (!uring->is_on || uring->in_flight >= VV_URING_ENTRIES)
        return -EAGAIN;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    assert(sqe && "each entry is submitted at once");
    io_uring_prep_writev2(sqe, fd, iov, (unsigned)count, offset, RWF_DSYNC | RWF_NOWAIT);
    int written = submit_and_wait(uring, sqe);
    uring->written += written > 0;
    return written;
}
