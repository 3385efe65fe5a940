/* Opening and closing; and the table of operations. */
#include "front/ninep/ninep_impl.h"

static void ninep_free(struct vv_ninep *ninep)
{
    if (ninep->users.buckets)
        vv_ninep_users_done(ninep);
    vv_free(ninep);
}

static uint32_t clamp_msize(uint32_t msize)
{
    if (msize == 0 || msize > VV_NINEP_MSIZE_MAX)
        return VV_NINEP_MSIZE_MAX;
    return msize < VV_NINEP_MSIZE_MIN ? VV_NINEP_MSIZE_MIN : msize;
}

/* Their fibers take no more than half of what requests may. */
static unsigned lock_waiters_max(uint64_t memory_bytes)
{
    uint64_t count = memory_bytes / VV_CONN_REQUEST_COST / 2;
    return count < VV_NINEP_LOCK_WAITERS_MAX ? VV_NINEP_LOCK_WAITERS_MAX : (unsigned)count;
}

int vv_ninep_listen(struct vv_fs *fs, const struct vv_ninep_options *options,
                    struct vv_ninep **out_ninep)
{
    struct vv_ninep *ninep = vv_zalloc(sizeof(*ninep));
    if (!ninep)
        return -ENOMEM;
    ninep->fs = fs;
    ninep->options = *options;
    ninep->options.address = NULL;
    ninep->options.msize_max = clamp_msize(options->msize_max);
    vv_conns_init(&ninep->conns, &vv_ninep_conn_kind, ninep, options->memory);
    ninep->lock_waiters_max = lock_waiters_max(vv_conn_memory_limit(ninep->conns.memory));
    vv_waitq_init(&ninep->user_loaded);
    int err = vv_map_init(&ninep->users);
    if (err == 0)
        err = vv_conns_listen(&ninep->conns, options->address, &ninep->port);
    if (err < 0) {
        ninep_free(ninep);
        return err;
    }
    *out_ninep = ninep;
    return 0;
}

void vv_ninep_close(struct vv_ninep *ninep)
{
    if (!ninep)
        return;
    vv_conns_close(&ninep->conns);
    ninep_free(ninep);
}

unsigned vv_ninep_port(const struct vv_ninep *ninep)
{
    return ninep->port;
}

void vv_ninep_stats(const struct vv_ninep *ninep, struct vv_ninep_stats *out_stats)
{
    const struct vv_conn_stats *conns = &ninep->conns.stats;
    *out_stats = ninep->stats;
    out_stats->connections = ninep->conns.count;
    out_stats->connections_total = conns->connections_total;
    out_stats->connections_refused = conns->connections_refused;
    out_stats->protocol_errors = conns->protocol_errors;
}

static const struct vv_ninep_op ops[] = {
    [VV_NINEP_TSTATFS] = {vv_ninep_statfs, false},
    [VV_NINEP_TLOPEN] = {vv_ninep_lopen, false},
    [VV_NINEP_TLCREATE] = {vv_ninep_lcreate, true},
    [VV_NINEP_TSYMLINK] = {vv_ninep_symlink, true},
    [VV_NINEP_TMKNOD] = {vv_ninep_mknod, true},
    [VV_NINEP_TRENAME] = {vv_ninep_rename, true},
    [VV_NINEP_TREADLINK] = {vv_ninep_readlink, false},
    [VV_NINEP_TGETATTR] = {vv_ninep_getattr, false},
    [VV_NINEP_TSETATTR] = {vv_ninep_setattr, true},
    [VV_NINEP_TXATTRWALK] = {vv_ninep_xattrwalk, false},
    [VV_NINEP_TXATTRCREATE] = {vv_ninep_xattrcreate, true},
    [VV_NINEP_TREADDIR] = {vv_ninep_readdir, false},
    [VV_NINEP_TFSYNC] = {vv_ninep_fsync, false},
    [VV_NINEP_TLOCK] = {vv_ninep_lock, false},
    [VV_NINEP_TGETLOCK] = {vv_ninep_getlock, false},
    [VV_NINEP_TLINK] = {vv_ninep_link, true},
    [VV_NINEP_TMKDIR] = {vv_ninep_mkdir, true},
    [VV_NINEP_TRENAMEAT] = {vv_ninep_renameat, true},
    [VV_NINEP_TUNLINKAT] = {vv_ninep_unlinkat, true},
    [VV_NINEP_TAUTH] = {vv_ninep_auth, false},
    [VV_NINEP_TATTACH] = {vv_ninep_attach, false},
    [VV_NINEP_TFLUSH] = {vv_ninep_flush, false},
    [VV_NINEP_TWALK] = {vv_ninep_walk, false},
    [VV_NINEP_TREAD] = {vv_ninep_read, false},
    [VV_NINEP_TWRITE] = {vv_ninep_write, true},
    [VV_NINEP_TCLUNK] = {vv_ninep_clunk, false},
    [VV_NINEP_TREMOVE] = {vv_ninep_remove, true},
};

const struct vv_ninep_op *vv_ninep_op_of(uint8_t type)
{
    static const struct vv_ninep_op none;
    return type < sizeof(ops) / sizeof(ops[0]) ? &ops[type] : &none;
}
