/* Opening and closing. */
#include "front/nbd/nbd_impl.h"

static uint32_t payload_max(uint64_t memory_bytes)
{
    uint32_t bytes = VV_NBD_PAYLOAD_MAX;
    while (bytes > VV_NBD_PAYLOAD_MIN && bytes > memory_bytes)
        bytes /= 2;
    return bytes;
}

int vv_nbd_new(struct vv_fs *fs, const struct vv_nbd_options *options, struct vv_nbd **out_nbd)
{
    struct vv_nbd *nbd = vv_zalloc(sizeof(*nbd));
    if (!nbd)
        return -ENOMEM;
    if (vv_map_init(&nbd->exports) < 0) {
        vv_free(nbd);
        return -ENOMEM;
    }
    nbd->fs = fs;
    nbd->options = *options;
    vv_conns_init(&nbd->conns, &vv_nbd_conn_kind, nbd, options->memory);
    nbd->payload_max = payload_max(vv_conn_memory_limit(nbd->conns.memory));
    nbd->watch = (struct vv_fs_watch){.door = options->door, .on_inode = vv_nbd_on_inode,
                                      .arg = nbd};
    vv_fs_watch_add(fs, &nbd->watch);
    *out_nbd = nbd;
    return 0;
}

int vv_nbd_listen(struct vv_nbd *nbd, const char *address, unsigned *out_port)
{
    return vv_conns_listen(&nbd->conns, address, out_port);
}

void vv_nbd_close(struct vv_nbd *nbd)
{
    if (!nbd)
        return;
    vv_conns_close(&nbd->conns);
    vv_fs_watch_remove(nbd->fs, &nbd->watch);
    vv_map_done(&nbd->exports);
    vv_free(nbd);
}

void vv_nbd_stats(const struct vv_nbd *nbd, struct vv_nbd_stats *out_stats)
{
    const struct vv_conn_stats *conns = &nbd->conns.stats;
    *out_stats = nbd->stats;
    out_stats->connections = nbd->conns.count;
    out_stats->connections_total = conns->connections_total;
    out_stats->connections_refused = conns->connections_refused;
    out_stats->connections_cut = conns->connections_cut;
    out_stats->protocol_errors = conns->protocol_errors;
    out_stats->memory_bytes = vv_conn_memory_used(nbd->conns.memory);
}
