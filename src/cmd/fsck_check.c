/* The order of a check, and what its stages share. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/hash.h"
#include "base/text.h"
#include "cmd/fsck_impl.h"
#include "fs/inode.h"
#include "lsm/lsm.h"
#include "rt/rt.h"

#define MEMORY_DEFAULT (64ull << 20)
#define STEPS_A_TURN 1024 /* records looked at before other fibers get a turn */

void vv_fsck_sum_add(const struct vv_fsck *fsck, struct vv_fsck_sum *sum, const void *bytes,
                     size_t len)
{
    sum->a += vv_xxh3(bytes, len, fsck->seeds[0]);
    sum->b += vv_xxh3(bytes, len, fsck->seeds[1]);
}

bool vv_fsck_is_damage(int err)
{
    switch (-err) {
    case VV_ERR_CHECKSUM:
    case VV_ERR_AUTH:
    case VV_ERR_FORMAT:
    case VV_ERR_NEWER:
    case VV_ERR_NOT_VOLUME:
    case VV_ERR_NO_KEY:
    case VV_ERR_GAP:
    case VV_ERR_CORRUPT:
    case ENOENT:
        return true;
    default:
        return false;
    }
}

void vv_fsck_incomplete(struct vv_fsck *fsck, const char *what)
{
    struct vv_fsck_report *report = fsck->report;
    size_t len = strlen(report->not_checked);
    report->is_incomplete = true;
    vv_format(report->not_checked + len, sizeof report->not_checked - len, "%s%s",
              len > 0 ? "; " : "", what);
}

void vv_fsck_stage(struct vv_fsck *fsck, const char *stage)
{
    fsck->stage = stage;
    fsck->done = 0;
    if (fsck->options->on_progress != NULL)
        fsck->options->on_progress(fsck->options->progress_arg, stage, 0);
}

void vv_fsck_step(struct vv_fsck *fsck, uint64_t count)
{
    uint64_t before = fsck->done;
    fsck->done += count;
    if (before / STEPS_A_TURN == fsck->done / STEPS_A_TURN)
        return;
    if (fsck->options->on_progress != NULL)
        fsck->options->on_progress(fsck->options->progress_arg, fsck->stage, fsck->done);
    vv_fiber_yield();
}

/* ---- scans ---- */

int vv_fsck_scan_next(struct vv_fsck_scan *scan)
{
    int found = vv_lsm_iter_next(scan->iter, &scan->key, &scan->value);
    if (found > 0) {
        vv_fsck_step(scan->fsck, 1);
        return 0;
    }
    scan->is_end = true;
    if (found < 0 && vv_fsck_is_damage(found))
        vv_fsck_add(scan->fsck->report, VV_FSCK_RECORDS_UNREADABLE, "while checking the %s: %s",
                    scan->fsck->stage, vv_err_text(found));
    return found;
}

int vv_fsck_scan_open(struct vv_fsck *fsck, struct vv_bytes lower, struct vv_bytes upper,
                      struct vv_fsck_scan *scan)
{
    memset(scan, 0, sizeof *scan);
    scan->fsck = fsck;
    TRY(vv_volume_scan(fsck->volume, lower, upper, &scan->iter));
    int err = vv_fsck_scan_next(scan);
    if (err < 0)
        vv_fsck_scan_close(scan);
    return err;
}

int vv_fsck_scan_prefix(struct vv_fsck *fsck, const char *prefix, struct vv_fsck_scan *scan)
{
    uint8_t upper[2];
    size_t len = strlen(prefix);
    memcpy(upper, prefix, len);
    upper[len - 1]++;
    return vv_fsck_scan_open(fsck, (struct vv_bytes){(const uint8_t *)prefix, len},
                             (struct vv_bytes){upper, len}, scan);
}

void vv_fsck_scan_close(struct vv_fsck_scan *scan)
{
    vv_lsm_iter_close(scan->iter);
    scan->iter = NULL;
}

struct get {
    struct vv_bytes key;
    uint8_t *value;
    size_t capacity;
};

static int get_record(struct vv_op *op, void *arg)
{
    const struct get *get = arg;
    struct vv_bytes value;
    int found = vv_op_get(op, get->key, &value);
    TRY(found);
    if (found == 0)
        return -ENOENT;
    if (value.len > get->capacity)
        return -VV_ERR_FORMAT;
    if (value.len > 0)
        memcpy(get->value, value.ptr, value.len);
    return (int)value.len;
}

int vv_fsck_get(struct vv_fsck *fsck, struct vv_bytes key, uint8_t *value, size_t capacity)
{
    struct get get = {key, value, capacity};
    return vv_volume_run(fsck->volume, VV_OP_READ, 0, get_record, &get);
}

/* ---- records that nobody should have written ---- */

static int check_gap(struct vv_fsck *fsck, const char *lower, const char *upper)
{
    struct vv_fsck_scan scan;
    int err = vv_fsck_scan_open(fsck, (struct vv_bytes){(const uint8_t *)lower, strlen(lower)},
                                (struct vv_bytes){(const uint8_t *)upper, strlen(upper)}, &scan);
    while (err == 0 && !scan.is_end) {
        char hex[2 * 24 + 1];
        vv_hex(scan.key.ptr, scan.key.len < 24 ? scan.key.len : 24, hex);
        vv_fsck_add(fsck->report, VV_FSCK_RECORD_UNKNOWN, "key %s has a prefix that is not in use",
                    hex);
        err = vv_fsck_scan_next(&scan);
    }
    vv_fsck_scan_close(&scan);
    return err;
}

static int check_unknown(struct vv_fsck *fsck)
{
    /* Between the tables A, C D E, I, K L, P, R S T, X; and the other kinds of T. */
    static const char *const gaps[][2] = {{"", "A"},   {"B", "C"},   {"F", "I"},
                                          {"J", "K"},  {"M", "P"},   {"Q", "R"},
                                          {"T", "Td"}, {"Te", "Ti"}, {"Tj", "X"},
                                          {"Y", ""}};
    vv_fsck_stage(fsck, "unknown records");
    for (size_t i = 0; i < sizeof gaps / sizeof gaps[0]; i++)
        TRY(check_gap(fsck, gaps[i][0], gaps[i][1]));
    return 0;
}

/* ---- replies ---- */

static int check_replies(struct vv_fsck *fsck)
{
    struct vv_fsck_scan scan;
    vv_fsck_stage(fsck, "replies");
    int err = vv_fsck_scan_prefix(fsck, "A", &scan);
    while (err == 0 && !scan.is_end) {
        struct vv_reply_record record;
        uint64_t slot = 0;
        int bad = vv_reply_slot(scan.key, &slot);
        if (bad == 0)
            bad = vv_reply_decode(scan.value, slot, &record);
        fsck->report->replies++;
        if (bad < 0)
            vv_fsck_add(fsck->report, VV_FSCK_REPLY_FORMAT, "the reply in slot %llu: %s",
                        (unsigned long long)slot, vv_err_text(bad));
        err = vv_fsck_scan_next(&scan);
    }
    vv_fsck_scan_close(&scan);
    return err;
}

/* ---- the whole ---- */

/* Damage was noted where it was found; the next stage may do without. */
static int go_on(struct vv_fsck *fsck, int err, const char *what)
{
    if (err == 0 || !vv_fsck_is_damage(err))
        return err;
    vv_fsck_incomplete(fsck, what);
    return 0;
}

static int check_opened(struct vv_fsck *fsck)
{
    int records = vv_fsck_segment_records(fsck);
    TRY(go_on(fsck, records, "segments"));
    if (records == 0)
        TRY(go_on(fsck, vv_fsck_objects(fsck), "the store's objects"));
    TRY(go_on(fsck, check_unknown(fsck), "unknown records"));
    TRY(go_on(fsck, check_replies(fsck), "replies"));
    TRY(go_on(fsck, vv_fsck_tree(fsck), "the tree"));
    TRY(go_on(fsck, vv_fsck_data(fsck), "the use of data"));
    if (records == 0)
        TRY(go_on(fsck, vv_fsck_segments(fsck), "frames"));
    return 0;
}

static int check_all(struct vv_fsck *fsck)
{
    TRY(go_on(fsck, vv_fsck_log(fsck), "the log"));
    TRY(go_on(fsck, vv_fsck_tables(fsck), "tables"));
    if (fsck->volume != NULL)
        TRY(check_opened(fsck));
    else
        vv_fsck_incomplete(fsck, "everything that needs the volume to be opened");
    if (fsck->options->journal_path != NULL)
        TRY(vv_fsck_journal(fsck));
    return 0;
}

int vv_fsck_volume(struct vv_volume *volume, const struct vv_fsck_options *options,
                   struct vv_fsck_report *report)
{
    struct vv_fsck fsck = {.volume = volume, .options = options, .report = report};
    fsck.memory_bytes = options->memory_bytes != 0 ? options->memory_bytes : MEMORY_DEFAULT;
    fsck.seeds[0] = vv_rt_random_u64();
    fsck.seeds[1] = vv_rt_random_u64();
    int err = check_all(&fsck);
    vv_manifest_done(&fsck.manifest);
    vv_free(fsck.segments);
    return err;
}
