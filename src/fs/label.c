/* The volume's label: what people call it. One record, table K, key "label". */
#include <string.h>

#include "fs/fs_impl.h"

static const struct vv_bytes label_key = {(const uint8_t *)"Klabel", 6};

struct label_call {
    char *out;        /* VV_LABEL_MAX + 1 bytes, when it is asked for */
    const char *text; /* when it is set */
};

static int get_label(struct vv_op *op, void *arg)
{
    struct label_call *call = arg;
    struct vv_bytes value;
    int found = vv_op_get(op, label_key, &value);
    TRY(found);
    size_t len = found > 0 ? value.len : 0;
    if (len > VV_LABEL_MAX)
        return -VV_ERR_CORRUPT;
    if (len > 0)
        memcpy(call->out, value.ptr, len);
    memset(call->out + len, 0, VV_LABEL_MAX + 1 - len);
    return 0;
}

static int set_label(struct vv_op *op, void *arg)
{
    const struct label_call *call = arg;
    size_t len = strlen(call->text);
    if (len == 0)
        return vv_op_delete(op, label_key);
    return vv_op_put(op, label_key, (struct vv_bytes){(const uint8_t *)call->text, len});
}

int vv_fs_label(struct vv_volume *volume, char out[VV_LABEL_MAX + 1])
{
    struct label_call call = {.out = out};
    return vv_volume_run(volume, VV_OP_READ, 0, get_label, &call);
}

int vv_fs_set_label(struct vv_volume *volume, const char *text)
{
    struct label_call call = {.text = text};
    if (strlen(text) > VV_LABEL_MAX)
        return -EINVAL;
    TRY(vv_volume_run(volume, VV_OP_WRITE, 0, set_label, &call));
    return vv_volume_sync(volume, 0);
}
