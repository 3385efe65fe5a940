/* A connection: its life, and reading from it. */
#include <string.h>

#include "base/log.h"
#include "front/nbd/nbd_impl.h"

/* ---- reading ---- */

int vv_nbd_fill(struct vv_nbd_conn *conn, size_t len, uint64_t deadline_ns)
{
    while (conn->recv_end - conn->recv_at < len) {
        if (conn->recv_at > 0) {
            conn->recv_end -= conn->recv_at;
            memmove(conn->recv_bytes, conn->recv_bytes + conn->recv_at, conn->recv_end);
            conn->recv_at = 0;
        }
        ssize_t got = vv_stream_recv(conn->stream, conn->recv_bytes + conn->recv_end,
                                     VV_NBD_RECV_BYTES - conn->recv_end, deadline_ns);
        if (got <= 0)
            return (int)got;
        conn->recv_end += (size_t)got;
    }
    return 1;
}

/* The next bytes of a longer piece: what was read ahead, or directly from the stream. */
static ssize_t take_some(struct vv_nbd_conn *conn, uint8_t *out, size_t len, uint64_t deadline_ns)
{
    size_t ahead = conn->recv_end - conn->recv_at;
    if (ahead == 0 && out && len >= VV_NBD_RECV_BYTES / 2)
        return vv_stream_recv(conn->stream, out, len, deadline_ns);
    if (ahead == 0) {
        int filled = vv_nbd_fill(conn, 1, deadline_ns);
        if (filled <= 0)
            return filled;
        ahead = conn->recv_end - conn->recv_at;
    }
    if (ahead > len)
        ahead = len;
    if (out)
        memcpy(out, conn->recv_bytes + conn->recv_at, ahead);
    conn->recv_at += ahead;
    return (ssize_t)ahead;
}

/* One slice at a time, each of which has its time. */
int vv_nbd_take(struct vv_nbd_conn *conn, uint8_t *out, size_t len)
{
    size_t at = 0;
    ssize_t got = 1;
    while (at < len && got > 0) {
        size_t end = len - at < VV_NBD_SLICE_BYTES ? len : at + VV_NBD_SLICE_BYTES;
        conn->recv_since_ns = vv_rt_now_ns();
        uint64_t deadline_ns = conn->recv_since_ns + VV_NBD_STALL_MAX_S * VV_NS_PER_S;
        while (at < end && got > 0) {
            got = take_some(conn, out ? out + at : NULL, end - at, deadline_ns);
            at += got > 0 ? (size_t)got : 0;
        }
    }
    conn->recv_since_ns = 0;
    return got > 0 ? 1 : (int)got;
}

/* ---- life ---- */

void vv_nbd_conn_break(struct vv_nbd_conn *conn)
{
    conn->is_broken = true;
    vv_stream_shutdown(conn->stream);
    vv_waitq_wake_all(&conn->room);
}

static void conn_free(struct vv_nbd_conn *conn)
{
    vv_nbd_export_unref(conn->export);
    vv_writer_done(&conn->answers);
    vv_free(conn->recv_bytes);
    vv_free(conn);
}

/* Logged ever more rarely: whoever makes them shall not fill the log. */
static void note_protocol_error(struct vv_nbd_conn *conn)
{
    uint64_t count = ++conn->nbd->stats.protocol_errors;
    if ((count & (count - 1)) == 0)
        vv_warn("nbd", "client %llu: not NBD, connection closed (%llu such errors)",
                (unsigned long long)conn->number, (unsigned long long)count);
}

static int serve(struct vv_nbd_conn *conn)
{
    int result = vv_nbd_negotiate(conn);
    if (result <= 0)
        return result;
    vv_debug("nbd", "client %llu uses device %.*s%s", (unsigned long long)conn->number,
            (int)conn->export->name_len, conn->export->name,
            vv_stream_is_tls(conn->stream) ? " through TLS" : "");
    return vv_nbd_transmit(conn);
}

/* The connection's fiber. */
static void run(void *arg)
{
    struct vv_nbd_conn *conn = arg;
    struct vv_nbd *nbd = conn->nbd;
    int err = serve(conn);
    if (err == -EPROTO || err == -VV_ERR_FORMAT)
        note_protocol_error(conn);
    if (err < 0)
        vv_debug("nbd", "client %llu: %s", (unsigned long long)conn->number, vv_err_text(err));
    if (err < 0 || nbd->is_closing)
        vv_nbd_conn_break(conn);
    while (conn->request_count > 0)
        vv_waitq_wait(&conn->room, VV_NEVER);
    vv_stream_close(conn->stream);
    vv_list_remove(&conn->node);
    conn_free(conn);
    nbd->stats.connections--;
    vv_waitq_wake_all(&nbd->ended);
}

static int conn_new(struct vv_nbd *nbd, struct vv_nbd_conn **out_conn)
{
    struct vv_nbd_conn *conn = vv_zalloc(sizeof(*conn));
    if (!conn)
        return -ENOMEM;
    conn->answers = vv_writer_new();
    conn->recv_bytes = vv_alloc(VV_NBD_RECV_BYTES);
    if (!conn->recv_bytes) {
        conn_free(conn);
        return -ENOMEM;
    }
    conn->nbd = nbd;
    conn->number = ++nbd->stats.connections_total;
    conn->deadline_ns = vv_rt_now_ns() + VV_NBD_NEGOTIATION_MAX_S * VV_NS_PER_S;
    vv_list_init(&conn->outgoing);
    vv_waitq_init(&conn->room);
    *out_conn = conn;
    return 0;
}

int vv_nbd_conn_start(struct vv_nbd *nbd, struct vv_socket *socket)
{
    struct vv_stream *stream;
    TRY(vv_stream_new(socket, &stream));
    struct vv_nbd_conn *conn = NULL;
    int err = conn_new(nbd, &conn);
    if (err == 0) {
        conn->stream = stream;
        err = vv_fiber_start(run, conn, "nbd connection");
    }
    if (err < 0) {
        vv_stream_close(stream);
        if (conn)
            conn_free(conn);
        return err;
    }
    vv_list_push_back(&nbd->conns, &conn->node);
    nbd->stats.connections++;
    return 0;
}
