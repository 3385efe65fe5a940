/* What the runtime's steps cost on this machine: one line each, nanoseconds for one step. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "rt/rt.h"
#include "rt/sim.h"

#define YIELDS 2000000
#define STARTS 200000
#define OFFLOADS 100000
#define POSTS 1000000
#define WAKES 1000000

static void report(const char *what, uint64_t from_ns, uint64_t count)
{
    uint64_t ns = vv_rt_now_ns() - from_ns;
    printf("%-44s %8.1f ns\n", what, (double)ns / (double)count);
}

static void yield_often(void *arg)
{
    (void)arg;
    for (int i = 0; i < YIELDS / 2; i++)
        vv_fiber_yield();
}

static void bench_yield(void)
{
    if (vv_fiber_start(yield_often, NULL, "other") != 0)
        return;
    uint64_t from_ns = vv_rt_now_ns();
    yield_often(NULL);
    report("yield (two switches and the loop)", from_ns, YIELDS);
}

static void do_nothing(void *arg)
{
    (void)arg;
}

static void bench_start(void)
{
    uint64_t from_ns = vv_rt_now_ns();
    for (int i = 0; i < STARTS; i++) {
        if (vv_fiber_start(do_nothing, NULL, "empty") != 0)
            return;
        vv_fiber_yield();
    }
    report("start and end of a fiber", from_ns, STARTS);
}

static struct vv_waitq ping;
static struct vv_waitq pong;

static void answer(void *arg)
{
    (void)arg;
    for (int i = 0; i < WAKES; i++) {
        vv_waitq_wait(&ping, VV_NEVER);
        vv_waitq_wake_one(&pong);
    }
}

static void bench_waitq(void)
{
    vv_waitq_init(&ping);
    vv_waitq_init(&pong);
    if (vv_fiber_start(answer, NULL, "answer") != 0)
        return;
    vv_fiber_yield();
    uint64_t from_ns = vv_rt_now_ns();
    for (int i = 0; i < WAKES; i++) {
        vv_waitq_wake_one(&ping);
        vv_waitq_wait(&pong, VV_NEVER);
    }
    report("wait and wake, there and back", from_ns, WAKES);
}

static void bench_offload(const char *what, uint64_t pause_ns, int count)
{
    uint64_t total_ns = 0;
    for (int i = 0; i < count; i++) {
        uint64_t from_ns = vv_rt_now_ns();
        vv_rt_offload(do_nothing, NULL);
        total_ns += vv_rt_now_ns() - from_ns;
        if (pause_ns > 0)
            vv_rt_sleep_ns(pause_ns);
    }
    printf("%-44s %8.1f ns\n", what, (double)total_ns / (double)count);
}

struct poster {
    struct vv_reactor *reactor;
    struct vv_waitq ended;
    struct vv_post posts[1024];
    atomic_int in_flight;
    int arrived;
};

static void arrive(void *arg)
{
    struct poster *poster = arg;
    atomic_fetch_sub(&poster->in_flight, 1);
    if (++poster->arrived == POSTS)
        vv_waitq_wake_one(&poster->ended);
}

static void *post_often(void *arg)
{
    struct poster *poster = arg;
    for (int i = 0; i < POSTS; i++) {
        while (atomic_load(&poster->in_flight) >= 1024)
            ;
        atomic_fetch_add(&poster->in_flight, 1);
        poster->posts[i % 1024] = (struct vv_post){.fn = arrive, .arg = poster};
        vv_reactor_post(poster->reactor, &poster->posts[i % 1024]);
    }
    return NULL;
}

static void bench_post(void)
{
    static struct poster poster;
    pthread_t thread;
    poster.reactor = vv_reactor_self();
    vv_waitq_init(&poster.ended);
    uint64_t from_ns = vv_rt_now_ns();
    if (pthread_create(&thread, NULL, post_often, &poster) != 0)
        return;
    vv_waitq_wait(&poster.ended, VV_NEVER);
    report("post from another thread, in bulk", from_ns, POSTS);
    pthread_join(thread, NULL);
}

static void bench_all(void *arg)
{
    (void)arg;
    bench_yield();
    bench_start();
    bench_waitq();
    bench_offload("offload, one after another", 0, OFFLOADS);
    bench_offload("offload, 20 us apart", 20000, 5000);
    bench_offload("offload, 1 ms apart (all asleep)", 1000000, 500);
    bench_post();
}

static void bench_sim(void *arg)
{
    (void)arg;
    for (int i = 0; i < YIELDS; i++)
        vv_fiber_yield();
}

int main(void)
{
    struct vv_rt_options options = {.spin_ns = VV_RT_SPIN_DEFAULT_NS};
    struct vv_sim_options sim = {.seed = 1, .reorder_permille = 100};
    if (vv_rt_run(&options, bench_all, NULL) != 0)
        return 1;
    uint64_t from_ns = vv_rt_now_ns();
    if (vv_sim_run(&sim, bench_sim, NULL) != 0)
        return 1;
    report("yield in the simulation", from_ns, YIELDS);
    return 0;
}
