#include "base/err.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "tap.h"

static int try_it(int err, int *reached)
{
    TRY(err);
    *reached = 1;
    return 7;
}

int main(void)
{
    bool has_all = true;
    for (int err = VV_ERR_FIRST + 1; err < VV_ERR_LAST; err++) {
        has_all &= strcmp(vv_err_name(-err), "UNKNOWN_ERROR") != 0;
        has_all &= strcmp(vv_err_text(-err), "unknown error") != 0;
        has_all &= vv_err_errno(-err) > 0;
        for (int other = VV_ERR_FIRST + 1; other < err; other++)
            has_all &= strcmp(vv_err_name(err), vv_err_name(other)) != 0;
    }
    tap_ok(has_all, "every VV_ERR_* has its own name, a text and an errno class");
    tap_is_str(vv_err_name(-VV_ERR_CHECKSUM), "CHECKSUM", "name of a negative error");
    tap_is_str(vv_err_name(VV_ERR_CHECKSUM), "CHECKSUM", "name of its positive number");
    tap_is_str(vv_err_name(-ENOSPC), "ENOSPC", "name of an errno");
    tap_is_str(vv_err_text(-ENOENT), "No such file or directory", "text of an errno");
    tap_is_int(vv_err_errno(-VV_ERR_FENCED), EIO, "class of FENCED");
    tap_is_int(vv_err_errno(-VV_ERR_MISS), EAGAIN, "class of MISS");
    tap_is_int(vv_err_errno(-ENOSPC), ENOSPC, "class of an errno");
    tap_is_int(vv_err_errno(0), 0, "class of success");
    tap_is_int(vv_err_errno(5), 0, "class of a count");
    tap_is_int(vv_err_errno(-VV_ERR_FIRST), EIO, "class of a number that is no error");
    tap_is_int(vv_err_errno(INT_MIN), EIO, "class of INT_MIN");
    tap_is_str(vv_err_name(INT_MIN), "UNKNOWN_ERROR", "name of INT_MIN");

    int reached = 0;
    tap_is_int(try_it(-EPERM, &reached), -EPERM, "TRY returns the error");
    tap_is_int(reached, 0, "TRY returns early");
    tap_is_int(try_it(3, &reached), 7, "TRY goes on after a count");
    return tap_done();
}
