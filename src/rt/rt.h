/* Runtime: fibers on a reactor, timers, the worker pool, files, sockets, randomness and clocks.
 * The only door to the outside world.
 *
 * A reactor is one thread with an event loop. A fiber is a stackful coroutine that lives and dies
 * on one reactor. Functions marked "suspends" stop the calling fiber, never the thread; everything
 * else runs to its end without another fiber of the reactor in between. That is what makes volume
 * operations atomic: between two suspension points nothing else happens.
 *
 * There are two implementations behind this header: the real one (vv_rt_run) and the simulated one
 * (rt/sim.h: one thread, virtual time, one seed decides every latency, order and fault). Code above
 * is unaware of which it runs on. Files exist in both; sockets and descriptors only in the real one
 * (-ENOSYS in the simulation).
 *
 * Unless said otherwise: call from a fiber, on the reactor that owns the object. */
#ifndef VV_RT_RT_H
#define VV_RT_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "base/err.h"
#include "base/list.h"

#define VV_FIBERS_MAX 16384              /* fibers of a reactor; starting more is -VV_ERR_LIMIT */
#define VV_FIBER_STACK_BYTES (128 << 10) /* usable stack of a fiber, above a guard page */
#define VV_NS_PER_MS 1000000ull
#define VV_NS_PER_S 1000000000ull
#define VV_NEVER UINT64_MAX /* as a deadline: wait for ever */

/* ---- running ---- */

enum vv_rt_uring {
    VV_RT_URING_QUICKER, /* for what it does more quickly than a worker, where it is to be had */
    VV_RT_URING_ALWAYS,  /* for all that it can do */
    VV_RT_URING_NEVER,   /* workers do what it would */
};

struct vv_rt_options {
    unsigned workers; /* threads of the worker pool; 0 = number of processors */
    uint64_t spin_ns; /* how long an idle reactor polls at most before it sleeps; 0 = not at all.
                       * Only after an event, and adaptively: less when it has not paid lately.
                       * Workers then poll for their next job for a shorter while, too. */
    enum vv_rt_uring uring;
};
#define VV_RT_SPIN_DEFAULT_NS 50000ull

/* Make the calling thread a reactor, run `main_fn` as its first fiber, return when all fibers have
 * ended. Returns 0, -ENOMEM, or -errno from epoll or thread creation. Not from a fiber. */
MUST_CHECK int vv_rt_run(const struct vv_rt_options *options, void (*main_fn)(void *), void *arg);

/* ---- fibers ---- */

struct vv_fiber;

/* Start a fiber; it runs at the earliest when the caller suspends. `name` must outlive it.
 * -ENOMEM, -VV_ERR_LIMIT. */
MUST_CHECK int vv_fiber_start(void (*fn)(void *), void *arg, const char *name);
/* Let the other runnable fibers run first. Suspends. */
void vv_fiber_yield(void);
/* The running fiber; NULL outside fibers. */
struct vv_fiber *vv_fiber_self(void);
const char *vv_fiber_name(const struct vv_fiber *fiber);

/* ---- waiting ---- */

/* A queue of waiting fibers. Zero-initialise with vv_waitq_init; owns nothing. */
struct vv_waitq {
    struct vv_list waiters;
};

void vv_waitq_init(struct vv_waitq *queue);
/* Wait until woken, first in first out, or until the deadline (vv_rt_now_ns time). Suspends.
 * 0, or -ETIMEDOUT. */
int vv_waitq_wait(struct vv_waitq *queue, uint64_t deadline_ns);
/* Make the first waiter, or all, runnable. Do not suspend; may be called where nobody waits. */
void vv_waitq_wake_one(struct vv_waitq *queue);
void vv_waitq_wake_all(struct vv_waitq *queue);
bool vv_waitq_is_empty(const struct vv_waitq *queue);

/* ---- time ---- */

/* Monotonic nanoseconds; virtual in the simulation. Any thread. */
uint64_t vv_rt_now_ns(void);
/* Wall-clock time, for file times and logs. Any thread. */
struct timespec vv_rt_wall(void);
/* Suspends. */
void vv_rt_sleep_ns(uint64_t ns);

/* A timer calls fn(arg) on the reactor, outside fibers: fn must not suspend (it may wake queues and
 * start fibers). Zero-initialised = not set. */
struct vv_timer {
    uint64_t deadline_ns;
    void (*fn)(void *);
    void *arg;
    size_t heap_index; /* 1-based; 0 = not set */
    uint64_t order;    /* equal deadlines fire in the order in which they were set */
    void *owner;       /* runtime's own */
};

/* Set or move. -ENOMEM (only when more timers are set than ever before). */
MUST_CHECK int vv_timer_set(struct vv_timer *timer, uint64_t deadline_ns, void (*fn)(void *),
                            void *arg);
void vv_timer_cancel(struct vv_timer *timer);

/* ---- randomness ---- */

/* Unpredictable bytes (the operating system's; seeded in the simulation). Any thread. Cannot fail.
 */
void vv_rt_random(void *out, size_t len);
uint64_t vv_rt_random_u64(void);

/* ---- workers and other threads ---- */

/* Run fn(arg) on a worker thread and wait for it. Suspends. The simulation runs it inline at some
 * later virtual time. fn must not call anything that needs a fiber. Cannot fail: with no worker it
 * runs inline. */
void vv_rt_offload(void (*fn)(void *), void *arg);
/* Whether io_uring is in use: it was wanted, and the kernel lets this process have it. Without it workers
 * do the same, more slowly. */
bool vv_rt_uses_uring(void);
/* Writes that it has done. */
uint64_t vv_rt_uring_writes(void);
/* How many offloads make sense at once (the number of workers; 2 in the simulation). */
unsigned vv_rt_worker_count(void);

struct vv_reactor;
/* The reactor of the calling thread, NULL on others. */
struct vv_reactor *vv_reactor_self(void);
/* From any thread: run fn(arg) on `reactor`, outside fibers, in the order of posting (per sender).
 * The struct is the caller's and must live until fn runs. Lock-free; wakes only a sleeper. The call
 * must have returned before the reactor ends: its owner joins the threads that post to it. */
struct vv_post {
    struct vv_post *next;
    void (*fn)(void *);
    void *arg;
};
void vv_reactor_post(struct vv_reactor *reactor, struct vv_post *post);

/* Call fn(arg) on the reactor (outside fibers) when `signo` arrives; NULL restores. Real only. */
MUST_CHECK int vv_rt_on_signal(int signo, void (*fn)(void *), void *arg);

/* ---- descriptors and sockets (real only) ---- */

#define VV_RT_READ 1u
#define VV_RT_WRITE 2u
/* Wait until `fd` is ready for one of `events`. Suspends when it is not. Ready events (> 0; an end
 * or an error of the descriptor is ready for both), -ETIMEDOUT, -EPERM (a file), -errno. One fiber
 * per direction of an fd at a time. Forget the fd before closing it. */
int vv_rt_wait_fd(int fd, unsigned events, uint64_t deadline_ns);
/* The same for an fd that has just said EAGAIN, with no suspension since: waits for something new
 * without looking first. May return for nothing. */
int vv_rt_wait_fd_new(int fd, unsigned events, uint64_t deadline_ns);
void vv_rt_forget_fd(int fd);
/* Let who waits for `fd` look at it again: vv_rt_wait_fd returns as if it were ready. Does not
 * suspend. */
void vv_rt_wake_fd(int fd);

struct vv_socket;
/* Listen on "HOST:PORT", "[V6]:PORT", "PORT" (loopback) or "unix:PATH" (a stale socket file is
 * replaced; closing removes the one made). Port 0 picks one. Suspends when HOST is a name, which a
 * worker looks up. -EINVAL, -ENAMETOOLONG, -EHOSTUNREACH (no such name), -EADDRINUSE, -errno. */
MUST_CHECK int vv_socket_listen(const char *address, struct vv_socket **out_socket);
/* Suspends. Errors as above, -ECONNREFUSED, -ETIMEDOUT. */
MUST_CHECK int vv_socket_connect(const char *address, uint64_t deadline_ns,
                                 struct vv_socket **out_socket);
/* Suspends. -VV_ERR_STOPPED after vv_socket_shutdown. */
MUST_CHECK int vv_socket_accept(struct vv_socket *socket, struct vv_socket **out_socket);
/* At least 1 byte, 0 at the end of the stream. Suspends. -ETIMEDOUT, -VV_ERR_STOPPED after
 * vv_socket_shutdown, -errno. */
MUST_CHECK ssize_t vv_socket_recv(struct vv_socket *socket, void *buf, size_t len,
                                  uint64_t deadline_ns);
/* The same into several pieces, one after another. */
MUST_CHECK ssize_t vv_socket_recv_iov(struct vv_socket *socket, struct iovec *iov, int count,
                                      uint64_t deadline_ns);
/* All of it or an error. Suspends. Tries without waiting first. One sender at a time. `iov` is
 * changed. -ETIMEDOUT, -VV_ERR_STOPPED after vv_socket_shutdown, -errno. */
MUST_CHECK int vv_socket_send(struct vv_socket *socket, struct iovec *iov, int count,
                              uint64_t deadline_ns);
/* Wake everybody who waits on it with -VV_ERR_STOPPED; close follows by its owner, when nobody uses
 * it any more. Does not suspend. */
void vv_socket_shutdown(struct vv_socket *socket);
void vv_socket_close(struct vv_socket *socket);
/* The port listened on (0 for unix sockets). */
unsigned vv_socket_port(const struct vv_socket *socket);
/* Where the peer of a TCP connection is: its address (IPv4 as ::ffff:a.b.c.d) and port. -ENOTSUP on
 * unix sockets, -errno. */
MUST_CHECK int vv_socket_remote(const struct vv_socket *socket, uint8_t out_address[16],
                                unsigned *out_port);
/* Peer credentials of a unix socket: -ENOTSUP on others. */
MUST_CHECK int vv_socket_peer(const struct vv_socket *socket, uid_t *out_uid, gid_t *out_gid);

/* ---- files ---- */

/* All suspend (they run on a worker, but reads and small page-cache writes are tried inline first)
 * and return -errno. Paths are NUL-ended bytes. In the simulation they have no "..", and a process
 * without a disk gets -ENODEV. A file is closed when no call on it is under way. */
struct vv_file;

#define VV_FILE_READ 0x1u
#define VV_FILE_WRITE 0x2u
#define VV_FILE_CREATE 0x4u
#define VV_FILE_EXCLUSIVE 0x8u
#define VV_FILE_TRUNCATE 0x10u
/* Long writes from page-aligned memory to page-aligned offsets go around the kernel's cache where the
 * filesystem can do that. One write at a time. */
#define VV_FILE_DIRECT 0x20u
/* The same for synced writes (vv_file_pwritev_sync) of any length, when the offset and each buffer's
 * address and length are multiples of VV_FILE_SECTOR: what is to be on the disk at once gains nothing
 * from the cache. One write at a time. */
#define VV_FILE_DIRECT_SYNCED 0x40u
#define VV_FILE_SECTOR 512u
/* Files made have mode 0600, directories 0700. */
MUST_CHECK int vv_file_open(const char *path, unsigned flags, struct vv_file **out_file);
void vv_file_close(struct vv_file *file);
/* Bytes read; short only at the end of the file. */
MUST_CHECK ssize_t vv_file_pread(struct vv_file *file, void *buf, size_t len, uint64_t offset);
/* All of it, or an error (then any part may have been written). `iov` is changed. */
MUST_CHECK int vv_file_pwritev(struct vv_file *file, struct iovec *iov, int count, uint64_t offset);
/* After an error nothing is known about what was written since the last sync that succeeded: only
 * writing it again and syncing that makes it durable (Linux reports a failure once, then forgets
 * it; so does the simulation). */
MUST_CHECK int vv_file_datasync(struct vv_file *file);
/* pwritev and then fdatasync in one trip to a worker; for a short write around the cache (VV_FILE_DIRECT_SYNCED)
 * without any, where io_uring is in use. */
MUST_CHECK int vv_file_pwritev_sync(struct vv_file *file, struct iovec *iov, int count,
                                    uint64_t offset);
MUST_CHECK int vv_file_size(struct vv_file *file, uint64_t *out_bytes);
MUST_CHECK int vv_file_truncate(struct vv_file *file, uint64_t size);
/* Allocate blocks and extend the size. -ENOSPC, -EOPNOTSUPP. */
MUST_CHECK int vv_file_allocate(struct vv_file *file, uint64_t offset, uint64_t len);
/* An exclusive lock of the whole file, not waiting: -EWOULDBLOCK when another process has it, or
 * this one through another open file. Ends with close, and with the process. */
MUST_CHECK int vv_file_lock(struct vv_file *file);

MUST_CHECK int vv_path_mkdir(const char *path);
MUST_CHECK int vv_path_unlink(const char *path);
MUST_CHECK int vv_path_rmdir(const char *path);
/* Replaces an existing file. For a directory `to` must not be there. */
MUST_CHECK int vv_path_rename(const char *from, const char *to);
/* A second name; -EEXIST when `to` is there. This is the put-if-absent of a local directory. */
MUST_CHECK int vv_path_link(const char *from, const char *to);
/* Sync a directory: names created, renamed or removed in it survive power loss afterwards. */
MUST_CHECK int vv_path_sync_dir(const char *path);

struct vv_path_stat {
    uint64_t size;
    bool is_dir;
};
MUST_CHECK int vv_path_stat(const char *path, struct vv_path_stat *out_stat);
/* Bytes free and total of the filesystem that holds path. */
MUST_CHECK int vv_path_space(const char *path, uint64_t *out_free, uint64_t *out_total);
/* Calls visit(arg, name, is_dir) for each entry but "." and "..", in no order, after reading the
 * whole directory; visit must not suspend. A negative return of visit ends the walk and is
 * returned. */
MUST_CHECK int vv_path_list(const char *path,
                            int (*visit)(void *arg, const char *name, bool is_dir), void *arg);

#endif
