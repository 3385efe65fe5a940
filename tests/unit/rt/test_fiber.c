/* Fibers and wait queues, in both runtimes. */
#include "both.h"

#include <errno.h>

#include "base/alloc.h"

static char trace[256];
static char text_a[] = "a";
static char text_b[] = "b";
static char text_c[] = "c";

static void note(const char *text)
{
    strncat(trace, text, sizeof(trace) - strlen(trace) - 1);
}

static void note_twice(void *arg)
{
    note(arg);
    vv_fiber_yield();
    note(arg);
}

static void test_order(struct both *both)
{
    trace[0] = '\0';
    tap_is_int(vv_fiber_start(note_twice, text_a, "first"), 0, "%s: start", both->runtime);
    tap_is_int(vv_fiber_start(note_twice, text_b, "second"), 0, "%s: start", both->runtime);
    tap_is_str(trace, "", "%s: a new fiber does not run at once", both->runtime);
    for (int i = 0; i < 1000 && strlen(trace) < 4; i++)
        vv_fiber_yield();
    tap_is_int((int64_t)strlen(trace), 4, "%s: both fibers ran to their end", both->runtime);
    if (both->is_real)
        tap_is_str(trace, "abab", "real: in the order of starting");
    tap_is_str(vv_fiber_name(vv_fiber_self()), "main", "%s: a fiber has its name", both->runtime);
}

/* ---- wait queues ---- */

struct waiter {
    struct vv_waitq *queue;
    uint64_t deadline_ns;
    int result;
    bool has_ended;
    int turn; /* when it went on */
};

static int next_turn;

static void wait_once(void *arg)
{
    struct waiter *waiter = arg;
    waiter->result = vv_waitq_wait(waiter->queue, waiter->deadline_ns);
    waiter->has_ended = true;
    waiter->turn = next_turn++;
}

#define WAITERS 4

static void start_waiters(struct vv_waitq *queue, struct waiter waiters[WAITERS])
{
    for (int i = 0; i < WAITERS; i++) {
        waiters[i] = (struct waiter){.queue = queue, .deadline_ns = VV_NEVER};
        if (vv_fiber_start(wait_once, &waiters[i], "waiter") != 0)
            tap_ok(false, "a waiter was started");
    }
}

static int count_ended(const struct waiter waiters[WAITERS])
{
    int count = 0;
    for (int i = 0; i < WAITERS; i++)
        count += waiters[i].has_ended;
    return count;
}

static int count_waiting(const struct vv_waitq *queue)
{
    int count = 0;
    vv_list_each (node, &queue->waiters)
        count++;
    return count;
}

static void test_wake(struct both *both)
{
    struct vv_waitq queue;
    struct waiter waiters[WAITERS];
    vv_waitq_init(&queue);
    vv_waitq_wake_one(&queue);
    vv_waitq_wake_all(&queue);
    tap_ok(vv_waitq_is_empty(&queue), "%s: waking nobody is harmless", both->runtime);
    start_waiters(&queue, waiters);
    while (count_waiting(&queue) < WAITERS)
        vv_fiber_yield();
    vv_waitq_wake_one(&queue);
    tap_is_int(count_ended(waiters), 0, "%s: waking does not suspend", both->runtime);
    vv_rt_sleep_ns(100000);
    tap_is_int(count_ended(waiters), 1, "%s: one was woken", both->runtime);
    if (both->is_real)
        tap_ok(waiters[0].has_ended, "real: the first that waited");
    vv_waitq_wake_all(&queue);
    tap_ok(vv_waitq_is_empty(&queue), "%s: nobody is left in the queue", both->runtime);
    vv_rt_sleep_ns(100000);
    tap_is_int(count_ended(waiters), WAITERS, "%s: all were woken", both->runtime);
    for (int i = 0; i < WAITERS; i++)
        tap_is_int(waiters[i].result, 0, "%s: waiter %d was woken, not timed out", both->runtime,
                   i);
}

static void test_timeout(struct both *both)
{
    struct vv_waitq queue;
    vv_waitq_init(&queue);
    uint64_t from_ns = vv_rt_now_ns();
    int result = vv_waitq_wait(&queue, from_ns + 2 * VV_NS_PER_MS);
    tap_is_int(result, -ETIMEDOUT, "%s: a wait times out", both->runtime);
    tap_ok(vv_rt_now_ns() >= from_ns + 2 * VV_NS_PER_MS, "%s: not too early", both->runtime);
    tap_ok(vv_waitq_is_empty(&queue), "%s: who timed out is not in the queue", both->runtime);
    result = vv_waitq_wait(&queue, 0);
    tap_is_int(result, -ETIMEDOUT, "%s: a deadline in the past times out", both->runtime);

    struct waiter waiter = {.queue = &queue, .deadline_ns = vv_rt_now_ns() + VV_NS_PER_S};
    if (vv_fiber_start(wait_once, &waiter, "waiter") != 0)
        return;
    while (vv_waitq_is_empty(&queue))
        vv_fiber_yield();
    vv_waitq_wake_one(&queue);
    while (!waiter.has_ended)
        vv_fiber_yield();
    tap_is_int(waiter.result, 0, "%s: woken before its deadline", both->runtime);
    tap_ok(vv_rt_now_ns() < from_ns + VV_NS_PER_S, "%s: and at once", both->runtime);
}

/* ---- limits ---- */

static void wait_for_end(void *arg)
{
    vv_waitq_wait(arg, VV_NEVER);
}

/* The main fiber is one of them; in the simulation so is the one that started this process. */
static void test_limit(struct both *both)
{
    struct vv_waitq end;
    vv_waitq_init(&end);
    int started = 0;
    int err = 0;
    while (started <= VV_FIBERS_MAX && err == 0) {
        err = vv_fiber_start(wait_for_end, &end, "many");
        started += err == 0;
    }
    tap_is_int(err, -VV_ERR_LIMIT, "%s: too many fibers are refused", both->runtime);
    tap_is_int(started, VV_FIBERS_MAX - (both->is_real ? 1 : 2), "%s: at the limit", both->runtime);
    while (count_waiting(&end) < started)
        vv_fiber_yield();
    vv_waitq_wake_all(&end);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    err = vv_fiber_start(note_twice, text_c, "again");
    tap_is_int(err, 0, "%s: a fiber can be started again", both->runtime);
    vv_rt_sleep_ns(VV_NS_PER_MS);
}

/* Writes to most of its stack, again and again, so that pooled stacks are dirty. */
static void use_stack(void *arg)
{
    volatile char bytes[96 << 10];
    for (size_t i = 0; i < sizeof(bytes); i += 512)
        bytes[i] = 1;
    vv_fiber_yield();
    *(int *)arg += bytes[512];
}

static void test_stacks(struct both *both)
{
    int sum = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++) {
            if (vv_fiber_start(use_stack, &sum, "deep") != 0)
                return;
        }
        vv_rt_sleep_ns(VV_NS_PER_MS);
    }
    tap_is_int(sum, 60, "%s: a fiber can use its stack", both->runtime);
}

/* Each allocation of a start fails in turn; the fibers that wait keep the pool empty. */
static void test_alloc_failure(struct both *both)
{
    struct vv_waitq end;
    vv_waitq_init(&end);
    int started = 0;
    int n = 0;
    for (; n < 20; n++) {
        vv_alloc_fail_at(n, false);
        int err = vv_fiber_start(wait_for_end, &end, "failing");
        bool has_failed = vv_alloc_failed();
        vv_alloc_fail_at(-1, false);
        started += err == 0;
        if (!has_failed) {
            tap_is_int(err, 0, "%s: a start without a failure succeeds", both->runtime);
            break;
        }
        tap_is_int(err, -ENOMEM, "%s: allocation %d of a start fails", both->runtime, n);
    }
    tap_ok(n < 20, "%s: the walk ends", both->runtime);
    while (count_waiting(&end) < started)
        vv_fiber_yield();
    vv_waitq_wake_all(&end);
}

static void test_all(struct both *both)
{
    test_alloc_failure(both);
    test_order(both);
    test_wake(both);
    test_timeout(both);
    test_stacks(both);
}

int main(void)
{
    vv_alloc_track(true);
    tap_ok(vv_fiber_self() == NULL, "there is no fiber outside a runtime");
    tap_ok(vv_reactor_self() == NULL, "and no reactor");
    run_both(test_all);
    run_real(test_limit);
    run_sim(test_limit, 1);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
