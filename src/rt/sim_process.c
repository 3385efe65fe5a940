#include "rt/sim.h"

#include <assert.h>
#include <errno.h>

#include "base/alloc.h"
#include "base/log.h"
#include "rt/sim_impl.h"

#define PROCESSES_MIN 16

/* NULL when there never was such a process. */
static struct vv_sim_process *find_process(struct vv_sim_world *world, int number)
{
    if (number < 1 || (size_t)number > world->process_count)
        return NULL;
    return world->processes[number - 1];
}

static int grow_table(struct vv_sim_world *world)
{
    if (world->process_count < world->process_capacity)
        return 0;
    size_t capacity = world->process_capacity ? world->process_capacity * 2 : PROCESSES_MIN;
    uint32_t domain = vv_alloc_domain_set(0);
    struct vv_sim_process **processes = vv_realloc(world->processes, capacity * sizeof(*processes));
    vv_alloc_domain_set(domain);
    if (!processes)
        return -ENOMEM;
    world->processes = processes;
    world->process_capacity = capacity;
    return 0;
}

static void run_posts(void *arg)
{
    struct vv_sim_process *process = arg;
    struct vv_post *post = process->first_post;
    process->first_post = NULL;
    process->last_post = NULL;
    while (post) {
        struct vv_post *next = post->next; /* fn may free the post */
        post->fn(post->arg);
        post = next;
    }
}

int vv_sim_process_new(struct vv_sim_world *world, struct vv_sim_disk *disk, void (*fn)(void *),
                       void *arg, struct vv_sim_process **out_process)
{
    struct vv_timer_heap *timers = &world->base.timers;
    if (world->process_count + 1 >= VV_ALLOC_DOMAIN_MAX)
        return -VV_ERR_LIMIT;
    TRY(grow_table(world));
    struct vv_sim_process *process = vv_sim_alloc(sizeof(*process));
    if (!process)
        return -ENOMEM;
    process->number = (int)world->process_count + 1;
    process->is_alive = true;
    process->disk = disk;
    vv_list_init(&process->fibers);
    vv_list_init(&process->files);
    vv_waitq_init(&process->waiters);
    process->post_timer = (struct vv_timer){.fn = run_posts, .arg = process, .owner = process};
    int err = vv_timer_heap_grow(timers, 1);
    if (err == 0) {
        timers->reserved++;
        err = vv_fiber_start_on(&world->base, process, fn, arg, "main");
        if (err != 0)
            timers->reserved--;
    }
    if (err != 0) {
        vv_free(process);
        return err;
    }
    world->processes[world->process_count++] = process;
    *out_process = process;
    return 0;
}

/* What both ends of a process have in common. */
static void release(struct vv_sim_world *world, struct vv_sim_process *process)
{
    process->is_alive = false;
    process->kill_after = 0;
    process->kill_before_sync = 0;
    process->first_post = NULL;
    process->last_post = NULL;
    vv_timer_heap_remove_owner(&world->base.timers, process);
    world->base.timers.reserved--;
    vv_sim_files_drop(process);
    vv_waitq_wake_all(&process->waiters);
}

void vv_sim_process_ended(struct vv_sim_world *world, struct vv_sim_process *process)
{
    size_t left = vv_alloc_domain_count((uint32_t)process->number);
    if (left > 0)
        vv_warn("sim", "process %d ended with %zu allocations left", process->number, left);
    release(world, process);
}

void vv_sim_process_end_now(struct vv_sim_world *world, struct vv_sim_process *process)
{
    assert(process->is_alive);
    process->is_alive = false; /* the end of its last fiber is not the end that it chose */
    vv_timer_heap_remove_owner(&world->base.timers, process);
    vv_list_each (node, &process->fibers) {
        vv_fiber_detach(vv_list_entry(node, struct vv_fiber, owner_node));
    }
    vv_list_each_safe (node, &process->fibers) {
        vv_fiber_discard(vv_list_entry(node, struct vv_fiber, owner_node));
    }
    release(world, process);
    vv_alloc_domain_drop((uint32_t)process->number);
}

/* ---- the public face ---- */

int vv_sim_process_start(struct vv_sim_disk *disk, void (*fn)(void *), void *arg)
{
    struct vv_sim_process *process;
    TRY(vv_sim_process_new(vv_sim_world_self(), disk, fn, arg, &process));
    return process->number;
}

void vv_sim_process_kill(int number)
{
    struct vv_sim_world *world = vv_sim_world_self();
    struct vv_sim_process *process = find_process(world, number);
    assert(process && "there was such a process");
    if (!process->is_alive)
        return;
    if (process != world->current) {
        vv_sim_process_end_now(world, process);
        return;
    }
    process->is_doomed = true;
    if (world->base.running) {
        (void)vv_fiber_wait(VV_NEVER);
        assert(!"a killed fiber was resumed");
    }
}

bool vv_sim_process_is_alive(int number)
{
    struct vv_sim_process *process = find_process(vv_sim_world_self(), number);
    return process && process->is_alive;
}

void vv_sim_process_wait(int number)
{
    struct vv_sim_process *process = find_process(vv_sim_world_self(), number);
    while (process && process->is_alive)
        vv_waitq_wait(&process->waiters, VV_NEVER);
}

int vv_sim_process_self(void)
{
    struct vv_sim_world *world = vv_sim_world_self();
    return world->current ? world->current->number : 0;
}

void vv_sim_process_kill_after(int number, uint64_t steps)
{
    struct vv_sim_process *process = find_process(vv_sim_world_self(), number);
    assert(process && "there was such a process");
    if (process->is_alive)
        process->kill_after = steps;
}

void vv_sim_process_kill_before_sync(int number, const char *part, unsigned count)
{
    struct vv_sim_process *process = find_process(vv_sim_world_self(), number);
    assert(process && "there was such a process");
    process->kill_sync_part = part;
    process->kill_before_sync = process->is_alive ? count : 0;
}
