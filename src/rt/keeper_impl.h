/* Keeping a processor from falling idle while a reactor expects its client to be there again at once.
 *
 * A thread of the policy SCHED_IDLE, which everything else goes before, does nothing until a moment that the reactor
 * moves on with each event; then it sleeps. So it runs where a processor has nothing to do, for the length of a burst
 * of requests and at most VV_KEEPER_NS longer. Waking somebody on that processor is then a change of threads; an idle
 * virtual processor would have to be woken by the hypervisor.
 *
 * The thread may get no processor for any time, so it never holds a lock, and nobody but vv_keeper_done waits for it.
 * Owned by its reactor's thread, which alone calls these functions. Private to rt. */
#ifndef VV_RT_KEEPER_IMPL_H
#define VV_RT_KEEPER_IMPL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VV_KEEPER_NS 50000ull /* after the last call of vv_keeper_go_on */

struct vv_keeper {
    pthread_t thread;
    sem_t wake;
    bool has_thread; /* made when it is first needed */
    bool has_failed; /* it could not be made, or would use up a quota of processor time */
    atomic_bool is_stopping;
    atomic_bool is_sleeping;
    atomic_uint_least64_t until_ns;
    atomic_uint_least64_t kept_ns; /* how long it has kept a processor in all */
};

void vv_keeper_init(struct vv_keeper *keeper);
void vv_keeper_done(struct vv_keeper *keeper);
/* Keep a processor awake until VV_KEEPER_NS after `now_ns`. A store, unless the thread sleeps: then it is woken. Does
 * nothing where there can be no such thread. */
void vv_keeper_go_on(struct vv_keeper *keeper, uint64_t now_ns);

/* Is processor time limited, by what a control group's cpu.max ("MICROSECONDS PERIOD" or "max PERIOD") or cpu.cfs_quota_us
 * ("MICROSECONDS", -1 = none) says? */
bool vv_keeper_is_quota(const char *text);

#endif
