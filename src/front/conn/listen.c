/* Listening, accepting, closing. */
#include <errno.h>

#include "base/alloc.h"
#include "base/log.h"
#include "front/conn/conn_impl.h"

struct listener {
    struct vv_list node; /* in conns->listeners */
    struct vv_conns *conns;
    struct vv_socket *socket;
    bool is_accepting;
};

void vv_conns_init(struct vv_conns *conns, const struct vv_conn_kind *kind, void *server,
                   struct vv_conn_memory *memory)
{
    *conns = (struct vv_conns){.kind = kind, .server = server, .memory = memory};
    if (!memory) {
        vv_conn_memory_init(&conns->own_memory, 0);
        conns->memory = &conns->own_memory;
    }
    vv_list_init(&conns->listeners);
    vv_list_init(&conns->conns);
    vv_waitq_init(&conns->ended);
}

/* ---- accepting ---- */

/* Close the connection that has been idle for longest: its client makes a new one when it needs it.
 * False when all are busy. */
static bool evict(struct vv_conns *conns)
{
    vv_list_each (node, &conns->conns) {
        struct vv_conn *conn = vv_list_entry(node, struct vv_conn, node);
        if (conn->request_count > 0 || conn->is_broken)
            continue;
        vv_conn_break(conn);
        conns->stats.connections_evicted++;
        return true;
    }
    return false;
}

/* Is there room for one more? May suspend for a moment. */
static bool make_room(struct vv_conns *conns)
{
    while (conns->count >= conns->kind->connections_max && !conns->is_closing) {
        if (!conns->kind->is_evicting || !evict(conns))
            return false;
        vv_waitq_wait(&conns->ended, vv_rt_now_ns() + VV_NS_PER_S);
    }
    return !conns->is_closing;
}

static void accept_all(void *arg)
{
    struct listener *listener = arg;
    struct vv_conns *conns = listener->conns;
    while (!conns->is_closing) {
        struct vv_socket *socket;
        int err = vv_socket_accept(listener->socket, &socket);
        if (err == -VV_ERR_STOPPED)
            break;
        if (err == 0 && !make_room(conns)) {
            vv_socket_close(socket);
            conns->stats.connections_refused++;
            continue;
        }
        if (err == 0)
            err = vv_conn_start(conns, socket);
        if (err < 0) {
            vv_warn(conns->kind->name, "accepting a connection: %s", vv_err_text(err));
            vv_rt_sleep_ns(100 * VV_NS_PER_MS);
        }
    }
    listener->is_accepting = false;
    vv_waitq_wake_all(&conns->ended);
}

int vv_conns_listen(struct vv_conns *conns, const char *address, unsigned *out_port)
{
    struct listener *listener = vv_zalloc(sizeof(*listener));
    if (!listener)
        return -ENOMEM;
    listener->conns = conns;
    int err = vv_socket_listen(address, &listener->socket);
    if (err == 0) {
        err = vv_fiber_start(accept_all, listener, conns->kind->name);
        if (err < 0)
            vv_socket_close(listener->socket);
    }
    if (err < 0) {
        vv_free(listener);
        return err;
    }
    listener->is_accepting = true;
    vv_list_push_back(&conns->listeners, &listener->node);
    if (out_port)
        *out_port = vv_socket_port(listener->socket);
    return 0;
}

/* ---- closing ---- */

static bool is_accepting(const struct vv_conns *conns)
{
    vv_list_each (node, &conns->listeners) {
        if (vv_list_entry(node, struct listener, node)->is_accepting)
            return true;
    }
    return false;
}

void vv_conns_close(struct vv_conns *conns)
{
    conns->is_closing = true;
    vv_list_each (node, &conns->listeners)
        vv_socket_shutdown(vv_list_entry(node, struct listener, node)->socket);
    vv_list_each (node, &conns->conns)
        vv_conn_break(vv_list_entry(node, struct vv_conn, node));
    while (is_accepting(conns) || !vv_list_is_empty(&conns->conns))
        vv_waitq_wait(&conns->ended, VV_NEVER);
    vv_list_each_safe (node, &conns->listeners) {
        struct listener *listener = vv_list_entry(node, struct listener, node);
        vv_list_remove(&listener->node);
        vv_socket_close(listener->socket);
        vv_free(listener);
    }
    if (conns->memory == &conns->own_memory)
        vv_conn_memory_done(&conns->own_memory);
}
