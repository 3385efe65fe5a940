/* A simulated world of one process, and a volume in it. */
#ifndef VV_TEST_VOLUME_RIG_H
#define VV_TEST_VOLUME_RIG_H

#include <stdlib.h>

#include "base/alloc.h"
#include "log/log.h"
#include "rt/sim.h"
#include "tap.h"
#include "volume/volume.h"

struct rig {
    struct vv_store_backend *backend;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
};

static inline void rig_open(struct rig *rig)
{
    struct vv_volume_options options = {.store = rig->store, .ring = rig->ring,
                                        .durability = VV_DURABILITY_BUCKET,
                                        .memory_bytes = 16 << 20, .segment_bytes = 256 << 10};
    int err = vv_volume_open(&options, &rig->volume);
    if (err < 0)
        tap_is_int(err, 0, "the volume opens");
}

/* A new volume in memory, open. */
static inline void rig_make(struct rig *rig)
{
    struct vv_counters counters = {2, 9000};
    struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_LZ4, 0};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, "0123456789abcdef0123456789abcdef", 32};
    uint8_t *keys;
    size_t keys_len;
    if (vv_store_backend_new(&rig->backend) < 0 ||
        vv_store_mem_open(rig->backend, &rig->store) < 0 ||
        vv_keyring_new((const uint8_t *)"volume-id-volume", &rig->ring) < 0 ||
        vv_slots_create(rig->ring, &secret, &vv_slot_cost_test, &keys, &keys_len) < 0)
        abort();
    tap_is_int(vv_volume_create(rig->store, rig->ring, keys, keys_len, &settings, &counters), 0,
               "create");
    vv_free(keys);
    rig_open(rig);
}

static inline void rig_close(struct rig *rig)
{
    tap_is_int(vv_volume_close(rig->volume), 0, "close");
    vv_keyring_free(rig->ring);
    vv_store_close(rig->store);
    vv_store_backend_free(rig->backend);
}

struct rig_process {
    void (*fn)(void *arg);
    void *arg;
};

static inline void rig_world(void *arg)
{
    const struct rig_process *process = arg;
    int number = vv_sim_process_start(NULL, process->fn, process->arg);
    vv_sim_process_wait(number);
    tap_is_int((int64_t)vv_alloc_domain_count((uint32_t)number), 0, "nothing leaks");
}

/* Run fn(arg) as the world's process, to the end; what main returns. */
static inline int rig_main(void (*fn)(void *arg), void *arg)
{
    struct rig_process process = {fn, arg};
    struct vv_sim_options options = {.seed = 1, .latency_min_ns = 1000, .latency_max_ns = 50000};
    vv_alloc_track(true);
    tap_is_int(vv_sim_run(&options, rig_world, &process), 0, "the world ends");
    return tap_done();
}

#endif
