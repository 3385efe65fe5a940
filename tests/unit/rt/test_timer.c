/* Timers and clocks, in both runtimes. */
#include "both.h"

#include <errno.h>

#include "base/alloc.h"

#define TIMERS 64

struct alarm {
    struct vv_timer timer;
    uint64_t deadline_ns;
    int fired;
    bool was_early;
    bool was_in_fiber;
};

static struct alarm alarms[TIMERS];
static struct alarm *fired[TIMERS];
static int fired_count;
static struct vv_waitq last_fired;

static void fire(void *arg)
{
    struct alarm *alarm = arg;
    alarm->fired++;
    alarm->was_early = vv_rt_now_ns() < alarm->deadline_ns;
    alarm->was_in_fiber = vv_fiber_self() != NULL;
    if (fired_count < TIMERS)
        fired[fired_count++] = alarm;
    vv_waitq_wake_one(&last_fired);
}

static void set(struct both *both, struct alarm *alarm, uint64_t deadline_ns)
{
    alarm->deadline_ns = deadline_ns;
    if (vv_timer_set(&alarm->timer, deadline_ns, fire, alarm) != 0)
        tap_ok(false, "%s: a timer was set", both->runtime);
}

/* 64 timers, every third cancelled, every fourth moved. */
static void test_order(struct both *both)
{
    const char *rt = both->runtime;
    memset(alarms, 0, sizeof(alarms));
    fired_count = 0;
    vv_waitq_init(&last_fired);
    uint64_t now_ns = vv_rt_now_ns();
    for (int i = 0; i < TIMERS; i++)
        set(both, &alarms[i], now_ns + VV_NS_PER_MS + (uint64_t)(i * 37 % 16) * 10000);
    int expected = TIMERS;
    for (int i = 0; i < TIMERS; i += 4)
        set(both, &alarms[i], now_ns + 2 * VV_NS_PER_MS + (uint64_t)(i % 8) * 10000);
    for (int i = 0; i < TIMERS; i += 3) {
        vv_timer_cancel(&alarms[i].timer);
        vv_timer_cancel(&alarms[i].timer);
        expected--;
    }
    while (fired_count < expected)
        vv_waitq_wait(&last_fired, VV_NEVER);
    vv_rt_sleep_ns(VV_NS_PER_MS);
    tap_is_int(fired_count, expected, "%s: timers that were not cancelled fire", rt);
    bool is_ordered = true;
    bool is_early = false;
    bool is_once = true;
    bool is_in_fiber = false;
    for (int i = 0; i < fired_count; i++) {
        is_early |= fired[i]->was_early;
        is_once &= fired[i]->fired == 1;
        is_in_fiber |= fired[i]->was_in_fiber;
        if (i == 0)
            continue;
        const struct alarm *a = fired[i - 1];
        const struct alarm *b = fired[i];
        is_ordered &= a->deadline_ns < b->deadline_ns ||
                      (a->deadline_ns == b->deadline_ns && a->timer.order < b->timer.order);
    }
    tap_ok(is_ordered, "%s: by deadline, then in the order of setting", rt);
    tap_ok(!is_early, "%s: none too early", rt);
    tap_ok(is_once, "%s: each once", rt);
    tap_ok(!is_in_fiber, "%s: outside fibers", rt);
}

static int repetitions;

static void repeat(void *arg)
{
    struct vv_timer *timer = arg;
    if (++repetitions < 5 && vv_timer_set(timer, vv_rt_now_ns() + 1000, repeat, timer) != 0)
        repetitions = 1000;
}

static void test_repeat(struct both *both)
{
    struct vv_timer timer = {0};
    repetitions = 0;
    repeat(&timer);
    while (repetitions < 5)
        vv_rt_sleep_ns(10000);
    vv_rt_sleep_ns(10000);
    tap_is_int(repetitions, 5, "%s: a timer may set itself again", both->runtime);
}

static void test_clocks(struct both *both)
{
    const char *rt = both->runtime;
    uint64_t before_ns = vv_rt_now_ns();
    struct timespec wall = vv_rt_wall();
    vv_rt_sleep_ns(3 * VV_NS_PER_MS);
    tap_ok(vv_rt_now_ns() >= before_ns + 3 * VV_NS_PER_MS, "%s: sleep takes its time", rt);
    struct timespec later = vv_rt_wall();
    int64_t passed = (later.tv_sec - wall.tv_sec) * (int64_t)VV_NS_PER_S;
    passed += later.tv_nsec - wall.tv_nsec;
    tap_ok(passed >= 2 * (int64_t)VV_NS_PER_MS, "%s: the wall clock goes on", rt);
    uint8_t bytes[2][33] = {{0}, {0}};
    vv_rt_random(bytes[0], sizeof(bytes[0]));
    vv_rt_random(bytes[1], sizeof(bytes[1]));
    tap_ok(memcmp(bytes[0], bytes[1], sizeof(bytes[0])) != 0, "%s: random bytes differ", rt);
    tap_ok(vv_rt_random_u64() != vv_rt_random_u64(), "%s: random numbers differ", rt);
}

/* A timer more than were ever set needs memory; without it, nothing has changed. */
static void test_alloc_failure(struct both *both)
{
    static struct alarm many[4 * TIMERS];
    memset(many, 0, sizeof(many));
    uint64_t deadline_ns = vv_rt_now_ns() + VV_NS_PER_S;
    int refused = 0;
    bool is_unset = true;
    for (int i = 0; i < 4 * TIMERS; i++) {
        vv_alloc_fail_at(0, true);
        int err = vv_timer_set(&many[i].timer, deadline_ns, fire, &many[i]);
        vv_alloc_fail_at(-1, false);
        refused += err == -ENOMEM;
        is_unset &= err == 0 || many[i].timer.heap_index == 0;
        if (err != 0)
            set(both, &many[i], deadline_ns);
    }
    tap_ok(refused > 0, "%s: without memory a timer is refused (%d)", both->runtime, refused);
    tap_ok(is_unset, "%s: and not set", both->runtime);
    for (int i = 0; i < 4 * TIMERS; i++)
        vv_timer_cancel(&many[i].timer);
    vv_alloc_fail_at(0, true);
    int err = vv_timer_set(&many[0].timer, deadline_ns, fire, &many[0]);
    vv_alloc_fail_at(-1, false);
    tap_is_int(err, 0, "%s: what was set once needs no more memory", both->runtime);
    vv_timer_cancel(&many[0].timer);
}

static void test_all(struct both *both)
{
    test_order(both);
    test_repeat(both);
    test_clocks(both);
    test_alloc_failure(both);
}

int main(void)
{
    vv_alloc_track(true);
    run_both(test_all);
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
