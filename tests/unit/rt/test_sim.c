/* The simulated world: determinism, processes, kills. */
#include "rt/sim.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "rt/rt.h"
#include "tap.h"

static struct vv_sim_options options_of(uint64_t seed)
{
    return (struct vv_sim_options){
        .seed = seed, .latency_min_ns = 10000, .latency_max_ns = 2000000, .reorder_permille = 200};
}

static int run(uint64_t seed, void (*main_fn)(void *), void *arg)
{
    struct vv_sim_options options = options_of(seed);
    return vv_sim_run(&options, main_fn, arg);
}

/* ---- determinism: a mixture of everything ---- */

struct mixture {
    uint64_t fingerprint;
    uint64_t steps;
    uint64_t trace; /* of what happened in which order */
    struct vv_sim_disk *disk;
    struct vv_waitq queue;
    struct vv_timer timer;
    struct vv_post post;
};

static void mix(struct mixture *mixture, uint64_t value)
{
    mixture->trace = (mixture->trace ^ value) * 0x100000001b3ull + vv_rt_now_ns();
}

static void on_event(void *arg)
{
    struct mixture *mixture = arg;
    mix(mixture, 1);
    vv_waitq_wake_all(&mixture->queue);
}

static void work(void *arg)
{
    mix(arg, 2);
}

static void write_some(struct mixture *mixture, const char *path)
{
    struct vv_file *file = NULL;
    char bytes[3000];
    if (vv_file_open(path, VV_FILE_READ | VV_FILE_WRITE | VV_FILE_CREATE, &file) != 0)
        return;
    for (int i = 0; i < 20; i++) {
        memset(bytes, i, sizeof(bytes));
        struct iovec iov = {bytes, vv_sim_random(sizeof(bytes))};
        int err = vv_file_pwritev(file, &iov, 1, vv_sim_random(20000));
        mix(mixture, (uint64_t)err);
        if (vv_sim_chance(200))
            mix(mixture, (uint64_t)vv_file_datasync(file));
        ssize_t got = vv_file_pread(file, bytes, 100, vv_sim_random(20000));
        mix(mixture, got > 0 ? (uint64_t)bytes[0] : (uint64_t)got);
    }
    vv_file_close(file);
}

static int mix_name(void *arg, const char *name, bool is_dir)
{
    mix(arg, (uint64_t)name[0] + is_dir);
    return 0;
}

static void mixed_fiber(void *arg)
{
    struct mixture *mixture = arg;
    char path[] = "/file-0";
    path[6] = (char)('0' + vv_sim_random(10));
    for (int i = 0; i < 3; i++) {
        mix(mixture, vv_rt_random_u64());
        vv_fiber_yield();
        vv_rt_offload(work, mixture);
        mix(mixture, (uint64_t)vv_waitq_wait(&mixture->queue, vv_rt_now_ns() + 500000));
        write_some(mixture, path);
        mix(mixture, (uint64_t)vv_path_list("/", mix_name, mixture));
    }
}

static void mixed_process(void *arg)
{
    struct mixture *mixture = arg;
    mixture->post = (struct vv_post){.fn = on_event, .arg = mixture};
    vv_reactor_post(vv_reactor_self(), &mixture->post);
    for (int i = 0; i < 5; i++) {
        if (vv_fiber_start(mixed_fiber, mixture, "mixed") != 0)
            mix(mixture, 3);
    }
    if (vv_timer_set(&mixture->timer, vv_rt_now_ns() + 700000, on_event, mixture) != 0)
        mix(mixture, 4);
}

static void mixed_main(void *arg)
{
    struct mixture *mixture = arg;
    mixture->disk = vv_sim_disk_new(100000);
    vv_waitq_init(&mixture->queue);
    vv_sim_disk_set_errors(mixture->disk, 100);
    for (int round = 0; round < 5; round++) {
        int process = vv_sim_process_start(mixture->disk, mixed_process, mixture);
        vv_sim_process_kill_after(process, 50 + vv_sim_random(200));
        vv_sim_process_wait(process);
        vv_waitq_init(&mixture->queue);
        vv_sim_disk_power_cut(mixture->disk);
        mix(mixture, vv_sim_disk_used(mixture->disk));
    }
    mixture->steps = vv_sim_steps();
    mixture->fingerprint = vv_sim_fingerprint();
}

static void test_determinism(void)
{
    int same = 0;
    int different = 0;
    struct mixture before = {0};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct mixture first = {0};
        struct mixture second = {0};
        void *hole = vv_alloc(seed * 1000); /* addresses differ between the runs */
        int err = run(seed, mixed_main, &first);
        vv_free(hole);
        err = err ? err : run(seed, mixed_main, &second);
        same += err == 0 && first.fingerprint == second.fingerprint &&
                first.steps == second.steps && first.trace == second.trace;
        different += first.fingerprint != before.fingerprint && first.trace != before.trace;
        before = first;
    }
    tap_is_int(same, 20, "the same seed gives the same run");
    tap_is_int(different, 20, "another seed gives another");
}

/* ---- the world ---- */

static void wait_for_ever(void *arg)
{
    vv_waitq_wait(arg, VV_NEVER);
}

static int logged_names;

static void count_names(void *arg, enum vv_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    logged_names += strstr(line, "stuck fiber") != NULL;
}

static void deadlock_main(void *arg)
{
    if (vv_fiber_start(wait_for_ever, arg, "stuck fiber") != 0 ||
        vv_fiber_start(wait_for_ever, arg, "stuck fiber") != 0)
        tap_ok(false, "fibers were started");
}

static void stop_main(void *arg)
{
    deadlock_main(arg);
    vv_rt_sleep_ns(1000);
    vv_sim_stop();
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_ok(false, "nothing runs after vv_sim_stop");
}

static void time_main(void *arg)
{
    uint64_t from_ns = vv_rt_now_ns();
    vv_rt_sleep_ns(3600 * VV_NS_PER_S);
    uint64_t passed_ns = vv_rt_now_ns() - from_ns;
    tap_ok(passed_ns >= 3600 * VV_NS_PER_S && passed_ns < 3601 * VV_NS_PER_S,
           "an hour passes at once");
    from_ns = vv_rt_now_ns();
    while (vv_rt_now_ns() < from_ns + VV_NS_PER_MS)
        vv_fiber_yield();
    tap_ok(true, "yielding takes time");
    *(bool *)arg = vv_sim_process_self() == 1 && vv_alloc_domain() == 1;
}

static void test_world(void)
{
    struct vv_waitq queue;
    bool is_first = false;
    vv_waitq_init(&queue);
    vv_log_set_sink(count_names, NULL);
    tap_is_int(run(1, deadlock_main, &queue), -EDEADLK, "a deadlock is found");
    tap_is_int(logged_names, 2, "and logged with the fibers' names");
    vv_log_set_sink(NULL, NULL);
    tap_ok(vv_waitq_is_empty(&queue), "nobody is left in the queue");
    tap_is_int(run(1, stop_main, &queue), 0, "stopping ends the world");
    tap_is_int(run(1, time_main, &is_first), 0, "virtual time");
    tap_ok(is_first, "main is process 1, in domain 1");
}

/* ---- processes ---- */

struct victim {
    struct vv_waitq *outside; /* of another process */
    struct vv_timer timer;
    int number;
    int progress;
    bool has_fired;
};

static void mark(void *arg)
{
    ((struct victim *)arg)->has_fired = true;
}

static void wait_on_own_queue(void *arg)
{
    (void)arg;
    struct vv_waitq own; /* on a stack that is killed */
    vv_waitq_init(&own);
    if (vv_fiber_start(wait_for_ever, &own, "in a stack's queue") == 0)
        vv_waitq_wait(&own, VV_NEVER);
}

static void offload_for_ever(void *arg)
{
    for (;;)
        vv_rt_offload(mark, arg);
}

static void victim_main(void *arg)
{
    struct victim *victim = arg;
    struct vv_file *file = NULL;
    struct vv_timer *leaked = vv_zalloc(sizeof(*leaked));
    victim->number = vv_sim_process_self();
    bool is_ready = vv_fiber_start(wait_for_ever, victim->outside, "in another's queue") == 0 &&
                    vv_fiber_start(wait_on_own_queue, NULL, "waits with others") == 0 &&
                    vv_fiber_start(offload_for_ever, victim, "offloads") == 0 &&
                    vv_timer_set(leaked, vv_rt_now_ns() + VV_NS_PER_S, mark, victim) == 0 &&
                    vv_file_open("/locked", VV_FILE_WRITE | VV_FILE_CREATE, &file) == 0 &&
                    vv_file_lock(file) == 0;
    tap_ok(is_ready, "the victim waits everywhere");
    for (;;) {
        vv_rt_sleep_ns(10000);
        victim->progress++;
    }
}

static void lock_main(void *arg)
{
    struct vv_file *file = NULL;
    if (vv_file_open("/locked", VV_FILE_WRITE, &file) == 0)
        *(int *)arg = vv_file_lock(file);
    vv_file_close(file);
}

static void kill_main(void *arg)
{
    struct victim victim = {0};
    struct vv_waitq queue;
    struct vv_sim_disk *disk = vv_sim_disk_new(0);
    int locked = 1;
    (void)arg;
    vv_waitq_init(&queue);
    victim.outside = &queue;
    int process = vv_sim_process_start(disk, victim_main, &victim);
    tap_is_int(process, 2, "processes are numbered");
    vv_rt_sleep_ns(100 * VV_NS_PER_MS);
    tap_ok(vv_sim_process_is_alive(process) && victim.progress > 0, "it runs");
    tap_is_int(victim.number, process, "it knows its number");
    tap_ok(vv_alloc_domain_count((uint32_t)process) > 0, "its memory is its domain's");
    int other = vv_sim_process_start(disk, lock_main, &locked);
    vv_sim_process_wait(other);
    tap_is_int(locked, -EWOULDBLOCK, "its lock is seen by another process");

    vv_sim_process_kill(process);
    int progress = victim.progress;
    tap_ok(!vv_sim_process_is_alive(process), "it is dead");
    tap_ok(vv_waitq_is_empty(&queue), "and out of the queue");
    tap_is_int((int64_t)vv_alloc_domain_count((uint32_t)process), 0, "its memory is free");
    victim.has_fired = false;
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_is_int(victim.progress, progress, "it does not run any more");
    tap_ok(!victim.has_fired, "nor do its timers and offloads");
    other = vv_sim_process_start(disk, lock_main, &locked);
    vv_sim_process_wait(other);
    tap_is_int(locked, 0, "its lock is free");
    vv_sim_process_kill(process);
    vv_sim_process_wait(process);
    vv_sim_process_wait(9999);
    tap_ok(!vv_sim_process_is_alive(9999), "no such process");
}

static void suicide_main(void *arg)
{
    struct victim *victim = arg;
    void *leaked = vv_alloc(100);
    victim->progress += leaked != NULL;
    vv_sim_process_kill(vv_sim_process_self());
    victim->progress = 1000;
}

static void kill_self(void *arg)
{
    vv_sim_process_kill(vv_sim_process_self());
    ((struct victim *)arg)->progress++;
}

static void suicide_by_timer_main(void *arg)
{
    struct victim *victim = arg;
    if (vv_timer_set(&victim->timer, vv_rt_now_ns() + 1000, kill_self, victim) == 0)
        vv_rt_sleep_ns(VV_NS_PER_S);
    victim->progress = 1000;
}

static void count_steps_main(void *arg)
{
    for (;;) {
        ++*(int *)arg;
        vv_fiber_yield();
    }
}

static void orphan_main(void *arg)
{
    vv_rt_sleep_ns(VV_NS_PER_S);
    *(bool *)arg = true;
}

static void parent_main(void *arg)
{
    if (vv_sim_process_start(NULL, orphan_main, arg) < 0)
        tap_ok(false, "a child was started");
}

static void endings_main(void *arg)
{
    struct victim victim = {0};
    (void)arg;
    int process = vv_sim_process_start(NULL, suicide_main, &victim);
    vv_sim_process_wait(process);
    tap_is_int(victim.progress, 1, "who kills itself does not return");
    tap_is_int((int64_t)vv_alloc_domain_count((uint32_t)process), 0, "its memory is free");

    process = vv_sim_process_start(NULL, suicide_by_timer_main, &victim);
    vv_sim_process_wait(process);
    tap_is_int(victim.progress, 2, "a timer may kill its own process");

    for (int steps = 1; steps < 5; steps++) {
        int made = 0;
        process = vv_sim_process_start(NULL, count_steps_main, &made);
        vv_sim_process_kill_after(process, (uint64_t)steps);
        vv_sim_process_wait(process);
        tap_is_int(made, steps, "killed after %d steps", steps);
    }

    bool has_ended = false;
    process = vv_sim_process_start(NULL, parent_main, &has_ended);
    vv_sim_process_wait(process);
    tap_ok(!has_ended, "the parent ends first");
    vv_sim_process_wait(process + 1);
    tap_ok(has_ended, "its child outlives it");

    struct vv_path_stat stat;
    tap_is_int(vv_path_stat("/", &stat), -ENODEV, "main has no disk");
}

/* ---- allocation failures ---- */

static void nothing_main(void *arg)
{
    (void)arg;
}

static void start_main(void *arg)
{
    bool is_ended = false;
    (void)arg;
    int n = 0;
    for (; n < 100 && !is_ended; n++) {
        struct vv_waitq queue;
        vv_waitq_init(&queue);
        vv_alloc_fail_at(n, false);
        struct vv_sim_disk *disk = vv_sim_disk_new(0);
        int process = disk ? vv_sim_process_start(disk, wait_for_ever, &queue) : -ENOMEM;
        vv_alloc_fail_at(-1, false);
        is_ended = !vv_alloc_failed();
        if (process > 0)
            vv_rt_sleep_ns(VV_NS_PER_MS);
        if (process > 0)
            vv_sim_process_kill(process);
        tap_ok(is_ended ? process > 0 : process == -ENOMEM, "allocation %d of a start", n);
    }
    tap_ok(is_ended, "the walk ends");
}

static void test_alloc_failure(void)
{
    int err = -ENOMEM;
    int n = 0;
    for (; n < 100 && err != 0; n++) {
        vv_alloc_fail_at(n, false);
        err = run(1, nothing_main, NULL);
        vv_alloc_fail_at(-1, false);
        tap_ok(err == 0 || err == -ENOMEM, "allocation %d of a world", n);
        tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    }
    tap_is_int(err, 0, "the walk ends");
    tap_is_int(run(1, start_main, NULL), 0, "starting disks and processes");
}

int main(void)
{
    vv_alloc_track(true);
    test_determinism();
    test_world();
    for (uint64_t seed = 1; seed <= 5; seed++)
        tap_is_int(run(seed, kill_main, NULL), 0, "killing");
    tap_is_int(run(1, endings_main, NULL), 0, "endings");
    test_alloc_failure();
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    return tap_done();
}
