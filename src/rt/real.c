/* The real reactor: its loop, and the inbox through which other threads reach it. */
#include "rt/real_impl.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"

#define EVENTS_MAX 64
/* While fibers are runnable, descriptors and timers are looked at this often. */
#define POLL_INTERVAL_NS 20000ull
/* How long the first sleep after work lasts at most when stacks are left to be freed. */
#define TRIM_DELAY_NS VV_NS_PER_S
/* Looks at the inbox between two looks at the descriptors. */
#define INBOX_LOOKS 16

struct vv_real *vv_real_self(void)
{
    struct vv_reactor *reactor = vv_reactor_self();
    if (!reactor || !reactor->ops->is_real)
        return NULL;
    return vv_container_of(reactor, struct vv_real, base);
}

unsigned vv_real_cpu_count(void)
{
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return 1;
    int count = CPU_COUNT(&cpus);
    return count > 0 ? (unsigned)count : 1;
}

/* ---- spinning ---- */

#define SPIN_STEP_NS 4000ull
/* A gap of this length between two looks is a processor taken away. */
#define SPIN_GAP_NS 100000ull
#define SPIN_CROWDED_NS (10 * VV_NS_PER_MS)
/* Longer polling, for what is expected, has to find processors idle for so long: beside others it costs more than it gives. */
#define EXPECT_ALONE_NS (100 * VV_NS_PER_MS)

uint64_t vv_spin_begin(struct vv_spin *spin, uint64_t now_ns)
{
    spin->looked_ns = now_ns;
    return now_ns < spin->crowded_until_ns ? now_ns : now_ns + spin->now_ns;
}

bool vv_spin_go_on(struct vv_spin *spin, uint64_t now_ns)
{
    bool is_gap = now_ns - spin->looked_ns > SPIN_GAP_NS;
    spin->looked_ns = now_ns;
    if (is_gap)
        spin->crowded_until_ns = now_ns + SPIN_CROWDED_NS;
    return !is_gap;
}

void vv_spin_learn(struct vv_spin *spin, uint64_t waited_ns)
{
    if (waited_ns > spin->max_ns) {
        spin->now_ns = spin->now_ns > SPIN_STEP_NS ? spin->now_ns / 2 : 0;
        return;
    }
    spin->now_ns = spin->now_ns * 2 + SPIN_STEP_NS;
    if (spin->now_ns > spin->max_ns)
        spin->now_ns = spin->max_ns;
}

void vv_spin_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- the inbox ---- */

/* The poster publishes its post and then looks whether the reactor sleeps; the reactor says that it
 * is about to sleep and then looks at the inbox. All four are sequentially consistent, so at
 * least one of them sees the other. */
static void real_post(struct vv_reactor *reactor, struct vv_post *post)
{
    struct vv_real *real = vv_container_of(reactor, struct vv_real, base);
    struct vv_post *head = atomic_load_explicit(&real->inbox, memory_order_relaxed);
    do
        post->next = head;
    while (!atomic_compare_exchange_weak(&real->inbox, &head, post));
    if (!atomic_load(&real->is_sleeping) || !atomic_exchange(&real->is_sleeping, false))
        return;
    atomic_store_explicit(&real->woken_ns, vv_real_now_ns(NULL), memory_order_relaxed);
    uint64_t one = 1;
    ssize_t written = write(real->wake_fd, &one, sizeof(one));
    assert(written == sizeof(one));
    (void)written;
}

static bool inbox_is_empty(struct vv_real *real)
{
    return atomic_load_explicit(&real->inbox, memory_order_relaxed) == NULL;
}

static void run_inbox(struct vv_real *real)
{
    if (inbox_is_empty(real))
        return;
    struct vv_post *newest_first = atomic_exchange(&real->inbox, NULL);
    struct vv_post *post = NULL;
    while (newest_first) {
        struct vv_post *next = newest_first->next;
        newest_first->next = post;
        post = newest_first;
        newest_first = next;
    }
    while (post) {
        struct vv_post *next = post->next; /* fn may free the post */
        post->fn(post->arg);
        post = next;
    }
}

/* ---- events ---- */

static void deliver(struct vv_real *real, const struct epoll_event *event)
{
    int fd = event->data.fd;
    if (fd == real->wake_fd)
        return; /* edge-triggered: never read; the inbox is looked at anyway */
    if (real->uring.is_open && fd == real->uring.ring.ring_fd)
        return; /* likewise */
    if (fd == real->signals.fd) {
        vv_signals_deliver(&real->signals);
        return;
    }
    unsigned events = 0;
    if (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        events |= VV_RT_READ;
    if (event->events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        events |= VV_RT_WRITE;
    vv_poll_wake(&real->poll, fd, events);
}

/* A kernel without epoll_pwait2 (before 5.11) gets milliseconds, rounded up. */
static int wait_for_epoll(int epoll_fd, struct epoll_event *events, uint64_t timeout_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / VV_NS_PER_S),
                               .tv_nsec = (long)(timeout_ns % VV_NS_PER_S)};
    bool is_forever = timeout_ns == VV_NEVER;
    int count = epoll_pwait2(epoll_fd, events, EVENTS_MAX, is_forever ? NULL : &timeout, NULL);
    if (count >= 0 || errno != ENOSYS)
        return count;
    uint64_t timeout_ms = timeout_ns / VV_NS_PER_MS + 1;
    if (timeout_ms > 1000000)
        timeout_ms = 1000000;
    return epoll_wait(epoll_fd, events, EVENTS_MAX, is_forever ? -1 : (int)timeout_ms);
}

/* Wait for descriptors (0: only look) and deliver; returns how many events there were. */
static int poll_descriptors(struct vv_real *real, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    int count = timeout_ns == 0 ? epoll_wait(real->poll.epoll_fd, events, EVENTS_MAX, 0)
                                : wait_for_epoll(real->poll.epoll_fd, events, timeout_ns);
    assert(count >= 0 || errno == EINTR);
    atomic_store_explicit(&real->is_sleeping, false, memory_order_relaxed);
    for (int i = 0; i < count; i++)
        deliver(real, &events[i]);
    return count > 0 ? count : 0;
}

static void run_timers(struct vv_real *real, uint64_t now_ns)
{
    struct vv_timer *timer;
    while ((timer = vv_timer_heap_pop(&real->base.timers, now_ns)) != NULL)
        timer->fn(timer->arg);
}

void vv_real_expect(struct vv_real *real, uint64_t usual_ns)
{
    uint64_t until_ns = vv_real_now_ns(NULL) + usual_ns + usual_ns / 2;
    if (real->expected_count++ == 0 || until_ns > real->expected_until_ns)
        real->expected_until_ns = until_ns;
}

void vv_real_expect_end(struct vv_real *real)
{
    assert(real->expected_count > 0);
    real->expected_count--;
}

uint64_t vv_real_begin_polling(struct vv_real *real, uint64_t now_ns)
{
    if (real->spin.max_ns > 0 && now_ns >= real->spin.crowded_until_ns && vv_crowd_is_seen(&real->crowd, &real->workers, now_ns))
        real->spin.crowded_until_ns = now_ns + SPIN_CROWDED_NS;
    uint64_t until_ns = vv_spin_begin(&real->spin, now_ns);
    bool is_able = real->spin.max_ns > 0 && now_ns >= real->spin.crowded_until_ns + EXPECT_ALONE_NS;
    /* The kernel ends a synced write on a thread of its own, for which this processor may have to be free. */
    if (real->uring.in_flight > 0 && !is_able)
        return now_ns;
    if (is_able && real->expected_count > 0 && real->expected_until_ns > until_ns)
        return real->expected_until_ns;
    return until_ns;
}

/* Poll from `from_ns` until something happens; false when it is time to sleep. */
static bool spin(struct vv_real *real, uint64_t from_ns)
{
    uint64_t until_ns = vv_real_begin_polling(real, from_ns);
    uint64_t next_ns = vv_timer_heap_next(&real->base.timers);
    uint64_t now_ns = from_ns;
    while (now_ns < until_ns) {
        for (int i = 0; i < INBOX_LOOKS; i++) {
            if (!inbox_is_empty(real) || vv_uring_is_ready(&real->uring))
                return true;
            vv_spin_pause();
        }
        if (poll_descriptors(real, 0) > 0)
            return true;
        if (real->uring.in_flight > 0)
            sched_yield(); /* to that thread */
        now_ns = vv_real_now_ns(NULL);
        if (next_ns <= now_ns)
            return true;
        if (!vv_spin_go_on(&real->spin, now_ns))
            break;
    }
    return false;
}

static void sleep_for_event(struct vv_real *real, uint64_t now_ns)
{
    uint64_t next_ns = vv_timer_heap_next(&real->base.timers);
    if (next_ns <= now_ns)
        return;
    uint64_t timeout_ns = next_ns == VV_NEVER ? VV_NEVER : next_ns - now_ns;
    bool is_trimming = real->base.pool_count > VV_FIBERS_POOLED_IDLE_MAX;
    is_trimming = is_trimming && timeout_ns > TRIM_DELAY_NS;
    if (is_trimming)
        timeout_ns = TRIM_DELAY_NS;
    atomic_store(&real->is_sleeping, true);
    if (atomic_load(&real->inbox)) {
        atomic_store(&real->is_sleeping, false);
        return;
    }
    if (poll_descriptors(real, timeout_ns) == 0 && is_trimming && inbox_is_empty(real))
        vv_reactor_trim(&real->base, VV_FIBERS_POOLED_IDLE_MAX);
}

/* When the event came that has ended a sleep which began after `from_ns`: who posted has said so, a
 * timer is known, and others are taken to have come at half time, for waking takes long. */
static uint64_t event_time_ns(const struct vv_real *real, uint64_t from_ns, uint64_t timer_ns)
{
    uint64_t now_ns = vv_real_now_ns(NULL);
    uint64_t woken_ns = atomic_load_explicit(&real->woken_ns, memory_order_relaxed);
    if (woken_ns > from_ns)
        return woken_ns;
    return timer_ns <= now_ns ? timer_ns : from_ns + (now_ns - from_ns) / 2;
}

/* Nothing is runnable: wait for an event. */
static void wait_for_event(struct vv_real *real)
{
    uint64_t from_ns = vv_real_now_ns(NULL);
    uint64_t timer_ns = vv_timer_heap_next(&real->base.timers);
    /* Who will not poll anyway sees with the sleep what is there already. */
    bool is_polling = vv_real_begin_polling(real, from_ns) > from_ns;
    bool is_expecting = real->expected_count > 0 || real->uring.in_flight > 0; /* that says nothing about clients */
    if (timer_ns <= from_ns || (is_polling && poll_descriptors(real, 0) > 0))
        return;
    bool is_met = spin(real, from_ns);
    uint64_t now_ns = vv_real_now_ns(NULL);
    vv_spin_go_on(&real->spin, now_ns);
    if (is_met) {
        if (!is_expecting)
            vv_spin_learn(&real->spin, now_ns - from_ns);
        return;
    }
    atomic_store_explicit(&real->woken_ns, 0, memory_order_relaxed);
    sleep_for_event(real, now_ns);
    if (!is_expecting)
        vv_spin_learn(&real->spin, event_time_ns(real, from_ns, timer_ns) - from_ns);
}

/* ---- the loop ---- */

static void run_next(struct vv_reactor *reactor, struct vv_list *queue)
{
    struct vv_fiber *fiber = vv_list_first(queue, struct vv_fiber, run_node);
    vv_list_remove(&fiber->run_node);
    reactor->runnable_count--;
    vv_fiber_resume(fiber);
}

void vv_real_hurry(struct vv_fiber *fiber)
{
    struct vv_real *real = vv_container_of(fiber->reactor, struct vv_real, base);
    vv_list_remove(&fiber->run_node);
    vv_list_push_back(&real->hurried, &fiber->run_node);
    real->hurried_count++;
}

/* Runs those whose calls have ended by now. */
static void run_hurried(struct vv_real *real)
{
    run_inbox(real);
    vv_uring_reap(&real->uring);
    for (size_t left = real->hurried_count; left > 0; left--) {
        real->hurried_count--;
        run_next(&real->base, &real->hurried);
    }
}

/* Runs those that are runnable now; those that they wake come in the next round. */
static void run_fibers(struct vv_real *real)
{
    struct vv_reactor *reactor = &real->base;
    size_t left = reactor->runnable_count - real->hurried_count;
    run_hurried(real);
    for (; left > 0; left--) {
        run_next(reactor, &reactor->runnable);
        run_hurried(real);
    }
}

static void run_loop(struct vv_real *real)
{
    struct vv_reactor *reactor = &real->base;
    while (reactor->fiber_count > 0) {
        run_fibers(real);
        bool is_waiting = reactor->fiber_count > 0 && reactor->runnable_count == 0;
        if (is_waiting)
            wait_for_event(real);
        uint64_t now_ns = vv_real_now_ns(NULL);
        if (is_waiting)
            real->polled_ns = now_ns;
        run_timers(real, now_ns);
        if (reactor->runnable_count > 0 && now_ns - real->polled_ns > POLL_INTERVAL_NS) {
            poll_descriptors(real, 0);
            real->polled_ns = now_ns;
        }
    }
    run_inbox(real);
}

/* ---- operations ---- */

static void real_requeue(struct vv_reactor *reactor, struct vv_fiber *fiber)
{
    vv_list_push_back(&reactor->runnable, &fiber->run_node);
    reactor->runnable_count++;
}

static void *real_owner(struct vv_reactor *reactor)
{
    (void)reactor;
    return NULL;
}

static void ignore_fiber(struct vv_reactor *reactor, struct vv_fiber *fiber)
{
    (void)reactor;
    (void)fiber;
}

static void real_offload(struct vv_reactor *reactor, void (*fn)(void *), void *arg)
{
    struct vv_real *real = vv_container_of(reactor, struct vv_real, base);
    vv_workers_offload(&real->workers, fn, arg);
}

void vv_real_offload_blocking(void (*fn)(void *), void *arg)
{
    vv_workers_offload(&vv_real_self()->blocking, fn, arg);
}

static unsigned real_worker_count(struct vv_reactor *reactor)
{
    return vv_container_of(reactor, struct vv_real, base)->workers.thread_max;
}

bool vv_rt_uses_uring(void)
{
    struct vv_real *real = vv_real_self();
    return real && real->uring.is_on;
}

uint64_t vv_rt_uring_writes(void)
{
    struct vv_real *real = vv_real_self();
    return real ? real->uring.written : 0;
}

static const struct vv_rt_ops real_ops = {
    .is_real = true,
    .path = &vv_real_path_ops,
    .now_ns = vv_real_now_ns,
    .wall = vv_real_wall,
    .random = vv_real_random,
    .offload = real_offload,
    .worker_count = real_worker_count,
    .post = real_post,
    .requeue = real_requeue,
    .owner = real_owner,
    .fiber_begun = ignore_fiber,
    .fiber_ended = ignore_fiber,
};

/* ---- beginning and end ---- */

static int open_wake_fd(struct vv_real *real)
{
    real->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (real->wake_fd < 0)
        return -errno;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = real->wake_fd};
    if (epoll_ctl(real->poll.epoll_fd, EPOLL_CTL_ADD, real->wake_fd, &event) != 0)
        return -errno;
    return 0;
}

static void free_real(struct vv_real *real)
{
    vv_signals_done(&real->signals);
    vv_crowd_done(&real->crowd);
    vv_workers_done(&real->workers);
    vv_workers_done(&real->blocking);
    vv_uring_done(&real->uring);
    vv_poll_done(&real->poll);
    if (real->wake_fd >= 0)
        close(real->wake_fd);
    vv_reactor_done(&real->base);
    vv_free(real);
}

int vv_rt_run(const struct vv_rt_options *options, void (*main_fn)(void *), void *arg)
{
    assert(!vv_reactor_self() && "the thread is no reactor yet");
    struct vv_real *real = vv_zalloc(sizeof(*real));
    if (!real)
        return -ENOMEM;
    unsigned cpu_count = vv_real_cpu_count();
    unsigned worker_count = options->workers ? options->workers : cpu_count;
    /* On a single processor, polling only keeps away who would bring the event. */
    uint64_t spin_ns = cpu_count > 1 ? options->spin_ns : 0;
    vv_reactor_init(&real->base, &real_ops);
    vv_list_init(&real->hurried);
    vv_signals_init(&real->signals);
    vv_crowd_init(&real->crowd);
    vv_workers_init(&real->workers, &real->base, worker_count, spin_ns ? VV_WORKER_SPIN_NS : 0);
    vv_workers_init(&real->blocking, &real->base, VV_BLOCKING_THREADS_MAX,
                    spin_ns ? VV_WORKER_SPIN_NS : 0);
    real->spin = (struct vv_spin){.max_ns = spin_ns, .now_ns = spin_ns};
    real->wake_fd = -1;
    int err = vv_poll_init(&real->poll);
    if (err == 0)
        err = open_wake_fd(real);
    if (err == 0)
        vv_uring_init(&real->uring, &real->poll, options->uring);
    if (err == 0)
        err = vv_fiber_start_on(&real->base, NULL, main_fn, arg, "main");
    if (err == 0) {
        vv_reactor_enter(&real->base);
        run_loop(real);
        vv_reactor_enter(NULL);
    }
    free_real(real);
    return err;
}
