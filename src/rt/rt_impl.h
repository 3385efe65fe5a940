/* What the two runtimes share: fibers with their stacks, the run queue, the timer heap, and the
 * table of operations in which they differ. Private to rt.
 *
 * struct vv_reactor is the first part of both runtimes' own struct. It is used only by its thread,
 * except for ops->post. Fibers, their stacks and the timer heap are memory of domain 0: in the
 * simulation they belong to the world, not to the process that asked for them. */
#ifndef VV_RT_RT_IMPL_H
#define VV_RT_RT_IMPL_H

#include "rt/context_impl.h"
#include "rt/rt.h"

/* Stacks kept for reuse while there is work, and after a second without any. */
#define VV_FIBERS_POOLED_MAX 256
#define VV_FIBERS_POOLED_IDLE_MAX 16

struct vv_fiber {
    struct vv_context context;
    struct vv_reactor *reactor;
    void *stack; /* lowest usable byte */
    void (*fn)(void *);
    void *arg;
    const char *name;
    struct vv_list run_node;  /* in the run queue, or in the pool */
    struct vv_list wait_node; /* in a vv_waitq */
    struct vv_timer timer;    /* the deadline of its wait */
    int wait_result;
    bool has_ended;
    unsigned valgrind_id;
    void *fake_stack;          /* AddressSanitizer's */
    void *owner;               /* the simulated process */
    struct vv_list owner_node; /* among the owner's fibers */
};

/* Timers by deadline, then by order. items[0] is unused; an index of 0 means not in the heap. */
struct vv_timer_heap {
    struct vv_timer **items;
    size_t count;
    size_t capacity;
    size_t reserved; /* places kept for timers whose setting must not fail: one a fiber */
    uint64_t next_order;
};

/* Operations on files; see the functions of rt.h with the same names. */
struct vv_file_ops {
    void (*close)(struct vv_file *file);
    ssize_t (*pread)(struct vv_file *file, void *buf, size_t len, uint64_t offset);
    int (*pwritev)(struct vv_file *file, struct iovec *iov, int count, uint64_t offset);
    int (*datasync)(struct vv_file *file);
    int (*pwritev_sync)(struct vv_file *file, struct iovec *iov, int count, uint64_t offset);
    int (*size)(struct vv_file *file, uint64_t *out_bytes);
    int (*truncate)(struct vv_file *file, uint64_t size);
    int (*allocate)(struct vv_file *file, uint64_t offset, uint64_t len);
    int (*lock)(struct vv_file *file);
};

/* The first part of both runtimes' files. */
struct vv_file {
    const struct vv_file_ops *ops;
};

struct vv_path_ops {
    int (*open)(const char *path, unsigned flags, struct vv_file **out_file);
    int (*mkdir)(const char *path);
    int (*unlink)(const char *path);
    int (*rmdir)(const char *path);
    int (*rename)(const char *from, const char *to);
    int (*link)(const char *from, const char *to);
    int (*sync_dir)(const char *path);
    int (*stat)(const char *path, struct vv_path_stat *out_stat);
    int (*space)(const char *path, uint64_t *out_free, uint64_t *out_total);
    int (*list)(const char *path, int (*visit)(void *arg, const char *name, bool is_dir),
                void *arg);
};

struct vv_rt_ops {
    bool is_real;
    const struct vv_path_ops *path;
    uint64_t (*now_ns)(struct vv_reactor *reactor);
    struct timespec (*wall)(struct vv_reactor *reactor);
    void (*random)(struct vv_reactor *reactor, void *out, size_t len);
    void (*offload)(struct vv_reactor *reactor, void (*fn)(void *), void *arg);
    unsigned (*worker_count)(struct vv_reactor *reactor);
    void (*post)(struct vv_reactor *reactor, struct vv_post *post);
    /* Put the running fiber, which is about to suspend, into the run queue. */
    void (*requeue)(struct vv_reactor *reactor, struct vv_fiber *fiber);
    /* Whose the timers and fibers are that are made now. */
    void *(*owner)(struct vv_reactor *reactor);
    /* A fiber was made (its owner is set), or is about to be recycled. */
    void (*fiber_begun)(struct vv_reactor *reactor, struct vv_fiber *fiber);
    void (*fiber_ended)(struct vv_reactor *reactor, struct vv_fiber *fiber);
};

struct vv_reactor {
    const struct vv_rt_ops *ops;
    struct vv_context loop; /* where fibers go when they suspend */
    struct vv_fiber *running;
    struct vv_list runnable;
    size_t runnable_count;
    size_t fiber_count;
    struct vv_list pool; /* fibers that have ended, with their stacks */
    size_t pool_count;
    struct vv_timer_heap timers;
    void *loop_fake_stack; /* AddressSanitizer's view of the loop's own stack */
    const void *loop_stack;
    size_t loop_stack_bytes;
};

/* ---- reactors (fiber.c) ---- */

void vv_reactor_init(struct vv_reactor *reactor, const struct vv_rt_ops *ops);
/* No fibers may be left. */
void vv_reactor_done(struct vv_reactor *reactor);
/* Make `reactor` the calling thread's (NULL: none). */
void vv_reactor_enter(struct vv_reactor *reactor);
/* Free pooled stacks down to `keep`. */
void vv_reactor_trim(struct vv_reactor *reactor, size_t keep);

/* ---- fibers (fiber.c) ---- */

/* vv_fiber_start on a reactor that need not be the thread's, for an owner. */
MUST_CHECK int vv_fiber_start_on(struct vv_reactor *reactor, void *owner, void (*fn)(void *),
                                 void *arg, const char *name);
/* Run a fiber that was taken from the run queue, from the loop, until it suspends or ends. */
void vv_fiber_resume(struct vv_fiber *fiber);
/* Suspend the running fiber until vv_fiber_wake, or the deadline. The result given to wake, or
 * -ETIMEDOUT. */
int vv_fiber_wait(uint64_t deadline_ns);
/* Make a waiting fiber runnable: takes it out of its queue and cancels its deadline. */
void vv_fiber_wake(struct vv_fiber *fiber, int result);
/* End suspended fibers where they are, without running them: first take all of them out of what
 * they wait for (which may be on the stack of another), then give up their stacks. */
void vv_fiber_detach(struct vv_fiber *fiber);
void vv_fiber_discard(struct vv_fiber *fiber);

/* ---- the timer heap (timer.c) ---- */

/* Make room for `extra` timers besides those set and reserved. -ENOMEM. */
MUST_CHECK int vv_timer_heap_grow(struct vv_timer_heap *heap, size_t extra);
void vv_timer_heap_done(struct vv_timer_heap *heap);
/* Insert or move; there must be room. */
void vv_timer_heap_set(struct vv_timer_heap *heap, struct vv_timer *timer, uint64_t deadline_ns);
void vv_timer_heap_remove(struct vv_timer_heap *heap, struct vv_timer *timer);
/* Take out a timer that is due; NULL when none is. */
struct vv_timer *vv_timer_heap_pop(struct vv_timer_heap *heap, uint64_t now_ns);
/* VV_NEVER when no timer is set. */
uint64_t vv_timer_heap_next(const struct vv_timer_heap *heap);
/* Unset all timers of an owner. */
void vv_timer_heap_remove_owner(struct vv_timer_heap *heap, const void *owner);

/* ---- the real runtime's share of any-thread functions (real_clock.c) ---- */

uint64_t vv_real_now_ns(struct vv_reactor *reactor);
struct timespec vv_real_wall(struct vv_reactor *reactor);
void vv_real_random(struct vv_reactor *reactor, void *out, size_t len);

#endif
