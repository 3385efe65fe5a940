#include "store/store.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/list.h"
#include "base/text.h"
#include "rt/rt.h"
#include "store/store_impl.h"

#define EARLY_DEFAULT_NS (10 * VV_NS_PER_MS) /* is_put_early without a late_max_ns */
#define RECENT_MAX 1024 /* puts remembered for list_lag_ns; older ones are shown */

struct fault {
    struct vv_store store;
    struct vv_store *inner;
    struct vv_store_fault_plan plan;
    struct vv_list recent; /* of struct recent, oldest first */
    size_t recent_count;
    size_t late_count; /* late puts whose fibers have not ended */
    bool is_closing;
    struct vv_waitq hurry; /* late fibers wait here: closing makes them happen at once */
    struct vv_waitq idle;  /* close waits here for them */
};

/* A put made through this wrapper a short time ago. */
struct recent {
    struct vv_list link;
    uint64_t time_ns;
    char name[VV_STORE_NAME_MAX + 1];
};

/* A put that will happen later, on a fiber of this process. */
struct late {
    struct fault *fault;
    uint64_t due_ns;
    struct iovec iov;
    char name[VV_STORE_NAME_MAX + 1];
    uint8_t bytes[];
};

static struct fault *fault_of(struct vv_store *store)
{
    return vv_container_of(store, struct fault, store);
}

static bool chance(unsigned permille)
{
    return permille > 0 && vv_rt_random_u64() % 1000 < permille;
}

static uint64_t random_up_to(uint64_t bound)
{
    return bound > 0 ? vv_rt_random_u64() % (bound + 1) : 0;
}

/* What every request goes through. */
static int meet_fate(const struct fault *fault)
{
    const struct vv_store_fault_plan *plan = &fault->plan;
    if (plan->all_fail)
        return -abs(plan->all_fail);
    if (chance(plan->slow_permille))
        vv_rt_sleep_ns(random_up_to(plan->slow_max_ns));
    return chance(plan->fail_permille) ? -EIO : 0;
}

/* ---- late puts ---- */

static void late_main(void *arg)
{
    struct late *late = arg;
    struct fault *fault = late->fault;
    while (!fault->is_closing && vv_rt_now_ns() < late->due_ns)
        (void)vv_waitq_wait(&fault->hurry, late->due_ns);
    /* Nobody is left who could be told the result. */
    int err = vv_store_put(fault->inner, late->name, &late->iov, 1);
    (void)err;
    vv_free(late);
    fault->late_count--;
    vv_waitq_wake_all(&fault->idle);
}

/* Put it at `due_ns`. With a mem store the backend does it, so that it happens even when this
 * process is killed; otherwise a fiber of this process. -ENOMEM, -VV_ERR_LIMIT. */
static int put_late(struct fault *fault, const char *name, const struct iovec *iov, int count,
                    uint64_t due_ns)
{
    if (vv_store_is_mem(fault->inner))
        return vv_store_mem_put_late(fault->inner, name, iov, count, due_ns);
    size_t len = (size_t)vv_store_iov_bytes(iov, count);
    struct late *late = vv_zalloc(sizeof(*late) + len);
    if (!late)
        return -ENOMEM;
    late->fault = fault;
    late->due_ns = due_ns;
    late->iov = (struct iovec){late->bytes, len};
    (void)vv_copy_text(late->name, sizeof(late->name), name);
    for (size_t at = 0; count > 0; at += iov->iov_len, iov++, count--) {
        if (iov->iov_len > 0)
            memcpy(late->bytes + at, iov->iov_base, iov->iov_len);
    }
    int err = vv_fiber_start(late_main, late, "store-late");
    if (err < 0) {
        vv_free(late);
        return err;
    }
    fault->late_count++;
    return 0;
}

/* The answer is lost. Half of these puts take effect: half of those at once, the others later. */
static int put_unknown(struct fault *fault, const char *name, const struct iovec *iov, int count)
{
    int err = 0;
    switch (vv_rt_random_u64() % 4) {
    case 0:
        err = vv_store_put(fault->inner, name, iov, count);
        break;
    case 1:
        err = put_late(fault, name, iov, count,
                       vv_rt_now_ns() + random_up_to(fault->plan.late_max_ns));
        break;
    default:
        break;
    }
    (void)err;
    return -VV_ERR_UNKNOWN;
}

/* Answered before it is visible. */
static int put_early(struct fault *fault, const char *name, const struct iovec *iov, int count)
{
    uint64_t size;
    uint64_t delay_ns = fault->plan.late_max_ns > 0 ? fault->plan.late_max_ns : EARLY_DEFAULT_NS;
    int err = vv_store_size(fault->inner, name, &size);
    if (err == 0)
        return -EEXIST;
    if (err != -ENOENT)
        return err;
    return put_late(fault, name, iov, count, vv_rt_now_ns() + delay_ns);
}

/* ---- lists that lag ---- */

static void drop_recent(struct fault *fault, struct recent *recent)
{
    vv_list_remove(&recent->link);
    fault->recent_count--;
    vv_free(recent);
}

/* Remember a put, and forget those that lists show by now. Out of memory, lists simply lag less. */
static void note_recent(struct fault *fault, const char *name)
{
    uint64_t now_ns = vv_rt_now_ns();
    while (fault->recent_count > 0) {
        struct recent *oldest = vv_list_first(&fault->recent, struct recent, link);
        if (fault->recent_count < RECENT_MAX && oldest->time_ns + fault->plan.list_lag_ns > now_ns)
            break;
        drop_recent(fault, oldest);
    }
    struct recent *recent = fault->plan.list_lag_ns > 0 ? vv_zalloc(sizeof(*recent)) : NULL;
    if (!recent)
        return;
    recent->time_ns = now_ns;
    (void)vv_copy_text(recent->name, sizeof(recent->name), name);
    vv_list_push_back(&fault->recent, &recent->link);
    fault->recent_count++;
}

static uint64_t created_ns(const struct fault *fault, const char *name)
{
    uint64_t time_ns = 0;
    if (vv_store_is_mem(fault->inner))
        return vv_store_mem_created_ns(fault->inner, name);
    vv_list_each (node, &fault->recent) {
        const struct recent *recent = vv_list_entry(node, struct recent, link);
        if (strcmp(recent->name, name) == 0)
            time_ns = recent->time_ns;
    }
    return time_ns;
}

/* Take what is younger than the lag out of a list; returns how many are left. */
static size_t hide_young(const struct fault *fault, struct vv_store_entry *entries, size_t count)
{
    uint64_t now_ns = vv_rt_now_ns();
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t time_ns = created_ns(fault, entries[i].name);
        if (time_ns == 0 || time_ns + fault->plan.list_lag_ns <= now_ns)
            entries[kept++] = entries[i];
    }
    return kept;
}

/* ---- the store ---- */

static int fault_put(struct vv_store *store, const char *name, const struct iovec *iov, int count)
{
    struct fault *fault = fault_of(store);
    const struct vv_store_fault_plan *plan = &fault->plan;
    if (plan->put_fail)
        return -abs(plan->put_fail);
    TRY(meet_fate(fault));
    if (chance(plan->unknown_permille))
        return put_unknown(fault, name, iov, count);
    if (plan->is_put_early)
        return put_early(fault, name, iov, count);
    if (plan->is_put_overwriting)
        TRY(vv_store_remove(fault->inner, name));
    TRY(vv_store_put(fault->inner, name, iov, count));
    note_recent(fault, name);
    return 0;
}

static ssize_t fault_get(struct vv_store *store, const char *name, void *buf, size_t len,
                         uint64_t offset)
{
    TRY(meet_fate(fault_of(store)));
    return vv_store_get(fault_of(store)->inner, name, buf, len, offset);
}

static int fault_size(struct vv_store *store, const char *name, uint64_t *out_size)
{
    TRY(meet_fate(fault_of(store)));
    return vv_store_size(fault_of(store)->inner, name, out_size);
}

static ssize_t fault_list(struct vv_store *store, const char *prefix, const char *after,
                          struct vv_store_entry *out_entries, size_t max)
{
    struct fault *fault = fault_of(store);
    char last[VV_STORE_NAME_MAX + 1];
    size_t count = 0;
    TRY(meet_fate(fault));
    (void)vv_copy_text(last, sizeof(last), after);
    /* What is hidden leaves a gap, and a short answer would mean the end: so fill up. */
    for (;;) {
        size_t room = max - count;
        ssize_t got = vv_store_list(fault->inner, prefix, last, out_entries + count, room);
        TRY(got);
        if (got > 0)
            (void)vv_copy_text(last, sizeof(last), out_entries[count + (size_t)got - 1].name);
        if (fault->plan.list_lag_ns > 0)
            count += hide_young(fault, out_entries + count, (size_t)got);
        else
            count += (size_t)got;
        if ((size_t)got < room || count == max)
            return (ssize_t)count;
    }
}

static int fault_remove(struct vv_store *store, const char *name)
{
    TRY(meet_fate(fault_of(store)));
    return vv_store_remove(fault_of(store)->inner, name);
}

static int fault_sync(struct vv_store *store, const char *name)
{
    TRY(meet_fate(fault_of(store)));
    return vv_store_sync(fault_of(store)->inner, name);
}

static int fault_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total)
{
    TRY(meet_fate(fault_of(store)));
    return vv_store_space(fault_of(store)->inner, out_free, out_total);
}

static void fault_close(struct vv_store *store)
{
    struct fault *fault = fault_of(store);
    fault->is_closing = true;
    vv_waitq_wake_all(&fault->hurry);
    while (fault->late_count > 0)
        (void)vv_waitq_wait(&fault->idle, VV_NEVER);
    while (fault->recent_count > 0)
        drop_recent(fault, vv_list_first(&fault->recent, struct recent, link));
    vv_store_close(fault->inner);
    vv_free(fault);
}

static const struct vv_store_ops fault_ops = {
    .type = "fault",
    .put = fault_put,
    .get = fault_get,
    .size = fault_size,
    .list = fault_list,
    .remove = fault_remove,
    .sync = fault_sync,
    .space = fault_space,
    .close = fault_close,
};

int vv_store_fault_new(struct vv_store *inner, struct vv_store **out_store)
{
    struct fault *fault = vv_zalloc(sizeof(*fault));
    if (!fault)
        return -ENOMEM;
    fault->store.ops = &fault_ops;
    fault->inner = inner;
    vv_list_init(&fault->recent);
    vv_waitq_init(&fault->hurry);
    vv_waitq_init(&fault->idle);
    *out_store = &fault->store;
    return 0;
}

struct vv_store_fault_plan *vv_store_fault_plan(struct vv_store *store)
{
    assert(store->ops == &fault_ops);
    return &fault_of(store)->plan;
}
