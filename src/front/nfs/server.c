/* Opening and closing. */
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "front/nfs/nfs_impl.h"

static void nfs_free(struct vv_nfs *nfs)
{
    vv_nfs_replies_done(nfs);
    vv_free(nfs->exports);
    vv_free(nfs->roots);
    vv_free(nfs);
}

static int take_exports(struct vv_nfs *nfs, const struct vv_nfs_options *options)
{
    struct vv_nfs_export whole;
    const struct vv_nfs_export *exports = options->exports;
    const char *why;
    nfs->export_count = options->export_count;
    if (nfs->export_count == 0) {
        TRY(vv_nfs_export_parse("/", &whole, &why));
        exports = &whole;
        nfs->export_count = 1;
    }
    if (nfs->export_count > VV_NFS_EXPORTS_MAX)
        return -VV_ERR_LIMIT;
    nfs->exports = vv_calloc(nfs->export_count, sizeof(*exports));
    nfs->roots = vv_calloc(nfs->export_count, sizeof(*nfs->roots));
    if (!nfs->exports || !nfs->roots)
        return -ENOMEM;
    memcpy(nfs->exports, exports, nfs->export_count * sizeof(*exports));
    for (unsigned i = 0; i < nfs->export_count; i++) {
        const char *path = nfs->exports[i].path;
        struct vv_bytes bytes = {(const uint8_t *)path, strlen(path)};
        int err = vv_nfs_path_resolve(nfs, bytes, &nfs->roots[i]);
        if (err < 0) {
            vv_error("nfs", "export of %s: %s", path, vv_err_text(err));
            return err;
        }
    }
    return 0;
}

/* The write verifier says which life of the server wrote; that of directories never changes, as
 * their cookies don't. */
static void make_verifiers(struct vv_nfs *nfs)
{
    struct vv_volume *volume = vv_fs_volume(nfs->fs);
    const uint8_t *id = vv_volume_id(volume);
    struct vv_volume_stats stats;
    vv_volume_stats(volume, &stats);
    nfs->fsid = vv_xxh3(id, 16, 0);
    vv_store_be64(nfs->verifier, vv_xxh3(id, 16, stats.epoch));
    vv_store_be64(nfs->cookie_verifier, nfs->fsid);
}

static int nfs_new(struct vv_fs *fs, const struct vv_nfs_options *options, struct vv_nfs **out_nfs)
{
    struct vv_nfs *nfs = vv_zalloc(sizeof(*nfs));
    if (!nfs)
        return -ENOMEM;
    nfs->fs = fs;
    nfs->door = options->door;
    nfs->is_read_only = options->is_read_only;
    vv_list_init(&nfs->reply_order);
    vv_conns_init(&nfs->conns, &vv_nfs_conn_kind, nfs, options->memory);
    make_verifiers(nfs);
    int err = vv_map_init(&nfs->replies);
    if (err == 0)
        err = take_exports(nfs, options);
    if (err < 0) {
        nfs_free(nfs);
        return err;
    }
    *out_nfs = nfs;
    return 0;
}

int vv_nfs_listen(struct vv_fs *fs, const struct vv_nfs_options *options, struct vv_nfs **out_nfs)
{
    struct vv_nfs *nfs;
    TRY(vv_fs_replies_open(fs));
    TRY(nfs_new(fs, options, &nfs));
    int err = vv_conns_listen(&nfs->conns, options->address, &nfs->port);
    if (err < 0) {
        nfs_free(nfs);
        return err;
    }
    if (options->rpcbind)
        err = vv_nfs_register(nfs, options->rpcbind);
    if (err < 0) {
        vv_error("nfs", "registering at %s: %s", options->rpcbind, vv_err_text(err));
        vv_nfs_close(nfs);
        return err;
    }
    *out_nfs = nfs;
    return 0;
}

void vv_nfs_close(struct vv_nfs *nfs)
{
    if (!nfs)
        return;
    vv_nfs_unregister(nfs);
    vv_conns_close(&nfs->conns);
    nfs_free(nfs);
}

unsigned vv_nfs_port(const struct vv_nfs *nfs)
{
    return nfs->port;
}

void vv_nfs_stats(const struct vv_nfs *nfs, struct vv_nfs_stats *out_stats)
{
    const struct vv_conn_stats *conns = &nfs->conns.stats;
    *out_stats = nfs->stats;
    out_stats->connections = nfs->conns.count;
    out_stats->connections_total = conns->connections_total;
    out_stats->connections_evicted = conns->connections_evicted;
    out_stats->protocol_errors = conns->protocol_errors;
}
