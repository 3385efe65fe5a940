/* Fixed newstyle negotiation: options, one after the other, until one of them begins transmission. */
#include <string.h>

#include "base/log.h"
#include "front/nbd/nbd_impl.h"

static const char no_tls_text[] = "this server wants TLS first";

int vv_nbd_send_answers(struct vv_nbd_conn *conn)
{
    TRY(vv_writer_check(&conn->answers));
    struct iovec iov = {conn->answers.ptr, conn->answers.len};
    int err = vv_stream_send(conn->base.stream, &iov, 1, conn->deadline_ns);
    vv_writer_reset(&conn->answers);
    return err;
}

static int answer(struct vv_nbd_conn *conn, uint32_t option, uint32_t type)
{
    vv_nbd_encode_option_reply(&conn->answers, option, type, 0);
    return vv_nbd_send_answers(conn);
}

static int refuse(struct vv_nbd_conn *conn, uint32_t option, uint32_t type, const char *text)
{
    vv_nbd_encode_rep_error(&conn->answers, option, type, text);
    return vv_nbd_send_answers(conn);
}

/* ---- options ---- */

/* 1: transmission begins. There is no way to refuse: the connection ends. */
static int take_export_name(struct vv_nbd_conn *conn, const struct vv_nbd_option_data *data)
{
    uint64_t size;
    TRY(vv_nbd_export_open(conn->nbd, data->name, &conn->export));
    TRY(vv_nbd_export_size(conn->export, &size));
    conn->has_allocation = conn->is_context_set && conn->context_inode == conn->export->inode;
    vv_nbd_encode_export_name_reply(&conn->answers, size,
                                    vv_nbd_export_flags(conn->export, conn->has_structured),
                                    !conn->has_no_zeroes);
    TRY(vv_nbd_send_answers(conn));
    return 1;
}

static int take_info(struct vv_nbd_conn *conn, uint32_t option,
                     const struct vv_nbd_option_data *data)
{
    bool is_going = false;
    TRY(vv_nbd_answer_info(conn, option, data, &is_going));
    TRY(vv_nbd_send_answers(conn));
    return is_going;
}

static int take_context(struct vv_nbd_conn *conn, uint32_t option,
                        const struct vv_nbd_option_data *data)
{
    TRY(vv_nbd_answer_context(conn, option, data));
    return vv_nbd_send_answers(conn);
}

/* What the client said in the clear does not count any more, and what it sent after asking for TLS
 * without waiting for the answer may be somebody else's. */
static int start_tls(struct vv_nbd_conn *conn)
{
    struct vv_tls *tls = conn->nbd->options.tls;
    if (!tls)
        return refuse(conn, VV_NBD_OPT_STARTTLS, VV_NBD_REP_ERR_UNSUP, "TLS is not set up");
    if (vv_stream_is_tls(conn->base.stream))
        return refuse(conn, VV_NBD_OPT_STARTTLS, VV_NBD_REP_ERR_INVALID, "TLS is on already");
    if (vv_conn_ahead_len(&conn->base) > 0)
        return -EPROTO;
    TRY(answer(conn, VV_NBD_OPT_STARTTLS, VV_NBD_REP_ACK));
    conn->has_structured = false;
    conn->is_context_set = false;
    return vv_stream_start_tls(conn->base.stream, tls, conn->deadline_ns);
}

static int set_structured(struct vv_nbd_conn *conn)
{
    conn->has_structured = true;
    return answer(conn, VV_NBD_OPT_STRUCTURED_REPLY, VV_NBD_REP_ACK);
}

/* 1: transmission begins; 0: the next option; -VV_ERR_STOPPED: the client is done. */
static int take_option(struct vv_nbd_conn *conn, uint32_t option,
                       const struct vv_nbd_option_data *data)
{
    switch (option) {
    case VV_NBD_OPT_EXPORT_NAME:
        return take_export_name(conn, data);
    case VV_NBD_OPT_ABORT:
        TRY(answer(conn, option, VV_NBD_REP_ACK));
        return -VV_ERR_STOPPED;
    case VV_NBD_OPT_LIST:
        return vv_nbd_answer_list(conn);
    case VV_NBD_OPT_STARTTLS:
        return start_tls(conn);
    case VV_NBD_OPT_INFO:
    case VV_NBD_OPT_GO:
        return take_info(conn, option, data);
    case VV_NBD_OPT_STRUCTURED_REPLY:
        return set_structured(conn);
    case VV_NBD_OPT_LIST_META_CONTEXT:
    case VV_NBD_OPT_SET_META_CONTEXT:
        return take_context(conn, option, data);
    default:
        return refuse(conn, option, VV_NBD_REP_ERR_UNSUP, "this option is not known here");
    }
}

static bool is_tls_missing(const struct vv_nbd_conn *conn, uint32_t option)
{
    return conn->nbd->options.is_tls_required && !vv_stream_is_tls(conn->base.stream) &&
           option != VV_NBD_OPT_STARTTLS && option != VV_NBD_OPT_ABORT;
}

static int take_data(struct vv_nbd_conn *conn, const struct vv_nbd_option_head *head,
                     const uint8_t *bytes)
{
    struct vv_nbd_option_data data;
    if (is_tls_missing(conn, head->option)) {
        if (head->option == VV_NBD_OPT_EXPORT_NAME)
            return -EACCES;
        return refuse(conn, head->option, VV_NBD_REP_ERR_TLS_REQD, no_tls_text);
    }
    int err = vv_nbd_decode_option(head->option, bytes, head->len, &data);
    if (err < 0 && head->option == VV_NBD_OPT_EXPORT_NAME)
        return err;
    if (err < 0)
        return refuse(conn, head->option, VV_NBD_REP_ERR_INVALID, "its data makes no sense");
    return take_option(conn, head->option, &data);
}

/* Its data, up to VV_NBD_OPTION_BYTES_MAX; as vv_conn_fill. */
static int receive_data(struct vv_nbd_conn *conn, uint8_t *out, size_t len)
{
    size_t at = 0;
    while (at < len) {
        int filled = vv_conn_fill(&conn->base, 1, conn->deadline_ns);
        if (filled <= 0)
            return filled;
        size_t part = vv_conn_ahead_len(&conn->base);
        if (part > len - at)
            part = len - at;
        if (out)
            memcpy(out + at, vv_conn_ahead(&conn->base), part);
        vv_conn_skip(&conn->base, part);
        at += part;
    }
    return 1;
}

/* One option. 2: the next one; 1: transmission begins; 0: the client has gone. */
static int negotiate_once(struct vv_nbd_conn *conn, uint8_t *bytes)
{
    struct vv_nbd_option_head head;
    int filled = vv_conn_fill(&conn->base, VV_NBD_OPTION_HEAD_BYTES, conn->deadline_ns);
    if (filled <= 0)
        return filled;
    TRY(vv_nbd_decode_option_head(vv_conn_ahead(&conn->base), &head));
    vv_conn_skip(&conn->base, VV_NBD_OPTION_HEAD_BYTES);
    bool is_long = head.len > VV_NBD_OPTION_BYTES_MAX;
    if (head.len > VV_NBD_OPTION_SKIP_MAX)
        return -EPROTO;
    int received = receive_data(conn, is_long ? NULL : bytes, head.len);
    if (received <= 0)
        return received;
    if (is_long && head.option == VV_NBD_OPT_EXPORT_NAME)
        return -EPROTO;
    int result = is_long ? refuse(conn, head.option, VV_NBD_REP_ERR_TOO_BIG, "its data is too long")
                         : take_data(conn, &head, bytes);
    return result == 0 ? 2 : result;
}

static int greet(struct vv_nbd_conn *conn)
{
    vv_nbd_encode_hello(&conn->answers, VV_NBD_FIXED_NEWSTYLE | VV_NBD_NO_ZEROES);
    TRY(vv_nbd_send_answers(conn));
    int filled = vv_conn_fill(&conn->base, VV_NBD_CLIENT_FLAGS_BYTES, conn->deadline_ns);
    if (filled <= 0)
        return filled;
    struct vv_cursor cursor = vv_cursor_of(vv_conn_ahead(&conn->base),
                                           VV_NBD_CLIENT_FLAGS_BYTES);
    uint32_t flags = vv_cursor_be32(&cursor);
    vv_conn_skip(&conn->base, VV_NBD_CLIENT_FLAGS_BYTES);
    conn->has_no_zeroes = flags & VV_NBD_NO_ZEROES;
    return (flags & ~(VV_NBD_FIXED_NEWSTYLE | VV_NBD_NO_ZEROES)) == 0 ? 1 : -EPROTO;
}

int vv_nbd_negotiate(struct vv_nbd_conn *conn)
{
    int greeted = greet(conn);
    if (greeted <= 0)
        return greeted;
    uint8_t *bytes = vv_alloc(VV_NBD_OPTION_BYTES_MAX);
    if (!bytes)
        return -ENOMEM;
    int result = 2;
    for (unsigned i = 0; result == 2; i++)
        result = i < VV_NBD_OPTIONS_MAX ? negotiate_once(conn, bytes) : -EPROTO;
    vv_free(bytes);
    vv_writer_done(&conn->answers);
    return result == -VV_ERR_STOPPED ? 0 : result;
}
