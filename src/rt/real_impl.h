/* The real runtime's parts: the loop (real.c), waiting for descriptors (poll.c), the worker pool
 * (worker.c), io_uring (uring.c), signals (signal.c), files (file.c, path.c) and sockets (socket.c, address.c).
 * Private to rt. Everything belongs to the reactor's thread but what is said to be for workers. */
#ifndef VV_RT_REAL_IMPL_H
#define VV_RT_REAL_IMPL_H

#include <liburing.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "rt/rt_impl.h"

/* How long to poll before sleeping, judged by whether polling has paid lately. */
struct vv_spin {
    uint64_t max_ns;
    uint64_t now_ns;           /* the present length */
    uint64_t looked_ns;        /* while polling: the last look at the clock */
    uint64_t crowded_until_ns; /* no polling until then: others need the processor */
};

/* Begin to poll; returns until when. */
uint64_t vv_spin_begin(struct vv_spin *spin, uint64_t now_ns);
/* Between two looks. False when polling has to end: a gap between looks tells that the processor
 * was taken away, and who polls then only makes the scheduler less willing to give it back. */
bool vv_spin_go_on(struct vv_spin *spin, uint64_t now_ns);
/* An event has come `waited_ns` after the last one. */
void vv_spin_learn(struct vv_spin *spin, uint64_t waited_ns);
/* What a polling thread does between two looks: spares the other hyperthread. */
void vv_spin_pause(void);
/* Processors that this process may run on. */
unsigned vv_real_cpu_count(void);

/* ---- whether others want the processors (crowd.c) ---- */

/* Polling pays where a processor would else fall idle. Where more threads are runnable than there are processors it only takes from
 * them, and from the client, the kernel's threads and the workers, of which each waits for a processor in its turn. The gaps that
 * vv_spin_go_on looks for do not tell: who has more weight than the others gets its processor back soon. */
struct vv_crowd {
    int fd; /* of /proc/loadavg, which counts what is runnable now; -1: not known */
    unsigned cpu_count;
    uint64_t looked_ns;
};

void vv_crowd_init(struct vv_crowd *crowd);
void vv_crowd_done(struct vv_crowd *crowd);
struct vv_workers;
/* Does somebody wait for a processor, because of others than these workers? Looks at most every 2 ms; false in between. */
bool vv_crowd_is_seen(struct vv_crowd *crowd, struct vv_workers *workers, uint64_t now_ns);
/* How many threads the text says are runnable; 0: it says something else. */
unsigned vv_crowd_runnable(const char *text, size_t len);

/* ---- the worker pool ---- */

#define VV_WORKERS_MAX 64
#define VV_BLOCKING_THREADS_MAX 8 /* of the pool for calls that wait for a disk */
#define VV_WORKER_STACK_BYTES (256u << 10)
#define VV_WORKER_SPIN_NS 30000ull

struct vv_workers {
    struct vv_reactor *reactor; /* where completions are posted */
    pthread_mutex_t lock;       /* guards all below */
    pthread_cond_t work;
    struct vv_list queue;            /* jobs */
    atomic_size_t queued;            /* also read without the lock, by the worker that spins */
    unsigned spinning;               /* at most one */
    atomic_uint_least64_t looked_ns; /* when the worker that spins last looked at the clock */
    unsigned sleeping;
    bool is_stopping;
    struct vv_spin spin;
    uint64_t idle_ns;      /* when a worker last found no job */
    unsigned thread_count; /* threads are made when there is a job for them */
    unsigned thread_max;
    pthread_t threads[VV_WORKERS_MAX];
};

void vv_workers_init(struct vv_workers *workers, struct vv_reactor *reactor, unsigned count,
                     uint64_t spin_ns);
/* No job may be left. */
void vv_workers_done(struct vv_workers *workers);
/* How many of them don't sleep. */
unsigned vv_workers_awake(struct vv_workers *workers);
/* Run fn(arg) on a worker; suspends. */
void vv_workers_offload(struct vv_workers *workers, void (*fn)(void *), void *arg);

/* ---- waiting for descriptors ---- */

/* Who waits for a descriptor. Registered once, edge-triggered; a direction that nobody has asked for yet is
 * left out, for each of its events costs a round of the loop. */
struct vv_poll_slot {
    struct vv_fiber *reader;
    struct vv_fiber *writer;
    unsigned events; /* registered for: VV_RT_READ, VV_RT_WRITE; 0 = not registered */
};

struct vv_poll {
    int epoll_fd;
    struct vv_poll_slot *slots; /* by descriptor */
    size_t slot_count;
};

MUST_CHECK int vv_poll_init(struct vv_poll *poll);
void vv_poll_done(struct vv_poll *poll);
/* Let the descriptor be watched. -ENOMEM, -errno. */
MUST_CHECK int vv_poll_register(struct vv_poll *poll, int fd, unsigned events);
void vv_poll_forget(struct vv_poll *poll, int fd);
/* Wait for something new on a registered fd that has just said EAGAIN. As vv_rt_wait_fd. */
int vv_poll_wait(struct vv_poll *poll, int fd, unsigned events, uint64_t deadline_ns);
/* Wake who waits for the fd, as for events seen. */
void vv_poll_wake(struct vv_poll *poll, int fd, unsigned events);

/* ---- io_uring ---- */

/* The kernel's queue for operations that would otherwise wait on a worker: waking one costs more than they do. The
 * fiber submits, its reactor goes on, and finds what has completed without a system call while it polls; epoll watches
 * the ring while it sleeps. What the kernel can't begin without waiting it refuses (RWF_NOWAIT), and a worker does it: the
 * threads that it would start for that (io-wq) wake up every five seconds ever after.
 *
 * An operation can't be taken back. Its fiber waits for as long as it takes, so the buffers, which are the fiber's
 * caller's, stay valid, and the reactor does not end before. When the process is killed, the kernel may end it before
 * its operations: whoever relies on its writes being over takes a lock on the file written (vv_file_lock), which
 * they hold too.
 *
 * Containers often forbid io_uring. Without it, and after a submission failed, workers serve. */
#define VV_URING_ENTRIES 64 /* operations in flight; more are not taken */

struct vv_uring {
    struct io_uring ring;
    bool is_open;
    bool is_on; /* takes operations */
    unsigned in_flight;
    uint64_t written; /* writes that it did */
    enum vv_rt_uring use;
    uint64_t ring_ns;   /* what a short synced write has taken lately, on average; 0: not known */
    uint64_t worker_ns; /* likewise, by a worker */
    unsigned asked;     /* how often it was asked which is quicker */
};

/* Make the ring and have it watched; when that fails it stays off. */
void vv_uring_init(struct vv_uring *uring, const struct vv_poll *poll, enum vv_rt_uring use);
/* Whether the next short synced write is to go by the ring: the way that took less time lately. Where processors are
 * idle, waking a worker takes longer than the write; where they are busy, the kernel's own thread that ends a synced
 * write waits for one. Now and then it is the other way, to know. */
bool vv_uring_is_quicker(struct vv_uring *uring);
/* Such a write took so long. */
void vv_uring_learn(struct vv_uring *uring, bool is_by_ring, uint64_t took_ns);
/* Nothing is in flight. */
void vv_uring_done(struct vv_uring *uring);
/* Has something completed? No system call. */
static inline bool vv_uring_is_ready(const struct vv_uring *uring)
{
    return uring->in_flight > 0 && io_uring_cq_ready(&uring->ring) > 0;
}
/* Wake the fibers whose operations have completed. */
void vv_uring_reap(struct vv_uring *uring);
/* Write some of `iov`, which is on stable media then. Suspends. The bytes written; -EAGAIN: not taken, for it would
 * have to wait, or there is no room; -errno. */
MUST_CHECK int vv_uring_pwritev_synced(struct vv_uring *uring, int fd, const struct iovec *iov,
                                       int count, uint64_t offset);

/* ---- signals ---- */

#define VV_SIGNALS_MAX 65

struct vv_signals {
    int fd; /* -1 until the first handler */
    sigset_t watched;
    sigset_t were_blocked; /* the thread's mask before the first handler */
    struct {
        void (*fn)(void *);
        void *arg;
    } handlers[VV_SIGNALS_MAX];
};

void vv_signals_init(struct vv_signals *signals);
void vv_signals_done(struct vv_signals *signals);
/* Call the handlers of the signals that have arrived. */
void vv_signals_deliver(struct vv_signals *signals);

/* ---- the reactor ---- */

struct vv_real {
    struct vv_reactor base;
    struct vv_poll poll;
    struct vv_workers workers;  /* computation: as many threads as processors */
    struct vv_workers blocking; /* calls that wait: who waits must not keep a processor idle */
    struct vv_uring uring;
    struct vv_signals signals;
    int wake_fd;
    struct vv_list hurried; /* runnable fibers that go before the others (vv_real_hurry) */
    size_t hurried_count;   /* of the reactor's runnable_count */
    struct vv_spin spin;
    struct vv_crowd crowd;
    unsigned expected_count;         /* calls that will end soon (vv_real_expect) */
    uint64_t expected_until_ns;      /* by then */
    uint64_t polled_ns;              /* when the descriptors were last looked at */
    _Atomic(struct vv_post *) inbox; /* newest first; any thread adds */
    atomic_bool is_sleeping;
    atomic_uint_least64_t woken_ns; /* when a post ended the last sleep; 0: none did */
};

/* The calling thread's real reactor; NULL in the simulation. */
struct vv_real *vv_real_self(void);
/* A fiber just woken is run before those that are runnable already, of which one has its turn before the next such:
 * for one whose call on a worker, or in the kernel, has ended. What it does next is most often the next call of a
 * chain (write, sync, link, sync), for which others wait; behind a round of long requests, each link of that chain
 * took as long as they. */
void vv_real_hurry(struct vv_fiber *fiber);
/* A call is under way that usually takes so long, and ends with vv_real_expect_end: a reactor that polls at all polls for
 * half as long again, if it has nothing else to do. For what is so short that waking the reactor takes as long as a good part of it. */
void vv_real_expect(struct vv_real *real, uint64_t usual_ns);
void vv_real_expect_end(struct vv_real *real);
/* Nothing is runnable: until when to poll. Longer than usual for what is expected, and, with an operation of the
 * ring in flight, at all only where nobody else has wanted the processors for a while. */
uint64_t vv_real_begin_polling(struct vv_real *real, uint64_t now_ns);
/* As vv_rt_offload, for a call that mostly waits. */
void vv_real_offload_blocking(void (*fn)(void *), void *arg);
extern const struct vv_path_ops vv_real_path_ops;
extern const struct vv_file_ops vv_real_file_ops;
/* vv_file_open of the real runtime (file.c). */
int vv_real_file_open(const char *path, unsigned flags, struct vv_file **out_file);

/* ---- addresses ---- */

union vv_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
};

/* Make an address of "HOST:PORT", "[V6]:PORT", "PORT" or "unix:PATH". Suspends when HOST is a name,
 * which a worker looks up. -EINVAL, -ENAMETOOLONG, -EHOSTUNREACH (no such name), -ENOMEM. */
MUST_CHECK int vv_address_parse(const char *text, union vv_address *out_address,
                                socklen_t *out_len);

#endif
