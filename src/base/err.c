#include "base/err.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

struct err_row {
    const char *name;
    const char *text;
    int errno_class;
};

#define ROW(name, errno_class, text) [VV_ERR_##name - VV_ERR_FIRST] = {#name, text, errno_class}

static const struct err_row rows[VV_ERR_LAST - VV_ERR_FIRST] = {
    ROW(CHECKSUM, EIO, "a checksum does not match: the bytes are damaged"),
    ROW(AUTH, EIO, "data does not authenticate: it is damaged, or the key is wrong"),
    ROW(FORMAT, EIO, "the bytes are not in the format that they should be in"),
    ROW(NEWER, EPROTONOSUPPORT, "written by a newer version of varve"),
    ROW(NOT_VOLUME, ENOENT, "there is no volume at this place"),
    ROW(VOLUME_EXISTS, EEXIST, "there already is a volume at this place"),
    ROW(NO_KEY, EACCES, "the passphrase or key file opens no key slot"),
    ROW(FENCED, EIO, "another writer has taken the volume over"),
    ROW(GAP, EIO, "a log position before the fence is missing"),
    ROW(JOURNAL, EBUSY, "the volume's journal is not here"),
    ROW(LOCKED, EBUSY, "another process on this machine serves the volume"),
    ROW(NOT_OURS, EEXIST, "put-if-absent found somebody else's object there"),
    ROW(UNKNOWN, ETIMEDOUT, "a store request timed out; it may yet take effect"),
    ROW(MISS, EAGAIN, "not in memory: fetch it and plan again"),
    ROW(LIMIT, EOVERFLOW, "a limit was reached"),
    ROW(BUDGET, ENOMEM, "the memory budget has no room"),
    ROW(STOPPED, ESHUTDOWN, "shutting down"),
    ROW(STORE_UNSAFE, EOPNOTSUPP, "the store does not give the guarantees that varve needs"),
    ROW(CORRUPT, EUCLEAN, "structures that authenticate contradict each other"),
    ROW(NO_BUCKET, ENXIO, "the bucket does not exist"),
    ROW(SHUT_DOWN, EIO, "the volume was shut down: what was not synced is lost"),
};

static const struct err_row *row_of(int err)
{
    if (err <= VV_ERR_FIRST || err >= VV_ERR_LAST)
        return NULL;
    const struct err_row *row = &rows[err - VV_ERR_FIRST];
    return row->name ? row : NULL;
}

/* An error as a positive number. INT_MIN has no negative, so all unknown numbers become one. */
static int positive(int err)
{
    if (err < 0)
        return err < -VV_ERR_LAST ? 0x7fffffff : -err;
    return err;
}

const char *vv_err_text(int err)
{
    const struct err_row *row = row_of(positive(err));
    if (row)
        return row->text;
    const char *text = strerrordesc_np(positive(err));
    return text ? text : "unknown error";
}

const char *vv_err_name(int err)
{
    const struct err_row *row = row_of(positive(err));
    if (row)
        return row->name;
    const char *name = strerrorname_np(positive(err));
    return name ? name : "UNKNOWN_ERROR";
}

int vv_err_errno(int err)
{
    if (err >= 0)
        return 0;
    const struct err_row *row = row_of(positive(err));
    if (row)
        return row->errno_class;
    return strerrorname_np(positive(err)) ? -err : EIO;
}
