/* Workers, posts and signals. */
#include "both.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "rt/real_impl.h"

/* ---- offloading, in both runtimes ---- */

struct call {
    pthread_t thread;
    int count;
    bool was_in_fiber;
    bool has_ended;
};

static void work(void *arg)
{
    struct call *call = arg;
    call->thread = pthread_self();
    call->count++;
    call->was_in_fiber = vv_fiber_self() != NULL;
}

static void offload_once(void *arg)
{
    struct call *call = arg;
    vv_rt_offload(work, call);
    call->has_ended = true;
}

#define CALLS 200

static void test_offload(struct both *both)
{
    const char *rt = both->runtime;
    static struct call calls[CALLS];
    memset(calls, 0, sizeof(calls));
    offload_once(&calls[0]);
    tap_is_int(calls[0].count, 1, "%s: the call was made", rt);
    tap_ok(!calls[0].was_in_fiber, "%s: outside fibers", rt);
    bool is_elsewhere = !pthread_equal(calls[0].thread, pthread_self());
    tap_ok(is_elsewhere == both->is_real, "%s: on another thread if there are any", rt);
    for (int i = 1; i < CALLS; i++) {
        if (vv_fiber_start(offload_once, &calls[i], "caller") != 0)
            return;
    }
    for (int i = 0; i < CALLS; i++) {
        while (!calls[i].has_ended)
            vv_rt_sleep_ns(10000);
    }
    int made = 0;
    for (int i = 0; i < CALLS; i++)
        made += calls[i].count;
    tap_is_int(made, CALLS, "%s: each call was made once", rt);
    tap_is_int(vv_rt_worker_count(), 2, "%s: two workers", rt);
}

/* ---- whose call has ended goes first ---- */

#define TURNS_MAX 8
#define POSTED_MAX_NS (5 * VV_NS_PER_S)

static char turns[TURNS_MAX + 1];
static size_t turn_count;

static void note_turn(char who)
{
    if (turn_count < TURNS_MAX)
        turns[turn_count++] = who;
}

static void nothing(void *arg)
{
    (void)arg;
}

static void call_twice(void *arg)
{
    (void)arg;
    vv_rt_offload(nothing, NULL);
    note_turn('1');
    vv_rt_offload(nothing, NULL);
    note_turn('2');
}

/* A long request: when it suspends, the other's call has ended. */
static void last_for_a_call(void *arg)
{
    const char *who = arg;
    const struct vv_real *real = vv_real_self();
    uint64_t until_ns = vv_rt_now_ns() + POSTED_MAX_NS;
    while (!atomic_load(&real->inbox) && vv_rt_now_ns() < until_ns)
        vv_spin_pause();
    note_turn(*who);
}

static void end_turns(void *arg)
{
    struct vv_waitq *done = arg;
    note_turn('.');
    vv_waitq_wake_all(done);
}

/* Each link of a chain of calls takes as long as one of the requests before it, not as long as all. */
static void test_hurry(void)
{
    struct vv_waitq done;
    char a = 'a', b = 'b';
    vv_waitq_init(&done);
    if (vv_fiber_start(call_twice, NULL, "chain") != 0 ||
        vv_fiber_start(last_for_a_call, &a, "long") != 0 ||
        vv_fiber_start(last_for_a_call, &b, "long") != 0 ||
        vv_fiber_start(end_turns, &done, "end") != 0)
        return;
    vv_waitq_wait(&done, VV_NEVER);
    const char *second = strchr(turns, '2');
    const char *end = strchr(turns, '.');
    tap_ok(second && end && second < end,
           "real: whose call has ended goes before those that wait for their turn (%s)", turns);
}

/* ---- what will end soon is polled for ---- */

#define USUAL_NS (200 * 1000ull)
#define SLEEP_NS (2 * VV_NS_PER_MS) /* longer than any polling */

static void sleep_a_while(void *arg)
{
    const struct timespec time = {.tv_nsec = SLEEP_NS};
    (void)arg;
    nanosleep(&time, NULL);
}

/* A file that says this. */
static int load_file(const char *text)
{
    int fd = memfd_create("load", MFD_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        abort();
    return fd;
}

static void test_crowd(void)
{
    static const struct {
        const char *text;
        unsigned runnable;
    } texts[] = {{"0.20 0.18 0.12 3/80 11206\n", 3}, {"120.20 99.18 1.12 1234/80000 7\n", 1234},
                 {"", 0},                            {"0.20 0.18 0.12", 0},
                 {"0.20 0.18 0.12 3", 0},            {"0.20 0.18 0.12 x/80 1", 0},
                 {"   /", 0},                        {"a b c 99999999999999999999/1", 0}};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        tap_is_int(vv_crowd_runnable(texts[i].text, strlen(texts[i].text)), texts[i].runnable, "real: runnable threads of \"%.15s\"", texts[i].text);
    struct vv_workers workers = {.thread_count = 3, .sleeping = 3};
    pthread_mutex_init(&workers.lock, NULL);
    struct vv_crowd crowd = {.cpu_count = 4, .fd = load_file("1 1 1 5/90 7\n")};
    tap_ok(!vv_crowd_is_seen(&crowd, &workers, VV_NS_PER_S), "real: one thread more than processors is no crowd");
    close(crowd.fd);
    crowd.fd = load_file("1 1 1 6/90 7\n");
    tap_ok(!vv_crowd_is_seen(&crowd, &workers, VV_NS_PER_S + VV_NS_PER_MS), "real: not looked at each time");
    tap_ok(vv_crowd_is_seen(&crowd, &workers, 2 * VV_NS_PER_S), "real: two more are");
    workers.sleeping = 2;
    tap_ok(!vv_crowd_is_seen(&crowd, &workers, 3 * VV_NS_PER_S), "real: unless one is a worker");
    vv_crowd_done(&crowd);
    tap_ok(!vv_crowd_is_seen(&crowd, &workers, 4 * VV_NS_PER_S), "real: without that file nothing is seen");
    pthread_mutex_destroy(&workers.lock);
}

static void test_expect(void)
{
    struct vv_real *real = vv_real_self();
    uint64_t before_ns = vv_rt_now_ns();
    vv_real_expect(real, USUAL_NS);
    uint64_t until_ns = real->expected_until_ns;
    tap_ok(until_ns >= before_ns + USUAL_NS && until_ns <= vv_rt_now_ns() + 2 * USUAL_NS,
           "real: polled for as long as it takes, and half as long again");
    vv_real_expect(real, USUAL_NS / 10);
    tap_ok(real->expected_until_ns == until_ns, "real: a shorter one does not shorten that");
    real->spin.now_ns = real->spin.max_ns;
    vv_rt_offload(sleep_a_while, NULL);
    tap_ok(real->spin.now_ns == real->spin.max_ns, "real: it says nothing about how soon clients come");
    uint64_t now_ns = until_ns - USUAL_NS; /* the clock is an argument */
    struct vv_spin spin = real->spin;
    int load_fd = real->crowd.fd;
    real->crowd.fd = -1;
    real->spin = (struct vv_spin){.max_ns = USUAL_NS / 4, .now_ns = USUAL_NS / 4};
    tap_ok(vv_real_begin_polling(real, now_ns) == until_ns, "real: it is polled for");
    real->spin.crowded_until_ns = now_ns - 50 * VV_NS_PER_MS;
    tap_ok(vv_real_begin_polling(real, now_ns) == now_ns + real->spin.now_ns, "real: as long as usual beside others");
    real->uring.in_flight++;
    tap_ok(vv_real_begin_polling(real, now_ns) == now_ns, "real: not at all while the ring works");
    real->spin.crowded_until_ns = 0;
    tap_ok(vv_real_begin_polling(real, now_ns) == until_ns, "real: but alone");
    real->uring.in_flight--;
    real->crowd.fd = load_file("9 9 9 100000/100001 7\n");
    real->crowd.looked_ns = 0;
    tap_ok(vv_real_begin_polling(real, now_ns) == now_ns, "real: nor where others wait for a processor");
    close(real->crowd.fd);
    real->crowd.fd = load_file("9 9 9 1/100001 7\n");
    real->crowd.looked_ns = 0;
    tap_ok(vv_real_begin_polling(real, now_ns) == now_ns, "real: for a while");
    now_ns = real->spin.crowded_until_ns;
    tap_ok(vv_real_begin_polling(real, now_ns) == now_ns + real->spin.now_ns, "real: and then as usual");
    close(real->crowd.fd);
    real->crowd.fd = load_fd;
    real->spin = spin;
    vv_real_expect_end(real);
    vv_real_expect_end(real);
    tap_is_int(real->expected_count, 0, "real: nothing is expected any more");
    vv_rt_offload(sleep_a_while, NULL);
    tap_ok(real->spin.max_ns == 0 || real->spin.now_ns < real->spin.max_ns,
           "real: another long wait does");
}

/* ---- posts ---- */

#define POSTS 2000
#define POSTERS 3

struct poster {
    pthread_t thread;
    struct vv_reactor *reactor;
    struct vv_post posts[POSTS];
    int arrived;
    bool is_ordered;
};

static struct poster posters[POSTERS];
static struct vv_waitq all_arrived;
static int arrived;
static bool was_in_fiber;

/* The argument is the post itself. */
static void arrive(void *arg)
{
    struct vv_post *post = arg;
    for (int i = 0; i < POSTERS; i++) {
        struct poster *poster = &posters[i];
        if (post < poster->posts || post >= poster->posts + POSTS)
            continue;
        poster->is_ordered &= post == &poster->posts[poster->arrived];
        poster->arrived++;
    }
    was_in_fiber |= vv_fiber_self() != NULL;
    if (++arrived == POSTS * POSTERS)
        vv_waitq_wake_all(&all_arrived);
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    for (int i = 0; i < POSTS; i++) {
        poster->posts[i] = (struct vv_post){.fn = arrive, .arg = &poster->posts[i]};
        vv_reactor_post(poster->reactor, &poster->posts[i]);
    }
    return NULL;
}

static void test_post(struct both *both)
{
    const char *rt = both->runtime;
    vv_waitq_init(&all_arrived);
    arrived = 0;
    was_in_fiber = false;
    for (int i = 0; i < POSTERS; i++) {
        posters[i] = (struct poster){.reactor = vv_reactor_self(), .is_ordered = true};
        if (!both->is_real)
            post_all(&posters[i]);
        else if (pthread_create(&posters[i].thread, NULL, post_all, &posters[i]) != 0)
            return;
    }
    while (arrived < POSTS * POSTERS)
        vv_waitq_wait(&all_arrived, VV_NEVER);
    for (int i = 0; i < POSTERS; i++) {
        if (both->is_real)
            pthread_join(posters[i].thread, NULL);
        tap_is_int(posters[i].arrived, POSTS, "%s: all posts of %d arrive", rt, i);
        tap_ok(posters[i].is_ordered, "%s: in their order", rt);
    }
    tap_ok(!was_in_fiber, "%s: outside fibers", rt);
}

/* ---- real only: two reactors that call each other ---- */

#define CALLS_BETWEEN 2000

struct pair {
    struct vv_reactor *reactors[2];
    struct vv_waitq turn[2];
    struct vv_post post;
    int calls;
    pthread_t thread;
    atomic_bool has_posted; /* the first will not post again: the second may end */
};

static void take_turn(void *arg)
{
    struct pair *pair = arg;
    int side = vv_reactor_self() == pair->reactors[1];
    pair->calls++;
    vv_waitq_wake_one(&pair->turn[side]);
}

/* The post is passed to and fro; what it protects needs no lock. */
static void pass(struct pair *pair, int to)
{
    pair->post = (struct vv_post){.fn = take_turn, .arg = pair};
    vv_reactor_post(pair->reactors[to], &pair->post);
}

static void second_main(void *arg)
{
    struct pair *pair = arg;
    pair->reactors[1] = vv_reactor_self();
    vv_waitq_init(&pair->turn[1]);
    for (int i = 0; i < CALLS_BETWEEN; i++) {
        pass(pair, 0);
        vv_waitq_wait(&pair->turn[1], VV_NEVER);
    }
    while (!atomic_load(&pair->has_posted))
        vv_rt_sleep_ns(10000);
}

static void *run_second(void *arg)
{
    struct vv_rt_options options = {.workers = 1, .spin_ns = VV_RT_SPIN_DEFAULT_NS};
    return vv_rt_run(&options, second_main, arg) == 0 ? NULL : arg;
}

static void test_reactors(struct both *both)
{
    struct pair pair = {.reactors = {vv_reactor_self(), NULL}};
    void *failed = NULL;
    (void)both;
    vv_waitq_init(&pair.turn[0]);
    if (pthread_create(&pair.thread, NULL, run_second, &pair) != 0)
        return;
    for (int i = 0; i < CALLS_BETWEEN; i++) {
        vv_waitq_wait(&pair.turn[0], VV_NEVER);
        pass(&pair, 1);
    }
    atomic_store(&pair.has_posted, true);
    pthread_join(pair.thread, &failed);
    tap_ok(!failed, "real: a second reactor ends");
    tap_is_int(pair.calls, 2 * CALLS_BETWEEN, "real: two reactors call each other");
}

/* ---- real only: waking a sleeper, idleness, signals ---- */

static void *post_late(void *arg)
{
    struct poster *poster = arg;
    struct timespec pause = {.tv_nsec = 20000000};
    nanosleep(&pause, NULL);
    poster->posts[0] = (struct vv_post){.fn = arrive, .arg = &poster->posts[0]};
    vv_reactor_post(poster->reactor, &poster->posts[0]);
    return NULL;
}

static uint64_t cpu_time_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return ((uint64_t)usage.ru_utime.tv_sec + (uint64_t)usage.ru_stime.tv_sec) * VV_NS_PER_S +
           ((uint64_t)usage.ru_utime.tv_usec + (uint64_t)usage.ru_stime.tv_usec) * 1000;
}

static void test_sleeper(struct both *both)
{
    (void)both;
    struct poster *poster = &posters[0];
    *poster = (struct poster){.reactor = vv_reactor_self(), .is_ordered = true};
    arrived = POSTS * POSTERS - 1;
    uint64_t before_ns = cpu_time_ns();
    if (pthread_create(&poster->thread, NULL, post_late, poster) != 0)
        return;
    vv_waitq_wait(&all_arrived, VV_NEVER);
    pthread_join(poster->thread, NULL);
    tap_is_int(poster->arrived, 1, "real: a post wakes a sleeping reactor");
    uint64_t used_ns = cpu_time_ns() - before_ns;
    tap_ok(used_ns < 10 * VV_NS_PER_MS, "real: which used no processor (%d us)",
           (int)(used_ns / 1000));
}

static int signals;
static struct vv_waitq signalled;

static void count_signal(void *arg)
{
    signals += *(int *)arg;
    vv_waitq_wake_all(&signalled);
}

static void test_signal(struct both *both)
{
    int weight = 10;
    vv_waitq_init(&signalled);
    tap_is_int(vv_rt_on_signal(0, count_signal, &weight), both->is_real ? -EINVAL : -ENOSYS,
               "%s: no such signal", both->runtime);
    if (!both->is_real)
        return;
    tap_is_int(vv_rt_on_signal(SIGKILL, count_signal, &weight), -EINVAL, "real: not SIGKILL");
    tap_is_int(vv_rt_on_signal(SIGUSR1, count_signal, &weight), 0, "real: a handler");
    tap_is_int(vv_rt_on_signal(SIGUSR2, count_signal, &weight), 0, "real: another");
    kill(getpid(), SIGUSR1);
    tap_is_int(signals, 0, "real: not at once");
    while (signals < 10)
        vv_waitq_wait(&signalled, VV_NEVER);
    kill(getpid(), SIGUSR2);
    while (signals < 20)
        vv_waitq_wait(&signalled, VV_NEVER);
    tap_is_int(signals, 20, "real: both were called");
    tap_is_int(vv_rt_on_signal(SIGUSR1, NULL, NULL), 0, "real: a handler is taken away");
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    tap_ok(!sigismember(&mask, SIGUSR1) && sigismember(&mask, SIGUSR2),
           "real: that signal is as it was");
}

static void test_all(struct both *both)
{
    test_offload(both);
    test_post(both);
    if (both->is_real)
        test_hurry();
    if (both->is_real)
        test_expect();
    if (both->is_real)
        test_reactors(both);
    if (both->is_real)
        test_sleeper(both);
    test_signal(both);
}

int main(void)
{
    vv_alloc_track(true);
    test_crowd();
    run_both(test_all);
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    tap_ok(!sigismember(&mask, SIGUSR2), "the end of the runtime restores signals");
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
