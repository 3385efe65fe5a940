#include "rt/keeper_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "rt/real_impl.h"

/* Looks at the clock between two pauses: a hypervisor may take many pauses in a row for waiting, and give the processor to
 * somebody else. */
#define LOOKS 8

/* ---- on its own thread ---- */

static void keep(struct vv_keeper *keeper)
{
    uint64_t from_ns = vv_real_now_ns(NULL);
    uint64_t now_ns = from_ns;
    while (now_ns < atomic_load_explicit(&keeper->until_ns, memory_order_relaxed)) {
        for (unsigned i = 0; i < LOOKS; i++)
            now_ns = vv_real_now_ns(NULL);
        vv_spin_pause();
    }
    atomic_fetch_add_explicit(&keeper->kept_ns, now_ns - from_ns, memory_order_relaxed);
}

static void *keeper_main(void *arg)
{
    struct vv_keeper *keeper = arg;
    const struct sched_param param = {0};
    /* In another class it would take the processor from others. */
    bool is_idle_class = pthread_setschedparam(pthread_self(), SCHED_IDLE, &param) == 0;
    while (!atomic_load(&keeper->is_stopping)) {
        while (sem_wait(&keeper->wake) != 0 && errno == EINTR)
            ;
        if (is_idle_class)
            keep(keeper);
        atomic_store(&keeper->is_sleeping, true);
    }
    return NULL;
}

/* ---- a quota ---- */

bool vv_keeper_is_quota(const char *text)
{
    return *text >= '0' && *text <= '9';
}

/* Time that is spent on keeping a processor awake is then missing for work, which no trial would show. Asked once. */
static bool has_quota(void)
{
    static const char *const paths[] = {"/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"};
    bool is_quota = false;
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]) && !is_quota; i++) {
        char text[32] = "";
        int fd = open(paths[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (read(fd, text, sizeof(text) - 1) > 0)
            is_quota = vv_keeper_is_quota(text);
        close(fd);
    }
    return is_quota;
}

/* ---- on the reactor ---- */

void vv_keeper_init(struct vv_keeper *keeper)
{
    *keeper = (struct vv_keeper){0};
    sem_init(&keeper->wake, 0, 0);
}

static void start_thread(struct vv_keeper *keeper)
{
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, (size_t)VV_WORKER_STACK_BYTES * VV_FIBER_STACK_FACTOR);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the reactor's */
    keeper->has_thread = pthread_create(&keeper->thread, &attributes, keeper_main, keeper) == 0;
    if (keeper->has_thread)
        pthread_setname_np(keeper->thread, "varve-keeper");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

void vv_keeper_go_on(struct vv_keeper *keeper, uint64_t now_ns)
{
    if (keeper->has_failed)
        return;
    atomic_store_explicit(&keeper->until_ns, now_ns + VV_KEEPER_NS, memory_order_relaxed);
    if (!keeper->has_thread) {
        if (!has_quota())
            start_thread(keeper);
        keeper->has_failed = !keeper->has_thread;
        atomic_store(&keeper->is_sleeping, keeper->has_thread);
    }
    if (atomic_load_explicit(&keeper->is_sleeping, memory_order_relaxed) &&
        atomic_exchange(&keeper->is_sleeping, false))
        sem_post(&keeper->wake);
}

void vv_keeper_done(struct vv_keeper *keeper)
{
    if (keeper->has_thread) {
        const struct sched_param param = {0};
        atomic_store(&keeper->is_stopping, true);
        atomic_store_explicit(&keeper->until_ns, 0, memory_order_relaxed);
        sem_post(&keeper->wake);
        /* Not refused to root: a busy machine may leave its class without a processor for long. */
        (void)pthread_setschedparam(keeper->thread, SCHED_OTHER, &param);
        pthread_join(keeper->thread, NULL);
    }
    sem_destroy(&keeper->wake);
}
