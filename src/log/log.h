/* The commit log: claiming a volume, fencing older writers, replaying, appending, and writing
 * manifests. This is PROTOCOL rules 4-9, 11-13 and 15; the numbers in comments are its rules.
 *
 * A log object is a segment (segment.h) whose batch begins with the batch header; the rest of the
 * batch is the caller's. Batch header:
 *
 *   varint  first commit number
 *   varint  count of commits, at least 1
 *   16      attempt id of the log object before it in this epoch (zero for the first)
 *   varint  next inode, varint next data id (struct vv_counters after the last of these commits)
 *
 * A fence is an object header of kind FENCE (number = the epoch that fences) and nothing else.
 *
 * "varve.volume" is an object header (kind VOLUME, number 0) and one frame (index 0, origin
 * {VV_ORIGIN_VOLUME, 0}): signed varint seconds and varint nanoseconds of its creation. Nothing
 * depends on it but people who look at the bucket: the manifest is what makes a volume.
 *
 * One reactor; functions suspend where noted. */
#ifndef VV_LOG_LOG_H
#define VV_LOG_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "log/manifest.h"
#include "seal/seal.h"
#include "segment/segment.h"
#include "store/store.h"

#define VV_LOG_REPLAY_PARALLEL 32 /* log objects fetched at once during replay */
/* Log objects of a writer under way at once; further puts wait. An opener that finds an object so
 * far above a free sequence, or a fence above one, knows that an object was lost. */
#define VV_LOG_WINDOW_MAX 64

struct vv_batch_header {
    uint64_t first_commit;
    uint64_t count;
    uint8_t previous_attempt_id[16];
    struct vv_counters counters;
};

void vv_batch_header_encode(struct vv_writer *writer, const struct vv_batch_header *header);
MUST_CHECK int vv_batch_header_decode(struct vv_cursor *cursor, struct vv_batch_header *out_header);

/* What opening tells its caller. All may suspend; a negative return ends the opening with it. */
struct vv_log_replay {
    void *arg;
    /* The newest manifest, before it is claimed: its tables may be read from now on, while the claim
     * and the fences are on their way. Called again when the opening has to start over. Must not
     * suspend. May be NULL; vv_log_read does not call it. */
    void (*hint)(void *arg, const struct vv_manifest *manifest);
    /* The manifest that replay starts from: our claim, which has the tables, counters and last
     * commit of the one before it. Called again, forgetting everything before, when the opening has
     * to start over (steps 4, 6, 9). */
    int (*base)(void *arg, const struct vv_manifest *manifest);
    /* The next log object, in order. `payload` is the batch after its header. `object_bytes`: whole
     * size. */
    int (*batch)(void *arg, const struct vv_segment_id *id, const struct vv_batch_header *header,
                 struct vv_bytes payload, uint64_t object_bytes);
};

/* The newest manifest as it was when the keys were looked for, still sealed. Opening may begin with it: that saves it
 * rule 4's LIST and GET. Who is late finds out by rules 5 and 6, as always, and begins again; after VV_LOG_SEEN_MAX_NS
 * it is not used. Bytes are freed by vv_log_seen_done. */
#define VV_LOG_SEEN_MAX_NS (10 * VV_NS_PER_S)
struct vv_log_seen {
    uint64_t number; /* 0 = none */
    uint8_t *bytes;
    size_t len;
    uint64_t at_ns;
};
void vv_log_seen_done(struct vv_log_seen *seen);

struct vv_log_options {
    struct vv_store *store;          /* borrowed; must outlive the log */
    const struct vv_keyring *ring;   /* borrowed */
    const uint8_t *journal_id;       /* of the journal at hand (16 bytes), NULL = none */
    bool is_abandoning_journal;      /* go on although the manifest names another journal */
    bool is_journal_holding_records; /* the journal at hand is not empty. If the manifest does not
                                      * name it, opening is refused (-VV_ERR_JOURNAL): naming it in
                                      * the claim would make its old records look current after a
                                      * crash. Keep the journal aside and come back with an empty
                                      * one */
    bool is_syncing_replay;          /* sync what was replayed (dir stores; 8) */
    const struct vv_log_seen *seen;  /* borrowed; where opening begins. NULL = look */
    uint64_t retry_min_ns;           /* pauses between tries of a put; 0 = 20 ms */
    uint64_t retry_max_ns;           /* 0 = 5 s */
    /* Called on the fiber whose put it is, when a try failed (err < 0, each time) and when one then
     * succeeded (0, once), so that waiters can be told. May be NULL. Must not suspend. */
    void (*on_store_state)(void *arg, int err);
    void *on_store_state_arg;
};

struct vv_log;

/* Create a volume: varve.volume (put first; -VV_ERR_VOLUME_EXISTS if it is there), keys/1, then
 * manifest 1 with epoch 0, no tables, `settings` and `counters`. `keys` is an encoded keys object
 * (vv_slots_create). A creation that stopped half-way (no manifest) may be repeated, with other
 * keys too: it is told apart by the absence of manifests; varve.volume is then replaced, and keys
 * that are in the way stay, the next number is taken. Of several at once one wins. Suspends. */
MUST_CHECK int vv_volume_create(struct vv_store *store, const struct vv_keyring *ring,
                                const void *keys, size_t keys_len,
                                const struct vv_seal_settings *settings,
                                const struct vv_counters *counters);

/* Fetch the keys object that the newest manifest names. -VV_ERR_NOT_VOLUME, -VV_ERR_NEWER, store
 * errors. The caller frees *out_keys. `out_seen`: that manifest, for vv_log_open; NULL = not wanted. Suspends. */
MUST_CHECK int vv_volume_keys(struct vv_store *store, uint8_t **out_keys, size_t *out_len,
                              uint64_t *out_keys_number, struct vv_log_seen *out_seen);

/* Open as the writer: rules 4-9. On return the epoch is ours and everything was replayed.
 * *out_is_journal_current: the manifest before our claim named our journal, so its tail may be
 * appended (17). Suspends. -VV_ERR_NOT_VOLUME, -VV_ERR_JOURNAL, -VV_ERR_GAP, -VV_ERR_CORRUPT,
 * -VV_ERR_AUTH, -VV_ERR_NEWER, store errors. */
MUST_CHECK int vv_log_open(const struct vv_log_options *options, const struct vv_log_replay *replay,
                           struct vv_log **out_log, bool *out_is_journal_current);
/* Read without claiming (fsck, offline tools): the newest manifest and every batch up to the first
 * missing sequence of the newest epoch. `*out_manifest` is the caller's. Suspends. */
MUST_CHECK int vv_log_read(const struct vv_log_options *options, const struct vv_log_replay *replay,
                           struct vv_manifest *out_manifest);
/* For an orderly end, when nothing is under way: if the tables hold everything that was ever committed, write
 * a last manifest in which no epoch is live, so that the next opening has nothing to fence or replay. The log
 * takes nothing more afterwards. 0 also when that is not so, or the store fails: nothing depends on it.
 * Suspends. -VV_ERR_FENCED. */
MUST_CHECK int vv_log_end(struct vv_log *log);
/* Stops retries (their callers get -VV_ERR_STOPPED) and waits for calls under way. Suspends. */
void vv_log_close(struct vv_log *log);
/* Its first half: calls from now on, and those under way, end with -VV_ERR_STOPPED. Does not
 * suspend. */
void vv_log_stop(struct vv_log *log);

/* Our epoch; and the number of the last commit that was replayed. */
uint64_t vv_log_epoch(const struct vv_log *log);
uint64_t vv_log_last_commit(const struct vv_log *log);
/* Counters: maximum of manifest and all batches replayed. */
struct vv_counters vv_log_counters(const struct vv_log *log);

/* The next log object's id (sequences ascend from 0; call it at finalise, in commit order) and the
 * attempt id of the object before it; `attempt_id` is the new object's own. */
struct vv_segment_id vv_log_next_id(const struct vv_log *log);
void vv_log_assign(struct vv_log *log, const uint8_t attempt_id[16],
                   uint8_t out_previous_attempt_id[16]);
/* Put a log object whose id was assigned. Resolves ambiguity by attempt ids (1); repeats the same
 * bytes on any other failure until it succeeds. Returns 0 only when it and all sequences before it
 * are confirmed (several may be under way at once: acknowledged in order; 11). -VV_ERR_FENCED for
 * good, -VV_ERR_STOPPED. Suspends. */
MUST_CHECK int vv_log_put(struct vv_log *log, const struct vv_segment_id *id,
                          const uint8_t attempt_id[16], const struct iovec *iov, int count);
/* Put any other object of ours (data segment, table) by the same rules: retried until it is known.
 * -VV_ERR_NOT_OURS if the name is taken by other bytes (a bug or an attack), -VV_ERR_FENCED,
 * -VV_ERR_STOPPED. Suspends. */
MUST_CHECK int vv_log_put_object(struct vv_log *log, const char *name, const uint8_t attempt_id[16],
                                 const struct iovec *iov, int count);
/* The first sequence of our epoch not yet confirmed. */
uint64_t vv_log_confirmed_seq(const struct vv_log *log);

/* Write the next manifest (13): `manifest` gives tables, last_commit, counters, settings, pins,
 * keys number and replay points; the log fills in number, epoch, owner and journal. One at a time:
 * callers queue; each must build on the manifest confirmed before it (replay points and last commit
 * never go back, an older epoch is dropped only when the tables hold its whole replay: asserted).
 * Put, resolve, then LIST above: empty = confirmed. -VV_ERR_FENCED ends the writer;
 * -VV_ERR_STOPPED; -ENOMEM, -VV_ERR_LIMIT: nothing has changed. Suspends. */
MUST_CHECK int vv_log_write_manifest(struct vv_log *log, const struct vv_manifest *manifest);
/* The last manifest that we confirmed (or replayed from, at first: our claim). Borrowed, until the
 * next vv_log_write_manifest returns. Deleting goes by this one alone (14). */
const struct vv_manifest *vv_log_manifest(const struct vv_log *log);
bool vv_log_is_fenced(const struct vv_log *log);
/* Remove manifests older than the confirmed one that are not pinned (14). Suspends. */
MUST_CHECK int vv_log_remove_old_manifests(struct vv_log *log);
/* Look whether a newer manifest exists that is not ours: then fenced (-VV_ERR_FENCED, for good). For who
 * finds that an object is gone which nobody else should have removed. Suspends. */
MUST_CHECK int vv_log_check_fenced(struct vv_log *log);

#endif
