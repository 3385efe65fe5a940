/* Listening, accepting, closing; and the table of operations. */
#include "base/log.h"
#include "front/ninep/ninep_impl.h"

static void accept_all(void *arg)
{
    struct vv_ninep *ninep = arg;
    while (!ninep->is_closing) {
        struct vv_socket *socket;
        int err = vv_socket_accept(ninep->listener, &socket);
        if (err == -VV_ERR_STOPPED)
            break;
        if (err == 0 && ninep->stats.connections >= VV_NINEP_CONNECTIONS_MAX) {
            vv_socket_close(socket);
            ninep->stats.connections_refused++;
            continue;
        }
        if (err == 0)
            err = vv_ninep_conn_start(ninep, socket);
        if (err < 0) {
            vv_warn("ninep", "accepting a connection: %s", vv_err_text(err));
            vv_rt_sleep_ns(100 * VV_NS_PER_MS);
        }
    }
    ninep->is_accepting = false;
    vv_waitq_wake_all(&ninep->ended);
}

static void ninep_free(struct vv_ninep *ninep)
{
    if (ninep->listener)
        vv_socket_close(ninep->listener);
    if (ninep->users.buckets)
        vv_ninep_users_done(ninep);
    vv_ninep_buffers_done(ninep);
    vv_free(ninep);
}

static uint32_t clamp_msize(uint32_t msize)
{
    if (msize == 0 || msize > VV_NINEP_MSIZE_MAX)
        return VV_NINEP_MSIZE_MAX;
    return msize < VV_NINEP_MSIZE_MIN ? VV_NINEP_MSIZE_MIN : msize;
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
    vv_list_init(&ninep->conns);
    vv_waitq_init(&ninep->ended);
    vv_waitq_init(&ninep->user_loaded);
    int err = vv_map_init(&ninep->users);
    if (err == 0)
        err = vv_socket_listen(options->address, &ninep->listener);
    if (err == 0)
        err = vv_fiber_start(accept_all, ninep, "ninep accept");
    if (err < 0) {
        ninep_free(ninep);
        return err;
    }
    ninep->is_accepting = true;
    *out_ninep = ninep;
    return 0;
}

void vv_ninep_close(struct vv_ninep *ninep)
{
    if (!ninep)
        return;
    ninep->is_closing = true;
    vv_socket_shutdown(ninep->listener);
    vv_list_each (node, &ninep->conns)
        vv_socket_shutdown(vv_list_entry(node, struct vv_ninep_conn, node)->socket);
    while (ninep->is_accepting || !vv_list_is_empty(&ninep->conns))
        vv_waitq_wait(&ninep->ended, VV_NEVER);
    ninep_free(ninep);
}

unsigned vv_ninep_port(const struct vv_ninep *ninep)
{
    return vv_socket_port(ninep->listener);
}

void vv_ninep_stats(const struct vv_ninep *ninep, struct vv_ninep_stats *out_stats)
{
    *out_stats = ninep->stats;
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
