/* Rules 10, 14 and 17: the moves of repacking. "Repack's move sealed in a later commit brings old bytes back at replay." */
#include <errno.h>

#include "rt/rt.h"
#include "scene.h"
#include "tap.h"

/* These three fill data segments, of which `between` leaves only a part in use: one is sparse. */
static struct file_args head = {"a", 7, 0, 98304};
static struct file_args middle = {"a", 6, 98304, 501696};
static struct file_args rest = {"a", 5, 600000, 600000};
static struct file_args between = {"a", 8, 98304, 400000};
static struct file_args bulk = {"b", 9, 0, 1200000};

/* A volume with a sparse segment, and a server that will repack it after its first manifest. Data segments
 * of its epoch are counted from 0: the first will be repacking's. */
static struct puppet *open_sparse(struct scene *scene)
{
    scene->options.repack.is_off = true;
    struct puppet *first = puppet_open(&scene->options);
    int err = puppet_run(first, puppet_write, &head);
    err = err == 0 ? puppet_run(first, puppet_write, &middle) : err;
    err = err == 0 ? put_file(first, &rest) : err;
    tap_is_int(err, 0, "a large file is in data segments");
    tap_is_int(put_file(first, &between), 0, "a part of it is overwritten");
    tap_is_int(puppet_run(first, puppet_settle, NULL), 0, "all is in the tables");
    tap_is_int(puppet_close(first), 0, "the server ends");
    puppet_free(first);
    scene->options.repack =
        (struct vv_repack_options){.waste_bytes = 1, .waste_percent = 1, .live_percent = 90};
    struct puppet *second = puppet_open(&scene->options);
    tap_ok(second != NULL, "another one, which repacks, opens the volume");
    return second;
}

static struct vv_volume_stats stats_of(struct puppet *puppet)
{
    struct vv_volume_stats stats = {0};
    (void)puppet_run(puppet, puppet_stats, &stats);
    return stats;
}

/* Data segments of the first server's epoch. */
static unsigned old_segments(const struct gate *gate)
{
    unsigned count = 0;
    for (unsigned i = 0; i < 8; i++) {
        char prefix[32] = "data/00/0000000000000001";
        prefix[6] = (char)('0' + i);
        count += gate_objects(gate, prefix);
    }
    return count;
}

/* The repacked segment is sealed, but not in the bucket, while commit k is frozen; it comes into the bucket, and its moves to
 * the next unit, which is that of commit k: the bulk data in it has been held up. */
static void let_moves_meet(struct scene *scene, struct puppet *writer, puppet_fn *change,
                           struct file_args *args)
{
    struct gate *gate = scene->gate;
    gate_rule(gate, GATE_PUT, "data/00/0000000000000002", GATE_FAIL, 1000000, 0);
    gate_rule(gate, GATE_PUT, "data/01/0000000000000002", GATE_HOLD, 1, 0);
    tap_is_int(puppet_run(writer, puppet_manifest, NULL), 0, "a manifest is written");
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_ok(stats_of(writer).is_repacking, "repacking begins, its new segment is held up");
    tap_is_int(puppet_run(writer, change, args), 0, "something is changed that it has read");
    tap_is_int(puppet_run(writer, puppet_write, &bulk), 0, "and much is written");
    struct puppet_call *sync = puppet_begin(writer, puppet_sync, NULL);
    tap_ok(gate_wait_held(gate, 1), "the commit is frozen, its bulk data held up");
    gate_forget_rules(gate);
    vv_rt_sleep_ns(30 * VV_NS_PER_S);
    tap_is_int(gate_objects(gate, "data/00/0000000000000002"), 1,
               "the repacked segment is there now, and waits for that commit");
    gate_release(gate);
    (void)puppet_result(sync); /* it may have lost its patience */
    tap_is_int(puppet_run(writer, puppet_sync, NULL), 0, "the commit gets through");
}

static void check_large(struct puppet *puppet, const char *when)
{
    tap_is_int(puppet_run(puppet, puppet_check, &between), 0, "%s: what was overwritten before",
               when);
    tap_is_int(puppet_run(puppet, puppet_check, &rest), 0, "%s: and the rest", when);
}

/* All files have been removed: nothing is live, and nothing is left of them. */
static void end_empty(struct scene *scene, struct puppet *writer, struct puppet *next)
{
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(next, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    tap_is_int((int64_t)stats_of(next).live_bytes, 0, "with the files gone, nothing is live");
    tap_is_int(gate_objects(scene->gate, "data/"), 0, "and no data segment is left");
    puppet_free(writer);
    puppet_free(next);
    scene_done(scene);
}

/* An extent is overwritten in a commit that is not finalised when its frame is moved. */
void trace_repack_overwritten(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct file_args over = {"a", 10, 1000, 50000};
    struct file_args behind = {"a", 7, 0, 1000};
    struct puppet *writer = open_sparse(&scene);
    let_moves_meet(&scene, writer, puppet_write, &over);
    check_file(writer, &over, "the newer bytes are there");
    check_large(writer, "beside them");
    struct vv_volume_stats stats = stats_of(writer);
    tap_ok(stats.repacked_frames > 0 && stats.repack_refused > 0,
           "some moves were made, and some refused: %llu and %llu",
           (unsigned long long)stats.repacked_frames, (unsigned long long)stats.repack_refused);
    puppet_kill(writer);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &over, "after a crash, replayed: the newer bytes");
    check_file(next, &behind, "what they did not overwrite");
    check_large(next, "after a crash");
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(next, puppet_write, &file_c);
        tap_is_int(puppet_run(next, puppet_settle, NULL), 0, "everything settles");
    }
    check_file(next, &over, "then: the newer bytes");
    check_large(next, "then");
    stats = stats_of(next);
    tap_ok(stats.total_bytes - stats.live_bytes < 200000, "and the space is back: %llu of %llu bytes",
           (unsigned long long)stats.live_bytes, (unsigned long long)stats.total_bytes);
    (void)puppet_run(next, puppet_unlink, &file_a);
    (void)puppet_run(next, puppet_unlink, &file_b);
    (void)puppet_run(next, puppet_unlink, &file_c);
    end_empty(&scene, writer, next);
}

/* A tombstone hides the extent, and the unit that takes the moves reclaims its record. */
void trace_repack_truncated(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct file_args cut = {"a", 0, 0, 32768};
    struct file_args kept = {"a", 7, 0, 32768};
    struct file_args zeros = {"a", 0, 32768, 600000};
    struct file_args tail = {"a", 11, 700000, 30000};
    struct puppet *writer = open_sparse(&scene);
    let_moves_meet(&scene, writer, puppet_truncate, &cut);
    tap_is_int(put_file(writer, &tail), 0, "the file grows again");
    tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "everything settles");
    check_file(writer, &kept, "the beginning is there");
    tap_is_int(puppet_run(writer, puppet_check_zeros, &zeros), 0, "what was cut off does not come back");
    puppet_kill(writer);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &kept, "after a crash: the beginning");
    tap_is_int(puppet_run(next, puppet_check_zeros, &zeros), 0, "and nothing of what was cut off");
    check_file(next, &tail, "and the end");
    (void)puppet_run(next, puppet_unlink, &file_a);
    (void)puppet_run(next, puppet_unlink, &file_b);
    end_empty(&scene, writer, next);
}

/* What was emptied stays until the moves are in the bucket, and behind a manifest. */
void trace_repack_unconfirmed(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *writer = open_sparse(&scene);
    unsigned before = old_segments(gate);
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 1, writer->process);
    tap_is_int(puppet_run(writer, puppet_manifest, NULL), 0, "a manifest is written");
    tap_ok(gate_wait_held(gate, 1), "the commit with repacking's moves is held up");
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    tap_is_int(gate_objects(gate, "data/00/0000000000000002"), 1, "the new segment is there");
    tap_is_int(old_segments(gate), before, "and so is the old one");
    puppet_kill(writer);
    gate_release(gate);
    writer = puppet_open(&scene.options);
    check_file(writer, &head, "after a crash, before the moves: the beginning");
    check_large(writer, "after a crash, before the moves");
    gate_rule(gate, GATE_PUT, "manifest/", GATE_PASS, 1, writer->process);
    gate_rule(gate, GATE_PUT, "manifest/", GATE_HOLD, 1, writer->process);
    tap_is_int(puppet_run(writer, puppet_manifest, NULL), 0, "the next server repacks again");
    tap_ok(gate_wait_held(gate, 1), "its commit gets through, the manifest behind it is held up");
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    tap_ok(stats_of(writer).repacked_frames > 0, "frames are moved");
    tap_is_int(old_segments(gate), before, "the old segment is still there");
    puppet_kill(writer);
    gate_release(gate);
    writer = puppet_open(&scene.options);
    check_file(writer, &head, "after a crash, behind the moves: the beginning");
    check_large(writer, "after a crash, behind the moves");
    tap_is_int(put_file(writer, &file_c), 0, "another commit");
    tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "and a flush");
    tap_ok(old_segments(gate) < before, "now the old segment is gone");
    check_file(writer, &head, "and all is there: the beginning");
    check_large(writer, "and all is there");
    vv_rt_sleep_ns(7200 * VV_NS_PER_S); /* commits go by themselves after one hour here */
    size_t from = gate->event_count;
    vv_rt_sleep_ns(3600 * VV_NS_PER_S);
    tap_is_int((int64_t)(gate->event_count - from), 0, "an hour later nothing has been asked for");
    puppet_free(writer);
    scene_done(&scene);
}

/* With a journal: its records know nothing of moves. The commit that the moves go with is in the journal when the server dies,
 * its upload is not in the bucket; the next one makes it again, without them. */
void trace_repack_in_journal(void *arg)
{
    struct scene scene = scene_new(true, "/journal");
    struct gate *gate = scene.gate;
    struct file_args over = {"a", 10, 1000, 50000};
    struct puppet *writer = open_sparse(&scene);
    gate_rule(gate, GATE_PUT, "data/00/0000000000000002", GATE_FAIL, 1000000, 0);
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 1, writer->process);
    tap_is_int(puppet_run(writer, puppet_manifest, NULL), 0, "a manifest is written");
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_is_int(put_file(writer, &over), 0, "what it has read is overwritten, durably in the journal");
    gate_forget_rules(gate);
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 1, writer->process);
    tap_ok(gate_wait_held(gate, 1), "the commit that takes the moves along is held up");
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_is_int(gate_objects(gate, "data/00/0000000000000002"), 1, "their segment is in the bucket");
    check_file(writer, &over, "the newer bytes are there");
    puppet_kill(writer);
    gate_forget_rules(gate);
    gate_release(gate);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &over, "from the journal: the newer bytes");
    check_large(next, "from the journal");
    tap_is_int(puppet_run(next, puppet_settle, NULL), 0, "everything settles");
    check_file(next, &over, "then: the newer bytes");
    check_large(next, "then");
    tap_is_int(gate_objects(gate, "data/00/0000000000000002"), 0,
               "the segment whose moves were lost is swept away");
    puppet_kill(next);
    next = puppet_open(&scene.options);
    check_file(next, &over, "after opening again: the newer bytes");
    check_large(next, "after opening again");
    (void)puppet_run(next, puppet_unlink, &file_a);
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(next, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    tap_is_int((int64_t)stats_of(next).live_bytes, 0, "with the file gone, nothing is live");
    puppet_free(writer);
    puppet_free(next);
    scene_done(&scene);
}

/* The store takes no new segment: what users delete must go all the same, for it may be what the store needs. */
void trace_repack_cannot_put(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *writer = open_sparse(&scene);
    gate_rule(gate, GATE_PUT, "data/", GATE_FAIL, 1000000, 0);
    tap_is_int(puppet_run(writer, puppet_manifest, NULL), 0, "a manifest is written");
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_ok(stats_of(writer).is_repacking, "repacking begins, and cannot put its segment");
    tap_is_int(puppet_run(writer, puppet_unlink, &file_a), 0, "the file is removed");
    for (int i = 0; i < 6; i++) {
        (void)puppet_run(writer, puppet_settle, NULL); /* it may say that the store fails */
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    tap_ok(stats_of(writer).is_repacking, "it still cannot");
    tap_is_int(old_segments(gate), 0, "the old segments are gone");
    gate_forget_rules(gate);
    vv_rt_sleep_ns(30 * VV_NS_PER_S);
    for (int i = 0; i < 3; i++) {
        tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "now everything settles");
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    struct vv_volume_stats stats = stats_of(writer);
    tap_is_int((int64_t)stats.repacked_frames, 0, "no frame was moved");
    tap_is_int((int64_t)(stats.live_bytes + stats.total_bytes), 0, "nothing is live, or held");
    tap_is_int(gate_objects(gate, "data/"), 0, "and the new segment is gone, too");
    puppet_free(writer);
    scene_done(&scene);
}
