#include "puppet.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "engine.h"
#include "log/log.h"
#include "rng.h"
#include "rt/rt.h"

#define POLL_NS VV_NS_PER_MS
#define PATIENCE_NS (600 * VV_NS_PER_S)
#define STORE_PATH "/store"
#define HOUR_NS (3600 * VV_NS_PER_S)

static const struct vv_seal_settings settings = {VV_CIPHER_AES_256_GCM, VV_COMPRESSION_NONE, 0};

/* ---- the process ---- */

static void call_main(void *arg)
{
    struct puppet_call *call = arg;
    call->result = call->fn(call->puppet, call->arg);
}

static void start_calls(struct puppet *puppet)
{
    for (struct puppet_call *call = puppet->calls; call; call = call->next) {
        if (call->is_started)
            continue;
        call->is_started = true;
        if (vv_fiber_start(call_main, call, "call") < 0)
            call->result = -ENOMEM;
    }
}

static int open_store(const struct puppet_options *options, struct vv_store **out_store)
{
    if (options->gate)
        return gate_open(options->gate, out_store);
    return vv_store_dir_open(STORE_PATH, true, out_store);
}

static int open_all(struct puppet *puppet)
{
    const struct puppet_options *options = &puppet->options;
    TRY(open_store(options, &puppet->store));
    struct vv_volume_options volume_options = {
        .store = puppet->store,
        .ring = options->ring,
        .journal_path = options->journal_path,
        .durability = options->journal_path ? VV_DURABILITY_JOURNAL : VV_DURABILITY_BUCKET,
        .is_abandoning_journal = options->is_abandoning_journal,
        .is_syncing_replay = options->gate == NULL,
        .memory_bytes = 16 << 20,
        .commit_delay_ns = options->commit_delay_ns ? options->commit_delay_ns : HOUR_NS,
        .journal_file_bytes = 4 << 20,
        .repack = options->repack,
    };
    TRY(vv_volume_open(&volume_options, &puppet->volume));
    return vv_fs_open(puppet->volume, &puppet->fs);
}

static void puppet_main(void *arg)
{
    struct puppet *puppet = arg;
    puppet->opened = open_all(puppet);
    while (puppet->opened == 0 && !puppet->is_closing) {
        start_calls(puppet);
        vv_rt_sleep_ns(POLL_NS);
    }
    if (puppet->fs)
        vv_fs_close(puppet->fs);
    puppet->close_result = puppet->volume ? vv_volume_close(puppet->volume) : 0;
    vv_store_close(puppet->store);
}

/* ---- the script's side ---- */

struct puppet *puppet_start(const struct puppet_options *options)
{
    struct puppet *puppet = calloc(1, sizeof(*puppet));
    if (!puppet)
        abort();
    puppet->options = *options;
    puppet->opened = 1;
    puppet->process = vv_sim_process_start(options->disk, puppet_main, puppet);
    if (puppet->process < 0)
        abort();
    return puppet;
}

int puppet_wait_open(const struct puppet *puppet)
{
    uint64_t end = vv_rt_now_ns() + PATIENCE_NS;
    while (puppet->opened == 1) {
        if (!vv_sim_process_is_alive(puppet->process))
            return -ESRCH;
        if (vv_rt_now_ns() > end)
            return -ETIMEDOUT;
        vv_rt_sleep_ns(POLL_NS);
    }
    return puppet->opened;
}

struct puppet *puppet_open(const struct puppet_options *options)
{
    struct puppet *puppet = puppet_start(options);
    if (puppet_wait_open(puppet) == 0)
        return puppet;
    puppet_free(puppet);
    return NULL;
}

struct puppet_call *puppet_begin(struct puppet *puppet, puppet_fn *fn, void *arg)
{
    struct puppet_call *call = calloc(1, sizeof(*call));
    if (!call)
        abort();
    *call = (struct puppet_call){puppet, puppet->calls, fn, arg, PUPPET_RUNNING, false};
    puppet->calls = call;
    return call;
}

int puppet_result(const struct puppet_call *call)
{
    uint64_t end = vv_rt_now_ns() + PATIENCE_NS;
    while (call->result == PUPPET_RUNNING) {
        if (!vv_sim_process_is_alive(call->puppet->process))
            return -ESRCH;
        if (vv_rt_now_ns() > end)
            return -ETIMEDOUT;
        vv_rt_sleep_ns(POLL_NS);
    }
    return call->result;
}

int puppet_run(struct puppet *puppet, puppet_fn *fn, void *arg)
{
    return puppet_result(puppet_begin(puppet, fn, arg));
}

void puppet_kill(struct puppet *puppet)
{
    vv_sim_process_kill(puppet->process);
}

int puppet_close(struct puppet *puppet)
{
    puppet->is_closing = true;
    vv_sim_process_wait(puppet->process);
    return puppet->close_result;
}

void puppet_free(struct puppet *puppet)
{
    if (!puppet)
        return;
    vv_sim_process_kill(puppet->process);
    while (puppet->calls) {
        struct puppet_call *call = puppet->calls;
        puppet->calls = call->next;
        free(call);
    }
    free(puppet);
}

/* ---- creating ---- */

struct creation {
    struct puppet_options options;
    int result;
};

static void creation_main(void *arg)
{
    struct creation *creation = arg;
    struct vv_store *store;
    uint8_t key[VV_KEY_FILE_LEN] = {1};
    struct vv_secret secret = {VV_SECRET_KEY_FILE, key, sizeof(key)};
    struct vv_counters counters = {VV_ROOT_INODE + 1, VV_ORIGIN_FIRST_DATA};
    uint8_t *keys = NULL;
    size_t len = 0;
    int err = open_store(&creation->options, &store);
    if (err == 0)
        err = vv_slots_create(creation->options.ring, &secret, &vv_slot_cost_test, &keys, &len);
    if (err == 0)
        err = vv_volume_create(store, creation->options.ring, keys, len, &settings, &counters);
    vv_free(keys);
    if (err == 0)
        vv_store_close(store);
    creation->result = err;
}

int puppet_create(struct gate *gate, struct vv_sim_disk *disk, struct vv_keyring **out_ring)
{
    uint8_t id[16];
    struct creation creation = {.options = {.gate = gate, .disk = disk}, .result = -ESRCH};
    vv_rt_random(id, sizeof(id));
    TRY(vv_keyring_new(id, out_ring));
    creation.options.ring = *out_ring;
    int process = vv_sim_process_start(disk, creation_main, &creation);
    if (process < 0)
        return process;
    vv_sim_process_wait(process);
    return creation.result;
}

/* ---- things to do ---- */

/* Never zeros, so that what should not be there shows. */
static void fill(uint64_t tag, uint8_t *bytes, size_t len)
{
    struct rng rng = {tag};
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(1 + rng_below(&rng, 255));
}

static int find(struct puppet *puppet, const char *name, struct vv_attr *out_attr)
{
    return vv_fs_lookup(puppet->fs, &engine_call, VV_ROOT_INODE, name, strlen(name), out_attr);
}

int puppet_write(struct puppet *puppet, void *arg)
{
    const struct file_args *args = arg;
    struct vv_create create = {.mode = S_IFREG | 0644};
    struct vv_attr attr;
    int err = find(puppet, args->name, &attr);
    if (err == -ENOENT)
        err = vv_fs_mknod(puppet->fs, &engine_call, VV_ROOT_INODE, args->name, strlen(args->name),
                          &create, &attr);
    uint8_t *bytes = vv_alloc(args->len);
    if (err == 0 && bytes) {
        fill(args->tag, bytes, args->len);
        ssize_t done = vv_fs_write(puppet->fs, &engine_call, attr.inode, NULL, bytes, args->len,
                                   args->offset, 0);
        err = done < 0 ? (int)done : 0;
    }
    vv_free(bytes);
    return err;
}

int puppet_check(struct puppet *puppet, void *arg)
{
    const struct file_args *args = arg;
    struct vv_attr attr;
    TRY(find(puppet, args->name, &attr));
    uint8_t *is = vv_zalloc(args->len);
    uint8_t *should = vv_alloc(args->len);
    fill(args->tag, should, args->len);
    ssize_t got =
        vv_fs_read(puppet->fs, &engine_call, attr.inode, NULL, is, args->len, args->offset);
    int err = got < 0                                                          ? (int)got
              : (size_t)got == args->len && memcmp(is, should, args->len) == 0 ? 0
                                                                               : -EILSEQ;
    vv_free(is);
    vv_free(should);
    return err;
}

int puppet_check_zeros(struct puppet *puppet, void *arg)
{
    const struct file_args *args = arg;
    struct vv_attr attr;
    TRY(find(puppet, args->name, &attr));
    uint8_t *is = vv_alloc(args->len);
    ssize_t got =
        vv_fs_read(puppet->fs, &engine_call, attr.inode, NULL, is, args->len, args->offset);
    int err = got < 0 ? (int)got : (size_t)got == args->len ? 0 : -EILSEQ;
    for (size_t i = 0; i < args->len && err == 0; i++)
        err = is[i] ? -EILSEQ : 0;
    vv_free(is);
    return err;
}

int puppet_truncate(struct puppet *puppet, void *arg)
{
    const struct file_args *args = arg;
    struct vv_attr attr;
    TRY(find(puppet, args->name, &attr));
    struct vv_attr set = {.size = args->len};
    return vv_fs_setattr(puppet->fs, &engine_call, attr.inode, NULL, &set, VV_SET_SIZE, &attr);
}

int puppet_unlink(struct puppet *puppet, void *arg)
{
    const struct file_args *args = arg;
    return vv_fs_unlink(puppet->fs, &engine_call, VV_ROOT_INODE, args->name, strlen(args->name));
}

int puppet_sync(struct puppet *puppet, void *arg)
{
    return vv_fs_sync(puppet->fs, 0);
}

int puppet_fsync(struct puppet *puppet, void *arg)
{
    const struct file_args *args = arg;
    struct vv_attr attr;
    TRY(find(puppet, args->name, &attr));
    return vv_fs_sync(puppet->fs, attr.inode);
}

int puppet_settle(struct puppet *puppet, void *arg)
{
    return vv_volume_settle(puppet->volume);
}

int puppet_manifest(struct puppet *puppet, void *arg)
{
    return vv_volume_set_settings(puppet->volume, vv_volume_settings(puppet->volume));
}

int puppet_stats(struct puppet *puppet, void *arg)
{
    vv_volume_stats(puppet->volume, arg);
    return 0;
}
