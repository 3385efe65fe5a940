/* A connection: its life, and reading from it. */
#include "front/conn/conn.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "front/conn/conn_impl.h"
#include "volume/volume.h"

/* ---- reading ---- */

/* The read-ahead is full: a longer one, if the memory allows. Otherwise this one goes on. */
static void grow(struct vv_conn *conn)
{
    struct vv_budget *budget = &conn->conns->memory->small;
    if (conn->recv_size == VV_CONN_RECV_BYTES || budget->used > budget->limit / 2 ||
        vv_budget_try(budget, VV_CONN_RECV_BYTES) < 0)
        return;
    uint8_t *grown = vv_alloc(VV_CONN_RECV_BYTES);
    if (!grown) {
        vv_budget_release(budget, VV_CONN_RECV_BYTES);
        return;
    }
    memcpy(grown, conn->recv_bytes, conn->recv_end);
    vv_free(conn->recv_bytes);
    conn->recv_bytes = grown;
    conn->recv_size = VV_CONN_RECV_BYTES;
}

int vv_conn_fill(struct vv_conn *conn, size_t len, uint64_t deadline_ns)
{
    while (conn->recv_end - conn->recv_at < len) {
        if (conn->recv_at > 0) {
            conn->recv_end -= conn->recv_at;
            memmove(conn->recv_bytes, conn->recv_bytes + conn->recv_at, conn->recv_end);
            conn->recv_at = 0;
        }
        size_t size = conn->bulk_left > 0 ? VV_CONN_FIRST_BYTES : conn->recv_size;
        ssize_t got = vv_stream_recv(conn->stream, conn->recv_bytes + conn->recv_end,
                                     size - conn->recv_end, deadline_ns);
        if (got <= 0)
            return (int)got;
        conn->recv_end += (size_t)got;
        if (conn->recv_end == conn->recv_size && conn->bulk_left == 0)
            grow(conn);
    }
    return 1;
}

int vv_conn_next(struct vv_conn *conn, size_t len)
{
    if (conn->recv_at == conn->recv_end && conn->request_count > 0)
        vv_fiber_yield();
    if (conn->bulk_left > 0)
        conn->bulk_left--;
    return vv_conn_fill(conn, len, VV_NEVER);
}

/* The next bytes of a longer piece: what was read ahead, or directly from the stream. */
static ssize_t take_some(struct vv_conn *conn, uint8_t *out, size_t len, uint64_t deadline_ns)
{
    size_t ahead = vv_conn_ahead_len(conn);
    if (ahead == 0 && out && len >= conn->recv_size / 2)
        return vv_stream_recv(conn->stream, out, len, deadline_ns);
    if (ahead == 0) {
        int filled = vv_conn_fill(conn, 1, deadline_ns);
        if (filled <= 0)
            return filled;
        ahead = vv_conn_ahead_len(conn);
    }
    if (ahead > len)
        ahead = len;
    if (out)
        memcpy(out, vv_conn_ahead(conn), ahead);
    vv_conn_skip(conn, ahead);
    return (ssize_t)ahead;
}

uint64_t vv_conn_deadline(const struct vv_conn *conn)
{
    return vv_rt_now_ns() + conn->conns->kind->recv_max_s * VV_NS_PER_S;
}

static int take_slice(struct vv_conn *conn, uint8_t *out, size_t len, uint64_t deadline_ns)
{
    conn->recv_since_ns = vv_rt_now_ns();
    uint64_t slice_ns = conn->recv_since_ns + conn->conns->kind->recv_max_s * VV_NS_PER_S;
    if (slice_ns > deadline_ns)
        slice_ns = deadline_ns;
    for (size_t at = 0; at < len;) {
        ssize_t got = take_some(conn, out ? out + at : NULL, len - at, slice_ns);
        if (got <= 0)
            return (int)got;
        at += (size_t)got;
    }
    return 1;
}

int vv_conn_take(struct vv_conn *conn, void *buf, size_t len, uint64_t deadline_ns)
{
    uint8_t *out = buf;
    size_t ahead = vv_conn_ahead_len(conn);
    int taken = 1;
    if (ahead >= len) { /* all is here: no clock */
        if (out && len > 0)
            memcpy(out, vv_conn_ahead(conn), len);
        vv_conn_skip(conn, len);
        return 1;
    }
    for (size_t at = 0; at < len && taken > 0;) {
        size_t part = len - at < VV_CONN_SLICE_BYTES ? len - at : VV_CONN_SLICE_BYTES;
        taken = take_slice(conn, out ? out + at : NULL, part, deadline_ns);
        at += part;
    }
    conn->recv_since_ns = 0;
    return taken;
}

/* The pieces of a payload from `at` on, at most `room` of them; their number. */
static unsigned pieces_from(const struct vv_payload *payload, size_t at, struct iovec *iov,
                            unsigned room)
{
    unsigned used = 0;
    for (unsigned i = 0; i < vv_payload_count(payload) && used < room; i++) {
        struct iovec piece = vv_payload_piece(payload, i);
        if (at < piece.iov_len)
            iov[used++] = (struct iovec){(uint8_t *)piece.iov_base + at, piece.iov_len - at};
        at -= at < piece.iov_len ? at : piece.iov_len;
    }
    return used;
}

/* Some of it, from `at` on: what was read ahead, or from the stream. */
static ssize_t take_pieces(struct vv_conn *conn, const struct vv_payload *payload, size_t at,
                           uint64_t deadline_ns)
{
    struct iovec iov[VV_CONN_PIECES];
    unsigned count = pieces_from(payload, at, iov, VV_CONN_PIECES);
    size_t ahead = vv_conn_ahead_len(conn);
    if (ahead == 0)
        return vv_stream_recv_iov(conn->stream, iov, (int)count, deadline_ns);
    if (ahead > iov[0].iov_len)
        ahead = iov[0].iov_len;
    memcpy(iov[0].iov_base, vv_conn_ahead(conn), ahead);
    vv_conn_skip(conn, ahead);
    return (ssize_t)ahead;
}

int vv_conn_take_payload(struct vv_conn *conn, const struct vv_payload *payload,
                         uint64_t deadline_ns)
{
    size_t len = vv_payload_len(payload);
    size_t slice_end = 0;
    uint64_t slice_ns = 0;
    ssize_t got = 1;
    conn->bulk_left = VV_CONN_BULK_REQUESTS;
    for (size_t at = 0; at < len && got > 0; at += (size_t)got) {
        if (at >= slice_end) {
            slice_end = at + VV_CONN_SLICE_BYTES;
            conn->recv_since_ns = vv_rt_now_ns();
            slice_ns = vv_conn_deadline(conn);
        }
        got = take_pieces(conn, payload, at, slice_ns < deadline_ns ? slice_ns : deadline_ns);
        if (got <= 0)
            break;
    }
    conn->recv_since_ns = 0;
    return got > 0 ? 1 : (int)got;
}

/* ---- life ---- */

void vv_conn_break(struct vv_conn *conn)
{
    conn->is_broken = true;
    vv_stream_shutdown(conn->stream);
    vv_waitq_wake_all(&conn->room);
}

void vv_conn_wait_idle(struct vv_conn *conn, unsigned left)
{
    while (conn->request_count > left)
        vv_waitq_wait(&conn->room, VV_NEVER);
}

static void conn_free(struct vv_conn *conn)
{
    if (conn->recv_size == VV_CONN_RECV_BYTES)
        vv_budget_release(&conn->conns->memory->small, VV_CONN_RECV_BYTES);
    vv_free(conn->recv_bytes);
    vv_free(conn);
}

/* Logged ever more rarely: whoever makes them shall not fill the log. */
static void note_protocol_error(struct vv_conn *conn)
{
    uint64_t count = ++conn->conns->stats.protocol_errors;
    if ((count & (count - 1)) == 0)
        vv_warn(conn->conns->kind->name,
                "client %llu does not speak %s, connection closed (%llu such errors)",
                (unsigned long long)conn->number, conn->conns->kind->speech,
                (unsigned long long)count);
}

/* The connection's fiber. */
static void run(void *arg)
{
    struct vv_conn *conn = arg;
    struct vv_conns *conns = conn->conns;
    const struct vv_conn_kind *kind = conns->kind;
    int err = kind->serve(conn);
    if (err == -EPROTO || err == -VV_ERR_FORMAT)
        note_protocol_error(conn);
    if (err < 0)
        vv_debug(kind->name, "client %llu: %s", (unsigned long long)conn->number, vv_err_text(err));
    if (err < 0 || conns->is_closing)
        vv_conn_break(conn);
    if (kind->stop)
        kind->stop(conn);
    vv_conn_wait_idle(conn, 0);
    if (kind->close)
        kind->close(conn);
    vv_stream_close(conn->stream);
    vv_list_remove(&conn->node);
    vv_list_remove(&conn->memory_node);
    conn_free(conn);
    conns->count--;
    vv_waitq_wake_all(&conns->ended);
}

static int conn_new(struct vv_conns *conns, struct vv_conn **out_conn)
{
    struct vv_conn *conn = vv_zalloc(conns->kind->conn_bytes);
    if (!conn)
        return -ENOMEM;
    conn->recv_bytes = vv_alloc(VV_CONN_FIRST_BYTES);
    if (!conn->recv_bytes) {
        vv_free(conn);
        return -ENOMEM;
    }
    conn->recv_size = VV_CONN_FIRST_BYTES;
    conn->conns = conns;
    conn->number = ++conns->stats.connections_total;
    vv_list_init(&conn->node);
    vv_list_init(&conn->memory_node);
    vv_list_init(&conn->outgoing);
    vv_waitq_init(&conn->room);
    *out_conn = conn;
    return 0;
}

static int conn_open(struct vv_conn *conn)
{
    const struct vv_conn_kind *kind = conn->conns->kind;
    TRY(kind->open ? kind->open(conn) : 0);
    int err = vv_fiber_start(run, conn, kind->name);
    if (err < 0 && kind->close)
        kind->close(conn);
    return err;
}

int vv_conn_start(struct vv_conns *conns, struct vv_socket *socket)
{
    struct vv_stream *stream;
    struct vv_conn *conn = NULL;
    TRY(vv_stream_new(socket, &stream));
    int err = conn_new(conns, &conn);
    if (err == 0) {
        conn->stream = stream;
        err = conn_open(conn);
    }
    if (err < 0) {
        vv_stream_close(stream);
        if (conn)
            conn_free(conn);
        return err == -ENOTCONN ? 0 : err;
    }
    vv_list_push_back(&conns->conns, &conn->node);
    vv_list_push_back(&conns->memory->conns, &conn->memory_node);
    conns->count++;
    return 0;
}
