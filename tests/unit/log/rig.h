/* What the tests of log share: a volume in a mem store in a simulated world, commits that carry a
 * tag, and a replay that notes what it was given. */
#ifndef TEST_LOG_RIG_H
#define TEST_LOG_RIG_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/log.h"
#include "log/log.h"
#include "rt/rt.h"
#include "rt/sim.h"
#include "seal/seal.h"
#include "segment/segment.h"
#include "store/store.h"
#include "tap.h"

#define RIG_BATCHES_MAX 512

static const struct vv_seal_settings rig_settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
static const struct vv_counters rig_counters = {.next_inode = 2, .next_data_id = 4096};

struct rig {
    struct vv_store_backend *backend;
    struct vv_store *store; /* without faults */
    struct vv_keyring *ring;
    uint8_t volume_id[16];
};

/* What a replay was given since the last base. */
struct seen {
    unsigned bases;
    uint64_t manifest_number;
    uint64_t last_commit;
    size_t count;
    uint64_t tags[RIG_BATCHES_MAX];
    uint64_t first_commits[RIG_BATCHES_MAX];
    uint64_t epochs[RIG_BATCHES_MAX];
    size_t payload_bytes[RIG_BATCHES_MAX];
    uint64_t object_bytes;
    int fail_base; /* returned by the callbacks */
    int fail_batch;
};

static inline int rig_base(void *arg, const struct vv_manifest *manifest)
{
    struct seen *seen = arg;
    seen->bases++;
    seen->count = 0;
    seen->object_bytes = 0;
    seen->manifest_number = manifest->number;
    seen->last_commit = manifest->last_commit;
    return seen->fail_base;
}

static inline int rig_batch(void *arg, const struct vv_segment_id *id,
                            const struct vv_batch_header *header, struct vv_bytes payload,
                            uint64_t object_bytes)
{
    struct seen *seen = arg;
    struct vv_cursor cursor = vv_cursor_of(payload.ptr, payload.len);
    if (seen->fail_batch)
        return seen->fail_batch;
    if (seen->count == RIG_BATCHES_MAX)
        return -VV_ERR_LIMIT;
    seen->tags[seen->count] = vv_cursor_u64(&cursor);
    seen->first_commits[seen->count] = header->first_commit;
    seen->epochs[seen->count] = id->epoch;
    seen->payload_bytes[seen->count] = payload.len;
    seen->count++;
    seen->last_commit = header->first_commit + header->count - 1;
    seen->object_bytes += object_bytes;
    return 0;
}

static inline struct vv_log_replay rig_replay(struct seen *seen)
{
    return (struct vv_log_replay){.arg = seen, .base = rig_base, .batch = rig_batch};
}

static inline struct vv_log_options rig_options(const struct rig *rig, struct vv_store *store)
{
    return (struct vv_log_options){.store = store,
                                   .ring = rig->ring,
                                   .retry_min_ns = VV_NS_PER_MS,
                                   .retry_max_ns = 50 * VV_NS_PER_MS};
}

/* A faulty door to the rig's objects; plan through vv_store_fault_plan. */
static inline struct vv_store *rig_faulty(const struct rig *rig)
{
    struct vv_store *store;
    if (vv_store_mem_open(rig->backend, &store) < 0 || vv_store_fault_new(store, &store) < 0)
        abort();
    return store;
}

/* An object that is good enough for a keys object here. */
static inline size_t rig_keys(const struct rig *rig, uint8_t keys[VV_OBJECT_HEADER_LEN + 4])
{
    struct vv_object_header header = {.version = VV_FORMAT_VERSION, .kind = VV_KIND_KEYS};
    memcpy(header.volume_id, rig->volume_id, 16);
    vv_rt_random(header.attempt_id, 16);
    vv_object_header_encode(&header, keys);
    memcpy(keys + VV_OBJECT_HEADER_LEN, "keys", 4);
    return VV_OBJECT_HEADER_LEN + 4;
}

static inline int rig_create(const struct rig *rig, struct vv_store *store)
{
    uint8_t keys[VV_OBJECT_HEADER_LEN + 4];
    size_t len = rig_keys(rig, keys);
    return vv_volume_create(store, rig->ring, keys, len, &rig_settings, &rig_counters);
}

static inline struct rig rig_new(void)
{
    struct rig rig = {0};
    memset(rig.volume_id, 7, sizeof(rig.volume_id));
    if (vv_store_backend_new(&rig.backend) < 0 || vv_store_mem_open(rig.backend, &rig.store) < 0 ||
        vv_keyring_new(rig.volume_id, &rig.ring) < 0)
        abort();
    return rig;
}

static inline struct rig rig_with_volume(void)
{
    struct rig rig = rig_new();
    if (rig_create(&rig, rig.store) < 0)
        tap_ok(false, "a volume can be created");
    return rig;
}

static inline void rig_free(struct rig *rig)
{
    vv_store_close(rig->store);
    vv_store_backend_free(rig->backend);
    vv_keyring_free(rig->ring);
}

static inline int rig_open(const struct rig *rig, struct vv_store *store, struct seen *seen,
                           struct vv_log **out_log)
{
    struct vv_log_options options = rig_options(rig, store);
    struct vv_log_replay replay = rig_replay(seen);
    bool is_current;
    return vv_log_open(&options, &replay, out_log, &is_current);
}

/* A log object that is built but not put. */
struct object {
    struct vv_segment_builder *builder;
    struct vv_segment_id id;
    uint8_t attempt_id[16];
    const struct iovec *iov;
    int count;
    size_t bytes;
};

/* Seal a batch that carries `tag` and is at least `payload_bytes` long under the id. */
static inline struct object object_seal(const struct rig *rig, const struct vv_segment_id *id,
                                        struct vv_batch_header *header, struct vv_log *log,
                                        uint64_t tag, size_t payload_bytes)
{
    struct object object = {.id = *id};
    if (vv_segment_builder_new(rig->ring, id, &rig_settings, &object.builder) < 0)
        abort();
    memcpy(object.attempt_id, vv_segment_builder_header(object.builder)->attempt_id, 16);
    if (log)
        vv_log_assign(log, object.attempt_id, header->previous_attempt_id);
    struct vv_writer batch = vv_writer_new();
    vv_batch_header_encode(&batch, header);
    vv_writer_u64(&batch, tag);
    size_t extra = payload_bytes > 8 ? payload_bytes - 8 : 0;
    uint8_t *space = vv_writer_space(&batch, extra);
    for (size_t i = 0; i < extra; i++)
        space[i] = (uint8_t)((i * 2654435761u) >> 13);
    if (vv_writer_check(&batch) < 0 ||
        vv_segment_finish(object.builder, batch.ptr, batch.len, &object.iov, &object.count,
                          &object.bytes) < 0)
        abort();
    vv_writer_done(&batch);
    return object;
}

/* The next log object of `log`. */
static inline struct object object_new(const struct rig *rig, struct vv_log *log, uint64_t commit,
                                       uint64_t tag, size_t payload_bytes)
{
    struct vv_batch_header header = {
        .first_commit = commit, .count = 1, .counters = {.next_inode = commit + 100}};
    struct vv_segment_id id = vv_log_next_id(log);
    return object_seal(rig, &id, &header, log, tag, payload_bytes);
}

static inline int object_put(struct vv_log *log, const struct object *object)
{
    return vv_log_put(log, &object->id, object->attempt_id, object->iov, object->count);
}

static inline void object_free(struct object *object)
{
    vv_segment_builder_free(object->builder);
}

static inline int rig_commit(const struct rig *rig, struct vv_log *log, uint64_t commit,
                             uint64_t tag)
{
    struct object object = object_new(rig, log, commit, tag, 8);
    int err = object_put(log, &object);
    object_free(&object);
    return err;
}

/* Write a manifest that says: everything up to `last_commit` is in the tables, and our log is
 * needed from `replay_seq` on; older epochs are dropped when `is_dropping`. */
static inline int rig_flush(struct vv_log *log, uint64_t last_commit, uint64_t replay_seq,
                            bool is_dropping)
{
    struct vv_manifest next;
    if (vv_manifest_copy(vv_log_manifest(log), &next) < 0)
        return -ENOMEM;
    next.last_commit = last_commit;
    next.epochs[next.epoch_count - 1].replay_seq = replay_seq;
    if (is_dropping) {
        next.epochs[0] = next.epochs[next.epoch_count - 1];
        next.epoch_count = 1;
    }
    int err = vv_log_write_manifest(log, &next);
    vv_manifest_done(&next);
    return err;
}

/* A text as what is to be put. */
static inline struct iovec rig_text(const char *text)
{
    return (struct iovec){(void *)(uintptr_t)text, strlen(text)};
}

static inline bool rig_has(const struct rig *rig, const char *name)
{
    uint64_t size;
    return vv_store_size(rig->store, name, &size) == 0;
}

/* Run fn(arg) in a simulated world. */
static inline void run_world(uint64_t seed, void (*fn)(void *), void *arg)
{
    struct vv_sim_options options = {.seed = seed,
                                     .latency_min_ns = 1000,
                                     .latency_max_ns = 100000,
                                     .reorder_permille = 200,
                                     .is_reordering_dirs = seed % 2 == 0};
    int err = vv_sim_run(&options, fn, arg);
    if (err < 0)
        tap_is_int(err, 0, "seed %llu: the world ends well", (unsigned long long)seed);
}

static inline void quiet_sink(void *arg, enum vv_log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

/* First thing in main(). */
static inline void rig_main(void)
{
    vv_alloc_track(true);
    vv_log_set_sink(quiet_sink, NULL);
}

#endif
