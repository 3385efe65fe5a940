#include "rt/real_impl.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"

#define SLOTS_MIN 64

int vv_poll_init(struct vv_poll *poll)
{
    poll->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    return poll->epoll_fd < 0 ? -errno : 0;
}

void vv_poll_done(struct vv_poll *poll)
{
    if (poll->epoll_fd >= 0)
        close(poll->epoll_fd);
    vv_free(poll->slots);
}

static int grow(struct vv_poll *poll, size_t needed)
{
    size_t count = poll->slot_count ? poll->slot_count : SLOTS_MIN;
    while (count < needed)
        count *= 2;
    struct vv_poll_slot *slots = vv_realloc(poll->slots, count * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    memset(slots + poll->slot_count, 0, (count - poll->slot_count) * sizeof(*slots));
    poll->slots = slots;
    poll->slot_count = count;
    return 0;
}

int vv_poll_register(struct vv_poll *poll, int fd, unsigned events)
{
    if (fd < 0)
        return -EBADF;
    if ((size_t)fd >= poll->slot_count)
        TRY(grow(poll, (size_t)fd + 1));
    struct vv_poll_slot *slot = &poll->slots[fd];
    unsigned wanted = slot->events | events;
    if (slot->events == wanted)
        return 0;
    struct epoll_event event = {.events = EPOLLET, .data.fd = fd};
    if (wanted & VV_RT_READ)
        event.events |= EPOLLIN | EPOLLRDHUP;
    if (wanted & VV_RT_WRITE)
        event.events |= EPOLLOUT;
    int op = slot->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(poll->epoll_fd, op, fd, &event) != 0)
        return -errno;
    if (!slot->events)
        *slot = (struct vv_poll_slot){0};
    slot->events = wanted;
    return 0;
}

void vv_poll_forget(struct vv_poll *poll, int fd)
{
    if (fd < 0 || (size_t)fd >= poll->slot_count || !poll->slots[fd].events)
        return;
    struct vv_poll_slot *slot = &poll->slots[fd];
    assert(!slot->reader && !slot->writer && "nobody waits for a forgotten descriptor");
    slot->events = 0;
    epoll_ctl(poll->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Who still waits: a fiber whose time is over is on its way already and only has not taken itself out. The event is
 * not lost on it: whoever uses the descriptor again tries before he waits. */
static struct vv_fiber *still_waiting(struct vv_fiber *fiber)
{
    return fiber && vv_list_is_empty(&fiber->run_node) ? fiber : NULL;
}

void vv_poll_wake(struct vv_poll *poll, int fd, unsigned events)
{
    if ((size_t)fd >= poll->slot_count)
        return;
    struct vv_poll_slot *slot = &poll->slots[fd];
    struct vv_fiber *reader = events & VV_RT_READ ? still_waiting(slot->reader) : NULL;
    struct vv_fiber *writer = events & VV_RT_WRITE ? still_waiting(slot->writer) : NULL;
    unsigned reader_events = VV_RT_READ | (reader == writer ? VV_RT_WRITE : 0);
    if (reader && slot->writer == reader)
        slot->writer = NULL;
    if (writer && slot->reader == writer)
        slot->reader = NULL;
    if (reader) {
        slot->reader = NULL;
        vv_fiber_wake(reader, (int)reader_events);
    }
    if (writer && writer != reader) {
        slot->writer = NULL;
        vv_fiber_wake(writer, VV_RT_WRITE);
    }
}

int vv_poll_wait(struct vv_poll *poll, int fd, unsigned events, uint64_t deadline_ns)
{
    struct vv_fiber *fiber = vv_fiber_self();
    assert(poll->slots[fd].events);
    if (events & VV_RT_READ) {
        assert(!poll->slots[fd].reader && "one fiber per direction");
        poll->slots[fd].reader = fiber;
    }
    if (events & VV_RT_WRITE) {
        assert(!poll->slots[fd].writer && "one fiber per direction");
        poll->slots[fd].writer = fiber;
    }
    int result = vv_fiber_wait(deadline_ns);
    /* The waker took the fiber out; after a time-out nobody has. The table may have moved. */
    if (poll->slots[fd].reader == fiber)
        poll->slots[fd].reader = NULL;
    if (poll->slots[fd].writer == fiber)
        poll->slots[fd].writer = NULL;
    return result;
}

/* Which of `events` are ready at this moment. */
static int look(int fd, unsigned events)
{
    struct pollfd pollfd = {.fd = fd};
    if (events & VV_RT_READ)
        pollfd.events |= POLLIN | POLLRDHUP;
    if (events & VV_RT_WRITE)
        pollfd.events |= POLLOUT;
    if (poll(&pollfd, 1, 0) < 0)
        return errno == EINTR ? 0 : -errno;
    if (pollfd.revents & POLLNVAL)
        return -EBADF;
    unsigned ready = 0;
    if (pollfd.revents & (POLLIN | POLLRDHUP | POLLHUP | POLLERR))
        ready |= VV_RT_READ;
    if (pollfd.revents & (POLLOUT | POLLHUP | POLLERR))
        ready |= VV_RT_WRITE;
    return (int)(ready & events);
}

/* Wait; look first unless the caller has. */
static int wait_fd(int fd, unsigned events, uint64_t deadline_ns, bool is_looking)
{
    struct vv_real *real = vv_real_self();
    if (!real)
        return -ENOSYS;
    if ((events & (VV_RT_READ | VV_RT_WRITE)) == 0)
        return -EINVAL;
    /* Registering, and changing that, reports what is ready already. */
    TRY(vv_poll_register(&real->poll, fd, events));
    int ready = is_looking ? look(fd, events) : 0;
    if (ready != 0)
        return ready;
    return vv_poll_wait(&real->poll, fd, events, deadline_ns);
}

int vv_rt_wait_fd(int fd, unsigned events, uint64_t deadline_ns)
{
    return wait_fd(fd, events, deadline_ns, true);
}

int vv_rt_wait_fd_new(int fd, unsigned events, uint64_t deadline_ns)
{
    return wait_fd(fd, events, deadline_ns, false);
}

void vv_rt_wake_fd(int fd)
{
    struct vv_real *real = vv_real_self();
    if (real && fd >= 0)
        vv_poll_wake(&real->poll, fd, VV_RT_READ | VV_RT_WRITE);
}

void vv_rt_forget_fd(int fd)
{
    struct vv_real *real = vv_real_self();
    if (real)
        vv_poll_forget(&real->poll, fd);
}
