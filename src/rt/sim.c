/* The world: its loop, clock and random numbers. */
#include "rt/sim.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/log.h"
#include "rt/sim_impl.h"

/* Virtual time that a switch takes: fibers that only yield don't stop the clock. */
#define SWITCH_NS 100
#define WALL_BEGIN_S 1700000000
#define WORKER_COUNT 2
/* The longest time from a post to its call. */
#define POST_DELAY_NS_MAX 20000
#define LOGGED_FIBERS_MAX 64

static struct vv_sim_world *world_of(struct vv_reactor *reactor)
{
    return vv_container_of(reactor, struct vv_sim_world, base);
}

struct vv_sim_world *vv_sim_world_self(void)
{
    struct vv_reactor *reactor = vv_reactor_self();
    assert(reactor && !reactor->ops->is_real && "only inside a simulated world");
    return world_of(reactor);
}

void *vv_sim_alloc(size_t size)
{
    uint32_t domain = vv_alloc_domain_set(0);
    void *ptr = vv_zalloc(size);
    vv_alloc_domain_set(domain);
    return ptr;
}

/* ---- randomness: splitmix64 ---- */

#define RANDOM_STEP 0x9e3779b97f4a7c15ull

static uint64_t random_of(uint64_t state)
{
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ull;
    state = (state ^ (state >> 27)) * 0x94d049bb133111ebull;
    return state ^ (state >> 31);
}

static uint64_t next_random(struct vv_sim_world *world)
{
    world->random_state += RANDOM_STEP;
    return random_of(world->random_state);
}

uint64_t vv_sim_world_random(struct vv_sim_world *world, uint64_t bound)
{
    return (uint64_t)(((unsigned __int128)next_random(world) * bound) >> 64);
}

uint64_t vv_sim_world_latency(struct vv_sim_world *world)
{
    uint64_t least = world->options.latency_min_ns;
    uint64_t most = world->options.latency_max_ns;
    return most > least ? least + vv_sim_world_random(world, most - least + 1) : least;
}

void vv_sim_world_pause(struct vv_sim_world *world)
{
    (void)vv_fiber_wait(world->now_ns + vv_sim_world_latency(world));
}

uint64_t vv_sim_random(uint64_t bound)
{
    return vv_sim_world_random(vv_sim_world_self(), bound);
}

bool vv_sim_chance(unsigned permille)
{
    return vv_sim_random(1000) < permille;
}

uint64_t vv_sim_fingerprint(void)
{
    struct vv_sim_world *world = vv_sim_world_self();
    return vv_mix64(world->now_ns ^ random_of(world->random_state + RANDOM_STEP));
}

uint64_t vv_sim_steps(void)
{
    return vv_sim_world_self()->steps;
}

void vv_sim_stop(void)
{
    vv_sim_world_self()->is_stopped = true;
}

/* ---- operations ---- */

static uint64_t sim_now_ns(struct vv_reactor *reactor)
{
    return world_of(reactor)->now_ns;
}

static struct timespec sim_wall(struct vv_reactor *reactor)
{
    uint64_t now_ns = world_of(reactor)->now_ns;
    return (struct timespec){.tv_sec = WALL_BEGIN_S + (time_t)(now_ns / VV_NS_PER_S),
                             .tv_nsec = (long)(now_ns % VV_NS_PER_S)};
}

static void sim_random(struct vv_reactor *reactor, void *out, size_t len)
{
    uint8_t *place = out;
    while (len > 0) {
        uint64_t value = next_random(world_of(reactor));
        size_t part = len < sizeof(value) ? len : sizeof(value);
        memcpy(place, &value, part);
        place += part;
        len -= part;
    }
}

struct offload {
    void (*fn)(void *);
    void *arg;
    struct vv_fiber *fiber;
    struct vv_timer timer;
};

/* On the loop's stack, which is as deep as a worker's. The fiber's own deadline then wakes it: a
 * kill may fall before the call and after it. */
static void run_offload(void *arg)
{
    struct offload *offload = arg;
    struct vv_fiber *fiber = offload->fiber;
    struct vv_sim_world *world = world_of(fiber->reactor);
    offload->fn(offload->arg);
    vv_timer_heap_set(&world->base.timers, &fiber->timer,
                      world->now_ns + vv_sim_world_latency(world));
}

/* The place in the timer heap that is kept for the fiber serves both timers in turn. */
static void sim_offload(struct vv_reactor *reactor, void (*fn)(void *), void *arg)
{
    struct vv_sim_world *world = world_of(reactor);
    struct offload offload = {.fn = fn, .arg = arg, .fiber = vv_fiber_self()};
    assert(offload.fiber && "only a fiber can suspend");
    offload.timer =
        (struct vv_timer){.fn = run_offload, .arg = &offload, .owner = offload.fiber->owner};
    vv_timer_heap_set(&reactor->timers, &offload.timer,
                      world->now_ns + vv_sim_world_latency(world));
    (void)vv_fiber_wait(VV_NEVER);
}

static unsigned sim_worker_count(struct vv_reactor *reactor)
{
    (void)reactor;
    return WORKER_COUNT;
}

/* There is one reactor for all: a post goes to the process that posts. */
static void sim_post(struct vv_reactor *reactor, struct vv_post *post)
{
    struct vv_sim_world *world = world_of(reactor);
    struct vv_sim_process *process = world->current;
    assert(process && "only inside a process");
    post->next = NULL;
    if (process->last_post)
        process->last_post->next = post;
    else
        process->first_post = post;
    process->last_post = post;
    if (process->post_timer.heap_index == 0)
        vv_timer_heap_set(&reactor->timers, &process->post_timer,
                          world->now_ns + vv_sim_world_random(world, POST_DELAY_NS_MAX));
}

static void sim_requeue(struct vv_reactor *reactor, struct vv_fiber *fiber)
{
    uint64_t index = vv_sim_world_random(world_of(reactor), reactor->runnable_count + 1);
    struct vv_list *at = reactor->runnable.next;
    while (index-- > 0)
        at = at->next;
    vv_list_insert_before(at, &fiber->run_node);
    reactor->runnable_count++;
}

static void *sim_owner(struct vv_reactor *reactor)
{
    struct vv_sim_world *world = world_of(reactor);
    assert(world->current && "only inside a process");
    return world->current;
}

static void sim_fiber_begun(struct vv_reactor *reactor, struct vv_fiber *fiber)
{
    (void)reactor;
    struct vv_sim_process *process = fiber->owner;
    assert(process->is_alive);
    vv_list_push_back(&process->fibers, &fiber->owner_node);
}

static void sim_fiber_ended(struct vv_reactor *reactor, struct vv_fiber *fiber)
{
    struct vv_sim_process *process = fiber->owner;
    vv_list_remove(&fiber->owner_node);
    if (process->is_alive && vv_list_is_empty(&process->fibers))
        vv_sim_process_ended(world_of(reactor), process);
}

static const struct vv_rt_ops sim_ops = {
    .is_real = false,
    .path = &vv_sim_path_ops,
    .now_ns = sim_now_ns,
    .wall = sim_wall,
    .random = sim_random,
    .offload = sim_offload,
    .worker_count = sim_worker_count,
    .post = sim_post,
    .requeue = sim_requeue,
    .owner = sim_owner,
    .fiber_begun = sim_fiber_begun,
    .fiber_ended = sim_fiber_ended,
};

/* ---- the loop ---- */

static void enter_process(struct vv_sim_world *world, struct vv_sim_process *process)
{
    world->current = process;
    vv_alloc_domain_set((uint32_t)process->number);
}

/* Back in the loop; what has killed itself ends now. */
static void leave_process(struct vv_sim_world *world)
{
    struct vv_sim_process *process = world->current;
    vv_alloc_domain_set(0);
    world->current = NULL;
    if (process->is_doomed && process->is_alive)
        vv_sim_process_end_now(world, process);
}

static void run_timers(struct vv_sim_world *world)
{
    struct vv_timer *timer;
    while (!world->is_stopped &&
           (timer = vv_timer_heap_pop(&world->base.timers, world->now_ns)) != NULL) {
        enter_process(world, timer->owner);
        timer->fn(timer->arg);
        leave_process(world);
    }
}

static struct vv_fiber *pick_fiber(struct vv_sim_world *world)
{
    struct vv_reactor *reactor = &world->base;
    struct vv_list *node = reactor->runnable.next;
    if (reactor->runnable_count > 1 &&
        vv_sim_world_random(world, 1000) < world->options.reorder_permille) {
        uint64_t index = vv_sim_world_random(world, reactor->runnable_count);
        while (index-- > 0)
            node = node->next;
    }
    return vv_list_entry(node, struct vv_fiber, run_node);
}

static void run_fiber(struct vv_sim_world *world)
{
    struct vv_fiber *fiber = pick_fiber(world);
    struct vv_sim_process *process = fiber->owner;
    bool is_counting_down = process->kill_after > 0;
    world->steps++;
    world->now_ns += SWITCH_NS;
    vv_list_remove(&fiber->run_node);
    world->base.runnable_count--;
    enter_process(world, process);
    vv_fiber_resume(fiber);
    leave_process(world);
    if (is_counting_down && process->kill_after > 0 && --process->kill_after == 0)
        vv_sim_process_end_now(world, process);
}

static void log_deadlock(const struct vv_sim_world *world)
{
    unsigned logged = 0;
    vv_error("sim", "%zu fibers wait and nothing can wake them:", world->base.fiber_count);
    for (size_t i = 0; i < world->process_count; i++) {
        vv_list_each (node, &world->processes[i]->fibers) {
            if (logged++ < LOGGED_FIBERS_MAX)
                vv_error("sim", "  process %zu: %s", i + 1,
                         vv_list_entry(node, struct vv_fiber, owner_node)->name);
        }
    }
}

static int run_world(struct vv_sim_world *world)
{
    struct vv_reactor *reactor = &world->base;
    while (reactor->fiber_count > 0 && !world->is_stopped) {
        run_timers(world);
        if (world->is_stopped || reactor->fiber_count == 0)
            break;
        if (reactor->runnable_count > 0) {
            run_fiber(world);
            continue;
        }
        uint64_t next_ns = vv_timer_heap_next(&reactor->timers);
        if (next_ns == VV_NEVER) {
            log_deadlock(world);
            return -EDEADLK;
        }
        if (next_ns > world->now_ns)
            world->now_ns = next_ns;
    }
    return 0;
}

/* ---- beginning and end ---- */

/* What processes that ended by themselves have left allocated goes with the world. */
static void end_world(struct vv_sim_world *world)
{
    for (size_t i = 0; i < world->process_count; i++) {
        struct vv_sim_process *process = world->processes[i];
        if (process->is_alive)
            vv_sim_process_end_now(world, process);
        else
            vv_alloc_domain_drop((uint32_t)process->number);
    }
    vv_list_each_safe (node, &world->disks) {
        vv_sim_disk_free(vv_list_entry(node, struct vv_sim_disk, world_node));
    }
    for (size_t i = 0; i < world->process_count; i++)
        vv_free(world->processes[i]);
    vv_free(world->processes);
    vv_reactor_enter(NULL);
    vv_reactor_done(&world->base);
    vv_free(world);
}

int vv_sim_run(const struct vv_sim_options *options, void (*main_fn)(void *), void *arg)
{
    assert(!vv_reactor_self() && "the thread is no reactor yet");
    uint32_t domain = vv_alloc_domain_set(0);
    struct vv_sim_world *world = vv_sim_alloc(sizeof(*world));
    int err = -ENOMEM;
    if (world) {
        vv_reactor_init(&world->base, &sim_ops);
        vv_list_init(&world->disks);
        world->options = *options;
        world->random_state = vv_mix64(options->seed);
        vv_reactor_enter(&world->base);
        struct vv_sim_process *process;
        err = vv_sim_process_new(world, NULL, main_fn, arg, &process);
        if (err == 0)
            err = run_world(world);
        end_world(world);
    }
    vv_alloc_domain_set(domain);
    return err;
}
