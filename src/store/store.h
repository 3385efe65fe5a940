/* Object stores: named immutable objects, created by put-if-absent.
 *
 * A store is a small vtable; callers use the vv_store_* wrappers, which check names and sizes and
 * assert the contract. Names are ASCII [a-z0-9./-], at most VV_STORE_NAME_MAX bytes, no "..", no
 * leading or trailing slash, no empty or "." component, and the first component is neither "tmp"
 * nor "journal" (a local directory needs these); others are -EINVAL. The contract (PROTOCOL):
 * put-if-absent and list are linearizable; a put that returns -VV_ERR_UNKNOWN may take effect at
 * any later time; a put that returned 0 survives power loss. A remove need not: an object may be
 * back after power loss.
 *
 * Every call may suspend; several fibers of one reactor may use a store at once. Buffers are the
 * caller's and must stay unchanged until the call returns. A store is closed when no request is
 * under way. */
#ifndef VV_STORE_STORE_H
#define VV_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"

#define VV_STORE_NAME_MAX 200
#define VV_STORE_OBJECT_MAX (1ull << 31) /* bytes of an object */
#define VV_STORE_LIST_MAX 1000           /* names of one list call */

struct vv_store;

struct vv_store_entry {
    char name[VV_STORE_NAME_MAX + 1];
    uint64_t size; /* bytes */
};

struct vv_store_ops {
    const char *type; /* "dir", "mem", ... */
    int (*put)(struct vv_store *store, const char *name, const struct iovec *iov, int count);
    ssize_t (*get)(struct vv_store *store, const char *name, void *buf, size_t len,
                   uint64_t offset);
    int (*size)(struct vv_store *store, const char *name, uint64_t *out_size);
    ssize_t (*list)(struct vv_store *store, const char *prefix, const char *after,
                    struct vv_store_entry *out_entries, size_t max);
    int (*remove)(struct vv_store *store, const char *name);
    int (*sync)(struct vv_store *store, const char *name); /* NULL: puts are durable anyway */
    int (*space)(struct vv_store *store, uint64_t *out_free, uint64_t *out_total); /* or NULL */
    void (*close)(struct vv_store *store);
};

/* Implementations embed this first. */
struct vv_store {
    const struct vv_store_ops *ops;
};

/* Create `name` from the `count` buffers if it does not exist.
 * 0: it is there, durable. -EEXIST: something is there already (perhaps an earlier try of ours),
 * durable too. -VV_ERR_UNKNOWN: timed out, may yet take effect: send the same bytes again. Other
 * errors (-ENOSPC, -EROFS, -EDQUOT, -EIO, -EFBIG past VV_STORE_OBJECT_MAX, ...): it did not take
 * effect. */
MUST_CHECK int vv_store_put(struct vv_store *store, const char *name, const struct iovec *iov,
                            int count);
/* Read up to `len` bytes at `offset`; short only at the end of the object. -ENOENT, -EIO, ... */
MUST_CHECK ssize_t vv_store_get(struct vv_store *store, const char *name, void *buf, size_t len,
                                uint64_t offset);
/* The whole object, at most `max` bytes, in memory that the caller frees (vv_free).
 * -ENOENT, -EFBIG, -ENOMEM, ... */
MUST_CHECK int vv_store_get_all(struct vv_store *store, const char *name, size_t max,
                                uint8_t **out_bytes, size_t *out_len);
MUST_CHECK int vv_store_size(struct vv_store *store, const char *name, uint64_t *out_size);
/* Up to `max` (<= VV_STORE_LIST_MAX) names that begin with `prefix` and are greater than `after`
 * ("" to begin), ascending by byte order. The number found; fewer than max means the end. -EINVAL.
 */
MUST_CHECK ssize_t vv_store_list(struct vv_store *store, const char *prefix, const char *after,
                                 struct vv_store_entry *out_entries, size_t max);
/* 0 also when it was not there. */
MUST_CHECK int vv_store_remove(struct vv_store *store, const char *name);
/* Make an object that is visible durable as well, directories included (PROTOCOL 8: what a killed
 * writer left may be visible but not on stable media). -ENOENT. */
MUST_CHECK int vv_store_sync(struct vv_store *store, const char *name);
/* -EOPNOTSUPP where the store has no bound. */
MUST_CHECK int vv_store_space(struct vv_store *store, uint64_t *out_free, uint64_t *out_total);
/* Closes wrapped stores too. NULL is fine. */
void vv_store_close(struct vv_store *store);

/* ---- dir: a local directory ----
 * An object is a file under `path`. put writes to tmp/<random>, syncs it, links it to its final
 * name (link(2) is the put-if-absent), removes the temporary name, syncs the directory (and those
 * above it until this process has synced them once). Puts into one directory at the same time share
 * its sync. A put whose link was made but not synced is -VV_ERR_UNKNOWN. The first put after
 * opening removes what earlier openings left in tmp/. `is_creating` makes the directory if it is
 * missing, durably; its parent must exist. A list shows each name as it is at some moment during
 * the call. An object and a directory cannot have one name: -EISDIR, -ENOTDIR. At most 64 files are
 * kept open for gets; one that another process removed may be read a little longer. -ENOENT,
 * -ENOTDIR, -ENAMETOOLONG (1024 bytes), -EINVAL, -ENOMEM, -errno. */
MUST_CHECK int vv_store_dir_open(const char *path, bool is_creating, struct vv_store **out_store);

/* ---- mem: objects in memory, for tests and simulation ----
 * The objects live in a separate backend (in allocation domain 0), so that they survive the process
 * that wrote them. Wrapping a backend is cheap; several stores may share one. */
struct vv_store_backend;
MUST_CHECK int vv_store_backend_new(struct vv_store_backend **out_backend);
void vv_store_backend_free(struct vv_store_backend *backend);
MUST_CHECK int vv_store_mem_open(struct vv_store_backend *backend, struct vv_store **out_store);

/* ---- wrappers; each owns and closes `inner` ---- */

/* Repeats what failed in passing (-VV_ERR_UNKNOWN, -EIO, -EAGAIN, -ETIMEDOUT) with jittered,
 * growing pauses from pause_min_ns to pause_max_ns, at most `tries` times. A put that was unknown
 * once and then finds the name taken returns -EEXIST: comparing attempt ids is the caller's
 * business; one that was unknown once and then fails stays -VV_ERR_UNKNOWN. */
MUST_CHECK int vv_store_retry_new(struct vv_store *inner, unsigned tries, uint64_t pause_min_ns,
                                  uint64_t pause_max_ns, struct vv_store **out_store);

/* Adds `ns` to each request (half before its effect, half behind it), and transfer time at
 * `bytes_per_s` (0: none) of a line that all puts, and another that all gets of this wrapper share.
 */
MUST_CHECK int vv_store_latency_new(struct vv_store *inner, uint64_t ns, uint64_t bytes_per_s,
                                    struct vv_store **out_store);

/* What the fault wrapper does; change it at any time through vv_store_fault_plan. Chances in
 * permille per request, drawn from vv_rt_random_u64 (the seed, in the simulation). Directly around
 * a mem store, late puts belong to the backend and happen although the process is killed; around
 * others a fiber of the process makes them, and closing the wrapper makes them happen at once. */
struct vv_store_fault_plan {
    unsigned fail_permille; /* -EIO, no effect */
    unsigned
        unknown_permille;   /* put: -VV_ERR_UNKNOWN; half of these take effect at once or later */
    uint64_t late_max_ns;   /* how much later at most, even after the caller has gone */
    unsigned slow_permille; /* takes up to slow_max_ns longer */
    uint64_t slow_max_ns;
    int all_fail;            /* not 0: every request fails with this -errno */
    int put_fail;            /* not 0: every put fails with this -errno */
    bool is_put_overwriting; /* broken stores: put-if-absent is ignored, ... */
    bool is_put_early;       /* ... a put is answered before it is visible, ... */
    uint64_t list_lag_ns;    /* ... list does not show what is younger than this */
};
MUST_CHECK int vv_store_fault_new(struct vv_store *inner, struct vv_store **out_store);
/* The wrapper's plan, to be changed in place. `store` must be a fault wrapper. */
struct vv_store_fault_plan *vv_store_fault_plan(struct vv_store *store);

/* Counts requests and bytes. */
struct vv_store_counts {
    uint64_t puts, gets, sizes, lists, removes, syncs;
    uint64_t bytes_put, bytes_got;
    uint64_t errors;
    uint64_t in_flight, in_flight_max;
};
MUST_CHECK int vv_store_count_new(struct vv_store *inner, struct vv_store **out_store);
const struct vv_store_counts *vv_store_counts(const struct vv_store *store);

/* Does the store keep what PROTOCOL needs? Puts, reads, lists and removes probe objects
 * (probe/<random>). -VV_ERR_STORE_UNSAFE with the reason in text[size], or the store's error. */
MUST_CHECK int vv_store_probe(struct vv_store *store, char *text, size_t size);

#endif
