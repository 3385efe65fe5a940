/* varve fsck: the command. */
#include "cmd/fsck.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cmd/cmd.h"
#include "rt/rt.h"

#define TERMINAL_PAUSE_NS VV_NS_PER_S
#define LINES_PAUSE_NS (5 * VV_NS_PER_S)

struct progress {
    bool is_terminal, is_quiet, has_line;
    uint64_t next_ns;
};

static void on_progress(void *arg, const char *stage, uint64_t done)
{
    struct progress *progress = arg;
    uint64_t now = vv_rt_now_ns();
    if (progress->is_quiet || now < progress->next_ns)
        return;
    progress->next_ns = now + (progress->is_terminal ? TERMINAL_PAUSE_NS : LINES_PAUSE_NS);
    progress->has_line = progress->is_terminal;
    fprintf(stderr, progress->is_terminal ? "\r\033[K%s: %" PRIu64 : "fsck: %s: %" PRIu64 "\n",
            stage, done);
    fflush(stderr);
}

/* A server of this machine holds the journal's lock as long as it has the volume; while we hold it,
 * none can start. *out_lock NULL: there is no journal. */
static int lock_journal(const struct vv_place *place, struct vv_file **out_lock)
{
    char path[4400];
    *out_lock = NULL;
    vv_format(path, sizeof path, "%s/journal.id", place->journal);
    int err = vv_file_open(path, VV_FILE_READ, out_lock);
    if (err == -ENOENT || err == -ENOTDIR)
        return 0;
    TRY(err);
    err = vv_file_lock(*out_lock);
    if (err < 0) {
        vv_file_close(*out_lock);
        *out_lock = NULL;
    }
    return err == -EWOULDBLOCK ? -VV_ERR_LOCKED : err;
}

static int print_report(const struct vv_options *options, const struct vv_fsck_report *report)
{
    struct vv_writer writer = vv_writer_new();
    if (options->is_json)
        vv_fsck_report_json(report, options->url, &writer);
    else
        vv_fsck_report_text(report, options->url, &writer);
    int err = vv_writer_check(&writer);
    if (err == 0 && (options->is_json || !options->is_quiet || report->problem_count > 0))
        fwrite(writer.ptr, 1, writer.len, stdout);
    vv_writer_done(&writer);
    if (fflush(stdout) != 0)
        err = -EIO;
    return err;
}

static int check(const struct vv_options *options, const struct vv_place *place,
                 struct vv_store *store, const struct vv_keyring *ring)
{
    struct progress progress = {.is_terminal = isatty(STDERR_FILENO) == 1,
                                .is_quiet = options->is_quiet};
    progress.next_ns = vv_rt_now_ns() + (progress.is_terminal ? TERMINAL_PAUSE_NS : LINES_PAUSE_NS);
    /* Half for the volume's cache and replay, half for the check. */
    struct vv_volume_options open = {.store = store,
                                     .ring = ring,
                                     .is_read_only = true,
                                     .memory_bytes = options->memory_bytes / 2};
    struct vv_fsck_options fsck = {.store = store,
                                   .ring = ring,
                                   .journal_path = place->journal,
                                   .memory_bytes = options->memory_bytes / 2,
                                   .is_checking_data = options->is_checking_data,
                                   .on_progress = on_progress,
                                   .progress_arg = &progress};
    struct vv_fsck_report report = {0};
    struct vv_volume *volume = NULL;
    int err = vv_volume_open(&open, &volume);
    int code = vv_exit_of(err);
    if (err < 0 && code != VV_EXIT_DAMAGED && err != -ENOENT)
        return vv_fail(options->url, err);
    if (err < 0)
        vv_fsck_add(&report, VV_FSCK_OPEN_FAILED, "%s", vv_err_text(err));
    err = vv_fsck_volume(volume, &fsck, &report);
    if (volume != NULL && vv_volume_close(volume) < 0 && err == 0)
        err = -EIO;
    if (progress.has_line)
        fprintf(stderr, "\r\033[K");
    code = err < 0 ? vv_fail("checking", err) : VV_EXIT_OK;
    if (print_report(options, &report) < 0)
        code = VV_EXIT_FAILED;
    if (report.problem_count > 0)
        code = VV_EXIT_DAMAGED;
    else if (report.is_incomplete && code == VV_EXIT_OK)
        code = VV_EXIT_FAILED;
    vv_fsck_report_done(&report);
    return code;
}

static bool is_served(const struct vv_place *place)
{
    char *answer;
    if (vv_admin_ask(place, "status\n", &answer) < 0)
        return false;
    vv_free(answer);
    return true;
}

int vv_cmd_fsck(const struct vv_options *options)
{
    struct vv_place place;
    struct vv_file *lock = NULL;
    struct vv_store *store;
    struct vv_keyring *ring;
    if (vv_place_parse(options->url, options, &place) < 0)
        return VV_EXIT_USAGE;
    int err = is_served(&place) ? -VV_ERR_LOCKED : lock_journal(&place, &lock);
    if (err < 0)
        return vv_fail(options->url, err);
    int code;
    err = vv_place_open(&place, options, VV_ACCESS_READ, &store, NULL);
    if (err < 0) {
        code = vv_exit_of(err);
    } else {
        err = vv_ring_open(store, options, &ring, NULL);
        code = vv_exit_of(err);
        if (err == 0) {
            code = check(options, &place, store, ring);
            vv_keyring_free(ring);
        }
        vv_store_close(store);
    }
    if (lock != NULL)
        vv_file_close(lock);
    return code;
}
