/* The options whose answers take more than a line: LIST, INFO and GO, LIST_ and SET_META_CONTEXT. */
#include <string.h>

#include "base/log.h"
#include "front/nbd/nbd_impl.h"

#define LIST_BATCH 32 /* devices asked for at once */

/* ---- LIST ---- */

int vv_nbd_answer_list(struct vv_nbd_conn *conn)
{
    struct vv_nbd *nbd = conn->nbd;
    CLEANUP(vv_free_ptr) struct vv_dirent *entries = vv_calloc(LIST_BATCH, sizeof(*entries));
    uint64_t after = 0;
    if (!entries)
        return -ENOMEM;
    do {
        int count = vv_nbd_device_list(nbd->fs, nbd->options.door, &after, entries, LIST_BATCH);
        if (count < 0) {
            vv_nbd_encode_rep_error(&conn->answers, VV_NBD_OPT_LIST, VV_NBD_REP_ERR_POLICY,
                                    vv_err_text(count));
            return vv_nbd_send_answers(conn);
        }
        for (int i = 0; i < count; i++)
            vv_nbd_encode_rep_server(
                &conn->answers, VV_NBD_OPT_LIST,
                (struct vv_bytes){(const uint8_t *)entries[i].name, entries[i].name_len});
        TRY(vv_nbd_send_answers(conn));
    } while (after != 0);
    vv_nbd_encode_option_reply(&conn->answers, VV_NBD_OPT_LIST, VV_NBD_REP_ACK, 0);
    return vv_nbd_send_answers(conn);
}

/* ---- INFO, GO ---- */

static void refuse_export(struct vv_nbd_conn *conn, uint32_t option, int err)
{
    bool is_unknown = err == -ENOENT || err == -EINVAL || err == -ENAMETOOLONG || err == -ENOTDIR;
    vv_nbd_encode_rep_error(&conn->answers, option,
                            is_unknown ? VV_NBD_REP_ERR_UNKNOWN : VV_NBD_REP_ERR_POLICY,
                            is_unknown ? "there is no such device" : vv_err_text(err));
}

static void put_infos(struct vv_nbd_conn *conn, uint32_t option,
                      const struct vv_nbd_export *export, uint64_t size, uint32_t infos)
{
    vv_nbd_encode_info_export(&conn->answers, option, size,
                              vv_nbd_export_flags(export, conn->has_structured));
    if (infos & 1u << VV_NBD_INFO_NAME)
        vv_nbd_encode_info_name(
            &conn->answers, option,
            (struct vv_bytes){(const uint8_t *)export->name, export->name_len});
    if (infos & 1u << VV_NBD_INFO_BLOCK_SIZE)
        vv_nbd_encode_info_block_size(&conn->answers, option, 1, VV_NBD_PREFERRED_BYTES,
                                      conn->nbd->payload_max);
    vv_nbd_encode_option_reply(&conn->answers, option, VV_NBD_REP_ACK, 0);
}

int vv_nbd_answer_info(struct vv_nbd_conn *conn, uint32_t option,
                       const struct vv_nbd_option_data *data, bool *out_is_going)
{
    CLEANUP(vv_nbd_export_unref_ptr) struct vv_nbd_export *export = NULL;
    uint64_t size = 0;
    int err = vv_nbd_export_open(conn->nbd, data->name, &export);
    if (err == 0)
        err = vv_nbd_export_size(export, &size);
    if (err < 0) {
        refuse_export(conn, option, err);
        return 0;
    }
    put_infos(conn, option, export, size, data->infos);
    if (option == VV_NBD_OPT_INFO)
        return 0;
    conn->has_allocation = conn->is_context_set && conn->context_inode == export->inode;
    conn->export = export;
    export = NULL;
    *out_is_going = true;
    return 0;
}

/* ---- meta contexts ---- */

static bool is_text(struct vv_bytes bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.ptr, text, bytes.len) == 0;
}

/* LIST wants all when it asks for nothing, and all of a namespace for its name; SET wants what it
 * names. */
static bool is_wanted(uint32_t option, struct vv_nbd_option_data data)
{
    struct vv_bytes query;
    bool is_listing = option == VV_NBD_OPT_LIST_META_CONTEXT;
    if (is_listing && data.query_count == 0)
        return true;
    while (vv_nbd_next_query(&data, &query)) {
        if (is_text(query, VV_NBD_CONTEXT_ALLOCATION) || (is_listing && is_text(query, "base:")))
            return true;
    }
    return false;
}

int vv_nbd_answer_context(struct vv_nbd_conn *conn, uint32_t option,
                          const struct vv_nbd_option_data *data)
{
    CLEANUP(vv_nbd_export_unref_ptr) struct vv_nbd_export *export = NULL;
    bool is_setting = option == VV_NBD_OPT_SET_META_CONTEXT;
    if (is_setting)
        conn->is_context_set = false;
    if (is_setting && !conn->has_structured) {
        vv_nbd_encode_rep_error(&conn->answers, option, VV_NBD_REP_ERR_INVALID,
                                "structured replies come first");
        return 0;
    }
    int err = vv_nbd_export_open(conn->nbd, data->name, &export);
    if (err < 0) {
        refuse_export(conn, option, err);
        return 0;
    }
    if (is_wanted(option, *data)) {
        vv_nbd_encode_rep_context(&conn->answers, option, is_setting ? VV_NBD_CONTEXT_ID : 0,
                                  VV_NBD_CONTEXT_ALLOCATION);
        conn->is_context_set |= is_setting;
        if (is_setting)
            conn->context_inode = export->inode;
    }
    vv_nbd_encode_option_reply(&conn->answers, option, VV_NBD_REP_ACK, 0);
    return 0;
}
