/* The thread that keeps a processor awake. How soon it runs is the scheduler's affair: waits have a limit, and are only
 * for it. */
#include "rt/keeper_impl.h"

#include <time.h>

#include "rt/real_impl.h"
#include "tap.h"

#define WAIT_NS (20 * VV_NS_PER_S)

static void go_on_for(struct vv_keeper *keeper, uint64_t ns)
{
    uint64_t from_ns = vv_real_now_ns(NULL);
    for (uint64_t now_ns = from_ns; now_ns < from_ns + ns; now_ns = vv_real_now_ns(NULL))
        vv_keeper_go_on(keeper, now_ns);
}

/* Let it run: this thread does not need its processor. */
static void pause_ms(long ms)
{
    struct timespec pause = {0, ms * 1000000};
    nanosleep(&pause, NULL);
}

static uint64_t kept_ns(struct vv_keeper *keeper)
{
    return atomic_load(&keeper->kept_ns);
}

/* Go on until it has kept a processor for more than `ns` in all. */
static bool has_kept(struct vv_keeper *keeper, uint64_t ns)
{
    uint64_t from_ns = vv_real_now_ns(NULL);
    while (kept_ns(keeper) <= ns && vv_real_now_ns(NULL) < from_ns + WAIT_NS) {
        go_on_for(keeper, VV_NS_PER_MS);
        pause_ms(1);
    }
    return kept_ns(keeper) > ns;
}

static bool falls_asleep(struct vv_keeper *keeper)
{
    uint64_t from_ns = vv_real_now_ns(NULL);
    while (!atomic_load(&keeper->is_sleeping) && vv_real_now_ns(NULL) < from_ns + WAIT_NS)
        pause_ms(1);
    return atomic_load(&keeper->is_sleeping);
}

static void test_keeping(void)
{
    struct vv_keeper keeper;
    vv_keeper_init(&keeper);
    tap_ok(!keeper.has_thread, "no thread before it is needed");
    vv_keeper_go_on(&keeper, vv_real_now_ns(NULL));
    if (keeper.has_failed) {
        vv_keeper_done(&keeper);
        tap_skip("processor time is limited here");
        return;
    }
    tap_ok(has_kept(&keeper, 0), "it runs");
    tap_ok(falls_asleep(&keeper), "and falls asleep when nobody goes on");
    uint64_t kept = kept_ns(&keeper);
    pause_ms(5);
    tap_ok(kept_ns(&keeper) == kept, "and does nothing then");
    tap_ok(has_kept(&keeper, kept), "it is woken again");
    vv_keeper_done(&keeper);
}

static void test_ends(void)
{
    struct vv_keeper keeper;
    vv_keeper_init(&keeper);
    vv_keeper_done(&keeper);
    tap_ok(true, "without a thread there is nothing to end");
    vv_keeper_init(&keeper);
    go_on_for(&keeper, VV_NS_PER_MS);
    vv_keeper_done(&keeper);
    tap_ok(true, "it ends while it runs");
    vv_keeper_init(&keeper);
    vv_keeper_go_on(&keeper, vv_real_now_ns(NULL));
    tap_ok(keeper.has_failed || falls_asleep(&keeper), "asleep");
    vv_keeper_done(&keeper);
    tap_ok(true, "it ends while it sleeps");
}

static void test_quota(void)
{
    tap_ok(vv_keeper_is_quota("150000 100000\n"), "a quota of one and a half processors");
    tap_ok(!vv_keeper_is_quota("max 100000\n"), "none");
    tap_ok(vv_keeper_is_quota("50000\n"), "an older control group's quota");
    tap_ok(!vv_keeper_is_quota("-1\n"), "none of that kind");
    tap_ok(!vv_keeper_is_quota(""), "nothing known");
}

int main(void)
{
    test_quota();
    test_keeping();
    test_ends();
    return tap_done();
}
