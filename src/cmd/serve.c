/* varve serve: open a volume and serve it through its doors until told to stop. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "cache/disk.h"
#include "cmd/cmd.h"
#include "cmd/server.h"
#include "fs/fs.h"
#include "front/admin/admin.h"
#include "front/fuse/fuse.h"
#include "front/nfs/nfs.h"
#include "front/ninep/ninep.h"
#include "rt/rt.h"

#define CONN_MEMORY_SHARE 8 /* requests of 9P, NFS and NBD may hold this part of the memory, ... */
#define CONN_MEMORY_MAX (128ull << 20) /* ... which more of does not make quicker */

static void on_signal(void *arg)
{
    struct vv_server *server = arg;
    server->is_stopping = true;
    vv_waitq_wake_all(&server->stop);
}

/* Wakes the main fiber when the volume is fenced. */
static void watch_fence(void *arg)
{
    struct vv_server *server = arg;
    while (!server->is_stopping && !vv_volume_is_fenced(server->volume))
        vv_waitq_wait(vv_volume_fence_waitq(server->volume), VV_NEVER);
    on_signal(server);
    server->is_watching = false;
    vv_waitq_wake_all(&server->stop);
}

static void volume_options(const struct vv_server *server, const struct vv_options *options,
                           struct vv_volume_options *out)
{
    memset(out, 0, sizeof *out);
    out->store = server->store;
    out->ring = server->ring;
    out->durability = vv_place_durability(&server->place, options);
    out->journal_path = out->durability == VV_DURABILITY_JOURNAL ? server->place.journal : NULL;
    out->is_abandoning_journal = options->is_abandoning_journal;
    out->is_syncing_replay = true;
    out->seen = &server->seen;
    out->is_read_only = options->is_read_only;
    out->memory_bytes = options->memory_bytes - vv_server_cache_memory(options);
}

/* From journal to bucket durability: let the journal's last commits reach the store, then go on without it. */
static int leave_journal(struct vv_server *server, struct vv_volume_options *options)
{
    options->journal_path = server->place.journal;
    struct vv_volume *volume;
    TRY(vv_volume_open(options, &volume));
    /* What only the journal has would be lost: the durability is that of the bucket already, so a sync waits for that. */
    int err = vv_volume_sync(volume, 0);
    int close_err = vv_volume_close(volume);
    TRY(err);
    TRY(close_err);
    options->journal_path = NULL;
    options->is_abandoning_journal = true;
    return vv_volume_open(options, &server->volume);
}

static int apply_settings(struct vv_server *server, const struct vv_options *options)
{
    struct vv_seal_settings settings = *vv_volume_settings(server->volume);
    if (options->is_cipher_set)
        settings.cipher = options->settings.cipher;
    if (options->is_compression_set) {
        settings.compression = options->settings.compression;
        settings.level = options->settings.level;
    }
    if (memcmp(&settings, vv_volume_settings(server->volume), sizeof settings) == 0)
        return 0;
    return vv_volume_set_settings(server->volume, &settings);
}

static int open_volume(struct vv_server *server, const struct vv_options *options)
{
    struct vv_volume_options open;
    struct vv_path_stat stat;
    volume_options(server, options, &open);
    int err = vv_volume_open(&open, &server->volume);
    vv_log_seen_done(&server->seen);
    if (err == -VV_ERR_JOURNAL && open.journal_path == NULL &&
        vv_path_stat(server->place.journal, &stat) == 0)
        err = leave_journal(server, &open);
    if (err == 0 && !options->is_read_only && (options->is_cipher_set || options->is_compression_set))
        err = apply_settings(server, options);
    if (err == 0)
        err = vv_fs_open_as(server->volume, geteuid(), getegid(), &server->fs);
    if (err < 0) {
        vv_fail(options->url, err);
        return err;
    }
    vv_fs_set_atime(server->fs, options->atime);
    return 0;
}

static void on_mount_gone(void *arg)
{
    struct vv_server *server = arg;
    const struct vv_options *options = server->options;
    if (options->ninep_count + options->nfs_count + options->nbd_count == 0 ||
        vv_volume_is_shut_down(server->volume))
        on_signal(server);
}

static int open_doors(struct vv_server *server, const struct vv_options *options)
{
    uint64_t share = options->memory_bytes / CONN_MEMORY_SHARE;
    vv_conn_memory_init(&server->conn_memory, share < CONN_MEMORY_MAX ? share : CONN_MEMORY_MAX);
    for (unsigned i = 0; i < options->ninep_count; i++) {
        struct vv_ninep_options ninep = {.address = options->ninep[i], .door = VV_DOOR_NINEP + i,
                                         .is_read_only = options->is_read_only,
                                         .memory = &server->conn_memory};
        int err = vv_ninep_listen(server->fs, &ninep, &server->ninep[i]);
        if (err < 0) {
            vv_fail(options->ninep[i], err);
            return err;
        }
    }
    TRY(vv_server_open_nfs(server));
    TRY(vv_server_open_nbd(server));
    if (options->mount != NULL) {
        struct vv_fuse_options fuse = {
            .mountpoint = options->mount,
            .source = options->url,
            .door = VV_DOOR_FUSE,
            .memory_bytes = options->memory_bytes,
            .is_no_cache = options->is_no_cache,
            .is_writeback = options->is_writeback,
            .is_read_only = options->is_read_only,
            .is_seeing_opens = options->atime == VV_ATIME_STRICT,
            .is_hearing_syncs = options->is_hearing_syncs,
            .is_opening_handles = options->is_opening_handles,
            .is_kernel_locking = options->is_locking_locally,
            .allow_other = options->is_allowing_other || geteuid() == 0,
            .allow_suid = geteuid() == 0,
            .allow_dev = geteuid() == 0,
            .on_gone = on_mount_gone,
            .arg = server,
        };
        int err = vv_fuse_mount(server->fs, &fuse, &server->fuse);
        if (err < 0) {
            vv_fail(options->mount, err);
            if (err == -EIO)
                fprintf(stderr, "varve: it could not be mounted, for the reason above. Is /dev/fuse there, and may you\n"
                                "varve: use it? Who is not root needs fusermount3 (Debian: fuse3), too.\n");
            return err;
        }
    }
    if (options->is_read_only)
        return 0;
    int err = vv_admin_listen(server->place.admin, vv_server_answer, server, &server->admin);
    if (err < 0)
        vv_warn("cmd", "%s: %s; varve status will not see this server", server->place.admin,
                vv_err_text(err));
    return 0;
}

static void say_ready(const struct vv_server *server, const struct vv_options *options)
{
    if (options->is_quiet)
        return;
    printf("serving %s", options->url);
    if (options->mount != NULL)
        printf(", mounted at %s", options->mount);
    for (unsigned i = 0; i < options->ninep_count; i++) {
        unsigned port = vv_ninep_port(server->ninep[i]);
        if (port != 0)
            printf(", 9P on port %u", port);
        else
            printf(", 9P on %s", options->ninep[i]);
    }
    for (unsigned i = 0; i < options->nfs_count; i++)
        printf(", NFS on port %u", vv_nfs_port(server->nfs[i]));
    for (unsigned i = 0; i < options->nbd_count; i++) {
        if (server->nbd_ports[i] != 0)
            printf(", NBD on port %u", server->nbd_ports[i]);
        else
            printf(", NBD on %s", options->nbd[i]);
    }
    printf("\n");
    fflush(stdout);
}

static void close_doors(struct vv_server *server)
{
    vv_admin_close(server->admin); /* which takes its socket's file away, if that is still its own */
    vv_fuse_unmount(server->fuse);
    for (unsigned i = 0; i < VV_CMD_ADDRESSES_MAX; i++)
        vv_ninep_close(server->ninep[i]);
    vv_server_close_nfs(server);
    vv_server_close_nbd(server);
    vv_conn_memory_done(&server->conn_memory);
}

static int close_volume(struct vv_server *server)
{
    if (server->fs != NULL)
        vv_fs_close(server->fs);
    if (server->volume == NULL)
        return 0;
    bool is_fenced = vv_volume_is_fenced(server->volume);
    bool is_shut_down = vv_volume_is_shut_down(server->volume);
    int err = vv_volume_close(server->volume);
    if (is_fenced)
        return VV_EXIT_FENCED;
    if (is_shut_down)
        return vv_fail("stopped", err);
    return err < 0 ? vv_fail("closing: not everything could be made durable", err) : VV_EXIT_OK;
}

static int serve(struct vv_server *server, const struct vv_options *options)
{
    int err = open_volume(server, options);
    if (err == 0)
        err = open_doors(server, options);
    int exit_code = vv_exit_of(err);
    if (err == 0) {
        say_ready(server, options);
        server->is_watching = vv_fiber_start(watch_fence, server, "fence watch") == 0;
        while (!server->is_stopping)
            vv_waitq_wait(&server->stop, VV_NEVER);
        if (!options->is_quiet && !vv_volume_is_fenced(server->volume) &&
            !vv_volume_is_shut_down(server->volume)) {
            printf("stopping: making everything durable\n");
            fflush(stdout);
        }
    }
    close_doors(server);
    server->is_stopping = true;
    while (server->is_watching) {
        vv_waitq_wake_all(vv_volume_fence_waitq(server->volume));
        vv_waitq_wait(&server->stop, vv_rt_now_ns() + 10 * VV_NS_PER_MS);
    }
    int close_code = close_volume(server);
    return exit_code != VV_EXIT_OK ? exit_code : close_code;
}

static int handle_signals(struct vv_server *server, bool is_on)
{
    int signals[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        TRY(vv_rt_on_signal(signals[i], is_on ? on_signal : NULL, server));
    return 0;
}

/* A descriptor for each client of each door: as many as we may have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        vv_debug("cmd", "the limit of open files stays as it is");
}

int vv_cmd_serve(const struct vv_options *options)
{
    struct vv_server *server = vv_zalloc(sizeof *server);
    if (server == NULL)
        return vv_fail("serve", -ENOMEM);
    vv_waitq_init(&server->stop);
    server->options = options;
    server->started_ns = vv_rt_now_ns();
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    int code = VV_EXIT_USAGE;
    if (options->mount == NULL &&
        options->ninep_count + options->nfs_count + options->nbd_count == 0) {
        fprintf(stderr, "varve: serve needs a door: --mount DIR, --9p, --nfs or --nbd ADDR\n");
        vv_free(server);
        return code;
    }
    if (vv_place_parse(options->url, options, &server->place) < 0) {
        vv_free(server);
        return code;
    }
    enum vv_access access = options->is_read_only ? VV_ACCESS_READ : VV_ACCESS_WRITE;
    int err = options->is_read_only ? 0 : vv_place_make(&server->place);
    if (err == 0)
        err = vv_place_open(&server->place, options, access, &server->store, &server->counted);
    if (err == 0)
        err = vv_ring_open(server->store, options, &server->ring, &server->seen);
    if (err == 0)
        err = vv_server_open_cache(server);
    code = vv_exit_of(err);
    if (err == 0 && (err = handle_signals(server, true)) < 0)
        code = vv_fail("signals", err);
    if (err == 0) {
        code = serve(server, options);
        if (handle_signals(server, false) < 0)
            code = VV_EXIT_FAILED;
    }
    vv_log_seen_done(&server->seen);
    vv_keyring_free(server->ring);
    vv_store_close(server->store);
    vv_disk_close(server->disk);
    vv_free(server);
    return code;
}
