/* Inside log: requests that are repeated until their outcome is known, and reading epochs in order.
 * Private to src/log. One reactor. */
#ifndef VV_LOG_LOG_IMPL_H
#define VV_LOG_LOG_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "log/log.h"
#include "log/manifest.h"
#include "rt/rt.h"
#include "seal/seal.h"
#include "segment/segment.h"
#include "store/store.h"

#define VV_LOG_RETRY_MIN_NS (20 * VV_NS_PER_MS)
#define VV_LOG_RETRY_MAX_NS (5 * VV_NS_PER_S)
#define VV_LOG_TRIES_MAX 8   /* of a request while opening; then its error is returned */
#define VV_LOG_ROUNDS_MAX 64 /* openings begun again because of others' claims */
#define VV_LOG_OFFLOAD_BYTES (64u << 10) /* sealing and opening of more goes to a worker */

/* ---- requests (request.c) ---- */

/* How requests are made and repeated: while serving (`log` is set) until the outcome is known, or
 * the log has ended; otherwise what failed in passing, at most `tries_max` times. */
struct vv_log_requests {
    struct vv_store *store;
    uint64_t pause_min_ns;
    uint64_t pause_max_ns;
    unsigned tries_max;
    struct vv_log *log;
};

/* What put-if-absent found at a name that was taken. */
struct vv_log_found {
    int err; /* 0; -ENOENT: gone by the time we looked; or why its header cannot be read */
    struct vv_object_header header; /* when err is 0 */
};

/* Put an object and learn the outcome (1). 0: it is there and ours. -VV_ERR_NOT_OURS: something
 * else is, or was, there (*out_found, which may be NULL). Otherwise the store's error, or why the
 * log has ended; then the outcome is not known. Suspends, as do all of these. */
MUST_CHECK int vv_log_request_put(const struct vv_log_requests *requests, const char *name,
                                  const uint8_t attempt_id[16], const struct iovec *iov, int count,
                                  struct vv_log_found *out_found);
MUST_CHECK ssize_t vv_log_request_get(const struct vv_log_requests *requests, const char *name,
                                      void *buf, size_t len, uint64_t offset);
MUST_CHECK int vv_log_request_get_all(const struct vv_log_requests *requests, const char *name,
                                      size_t max, uint8_t **out_bytes, size_t *out_len);
MUST_CHECK int vv_log_request_size(const struct vv_log_requests *requests, const char *name,
                                   uint64_t *out_size);
MUST_CHECK ssize_t vv_log_request_list(const struct vv_log_requests *requests, const char *prefix,
                                       const char *after, struct vv_store_entry *out_entries,
                                       size_t max);
MUST_CHECK int vv_log_request_remove(const struct vv_log_requests *requests, const char *name);
MUST_CHECK int vv_log_request_sync(const struct vv_log_requests *requests, const char *name);
/* The greatest manifest number above `number`, 0 when there is none: one LIST of what is newer. */
MUST_CHECK int vv_log_newest_above(const struct vv_log_requests *requests, uint64_t number,
                                   uint64_t *out_newest);
/* Fetch and decode a manifest; -ENOENT when it is gone. */
/* A manifest's bytes, sealed; the caller frees them. */
MUST_CHECK int vv_log_fetch_manifest_bytes(const struct vv_log_requests *requests, uint64_t number,
                                           uint8_t **out_bytes, size_t *out_len);
/* Opens them: a long one on a worker. */
MUST_CHECK int vv_log_open_manifest(const struct vv_keyring *ring, uint64_t number,
                                    const uint8_t *bytes, size_t len,
                                    struct vv_manifest *out_manifest);
MUST_CHECK int vv_log_fetch_manifest(const struct vv_log_requests *requests,
                                     const struct vv_keyring *ring, uint64_t number,
                                     struct vv_manifest *out_manifest);
/* Encode and put a manifest under its number; results as vv_log_request_put. */
MUST_CHECK int vv_log_put_manifest(const struct vv_log_requests *requests,
                                   const struct vv_keyring *ring,
                                   const struct vv_manifest *manifest);
/* Requests for opening with these options. */
struct vv_log_requests vv_log_requests_of(const struct vv_log_options *options);

/* ---- reading epochs (replay.c) ---- */

/* Goes through the epochs of one opening, from the manifest's last commit on. */
struct vv_log_reading {
    const struct vv_log_requests *requests;
    const struct vv_keyring *ring;
    const struct vv_log_replay *replay;
    bool is_syncing; /* make durable what is replayed (8) */
    bool is_ended;   /* nothing may come any more: a batch is -VV_ERR_GAP */
    uint64_t last_commit;
    struct vv_counters counters;
};

/* Where the reading of an epoch ended. */
struct vv_log_epoch_end {
    uint64_t seq;
    bool is_missing; /* nothing at seq; else a fence, or the end that was asked for */
};

/* Give the batches of an epoch, from sequence `first` to below `end` (UINT64_MAX: to the first
 * missing sequence or fence), in order, fetching ahead. Suspends. -VV_ERR_CORRUPT, -VV_ERR_GAP, the
 * callback's errors, errors of the store and of opening batches. */
MUST_CHECK int vv_log_read_epoch(struct vv_log_reading *reading, uint64_t epoch, uint64_t first,
                                 uint64_t end, struct vv_log_epoch_end *out_end);

/* ---- a log that is open (log.c) ---- */

struct vv_log {
    struct vv_log_options options;
    struct vv_log_requests requests;
    uint8_t journal_id[16];      /* copied; zero = none */
    struct vv_manifest manifest; /* the last that we confirmed */
    uint64_t *epoch_commits; /* last commit replayed of each epoch that was older at opening, ... */
    struct vv_epoch_ref *older; /* ... in this order */
    size_t older_count;
    uint64_t last_commit;
    struct vv_counters counters;

    uint64_t next_seq;            /* not yet assigned */
    uint8_t last_attempt_id[16];  /* of the object at next_seq - 1 */
    uint64_t confirmed_seq;       /* everything below is confirmed in the bucket */
    struct vv_list done;          /* struct log_put: known to be there, waiting for those before */
    struct vv_waitq acknowledged; /* confirmed_seq grew, or the log ended */

    bool is_writing_manifest;
    struct vv_waitq manifest_turn;

    bool is_fenced;
    bool is_closing;
    struct vv_waitq ended; /* pauses between tries wait here */
    int store_err;         /* what was last told to on_store_state */
    unsigned calls;        /* under way */
    struct vv_waitq idle;
};

/* A log without an epoch, to be filled by opening. -ENOMEM. */
MUST_CHECK int vv_log_new(const struct vv_log_options *options, struct vv_log **out_log);
void vv_log_free(struct vv_log *log);
/* 0, or why nothing more is done: -VV_ERR_FENCED, -VV_ERR_STOPPED. */
int vv_log_ended(const struct vv_log *log);
/* Tell of a try's outcome: an error, or 0 after errors. */
void vv_log_tell_store_state(struct vv_log *log, int err);

#endif
