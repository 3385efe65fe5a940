#include "rt/real_impl.h"

#include <assert.h>

#include "base/alloc.h"

/* Looks at the queue between two looks at the clock. */
#define QUEUE_LOOKS 32

/* One call; stands on the stack of the fiber that waits for it. */
struct job {
    struct vv_list node;
    void (*fn)(void *);
    void *arg;
    struct vv_fiber *fiber;
    struct vv_post done;
};

static void finish_job(void *arg)
{
    struct job *job = arg;
    vv_fiber_wake(job->fiber, 0);
}

/* ---- on the worker threads ---- */

/* Poll the queue for a while, without the lock. */
static void spin_for_job(struct vv_workers *workers, uint64_t from_ns)
{
    uint64_t until_ns = from_ns + workers->spin.now_ns;
    workers->spinning++;
    pthread_mutex_unlock(&workers->lock);
    uint64_t now_ns = from_ns;
    while (now_ns < until_ns && atomic_load_explicit(&workers->queued, memory_order_relaxed) == 0) {
        for (int i = 0; i < QUEUE_LOOKS; i++) {
            if (atomic_load_explicit(&workers->queued, memory_order_relaxed) > 0)
                break;
            vv_spin_pause();
        }
        now_ns = vv_real_now_ns(NULL);
    }
    pthread_mutex_lock(&workers->lock);
    workers->spinning--;
}

/* The lock is held. NULL when the pool stops. One idle worker polls for a short time, so that a
 * fiber that offloads again and again finds it awake; the others sleep. */
static struct job *wait_for_job(struct vv_workers *workers)
{
    if (vv_list_is_empty(&workers->queue) && !workers->is_stopping) {
        uint64_t from_ns = vv_real_now_ns(NULL);
        bool is_first = workers->spinning == 0;
        if (is_first && workers->spin.now_ns > 0)
            spin_for_job(workers, from_ns);
        while (vv_list_is_empty(&workers->queue) && !workers->is_stopping) {
            workers->sleeping++;
            pthread_cond_wait(&workers->work, &workers->lock);
            workers->sleeping--;
        }
        if (is_first)
            vv_spin_learn(&workers->spin, vv_real_now_ns(NULL) - from_ns);
    }
    if (vv_list_is_empty(&workers->queue))
        return NULL;
    struct job *job = vv_list_first(&workers->queue, struct job, node);
    vv_list_remove(&job->node);
    atomic_fetch_sub(&workers->queued, 1);
    return job;
}

static void *worker_main(void *arg)
{
    struct vv_workers *workers = arg;
    pthread_mutex_lock(&workers->lock);
    struct job *job;
    while ((job = wait_for_job(workers)) != NULL) {
        pthread_mutex_unlock(&workers->lock);
        job->fn(job->arg);
        vv_reactor_post(workers->reactor, &job->done);
        pthread_mutex_lock(&workers->lock);
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
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

/* Queue a job and see that somebody takes it; false when there is no thread to do so. */
static bool submit(struct vv_workers *workers, struct job *job)
{
    pthread_mutex_lock(&workers->lock);
    vv_list_push_back(&workers->queue, &job->node);
    size_t queued = atomic_fetch_add(&workers->queued, 1) + 1;
    bool is_waking = queued > workers->spinning && workers->sleeping > 0;
    bool is_starting = queued > workers->spinning + workers->sleeping;
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
