#include "rt/rt.h"

#include <assert.h>
#include <errno.h>

#include "base/alloc.h"
#include "rt/rt_impl.h"

#define HEAP_CAPACITY_MIN 32

static bool is_before(const struct vv_timer *a, const struct vv_timer *b)
{
    if (a->deadline_ns != b->deadline_ns)
        return a->deadline_ns < b->deadline_ns;
    return a->order < b->order;
}

static void place(struct vv_timer_heap *heap, struct vv_timer *timer, size_t index)
{
    heap->items[index] = timer;
    timer->heap_index = index;
}

/* Move `timer`, whose place is `index`, up or down to where it belongs. */
static void sift(struct vv_timer_heap *heap, struct vv_timer *timer, size_t index)
{
    while (index > 1 && is_before(timer, heap->items[index / 2])) {
        place(heap, heap->items[index / 2], index);
        index /= 2;
    }
    while (index * 2 <= heap->count) {
        size_t child = index * 2;
        if (child < heap->count && is_before(heap->items[child + 1], heap->items[child]))
            child++;
        if (!is_before(heap->items[child], timer))
            break;
        place(heap, heap->items[child], index);
        index = child;
    }
    place(heap, timer, index);
}

int vv_timer_heap_grow(struct vv_timer_heap *heap, size_t extra)
{
    size_t needed = heap->count + heap->reserved + extra;
    if (needed <= heap->capacity)
        return 0;
    size_t capacity = heap->capacity ? heap->capacity : HEAP_CAPACITY_MIN;
    while (capacity < needed)
        capacity *= 2;
    uint32_t domain = vv_alloc_domain_set(0);
    struct vv_timer **items = vv_realloc(heap->items, (capacity + 1) * sizeof(*items));
    vv_alloc_domain_set(domain);
    if (!items)
        return -ENOMEM;
    heap->items = items;
    heap->capacity = capacity;
    return 0;
}

void vv_timer_heap_done(struct vv_timer_heap *heap)
{
    vv_free(heap->items);
    *heap = (struct vv_timer_heap){0};
}

void vv_timer_heap_set(struct vv_timer_heap *heap, struct vv_timer *timer, uint64_t deadline_ns)
{
    timer->deadline_ns = deadline_ns;
    timer->order = heap->next_order++;
    if (timer->heap_index == 0) {
        assert(heap->count < heap->capacity);
        heap->count++;
        sift(heap, timer, heap->count);
    } else {
        assert(heap->items[timer->heap_index] == timer);
        sift(heap, timer, timer->heap_index);
    }
}

void vv_timer_heap_remove(struct vv_timer_heap *heap, struct vv_timer *timer)
{
    size_t index = timer->heap_index;
    if (index == 0)
        return;
    assert(heap->items[index] == timer);
    timer->heap_index = 0;
    struct vv_timer *last = heap->items[heap->count--];
    if (last != timer)
        sift(heap, last, index);
}

struct vv_timer *vv_timer_heap_pop(struct vv_timer_heap *heap, uint64_t now_ns)
{
    if (heap->count == 0 || heap->items[1]->deadline_ns > now_ns)
        return NULL;
    struct vv_timer *timer = heap->items[1];
    vv_timer_heap_remove(heap, timer);
    return timer;
}

uint64_t vv_timer_heap_next(const struct vv_timer_heap *heap)
{
    return heap->count > 0 ? heap->items[1]->deadline_ns : VV_NEVER;
}

void vv_timer_heap_remove_owner(struct vv_timer_heap *heap, const void *owner)
{
    size_t kept = 0;
    for (size_t i = 1; i <= heap->count; i++) {
        struct vv_timer *timer = heap->items[i];
        if (timer->owner == owner)
            timer->heap_index = 0;
        else
            heap->items[++kept] = timer;
    }
    heap->count = 0;
    for (size_t i = 1; i <= kept; i++) {
        heap->count = i;
        sift(heap, heap->items[i], i);
    }
}

int vv_timer_set(struct vv_timer *timer, uint64_t deadline_ns, void (*fn)(void *), void *arg)
{
    struct vv_reactor *reactor = vv_reactor_self();
    assert(reactor && "only on a reactor");
    if (timer->heap_index == 0)
        TRY(vv_timer_heap_grow(&reactor->timers, 1));
    timer->fn = fn;
    timer->arg = arg;
    timer->owner = reactor->ops->owner(reactor);
    vv_timer_heap_set(&reactor->timers, timer, deadline_ns);
    return 0;
}

void vv_timer_cancel(struct vv_timer *timer)
{
    if (timer->heap_index == 0)
        return;
    struct vv_reactor *reactor = vv_reactor_self();
    assert(reactor && "only on a reactor");
    vv_timer_heap_remove(&reactor->timers, timer);
}
