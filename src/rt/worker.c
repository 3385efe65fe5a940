#include "rt/real_impl.h"

#include <assert.h>

#include "base/alloc.h"

/* Looks at the queue between two looks at the clock. */
#define QUEUE_LOOKS 32

/* A worker that spins looks much more often than that. */
#define SPIN_STALE_NS 20000ull

/* One call; stands on the stack of the fiber that waits for it. */
struct job {
    struct vv_list node;
    void (*fn)(void *);
    void *arg;
    struct vv_fiber *fiber;
    uint64_t submitted_ns;
    struct vv_post done;
};

static void finish_job(void *arg)
{
    struct job *job = arg;
    struct vv_fiber *fiber = job->fiber;
    vv_fiber_wake(fiber, 0);
    vv_real_hurry(fiber);
}

/* ---- on the worker threads ---- */

static bool has_jobs(struct vv_workers *workers)
{
    return atomic_load_explicit(&workers->queued, memory_order_relaxed) > 0;
}

/* Poll the queue for a while, without the lock; `spin` is this thread's copy. */
static void spin_for_job(struct vv_workers *workers, struct vv_spin *spin)
{
    uint64_t now_ns = vv_real_now_ns(NULL);
    uint64_t until_ns = vv_spin_begin(spin, now_ns);
    bool is_going_on = true;
    while (is_going_on && now_ns < until_ns && !has_jobs(workers)) {
        atomic_store_explicit(&workers->looked_ns, now_ns, memory_order_relaxed);
        for (int i = 0; i < QUEUE_LOOKS && !has_jobs(workers); i++)
            vv_spin_pause();
        now_ns = vv_real_now_ns(NULL);
        is_going_on = vv_spin_go_on(spin, now_ns);
    }
}

/* The lock is held. NULL when there is no job. */
static struct job *take_job(struct vv_workers *workers)
{
    if (vv_list_is_empty(&workers->queue))
        return NULL;
    struct job *job = vv_list_first(&workers->queue, struct job, node);
    vv_list_remove(&job->node);
    atomic_fetch_sub(&workers->queued, 1);
    return job;
}

/* A wait for the job is over. What counts is when it came, not when this thread woke, and since
 * when any worker was idle: those that sleep take turns. */
static void learn_wait(struct vv_workers *workers, const struct job *job)
{
    uint64_t idle_ns = workers->idle_ns;
    vv_spin_learn(&workers->spin, job->submitted_ns > idle_ns ? job->submitted_ns - idle_ns : 0);
}

/* Poll, if this is the worker counted in `spinning`, then sleep. NULL when the pool stops. */
static struct job *wait_for_job(struct vv_workers *workers, bool is_spinning, struct vv_spin spin)
{
    if (is_spinning)
        spin_for_job(workers, &spin);
    pthread_mutex_lock(&workers->lock);
    if (is_spinning) {
        workers->spinning--;
        if (spin.crowded_until_ns > workers->spin.crowded_until_ns)
            workers->spin.crowded_until_ns = spin.crowded_until_ns;
    }
    while (vv_list_is_empty(&workers->queue) && !workers->is_stopping) {
        workers->sleeping++;
        pthread_cond_wait(&workers->work, &workers->lock);
        workers->sleeping--;
    }
    struct job *job = take_job(workers);
    if (job)
        learn_wait(workers, job);
    pthread_mutex_unlock(&workers->lock);
    return job;
}

/* One idle worker polls for a short time, so that a fiber that offloads again and again finds it
 * awake; the others sleep. It is counted before its last job is reported done, or the next one,
 * which may come at once, would wake another. A poll of no length still learns whether a longer one
 * pays. */
static void *worker_main(void *arg)
{
    struct vv_workers *workers = arg;
    struct job *done = NULL;
    for (;;) {
        pthread_mutex_lock(&workers->lock);
        struct job *job = take_job(workers);
        struct vv_spin spin = workers->spin;
        bool is_spinning = !job && workers->spinning == 0 && spin.max_ns > 0;
        workers->spinning += is_spinning;
        if (!job)
            workers->idle_ns = vv_real_now_ns(NULL);
        if (is_spinning)
            atomic_store_explicit(&workers->looked_ns, workers->idle_ns, memory_order_relaxed);
        pthread_mutex_unlock(&workers->lock);
        if (done)
            vv_reactor_post(workers->reactor, &done->done);
        if (!job)
            job = wait_for_job(workers, is_spinning, spin);
        if (!job)
            return NULL;
        job->fn(job->arg);
        done = job;
    }
}

/* ---- on the reactor ---- */

void vv_workers_init(struct vv_workers *workers, struct vv_reactor *reactor, unsigned count,
                     uint64_t spin_ns)
{
    workers->reactor = reactor;
    workers->thread_max = count < VV_WORKERS_MAX ? count : VV_WORKERS_MAX;
    workers->spin = (struct vv_spin){.max_ns = spin_ns, .now_ns = spin_ns};
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->work, NULL);
    vv_list_init(&workers->queue);
}

void vv_workers_done(struct vv_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    assert(vv_list_is_empty(&workers->queue));
    workers->is_stopping = true;
    pthread_cond_broadcast(&workers->work);
    pthread_mutex_unlock(&workers->lock);
    for (unsigned i = 0; i < workers->thread_count; i++)
        pthread_join(workers->threads[i], NULL);
    pthread_cond_destroy(&workers->work);
    pthread_mutex_destroy(&workers->lock);
}

/* Workers take no signals: those are the reactor's. */
static void start_thread(struct vv_workers *workers)
{
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, (size_t)VV_WORKER_STACK_BYTES * VV_FIBER_STACK_FACTOR);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t *thread = &workers->threads[workers->thread_count];
    if (pthread_create(thread, &attributes, worker_main, workers) == 0) {
        pthread_setname_np(*thread, "varve-worker");
        workers->thread_count++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* The lock is held: how many workers will look at the queue without being woken. One that spins,
 * but has not looked for long, has lost its processor. */
static unsigned count_looking(struct vv_workers *workers, uint64_t now_ns)
{
    uint64_t looked_ns = atomic_load_explicit(&workers->looked_ns, memory_order_relaxed);
    return now_ns < looked_ns + SPIN_STALE_NS ? workers->spinning : 0;
}

/* Queue a job and see that somebody takes it; false when there is no thread to do so. */
static bool submit(struct vv_workers *workers, struct job *job)
{
    uint64_t now_ns = vv_real_now_ns(NULL);
    job->submitted_ns = now_ns;
    uint64_t crowded_until_ns = vv_container_of(workers->reactor, struct vv_real, base)->spin.crowded_until_ns;
    pthread_mutex_lock(&workers->lock);
    if (crowded_until_ns > workers->spin.crowded_until_ns)
        workers->spin.crowded_until_ns = crowded_until_ns;
    vv_list_push_back(&workers->queue, &job->node);
    size_t queued = atomic_fetch_add(&workers->queued, 1) + 1;
    unsigned looking = count_looking(workers, now_ns);
    bool is_waking = queued > looking && workers->sleeping > 0;
    bool is_starting = queued > looking + workers->sleeping;
    pthread_mutex_unlock(&workers->lock);
    if (is_waking)
        pthread_cond_signal(&workers->work);
    if (is_starting && workers->thread_count < workers->thread_max)
        start_thread(workers);
    if (workers->thread_count > 0)
        return true;
    vv_list_remove(&job->node);
    atomic_store(&workers->queued, 0);
    return false;
}

unsigned vv_workers_awake(struct vv_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    unsigned sleeping = workers->sleeping;
    pthread_mutex_unlock(&workers->lock);
    return workers->thread_count - sleeping;
}

void vv_workers_offload(struct vv_workers *workers, void (*fn)(void *), void *arg)
{
    struct job job = {.fn = fn, .arg = arg, .fiber = vv_fiber_self()};
    assert(job.fiber && "only a fiber can suspend");
    job.done.fn = finish_job;
    job.done.arg = &job;
    if (submit(workers, &job))
        (void)vv_fiber_wait(VV_NEVER);
    else
        fn(arg);
}
