/* Flush: rotated memtables become one run of level-0 tables. */
#include <assert.h>
#include <errno.h>

#include "base/alloc.h"
#include "lsm/output_impl.h"

struct flush {
    struct vv_output output;
    struct vv_mem_source *mems;
    size_t mem_count;
    uint64_t last_commit; /* of the newest memtable written */
};

static bool is_flushed(const struct vv_memtable *mem, uint64_t commit)
{
    return mem->last_commit != UINT64_MAX && mem->last_commit <= commit;
}

static int add_memtables(struct flush *flush, struct vv_lsm *lsm, uint64_t commit)
{
    size_t count = 0;
    vv_list_each (node, &lsm->memtables)
        count += is_flushed(vv_list_entry(node, struct vv_memtable, link), commit);
    TRY(vv_output_init(&flush->output, lsm, 0, count));
    flush->mems = vv_calloc(count + 1, sizeof(*flush->mems));
    if (!flush->mems)
        return -ENOMEM;
    vv_list_each (node, &lsm->memtables) {
        struct vv_memtable *mem = vv_list_entry(node, struct vv_memtable, link);
        if (!is_flushed(mem, commit))
            break;
        struct vv_mem_source *source = &flush->mems[flush->mem_count++];
        vv_memtable_seal(mem);
        vv_memtable_ref(mem);
        vv_mem_source_init(source, mem, (uint32_t)(count - flush->mem_count),
                           (struct vv_bytes){NULL, 0}, (struct vv_bytes){NULL, 0});
        vv_merge_add(&flush->output.merge, &source->source);
        flush->last_commit = mem->last_commit;
    }
    return 0;
}

static int flush_memtables(struct flush *flush, struct vv_lsm *lsm, uint64_t commit,
                           struct vv_lsm_edit *edit)
{
    TRY(add_memtables(flush, lsm, commit));
    flush->output.edit = edit;
    flush->output.order = lsm->next_order++;
    TRY(vv_output_run(&flush->output));
    edit->flushed = flush->last_commit;
    lsm->stats.bytes_flushed += flush->output.bytes;
    return vv_edit_promise(lsm, edit);
}

int vv_lsm_prepare_flush(struct vv_lsm *lsm, uint64_t commit, struct vv_lsm_edit **out_edit)
{
    assert(!lsm->is_flushing);
    struct vv_lsm_edit *edit;
    TRY(vv_edit_new(0, &edit));
    edit->is_flush = true;
    lsm->is_flushing = true;
    struct flush flush = {0};
    int err = flush_memtables(&flush, lsm, commit, edit);
    vv_output_done(&flush.output);
    for (size_t i = 0; i < flush.mem_count; i++)
        vv_memtable_unref(flush.mems[i].mem);
    vv_free(flush.mems);
    if (err < 0) {
        vv_lsm_abandon(lsm, edit);
        return err;
    }
    *out_edit = edit;
    return 0;
}
