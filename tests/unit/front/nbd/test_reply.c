/* What errors become on the wire. */
#include "front/nbd/nbd_impl.h"

#include "tap.h"

static const struct {
    int err;
    uint32_t wire;
} errors[] = {
    {0, 0},
    {17, 0}, /* a count */
    {-EPERM, VV_NBD_EPERM},
    {-EACCES, VV_NBD_EPERM},
    {-EROFS, VV_NBD_EPERM},
    {-EIO, VV_NBD_EIO},
    {-ENOMEM, VV_NBD_ENOMEM},
    {-VV_ERR_BUDGET, VV_NBD_ENOMEM},
    {-EINVAL, VV_NBD_EINVAL},
    {-ENOSPC, VV_NBD_ENOSPC},
    {-EDQUOT, VV_NBD_ENOSPC},
    {-EFBIG, VV_NBD_ENOSPC},
    {-EOVERFLOW, VV_NBD_EOVERFLOW},
    {-VV_ERR_LIMIT, VV_NBD_EOVERFLOW},
    {-EOPNOTSUPP, VV_NBD_ENOTSUP},
    {-ESHUTDOWN, VV_NBD_ESHUTDOWN},
    {-VV_ERR_STOPPED, VV_NBD_ESHUTDOWN},
    {-VV_ERR_FENCED, VV_NBD_EIO},
    {-VV_ERR_AUTH, VV_NBD_EIO},
    {-VV_ERR_CORRUPT, VV_NBD_EIO},
    {-ESTALE, VV_NBD_EIO},
    {-ETIMEDOUT, VV_NBD_EIO},
    {-123456, VV_NBD_EIO},
};

int main(void)
{
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        tap_is_int(vv_nbd_error_of(errors[i].err), errors[i].wire, "%s", vv_err_name(errors[i].err));
    return tap_done();
}
