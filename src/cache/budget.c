#include "cache/cache.h"

#include <assert.h>
#include <errno.h>

/* One who waits for room; on its fiber's stack, in the list of the budget that has none. */
struct waiter {
    struct vv_list link;
    struct vv_budget *budget; /* to be charged */
    uint64_t bytes;
    bool is_granted;
    struct vv_waitq wake;
};

static bool has_room(const struct vv_budget *budget, uint64_t bytes)
{
    if (budget->used == 0)
        return true;
    return budget->used <= budget->limit && bytes <= budget->limit - budget->used;
}

/* The first budget, from `budget` upwards, that stands in the way of a request: it has no room, or
 * others wait there. `front` is the one where the request itself is the first that waits (or NULL).
 */
static struct vv_budget *find_obstacle(struct vv_budget *budget, uint64_t bytes,
                                       const struct vv_budget *front)
{
    for (; budget; budget = budget->parent) {
        if (!has_room(budget, bytes) || (budget != front && !vv_list_is_empty(&budget->waiters)))
            return budget;
    }
    return NULL;
}

/* Give room to those who wait at `budget`, in their order, until one does not fit. One who fits
 * here but not elsewhere goes on waiting there, and no longer keeps others waiting here. */
static void serve(struct vv_budget *budget)
{
    while (!vv_list_is_empty(&budget->waiters)) {
        struct waiter *waiter = vv_list_first(&budget->waiters, struct waiter, link);
        struct vv_budget *obstacle = find_obstacle(waiter->budget, waiter->bytes, budget);
        if (obstacle == budget)
            return;
        vv_list_remove(&waiter->link);
        if (obstacle) {
            vv_list_push_back(&obstacle->waiters, &waiter->link);
            continue;
        }
        vv_budget_charge(waiter->budget, waiter->bytes);
        waiter->is_granted = true;
        vv_waitq_wake_all(&waiter->wake);
    }
}

void vv_budget_init(struct vv_budget *budget, struct vv_budget *parent, uint64_t limit)
{
    *budget = (struct vv_budget){.parent = parent, .limit = limit};
    vv_list_init(&budget->waiters);
}

void vv_budget_charge(struct vv_budget *budget, uint64_t bytes)
{
    for (; budget; budget = budget->parent) {
        budget->used += bytes;
        if (budget->used > budget->used_max)
            budget->used_max = budget->used;
    }
}

int vv_budget_try(struct vv_budget *budget, uint64_t bytes)
{
    if (find_obstacle(budget, bytes, NULL))
        return -VV_ERR_BUDGET;
    vv_budget_charge(budget, bytes);
    return 0;
}

int vv_budget_wait(struct vv_budget *budget, uint64_t bytes, uint64_t deadline_ns)
{
    struct waiter waiter = {.budget = budget, .bytes = bytes};
    struct vv_budget *obstacle = find_obstacle(budget, bytes, NULL);
    if (!obstacle) {
        vv_budget_charge(budget, bytes);
        return 0;
    }
    vv_waitq_init(&waiter.wake);
    vv_list_push_back(&obstacle->waiters, &waiter.link);
    while (!waiter.is_granted) {
        if (vv_waitq_wait(&waiter.wake, deadline_ns) != -ETIMEDOUT || waiter.is_granted)
            continue;
        vv_list_remove(&waiter.link);
        /* Those behind may fit where this one did not, at whichever budget it waited last. */
        for (struct vv_budget *at = budget; at; at = at->parent)
            serve(at);
        return -ETIMEDOUT;
    }
    return 0;
}

void vv_budget_release(struct vv_budget *budget, uint64_t bytes)
{
    for (struct vv_budget *at = budget; at; at = at->parent) {
        assert(at->used >= bytes);
        at->used -= bytes;
    }
    for (struct vv_budget *at = budget; at; at = at->parent)
        serve(at);
}
