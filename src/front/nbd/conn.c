/* A connection: negotiation, then requests. */
#include "base/log.h"
#include "front/nbd/nbd_impl.h"

static struct vv_nbd_conn *conn_of(struct vv_conn *base)
{
    return vv_container_of(base, struct vv_nbd_conn, base);
}

static int open_conn(struct vv_conn *base)
{
    struct vv_nbd_conn *conn = conn_of(base);
    conn->nbd = base->conns->server;
    conn->answers = vv_writer_new();
    conn->deadline_ns = vv_rt_now_ns() + VV_NBD_NEGOTIATION_MAX_S * VV_NS_PER_S;
    return 0;
}

static int serve(struct vv_conn *base)
{
    struct vv_nbd_conn *conn = conn_of(base);
    int result = vv_nbd_negotiate(conn);
    if (result <= 0)
        return result;
    vv_debug("nbd", "client %llu uses device %.*s%s", (unsigned long long)base->number,
            (int)conn->export->name_len, conn->export->name,
            vv_stream_is_tls(base->stream) ? " through TLS" : "");
    return vv_nbd_transmit(conn);
}

static void close_conn(struct vv_conn *base)
{
    struct vv_nbd_conn *conn = conn_of(base);
    vv_nbd_export_unref(conn->export);
    vv_writer_done(&conn->answers);
}

const struct vv_conn_kind vv_nbd_conn_kind = {
    .name = "nbd",
    .speech = "NBD",
    .conn_bytes = sizeof(struct vv_nbd_conn),
    .connections_max = VV_NBD_CONNECTIONS_MAX,
    .requests_max = VV_NBD_REQUESTS_MAX,
    .recv_max_s = VV_NBD_STALL_MAX_S,
    .send_max_s = VV_NBD_STALL_MAX_S,
    .open = open_conn,
    .serve = serve,
    .close = close_conn,
    .done = vv_nbd_job_done,
};
