#include "cache/cache.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"

static void test_try(void)
{
    struct vv_budget all;
    struct vv_budget left;
    struct vv_budget right;
    vv_budget_init(&all, NULL, 100);
    vv_budget_init(&left, &all, 80);
    vv_budget_init(&right, &all, 80);
    tap_is_int(vv_budget_try(&left, 60), 0, "room");
    tap_is_int((int64_t)all.used, 60, "parents are charged");
    tap_is_int(vv_budget_try(&left, 21), -VV_ERR_BUDGET, "no room here");
    tap_is_int((int64_t)all.used, 60, "nothing was charged");
    tap_is_int(vv_budget_try(&right, 41), -VV_ERR_BUDGET, "no room further up");
    tap_is_int(vv_budget_try(&right, 40), 0, "the last bit");
    tap_is_int(vv_budget_try(&right, 0), 0, "nothing always fits");
    tap_is_int(vv_budget_try(&right, 1), -VV_ERR_BUDGET, "full");
    vv_budget_charge(&right, 30);
    tap_is_int((int64_t)all.used, 130, "charging does not ask");
    tap_is_int(vv_budget_try(&right, 1), -VV_ERR_BUDGET, "overfull");
    vv_budget_release(&right, 70);
    vv_budget_release(&left, 60);
    tap_is_int((int64_t)all.used, 0, "all released");
    tap_is_int((int64_t)all.used_max, 130, "the highest charge is remembered");
    tap_is_int(vv_budget_try(&left, 500), 0, "too large, but alone");
    tap_is_int(vv_budget_try(&left, 1), -VV_ERR_BUDGET, "then there is no room");
    tap_is_int(vv_budget_try(&right, 1), -VV_ERR_BUDGET, "for anybody");
    vv_budget_release(&left, 500);
    vv_budget_charge(&right, 1);
    tap_is_int(vv_budget_try(&left, 500), -VV_ERR_BUDGET, "too large, and not alone");
    tap_is_int(vv_budget_try(&left, UINT64_MAX), -VV_ERR_BUDGET, "sums do not overflow");
    vv_budget_release(&right, 1);
}

/* ---- waiting ---- */

static char granted[64]; /* names of waiters in the order in which they got room, or gave up (-) */

struct waiter {
    struct vv_budget *budget;
    uint64_t bytes;
    uint64_t deadline_ns;
    char name;
};

static void waiter_main(void *arg)
{
    const struct waiter *waiter = arg;
    int err = vv_budget_wait(waiter->budget, waiter->bytes, waiter->deadline_ns);
    size_t len = strlen(granted);
    if (err == -ETIMEDOUT)
        granted[len++] = '-';
    granted[len++] = waiter->name;
    granted[len] = 0;
}

static struct waiter waiters[16];
static int waiter_count;

/* Start a waiter and let it come to wait. */
static void start(struct vv_budget *budget, uint64_t bytes, uint64_t deadline_ns, char name)
{
    waiters[waiter_count] = (struct waiter){budget, bytes, deadline_ns, name};
    if (vv_fiber_start(waiter_main, &waiters[waiter_count++], "waiter") < 0)
        tap_ok(false, "a waiter starts");
    vv_fiber_yield();
    vv_fiber_yield();
}

static void reset(void)
{
    granted[0] = 0;
    waiter_count = 0;
}

static void release(struct vv_budget *budget, uint64_t bytes)
{
    vv_budget_release(budget, bytes);
    vv_fiber_yield();
    vv_fiber_yield();
}

static void test_order(void)
{
    struct vv_budget all;
    reset();
    vv_budget_init(&all, NULL, 100);
    tap_is_int(vv_budget_wait(&all, 90, VV_NEVER), 0, "no waiting when there is room");
    start(&all, 50, VV_NEVER, 'a');
    start(&all, 10, VV_NEVER, 'b');
    start(&all, 60, VV_NEVER, 'c');
    tap_is_str(granted, "", "a small one does not overtake");
    tap_is_int(vv_budget_try(&all, 5), -VV_ERR_BUDGET, "neither does try");
    release(&all, 30);
    tap_is_str(granted, "", "not enough for the first");
    release(&all, 10);
    tap_is_str(granted, "a", "enough for the first");
    release(&all, 50);
    tap_is_str(granted, "ab", "the next, not the one behind");
    release(&all, 50);
    tap_is_str(granted, "abc", "the last");
    release(&all, 70);
    tap_is_int((int64_t)all.used, 0, "the sums are right");
    start(&all, 1000, VV_NEVER, 'd');
    tap_is_str(granted, "abcd", "too large, but alone");
    start(&all, 1000, VV_NEVER, 'e');
    tap_is_str(granted, "abcd", "not alone");
    release(&all, 1000);
    tap_is_str(granted, "abcde", "alone again");
    release(&all, 1000);
    vv_budget_charge(&all, 100);
    start(&all, 50, VV_NEVER, 'f');
    all.limit = 200;
    release(&all, 0);
    tap_is_str(granted, "abcdef", "a raised limit is seen");
    release(&all, 150);
}

static void test_timeout(void)
{
    struct vv_budget all;
    reset();
    vv_budget_init(&all, NULL, 100);
    vv_budget_charge(&all, 90);
    start(&all, 50, vv_rt_now_ns() + 100 * VV_NS_PER_MS, 'a');
    start(&all, 10, VV_NEVER, 'b');
    tap_is_str(granted, "", "both wait");
    vv_rt_sleep_ns(150 * VV_NS_PER_MS);
    vv_fiber_yield();
    vv_fiber_yield();
    tap_is_str(granted, "-ab", "who gives up makes room for those behind");
    tap_is_int((int64_t)all.used, 100, "the sums are right");
    tap_is_int(vv_budget_wait(&all, 1, vv_rt_now_ns()), -ETIMEDOUT, "a deadline that has passed");
    tap_ok(vv_list_is_empty(&all.waiters), "nobody is left");
    vv_budget_release(&all, 100);
}

/* Waiters of different shares: who waits for its own share does not hinder those who have room. */
static void test_tree(void)
{
    struct vv_budget all;
    struct vv_budget left;
    struct vv_budget right;
    reset();
    vv_budget_init(&all, NULL, 100);
    vv_budget_init(&left, &all, 50);
    vv_budget_init(&right, &all, 80);
    vv_budget_charge(&left, 50);
    start(&left, 20, VV_NEVER, 'a');
    tap_is_int(vv_budget_try(&right, 40), 0, "another share has room");
    start(&right, 20, VV_NEVER, 'b');
    tap_is_str(granted, "", "one waits for its share, one for all");
    release(&right, 5);
    tap_is_str(granted, "", "not enough");
    release(&right, 5);
    tap_is_str(granted, "b", "room for one further up");
    release(&left, 10);
    tap_is_str(granted, "b", "still too little in the share");
    release(&left, 10);
    tap_is_str(granted, "ba", "room in the share");
    tap_is_int((int64_t)left.used, 50, "left");
    tap_is_int((int64_t)right.used, 50, "right");
    tap_is_int((int64_t)all.used, 100, "all");
    /* One that fits its share must queue behind those who wait further up. */
    start(&left, 10, VV_NEVER, 'c');  /* waits for left */
    start(&right, 10, VV_NEVER, 'd'); /* waits for all */
    release(&left, 10);
    tap_is_str(granted, "bad", "who came to the common queue first");
    release(&right, 10);
    tap_is_str(granted, "badc", "then the other");
    release(&left, 50);
    release(&right, 50);
    tap_is_int((int64_t)all.used, 0, "the sums are right");
    tap_ok(vv_list_is_empty(&all.waiters) && vv_list_is_empty(&left.waiters), "nobody is left");
}

/* Many waiters with random sizes, shares and deadlines: nobody is forgotten, sums stay right. */

struct crowd {
    struct vv_budget all;
    struct vv_budget shares[3];
    int running;
    int timeouts;
};

static void member_main(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < 30; i++) {
        struct vv_budget *share = &crowd->shares[vv_sim_random(3)];
        uint64_t bytes = vv_sim_random(70);
        uint64_t deadline_ns = vv_sim_chance(200) ? vv_rt_now_ns() + vv_sim_random(1000) : VV_NEVER;
        if (vv_budget_wait(share, bytes, deadline_ns) < 0) {
            crowd->timeouts++;
            continue;
        }
        vv_rt_sleep_ns(vv_sim_random(2000));
        vv_budget_release(share, bytes);
    }
    crowd->running--;
}

static void crowd_main(void *arg)
{
    static struct crowd crowd;
    memset(&crowd, 0, sizeof(crowd));
    vv_budget_init(&crowd.all, NULL, 100);
    for (int i = 0; i < 3; i++)
        vv_budget_init(&crowd.shares[i], &crowd.all, 50);
    for (int i = 0; i < 12; i++)
        crowd.running += vv_fiber_start(member_main, &crowd, "member") == 0;
    while (crowd.running > 0)
        vv_rt_sleep_ns(10000);
    if (crowd.all.used != 0 || !vv_list_is_empty(&crowd.all.waiters))
        tap_ok(false, "the sums are right in the end");
    if (crowd.all.used_max > 100)
        tap_ok(false, "the limit was kept");
    *(int *)arg += crowd.timeouts;
}

static void main_fiber(void *arg)
{
    test_order();
    test_timeout();
    test_tree();
}

int main(void)
{
    vv_alloc_track(true);
    test_try();
    struct vv_rt_options real = {.workers = 1};
    tap_is_int(vv_rt_run(&real, main_fiber, NULL), 0, "the runtime ends");
    int timeouts = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct vv_sim_options options = {
            .seed = seed, .latency_max_ns = 1000, .reorder_permille = 300};
        int err = vv_sim_run(&options, crowd_main, &timeouts);
        if (err < 0)
            tap_is_int(err, 0, "seed %d: everybody gets room at last", (int)seed);
    }
    tap_ok(timeouts > 0, "some gave up (%d)", timeouts);
    return tap_done();
}
