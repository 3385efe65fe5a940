/* What a server does for NFS: exports, the door on each address, its figures. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "base/alloc.h"
#include "cmd/server.h"
#include "front/nfs/nfs.h"

#define RPCBIND "unix:/run/rpcbind.sock"

static int parse_exports(const struct vv_options *options, struct vv_nfs_export *exports)
{
    for (unsigned i = 0; i < options->export_count; i++) {
        const char *why = "";
        int err = vv_nfs_export_parse(options->exports[i], &exports[i], &why);
        if (err < 0) {
            fprintf(stderr, "varve: --export %s: %s\n", options->exports[i], why);
            return err;
        }
    }
    return 0;
}

int vv_server_open_nfs(struct vv_server *server)
{
    const struct vv_options *options = server->options;
    CLEANUP(vv_free_ptr) struct vv_nfs_export *exports =
        vv_calloc(options->export_count + 1, sizeof(*exports));
    if (exports == NULL)
        return -ENOMEM;
    TRY(parse_exports(options, exports));
    for (unsigned i = 0; i < options->nfs_count; i++) {
        struct vv_nfs_options nfs = {
            .address = options->nfs[i],
            .door = VV_DOOR_NFS + i,
            .is_read_only = options->is_read_only,
            .exports = exports,
            .export_count = options->export_count,
            .memory = &server->conn_memory,
            .rpcbind = options->is_nfs_registering && i == 0 ? RPCBIND : NULL,
        };
        int err = vv_nfs_listen(server->fs, &nfs, &server->nfs[i]);
        if (err < 0) {
            vv_fail(options->nfs[i], err);
            return err;
        }
    }
    return 0;
}

void vv_server_close_nfs(struct vv_server *server)
{
    for (unsigned i = 0; i < VV_CMD_ADDRESSES_MAX; i++)
        vv_nfs_close(server->nfs[i]);
}

static void set(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

void vv_server_nfs_to_json(const struct vv_server *server, json_t *object)
{
    struct vv_nfs_stats sum = {0};
    if (server->options->nfs_count == 0)
        return;
    for (unsigned i = 0; i < server->options->nfs_count; i++) {
        struct vv_nfs_stats stats;
        vv_nfs_stats(server->nfs[i], &stats);
        sum.connections += stats.connections;
        sum.connections_total += stats.connections_total;
        sum.requests += stats.requests;
        sum.errors += stats.errors;
        sum.repeated += stats.repeated;
        sum.recovered += stats.recovered;
        sum.read_bytes += stats.read_bytes;
        sum.write_bytes += stats.write_bytes;
    }
    set(object, "nfs_connections", sum.connections);
    set(object, "nfs_connections_total", sum.connections_total);
    set(object, "nfs_requests", sum.requests);
    set(object, "nfs_errors", sum.errors);
    set(object, "nfs_repeated", sum.repeated);
    set(object, "nfs_recovered", sum.recovered);
    set(object, "nfs_read_bytes", sum.read_bytes);
    set(object, "nfs_write_bytes", sum.write_bytes);
}
