#include "rt/rt.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "rt/rt_impl.h"

#define STACK_BYTES ((size_t)VV_FIBER_STACK_BYTES * VV_FIBER_STACK_FACTOR)

/* The one thread-local of rt: which reactor the thread is. */
static _Thread_local struct vv_reactor *thread_reactor;

struct vv_reactor *vv_reactor_self(void)
{
    return thread_reactor;
}

void vv_reactor_enter(struct vv_reactor *reactor)
{
    thread_reactor = reactor;
}

/* ---- stacks ---- */

static size_t guard_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* A stack above a page that faults; NULL when there is no memory. */
static void *map_stack(void)
{
    size_t guard = guard_bytes();
    char *base = mmap(NULL, guard + STACK_BYTES, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (mprotect(base + guard, STACK_BYTES, PROT_READ | PROT_WRITE) != 0) {
        munmap(base, guard + STACK_BYTES);
        return NULL;
    }
    return base + guard;
}

static void unmap_stack(void *stack)
{
    size_t guard = guard_bytes();
    munmap((char *)stack - guard, guard + STACK_BYTES);
}

/* ---- the pool ---- */

static void free_fiber(struct vv_fiber *fiber)
{
    vv_tools_stack_deregister(fiber->valgrind_id);
    unmap_stack(fiber->stack);
    vv_free(fiber);
}

static struct vv_fiber *new_fiber(void)
{
    uint32_t domain = vv_alloc_domain_set(0);
    struct vv_fiber *fiber = vv_zalloc(sizeof(*fiber));
    vv_alloc_domain_set(domain);
    if (!fiber)
        return NULL;
    fiber->stack = map_stack();
    if (!fiber->stack) {
        vv_free(fiber);
        return NULL;
    }
    fiber->valgrind_id = vv_tools_stack_register(fiber->stack, STACK_BYTES);
    vv_list_init(&fiber->run_node);
    return fiber;
}

static struct vv_fiber *take_fiber(struct vv_reactor *reactor)
{
    if (reactor->pool_count == 0)
        return new_fiber();
    struct vv_fiber *fiber = vv_list_first(&reactor->pool, struct vv_fiber, run_node);
    vv_list_remove(&fiber->run_node);
    reactor->pool_count--;
    return fiber;
}

/* The last stack used is the first used again: its pages are there and warm. */
static void recycle_fiber(struct vv_reactor *reactor, struct vv_fiber *fiber)
{
    vv_tools_stack_reuse(fiber->stack, STACK_BYTES);
    if (reactor->pool_count >= VV_FIBERS_POOLED_MAX) {
        free_fiber(fiber);
        return;
    }
    vv_list_push_front(&reactor->pool, &fiber->run_node);
    reactor->pool_count++;
}

void vv_reactor_trim(struct vv_reactor *reactor, size_t keep)
{
    while (reactor->pool_count > keep) {
        struct vv_fiber *fiber = vv_list_last(&reactor->pool, struct vv_fiber, run_node);
        vv_list_remove(&fiber->run_node);
        reactor->pool_count--;
        free_fiber(fiber);
    }
}

void vv_reactor_init(struct vv_reactor *reactor, const struct vv_rt_ops *ops)
{
    *reactor = (struct vv_reactor){.ops = ops};
    vv_list_init(&reactor->runnable);
    vv_list_init(&reactor->pool);
}

void vv_reactor_done(struct vv_reactor *reactor)
{
    assert(reactor->fiber_count == 0);
    vv_reactor_trim(reactor, 0);
    vv_timer_heap_done(&reactor->timers);
}

/* ---- life of a fiber ---- */

static void leave(struct vv_fiber *fiber)
{
    struct vv_reactor *reactor = fiber->reactor;
    vv_tools_switch_begin(fiber->has_ended ? NULL : &fiber->fake_stack, reactor->loop_stack,
                          reactor->loop_stack_bytes);
    vv_context_switch(&fiber->context, &reactor->loop);
    vv_tools_switch_end(fiber->fake_stack, &reactor->loop_stack, &reactor->loop_stack_bytes);
}

static void fiber_main(void *arg)
{
    struct vv_fiber *fiber = arg;
    struct vv_reactor *reactor = fiber->reactor;
    vv_tools_switch_end(NULL, &reactor->loop_stack, &reactor->loop_stack_bytes);
    fiber->fn(fiber->arg);
    fiber->has_ended = true;
    leave(fiber);
    assert(!"an ended fiber was resumed");
}

static void expire(void *arg)
{
    vv_fiber_wake(arg, -ETIMEDOUT);
}

int vv_fiber_start_on(struct vv_reactor *reactor, void *owner, void (*fn)(void *), void *arg,
                      const char *name)
{
    if (reactor->fiber_count >= VV_FIBERS_MAX)
        return -VV_ERR_LIMIT;
    TRY(vv_timer_heap_grow(&reactor->timers, 1));
    struct vv_fiber *fiber = take_fiber(reactor);
    if (!fiber)
        return -ENOMEM;
    reactor->timers.reserved++;
    reactor->fiber_count++;
    fiber->reactor = reactor;
    fiber->fn = fn;
    fiber->arg = arg;
    fiber->name = name;
    fiber->has_ended = false;
    fiber->fake_stack = NULL;
    fiber->owner = owner;
    fiber->timer = (struct vv_timer){.fn = expire, .arg = fiber, .owner = owner};
    vv_list_init(&fiber->wait_node);
    vv_list_init(&fiber->owner_node);
    vv_context_init(&fiber->context, fiber->stack, STACK_BYTES, fiber_main, fiber);
    reactor->ops->fiber_begun(reactor, fiber);
    vv_list_push_back(&reactor->runnable, &fiber->run_node);
    reactor->runnable_count++;
    return 0;
}

int vv_fiber_start(void (*fn)(void *), void *arg, const char *name)
{
    struct vv_reactor *reactor = vv_reactor_self();
    assert(reactor && "only on a reactor");
    return vv_fiber_start_on(reactor, reactor->ops->owner(reactor), fn, arg, name);
}

static void end_fiber(struct vv_fiber *fiber)
{
    struct vv_reactor *reactor = fiber->reactor;
    reactor->ops->fiber_ended(reactor, fiber);
    reactor->timers.reserved--;
    reactor->fiber_count--;
    recycle_fiber(reactor, fiber);
}

void vv_fiber_detach(struct vv_fiber *fiber)
{
    struct vv_reactor *reactor = fiber->reactor;
    if (!vv_list_is_empty(&fiber->run_node)) {
        vv_list_remove(&fiber->run_node);
        reactor->runnable_count--;
    }
    vv_list_remove(&fiber->wait_node);
    vv_timer_heap_remove(&reactor->timers, &fiber->timer);
}

void vv_fiber_discard(struct vv_fiber *fiber)
{
    assert(fiber->reactor->running != fiber);
    end_fiber(fiber);
}

void vv_fiber_resume(struct vv_fiber *fiber)
{
    struct vv_reactor *reactor = fiber->reactor;
    assert(!reactor->running);
    reactor->running = fiber;
    vv_tools_switch_begin(&reactor->loop_fake_stack, fiber->stack, STACK_BYTES);
    vv_context_switch(&reactor->loop, &fiber->context);
    vv_tools_switch_end(reactor->loop_fake_stack, NULL, NULL);
    reactor->running = NULL;
    if (fiber->has_ended)
        end_fiber(fiber);
}

int vv_fiber_wait(uint64_t deadline_ns)
{
    struct vv_fiber *fiber = vv_fiber_self();
    assert(fiber && "only a fiber can suspend");
    if (deadline_ns != VV_NEVER)
        vv_timer_heap_set(&fiber->reactor->timers, &fiber->timer, deadline_ns);
    leave(fiber);
    return fiber->wait_result;
}

void vv_fiber_wake(struct vv_fiber *fiber, int result)
{
    struct vv_reactor *reactor = fiber->reactor;
    assert(vv_list_is_empty(&fiber->run_node) && "a fiber is woken once");
    vv_list_remove(&fiber->wait_node);
    vv_timer_heap_remove(&reactor->timers, &fiber->timer);
    fiber->wait_result = result;
    vv_list_push_back(&reactor->runnable, &fiber->run_node);
    reactor->runnable_count++;
}

void vv_fiber_yield(void)
{
    struct vv_fiber *fiber = vv_fiber_self();
    assert(fiber && "only a fiber can suspend");
    fiber->reactor->ops->requeue(fiber->reactor, fiber);
    leave(fiber);
}

struct vv_fiber *vv_fiber_self(void)
{
    return thread_reactor ? thread_reactor->running : NULL;
}

const char *vv_fiber_name(const struct vv_fiber *fiber)
{
    return fiber->name;
}

/* ---- waiting ---- */

void vv_waitq_init(struct vv_waitq *queue)
{
    vv_list_init(&queue->waiters);
}

int vv_waitq_wait(struct vv_waitq *queue, uint64_t deadline_ns)
{
    struct vv_fiber *fiber = vv_fiber_self();
    assert(fiber && "only a fiber can suspend");
    vv_list_push_back(&queue->waiters, &fiber->wait_node);
    return vv_fiber_wait(deadline_ns);
}

void vv_waitq_wake_one(struct vv_waitq *queue)
{
    if (!vv_list_is_empty(&queue->waiters))
        vv_fiber_wake(vv_list_first(&queue->waiters, struct vv_fiber, wait_node), 0);
}

void vv_waitq_wake_all(struct vv_waitq *queue)
{
    while (!vv_list_is_empty(&queue->waiters))
        vv_fiber_wake(vv_list_first(&queue->waiters, struct vv_fiber, wait_node), 0);
}

bool vv_waitq_is_empty(const struct vv_waitq *queue)
{
    return vv_list_is_empty(&queue->waiters);
}

void vv_rt_sleep_ns(uint64_t ns)
{
    uint64_t deadline_ns;
    if (__builtin_add_overflow(vv_rt_now_ns(), ns, &deadline_ns))
        deadline_ns = VV_NEVER;
    (void)vv_fiber_wait(deadline_ns);
}
