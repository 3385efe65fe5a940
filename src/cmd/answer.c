/* What a server answers on its admin socket. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "cmd/server.h"
#include "front/fuse/fuse.h"
#include "front/nbd/nbd.h"
#include "front/ninep/ninep.h"

static void set(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

static json_t *levels_to_json(const struct vv_lsm_stats *stats)
{
    json_t *levels = json_array();
    for (unsigned i = 0; i < VV_LSM_LEVELS_MAX; i++) {
        json_t *level = json_object();
        set(level, "tables", stats->tables[i]);
        set(level, "bytes", stats->bytes[i]);
        json_array_append_new(levels, level);
    }
    return levels;
}

json_t *vv_stats_to_json(struct vv_volume *volume)
{
    struct vv_volume_stats stats;
    char id[33];
    json_t *object = json_object();
    if (vv_volume_refresh_space(volume) < 0)
        json_object_set_new(object, "store_space", json_string("unknown"));
    vv_volume_stats(volume, &stats);
    vv_hex(vv_volume_id(volume), 16, id);
    const struct vv_seal_settings *settings = vv_volume_settings(volume);
    json_object_set_new(object, "volume", json_string(id));
    char label[VV_LABEL_MAX + 1];
    if (vv_fs_label(volume, label) == 0 && label[0] != '\0')
        json_object_set_new(object, "label", json_string(label)); /* which leaves out what is no UTF-8 */
    json_object_set_new(object, "cipher", json_string(vv_cipher_name(settings->cipher)));
    json_object_set_new(object, "compression",
                        json_string(vv_compression_name(settings->compression)));
    set(object, "epoch", stats.epoch);
    set(object, "last_commit", stats.open_commit - 1);
    set(object, "durable_commit", stats.durable_commit);
    set(object, "bucket_commit", stats.bucket_commit);
    set(object, "live_bytes", stats.live_bytes);
    set(object, "held_bytes", stats.total_bytes);
    set(object, "segments", stats.segments);
    set(object, "segments_deleted", stats.segments_deleted);
    set(object, "handed_layers", stats.handed_layers);
    set(object, "merged_writes", stats.merged_writes);
    set(object, "segments_repacked", stats.repacked_segments);
    set(object, "repacked_bytes_written", stats.repacked_bytes);
    json_object_set_new(object, "is_repacking", json_boolean(stats.is_repacking));
    set(object, "leftovers_deleted", stats.leftovers_deleted);
    set(object, "leftover_bytes_deleted", stats.leftover_bytes_deleted);
    set(object, "reclaims_waiting", stats.ranges + stats.orphans);
    set(object, "memory_bytes", stats.memory_bytes);
    set(object, "dirty_bytes", stats.dirty_bytes);
    set(object, "unsent_bytes", stats.frozen_bytes);
    set(object, "memtable_bytes", stats.memtable_bytes);
    set(object, "cache_bytes", stats.cache_bytes);
    set(object, "operations", stats.ops);
    set(object, "plan_rounds_max", stats.plan_rounds_max);
    set(object, "plan_restarts", stats.plan_restarts);
    set(object, "commits", stats.commits);
    set(object, "early_commits", stats.early_commits);
    set(object, "log_bytes_written", stats.log_bytes);
    set(object, "data_bytes_written", stats.data_bytes);
    set(object, "journal_bytes_written", stats.journal_bytes);
    set(object, "table_bytes_written", stats.lsm.bytes_flushed + stats.lsm.bytes_compacted);
    if (stats.store_total != UINT64_MAX && stats.store_total != 0) {
        set(object, "store_free_bytes", stats.store_free);
        set(object, "store_total_bytes", stats.store_total);
    }
    json_object_set_new(object, "store_error",
                        stats.store_error == 0 ? json_null()
                                               : json_string(vv_err_text(stats.store_error)));
    json_object_set_new(object, "is_fenced", json_boolean(stats.is_fenced));
    json_object_set_new(object, "is_shut_down", json_boolean(stats.is_shut_down));
    json_object_set_new(object, "levels", levels_to_json(&stats.lsm));
    return object;
}

/* Requests to the store since the server started, tries that were repeated included. */
static json_t *requests_to_json(const struct vv_server *server)
{
    const struct vv_store_counts *counts = vv_store_counts(server->counted);
    json_t *object = json_object();
    set(object, "put", counts->puts);
    set(object, "get", counts->gets);
    set(object, "head", counts->sizes);
    set(object, "list", counts->lists);
    set(object, "delete", counts->removes);
    set(object, "failed", counts->errors);
    set(object, "in_flight", counts->in_flight);
    set(object, "bytes_sent", counts->bytes_put);
    set(object, "bytes_received", counts->bytes_got);
    set(object, "seconds", (vv_rt_now_ns() - server->started_ns) / VV_NS_PER_S);
    return object;
}

static json_t *status(struct vv_server *server)
{
    json_t *object = vv_stats_to_json(server->volume);
    json_object_set_new(object, "is_served", json_true());
    json_object_set_new(object, "requests", requests_to_json(server));
    json_object_set_new(object, "pid", json_integer(getpid()));
    if (server->options->mount != NULL)
        json_object_set_new(object, "mount", json_string(server->options->mount));
    bool is_journal =
        vv_place_durability(&server->place, server->options) == VV_DURABILITY_JOURNAL;
    json_object_set_new(object, "durability", json_string(is_journal ? "journal" : "bucket"));
    json_object_set_new(object, "synced_writes",
                        json_string(vv_rt_uses_uring() ? "io_uring" : "worker threads"));
    set(object, "io_uring_writes", vv_rt_uring_writes());
    struct vv_volume_stats stats;
    vv_volume_stats(server->volume, &stats);
    if (!server->options->is_read_only)
        set(object, "unsent_commits", stats.open_commit - 1 - stats.bucket_commit);
    vv_server_cache_to_json(server, object);
    if (server->fuse != NULL) {
        struct vv_fuse_stats fuse;
        vv_fuse_stats(server->fuse, &fuse);
        set(object, "fuse_requests", fuse.requests);
        set(object, "fuse_errors", fuse.errors);
        set(object, "fuse_fibers", fuse.fibers);
    }
    if (server->options->ninep_count > 0) {
        struct vv_ninep_stats all = {0};
        for (unsigned i = 0; i < server->options->ninep_count; i++) {
            struct vv_ninep_stats ninep;
            vv_ninep_stats(server->ninep[i], &ninep);
            all.connections += ninep.connections;
            all.requests += ninep.requests;
        }
        set(object, "ninep_connections", all.connections);
        set(object, "ninep_requests", all.requests);
    }
    vv_server_nfs_to_json(server, object);
    if (server->nbd != NULL) {
        struct vv_nbd_stats nbd;
        vv_nbd_stats(server->nbd, &nbd);
        set(object, "nbd_connections", nbd.connections);
        set(object, "nbd_connections_total", nbd.connections_total);
        set(object, "nbd_requests", nbd.requests);
        set(object, "nbd_errors", nbd.errors);
        set(object, "nbd_read_bytes", nbd.read_bytes);
        set(object, "nbd_write_bytes", nbd.write_bytes);
    }
    set(object, "requests_memory_bytes", vv_conn_memory_used(&server->conn_memory));
    set(object, "requests_memory_max_bytes", vv_conn_memory_limit(&server->conn_memory));
    return object;
}

static json_t *result(int err)
{
    json_t *object = json_object();
    json_object_set_new(object, "error", err < 0 ? json_string(vv_err_text(err)) : json_null());
    return object;
}

static json_t *set_keys(struct vv_server *server, const char *hex)
{
    size_t len = strlen(hex) / 2;
    uint8_t *keys = vv_alloc(len + 1);
    int err = keys == NULL ? -ENOMEM : vv_unhex(hex, keys, len);
    if (err == 0)
        err = vv_volume_set_keys(server->volume, keys, len);
    vv_free(keys);
    return result(err);
}

void vv_server_answer(void *arg, const char *line, struct vv_writer *answer)
{
    struct vv_server *server = arg;
    json_t *object;
    if (strcmp(line, "status") == 0)
        object = status(server);
    else if (strcmp(line, "flush") == 0)
        object = result(vv_volume_settle(server->volume));
    else if (strncmp(line, "device ", 7) == 0)
        object = vv_server_device(server, line + 7);
    else if (strncmp(line, "keys ", 5) == 0)
        object = set_keys(server, line + 5);
    else
        object = result(-EINVAL);
    char *text = object != NULL ? json_dumps(object, JSON_INDENT(2)) : NULL;
    if (text != NULL) {
        vv_writer_bytes(answer, text, strlen(text));
        vv_writer_bytes(answer, "\n", 1);
    }
    free(text);
    json_decref(object);
}
