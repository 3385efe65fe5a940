/* The changes of a commit: any bytes are refused or applied, and what was applied comes back. */
#include <assert.h>
#include <string.h>

#include "lsm/lsm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vv_writer encode(struct vv_lsm *lsm, uint64_t first, uint64_t last)
{
    struct vv_writer writer = vv_writer_new();
    int err = vv_lsm_changes_encode(lsm, first, last, &writer);
    assert(err == 0);
    assert(writer.len <= vv_lsm_changes_bytes(lsm, first, last));
    return writer;
}

/* Applied as one commit, encoded, applied elsewhere and encoded again: the same bytes. */
static void check_round(struct vv_lsm *from, struct vv_lsm *to)
{
    struct vv_writer once = encode(from, 1, 1);
    int err = vv_lsm_changes_apply(to, 1, (struct vv_bytes){once.ptr, once.len});
    assert(err == 0);
    struct vv_writer twice = encode(to, 1, 1);
    assert(once.len == twice.len);
    assert(once.len == 0 || memcmp(once.ptr, twice.ptr, once.len) == 0);
    vv_writer_done(&once);
    vv_writer_done(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vv_budget budget;
    vv_budget_init(&budget, NULL, UINT64_MAX);
    struct vv_lsm_options options = {.mem_budget = &budget};
    struct vv_lsm *from = NULL;
    struct vv_lsm *to = NULL;
    int err = vv_lsm_new(&options, &from);
    assert(err == 0);
    err = vv_lsm_new(&options, &to);
    assert(err == 0);
    err = vv_lsm_changes_apply(from, 1, (struct vv_bytes){data, size});
    assert(err == 0 || err == -VV_ERR_FORMAT);
    if (err == 0)
        check_round(from, to);
    vv_lsm_free(from);
    vv_lsm_free(to);
    assert(budget.used == 0);
    return 0;
}
