/* Rule 16: the sweep for what crashed servers left. */
#include <errno.h>

#include "rt/rt.h"
#include "scene.h"
#include "tap.h"

#define OVERWRITES 12 /* more pieces than an extent keeps */

/* Goes to data segments, before any commit. */
static struct file_args large = {"large", 7, 0, 1200000};

static unsigned removals(const struct gate *gate, size_t from)
{
    return gate_events(gate, GATE_REMOVE, "data/", from) +
           gate_events(gate, GATE_REMOVE, "sst/", from) +
           gate_events(gate, GATE_REMOVE, "log/", from);
}

/* A server uploads data segments and is killed before a commit names them. Returns how many. */
static unsigned leave_segments(struct scene *scene)
{
    struct gate *gate = scene->gate;
    struct puppet *crashed = puppet_open(&scene->options);
    unsigned before = gate_objects(gate, "data/");
    gate_rule(gate, GATE_PUT, "log/", GATE_FAIL, 1000000, crashed->process);
    tap_is_int(puppet_run(crashed, puppet_write, &large), 0, "a large file is written");
    (void)puppet_begin(crashed, puppet_sync, NULL);
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    unsigned left = gate_objects(gate, "data/") - before;
    tap_ok(left > 0, "its data is in the bucket, no commit is: %u segments", left);
    puppet_free(crashed);
    gate_forget_rules(gate);
    return left;
}

/* One is killed between a table and its manifest. */
static void leave_tables(struct scene *scene)
{
    struct gate *gate = scene->gate;
    struct puppet *crashed = puppet_open(&scene->options);
    tap_is_int(put_file(crashed, &file_a), 0, "another server commits");
    unsigned before = gate_objects(gate, "sst/");
    gate_rule(gate, GATE_PUT, "manifest/", GATE_HOLD, 1, crashed->process);
    (void)puppet_begin(crashed, puppet_settle, NULL);
    tap_ok(gate_wait_held(gate, 1) && gate_objects(gate, "sst/") > before,
           "it has put a table, its manifest is held up");
    puppet_free(crashed);
    gate_forget_rules(gate);
    gate_release(gate);
}

/* One is killed when a later commit has arrived and an earlier one has not. */
static void leave_log_object(struct scene *scene)
{
    struct gate *gate = scene->gate;
    struct puppet *crashed = puppet_open(&scene->options);
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 1, crashed->process);
    (void)puppet_run(crashed, puppet_write, &file_b);
    (void)puppet_begin(crashed, puppet_sync, NULL);
    tap_ok(gate_wait_held(gate, 1), "a third server's commit is held up");
    (void)puppet_run(crashed, puppet_write, &file_c);
    (void)puppet_begin(crashed, puppet_sync, NULL);
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_is_int(gate_objects(gate, "log/0000000000000003/"), 1, "the one after it is in the bucket");
    puppet_free(crashed);
    gate_forget_rules(gate);
    gate_release(gate);
}

/* Data segments without a commit, tables without a manifest, and a commit above a fence cost space
 * until the next server's first flush; its fences stay. */
void trace_leftovers(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct vv_volume_stats stats = {0};
    unsigned segments = leave_segments(&scene);
    leave_tables(&scene);
    leave_log_object(&scene);
    size_t from = gate->event_count;
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_a, "the next server has what was acknowledged");
    vv_rt_sleep_ns(600 * VV_NS_PER_S);
    tap_is_int(removals(gate, from), 0, "while it has confirmed no manifest, nothing is removed");
    tap_is_int(put_file(next, &file_b), 0, "it commits");
    tap_is_int(puppet_run(next, puppet_settle, NULL), 0, "and flushes");
    tap_is_int(gate_objects(gate, "data/"), 0, "the data segments are gone");
    tap_is_int(gate_objects(gate, "sst/"), 1, "of the tables, its own is left");
    tap_is_int(gate_objects(gate, "log/0000000000000003/"), 1, "of the killed one's log, the fence");
    tap_ok(gate_objects(gate, "log/0000000000000001/") == 1 &&
               gate_objects(gate, "log/0000000000000002/") == 2,
           "the other fences stay, and the log object that holds a file");
    (void)puppet_run(next, puppet_stats, &stats);
    tap_is_int((int64_t)stats.leftovers_deleted, segments + 2, "it says how many they were");
    tap_ok(stats.leftover_bytes_deleted > large.len / 2, "and how large: %llu bytes",
           (unsigned long long)stats.leftover_bytes_deleted);
    puppet_kill(next);
    struct puppet *last = puppet_open(&scene.options);
    check_file(last, &file_a, "the next one finds the first file");
    check_file(last, &file_b, "and the second");
    puppet_free(next);
    puppet_free(last);
    scene_done(&scene);
}

/* A writer is about to look for orphans (there are some) when another takes over. Both are left running. */
static unsigned hold_sweep(struct scene *scene, struct puppet **out_zombie,
                           struct puppet_call **out_settle, struct puppet **out_writer)
{
    struct gate *gate = scene->gate;
    unsigned segments = leave_segments(scene);
    struct puppet *zombie = puppet_open(&scene->options);
    tap_is_int(put_file(zombie, &file_a), 0, "a second server commits");
    gate_rule(gate, GATE_LIST, "data/", GATE_HOLD, 1, zombie->process);
    *out_settle = puppet_begin(zombie, puppet_settle, NULL);
    tap_ok(gate_wait_held(gate, 1), "it flushes and looks for orphans; its LIST is held up");
    *out_zombie = zombie;
    *out_writer = puppet_open(&scene->options);
    tap_ok(*out_writer != NULL, "a third one opens");
    return segments;
}

/* A zombie's orphan sweep deletes a new writer's upload. */
void trace_zombie_sweep(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *zombie;
    struct puppet *writer;
    struct puppet_call *settle;
    unsigned segments = hold_sweep(&scene, &zombie, &settle, &writer);
    gate_rule(gate, GATE_PUT, "log/", GATE_FAIL, 1000000, writer->process);
    struct file_args upload = {"upload", 8, 0, 1200000};
    tap_is_int(puppet_run(writer, puppet_write, &upload), 0, "it writes a large file");
    (void)puppet_begin(writer, puppet_sync, NULL);
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    unsigned uploads = gate_objects(gate, "data/") - segments;
    tap_ok(uploads > 0, "its data is in the bucket, its commit is not: %u segments", uploads);
    gate_release(gate);
    (void)puppet_result(settle);
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    tap_is_int(gate_objects(gate, "data/"), uploads,
               "the second one's sweep takes the first one's segments, and none of the third's");
    gate_forget_rules(gate);
    tap_is_int(puppet_run(writer, puppet_sync, NULL), 0, "the third one's commit gets through");
    check_file(writer, &upload, "its file is there");
    puppet_kill(writer);
    writer = puppet_open(&scene.options);
    check_file(writer, &upload, "and for the next server");
    check_file(writer, &file_a, "with what the second had committed");
    puppet_free(zombie);
    puppet_free(writer);
    scene_done(&scene);
}

/* One that learns in the middle of it that it is fenced stops. */
void trace_fenced_sweep(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *fenced;
    struct puppet *writer;
    struct puppet_call *settle;
    (void)hold_sweep(&scene, &fenced, &settle, &writer);
    (void)puppet_run(fenced, puppet_write, &file_b);
    tap_is_int(puppet_run(fenced, puppet_sync, NULL), -VV_ERR_FENCED, "the second is fenced");
    size_t from = gate->event_count;
    gate_release(gate);
    tap_is_int(puppet_result(settle), -VV_ERR_FENCED, "its flush says so");
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    tap_is_int(removals(gate, from), 0, "and it deletes nothing");
    check_file(writer, &file_a, "the third one goes on");
    puppet_free(fenced);
    puppet_free(writer);
    scene_done(&scene);
}

/* What only the journal refers to is no orphan. The unit with the journal's tail is held up before it is finalised, by
 * an extent that must be folded, so that its segments have no records yet when a manifest is confirmed. */
void trace_sweep_waits_for_tail(void *arg)
{
    struct scene scene = scene_new(true, "/journal");
    struct gate *gate = scene.gate;
    struct puppet *crashed = puppet_open(&scene.options);
    tap_is_int(put_file(crashed, &file_a), 0, "a file");
    tap_is_int(puppet_run(crashed, puppet_settle, NULL), 0, "is in the tables");
    gate_rule(gate, GATE_PUT, "log/", GATE_FAIL, 1000000, crashed->process);
    int err = puppet_run(crashed, puppet_write, &large);
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    unsigned segments = gate_objects(gate, "data/");
    for (unsigned i = 0; i < OVERWRITES && err == 0; i++) {
        struct file_args piece = {"a", 20 + i, 1000 + i * 1500, 700};
        err = put_file(crashed, &piece);
    }
    tap_is_int(err, 0, "commits are in the journal alone");
    tap_ok(segments > 0, "one of them refers to %u data segments", segments);
    puppet_free(crashed);
    gate_forget_rules(gate);
    gate_rule(gate, GATE_GET, "log/0000000000000001/0000000000000000", GATE_HOLD, 1, 0);
    size_t from = gate->event_count;
    struct puppet *next = puppet_open(&scene.options);
    tap_ok(gate_wait_held(gate, 1), "the next server replays them, and is held up at the first file");
    tap_is_int(puppet_run(next, puppet_manifest, NULL), 0, "a manifest is written meanwhile");
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    tap_is_int(removals(gate, from), 0, "nothing is removed");
    gate_release(gate);
    tap_is_int(puppet_run(next, puppet_settle, NULL), 0, "the tail goes to the bucket");
    check_file(next, &large, "the large file is there");
    puppet_kill(next);
    next = puppet_open(&scene.options);
    check_file(next, &large, "and after opening again");
    puppet_free(next);
    scene_done(&scene);
}
