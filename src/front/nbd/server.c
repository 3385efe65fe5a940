/* Listening, accepting, closing. */
#include <string.h>

#include "base/log.h"
#include "front/nbd/nbd_impl.h"

static void accept_all(void *arg)
{
    struct vv_nbd_listener *listener = arg;
    struct vv_nbd *nbd = listener->nbd;
    while (!nbd->is_closing) {
        struct vv_socket *socket;
        int err = vv_socket_accept(listener->socket, &socket);
        if (err == -VV_ERR_STOPPED)
            break;
        if (err == 0 && nbd->stats.connections >= VV_NBD_CONNECTIONS_MAX) {
            vv_socket_close(socket);
            nbd->stats.connections_refused++;
            continue;
        }
        if (err == 0)
            err = vv_nbd_conn_start(nbd, socket);
        if (err < 0) {
            vv_warn("nbd", "accepting a connection: %s", vv_err_text(err));
            vv_rt_sleep_ns(100 * VV_NS_PER_MS);
        }
    }
    listener->is_accepting = false;
    vv_waitq_wake_all(&nbd->ended);
}

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
    uint64_t memory = options->memory_bytes == 0 ? VV_NBD_PAYLOAD_MAX : options->memory_bytes;
    nbd->payload_max = payload_max(memory);
    vv_budget_init(&nbd->small, NULL, memory / 4);
    vv_budget_init(&nbd->large, NULL, memory - memory / 4);
    vv_list_init(&nbd->listeners);
    vv_list_init(&nbd->conns);
    vv_waitq_init(&nbd->ended);
    nbd->watch = (struct vv_fs_watch){.door = options->door, .on_inode = vv_nbd_on_inode,
                                      .arg = nbd};
    vv_fs_watch_add(fs, &nbd->watch);
    *out_nbd = nbd;
    return 0;
}

int vv_nbd_listen(struct vv_nbd *nbd, const char *address, unsigned *out_port)
{
    struct vv_nbd_listener *listener = vv_zalloc(sizeof(*listener));
    if (!listener)
        return -ENOMEM;
    listener->nbd = nbd;
    int err = vv_socket_listen(address, &listener->socket);
    if (err == 0) {
        err = vv_fiber_start(accept_all, listener, "nbd accept");
        if (err < 0)
            vv_socket_close(listener->socket);
    }
    if (err < 0) {
        vv_free(listener);
        return err;
    }
    listener->is_accepting = true;
    vv_list_push_back(&nbd->listeners, &listener->node);
    if (out_port)
        *out_port = vv_socket_port(listener->socket);
    return 0;
}

static bool is_accepting(const struct vv_nbd *nbd)
{
    vv_list_each (node, &nbd->listeners) {
        if (vv_list_entry(node, struct vv_nbd_listener, node)->is_accepting)
            return true;
    }
    return false;
}

void vv_nbd_close(struct vv_nbd *nbd)
{
    if (!nbd)
        return;
    nbd->is_closing = true;
    vv_list_each (node, &nbd->listeners)
        vv_socket_shutdown(vv_list_entry(node, struct vv_nbd_listener, node)->socket);
    vv_list_each (node, &nbd->conns)
        vv_nbd_conn_break(vv_list_entry(node, struct vv_nbd_conn, node));
    while (is_accepting(nbd) || !vv_list_is_empty(&nbd->conns))
        vv_waitq_wait(&nbd->ended, VV_NEVER);
    vv_list_each_safe (node, &nbd->listeners) {
        struct vv_nbd_listener *listener = vv_list_entry(node, struct vv_nbd_listener, node);
        vv_list_remove(&listener->node);
        vv_socket_close(listener->socket);
        vv_free(listener);
    }
    vv_fs_watch_remove(nbd->fs, &nbd->watch);
    vv_nbd_buffers_done(nbd);
    vv_map_done(&nbd->exports);
    vv_free(nbd);
}

void vv_nbd_stats(const struct vv_nbd *nbd, struct vv_nbd_stats *out_stats)
{
    *out_stats = nbd->stats;
    out_stats->memory_bytes = nbd->small.used + nbd->large.used;
}
