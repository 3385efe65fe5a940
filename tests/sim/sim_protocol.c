/* The traces of PROTOCOL's last table, as scripts: each lost or corrupted acknowledged data in a
 * model that lacked the rule. One world for each test; prints TAP. sim_protocol [part of a test's
 * name] */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "log/log.h"
#include "rt/rt.h"
#include "scene.h"
#include "tap.h"
#include "witness.h"

#define STEPS_MAX 400 /* fiber switches tried for "killed anywhere" */

static int64_t open_commit_of(struct puppet *puppet)
{
    struct vv_volume_stats stats = {0};
    (void)puppet_run(puppet, puppet_stats, &stats);
    return (int64_t)stats.open_commit;
}

/* ---- rule 15 ---- */

/* A paused PUT lands where a fence was collected, and is acknowledged. */
static void test_fences_stay(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *old = puppet_open(&scene.options);
    tap_is_int(put_file(old, &file_a), 0, "the old writer commits");
    (void)puppet_run(old, puppet_write, &file_b);
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 1, old->process);
    struct puppet_call *sync = puppet_begin(old, puppet_sync, NULL);
    tap_ok(gate_wait_held(gate, 1), "its next commit is held up");
    struct puppet *new = puppet_open(&scene.options);
    tap_ok(new != NULL, "a new writer opens");
    tap_is_int(put_file(new, &file_c), 0, "it commits");
    for (int i = 0; i < 3; i++)
        (void)puppet_run(new, puppet_settle, NULL);
    gate_release(gate);
    tap_is_int(puppet_result(sync), -VV_ERR_FENCED, "the old commit lands on a fence");
    struct puppet *third = puppet_open(&scene.options);
    check_file(third, &file_a, "what the old writer had acknowledged is there");
    check_file(third, &file_c, "what the new writer had acknowledged is there");
    tap_is_int(puppet_run(third, puppet_check, &file_b), -ENOENT, "the commit held up is not");
    puppet_free(old);
    puppet_free(new);
    puppet_free(third);
    scene_done(&scene);
}

/* ---- rules 6 and 13 ---- */

/* A claim lands in a manifest number that was already deleted: two owners of one epoch. */
static void test_claim_in_deleted_number(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    gate_rule(gate, GATE_PUT, "manifest/", GATE_HOLD, 1, 0);
    struct puppet *slow = puppet_start(&scene.options);
    tap_ok(gate_wait_held(gate, 1), "the first opener's claim is held up");
    struct puppet *fast = puppet_open(&scene.options);
    tap_is_int(put_file(fast, &file_a), 0, "the second opens and commits");
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(fast, puppet_manifest, NULL);
        (void)puppet_run(fast, puppet_settle, NULL);
    }
    tap_is_int(gate_objects(gate, "manifest/00000000000000000002"), 0,
               "the number claimed is deleted meanwhile");
    uint64_t epoch = epoch_of(fast);
    gate_release(gate);
    tap_is_int(puppet_wait_open(slow), 0, "the first opener gets on");
    tap_ok(epoch_of(slow) > epoch, "as the owner of a later epoch");
    check_file(slow, &file_a, "with what the second had acknowledged");
    (void)puppet_run(fast, puppet_write, &file_b);
    tap_is_int(puppet_run(fast, puppet_sync, NULL), -VV_ERR_FENCED, "the second is fenced");
    tap_is_int(put_file(slow, &file_c), 0, "the first commits");
    puppet_free(slow);
    puppet_free(fast);
    scene_done(&scene);
}

/* The same, but the claimer is dead when its claim lands. */
static void test_dead_claim_lands(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    gate_rule(gate, GATE_PUT, "manifest/", GATE_STRAY, 1, 0);
    struct puppet *dead = puppet_start(&scene.options);
    tap_ok(gate_wait_strays(gate, "manifest/", 1), "a claim strays");
    puppet_kill(dead);
    struct puppet *writer = puppet_open(&scene.options);
    tap_is_int(put_file(writer, &file_a), 0, "another opens and commits");
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(writer, puppet_manifest, NULL);
        (void)puppet_run(writer, puppet_settle, NULL);
    }
    tap_is_int(gate_land(gate, "manifest/"), 1, "the dead one's claim lands in a deleted number");
    tap_is_int(put_file(writer, &file_b), 0, "the writer goes on");
    tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "and flushes");
    puppet_kill(writer);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_a, "the next opener finds the first file");
    check_file(next, &file_b, "and the second");
    puppet_free(dead);
    puppet_free(writer);
    puppet_free(next);
    scene_done(&scene);
}

/* A flush lands in a manifest number that was already deleted. */
static void test_flush_in_deleted_number(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *old = puppet_open(&scene.options);
    tap_is_int(put_file(old, &file_a), 0, "the old writer commits");
    gate_rule(gate, GATE_PUT, "manifest/", GATE_HOLD, 1, old->process);
    struct puppet_call *flush = puppet_begin(old, puppet_settle, NULL);
    tap_ok(gate_wait_held(gate, 1), "its flush is held up");
    struct puppet *new = puppet_open(&scene.options);
    tap_is_int(put_file(new, &file_b), 0, "a new writer opens and commits");
    for (int i = 0; i < 4; i++) {
        (void)puppet_run(new, puppet_manifest, NULL);
        (void)puppet_run(new, puppet_settle, NULL);
    }
    tap_is_int(gate_objects(gate, "manifest/00000000000000000003"), 0,
               "the flush's number is deleted meanwhile");
    size_t from = gate->event_count;
    gate_release(gate);
    tap_is_int(puppet_result(flush), -VV_ERR_FENCED, "the old writer finds out that it is over");
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    tap_is_int(gate_events(gate, GATE_REMOVE, "log/", from) +
                   gate_events(gate, GATE_REMOVE, "sst/", from) +
                   gate_events(gate, GATE_REMOVE, "data/", from),
               0, "it deletes nothing");
    tap_is_int(put_file(new, &file_c), 0, "the new one is still the owner");
    puppet_kill(new);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_a, "the next opener finds the first file");
    check_file(next, &file_b, "and the second");
    check_file(next, &file_c, "and the third");
    puppet_free(old);
    puppet_free(new);
    puppet_free(next);
    scene_done(&scene);
}

/* A writer that lost a manifest number retries at the next and buries another's claim. */
static void test_lost_number_ends_writer(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *old = puppet_open(&scene.options);
    tap_is_int(put_file(old, &file_a), 0, "the old writer commits");
    /* The claim is put; the new one has not fenced yet. */
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 1, 0);
    struct puppet *new = puppet_start(&scene.options);
    tap_ok(gate_wait_held(gate, 1), "a new writer has claimed, but not yet fenced");
    unsigned before = gate_objects(gate, "manifest/");
    tap_is_int(puppet_run(old, puppet_settle, NULL), -VV_ERR_FENCED,
               "the old one's flush meets the claim, and it ends");
    tap_is_int(gate_objects(gate, "manifest/"), before, "it has written no manifest");
    gate_release(gate);
    tap_is_int(puppet_wait_open(new), 0, "the new one opens");
    check_file(new, &file_a, "with everything");
    tap_is_int(put_file(new, &file_b), 0, "and commits");
    puppet_kill(new);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_b, "durably");
    puppet_free(old);
    puppet_free(new);
    puppet_free(next);
    scene_done(&scene);
}

/* One replay point for all epochs: the log of an older epoch is deleted before it is in the tree.
 */
static void test_replay_point_per_epoch(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct puppet *first = puppet_open(&scene.options);
    tap_is_int(put_file(first, &file_a), 0, "the first epoch commits");
    puppet_kill(first);
    struct puppet *second = puppet_open(&scene.options);
    tap_is_int(put_file(second, &file_b), 0, "the second epoch commits");
    tap_is_int(puppet_run(second, puppet_manifest, NULL), 0,
               "a manifest is written without a flush");
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    puppet_kill(second);
    struct puppet *third = puppet_open(&scene.options);
    check_file(third, &file_a, "the first epoch's file is there");
    check_file(third, &file_b, "the second epoch's file is there");
    tap_is_int(puppet_run(third, puppet_settle, NULL), 0, "the third flushes");
    puppet_kill(third);
    struct puppet *fourth = puppet_open(&scene.options);
    check_file(fourth, &file_a, "and all is still there");
    puppet_free(first);
    puppet_free(second);
    puppet_free(third);
    puppet_free(fourth);
    scene_done(&scene);
}

/* ---- rule 10 ---- */

/* Truncating a frozen extent that is not sealed yet leaks its segment; seals that end out of order
 * make live = 0 on one that is referenced. */
static void test_truncate_frozen(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct file_args large = {"a", 7, 0, 1200000}; /* goes to data segments */
    struct file_args tail = {"a", 8, 600000, 30000};
    struct file_args cut = {"a", 0, 0, 200000};
    struct file_args head = {"a", 7, 0, 200000};
    struct file_args between = {"a", 0, 200000, 400000};
    struct puppet *writer = puppet_open(&scene.options);
    gate_rule(gate, GATE_PUT, "data/", GATE_HOLD, 100, 0);
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 100, 0);
    tap_is_int(puppet_run(writer, puppet_write, &large), 0, "a large file is written");
    struct puppet_call *first = puppet_begin(writer, puppet_sync, NULL);
    tap_ok(gate_wait_held(gate, 1), "its segments are on their way");
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_is_int(open_commit_of(writer), 2, "and its commit is frozen");
    tap_is_int(puppet_run(writer, puppet_truncate, &cut), 0, "it is truncated meanwhile");
    struct puppet_call *second = puppet_begin(writer, puppet_sync, NULL);
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_is_int(puppet_run(writer, puppet_write, &tail), 0, "and written to again");
    struct puppet_call *third = puppet_begin(writer, puppet_sync, NULL);
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_is_int(puppet_run(writer, puppet_check_zeros, &between), 0,
               "what was cut off stays so while it is still on its way");
    gate_forget_rules(gate);
    gate_release(gate);
    tap_ok(puppet_result(first) == 0 && puppet_result(second) == 0 && puppet_result(third) == 0,
           "all becomes durable");
    tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "everything settles");
    check_file(writer, &head, "the beginning is there");
    check_file(writer, &tail, "and what was written last");
    tap_is_int(puppet_run(writer, puppet_check_zeros, &between), 0, "and nothing in between");
    puppet_kill(writer);
    writer = puppet_open(&scene.options);
    check_file(writer, &head, "after opening again too: the beginning");
    check_file(writer, &tail, "and what was written last");
    tap_is_int(puppet_run(writer, puppet_check_zeros, &between), 0, "and nothing in between");
    struct vv_volume_stats stats = {0};
    tap_is_int(puppet_run(writer, puppet_unlink, &file_a), 0, "the file is removed");
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(writer, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    (void)puppet_run(writer, puppet_stats, &stats);
    tap_is_int((int64_t)stats.live_bytes, 0, "nothing is live");
    tap_is_int(gate_objects(gate, "data/"), 0, "no data segment is left");
    puppet_free(writer);
    scene_done(&scene);
}

/* Seals that end out of order: what is on its way is overwritten, and the later commit, which is
 * small, is sealed first. */
static void test_seals_out_of_order(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct file_args large = {"a", 7, 0, 1200000};
    struct file_args over = {"a", 9, 0, 100000};
    struct file_args rest = {"b", 7, 0, 1000};
    struct puppet *writer = puppet_open(&scene.options);
    gate_rule(gate, GATE_PUT, "data/", GATE_HOLD, 100, 0);
    tap_is_int(puppet_run(writer, puppet_write, &large), 0, "a large file is written");
    struct puppet_call *first = puppet_begin(writer, puppet_sync, NULL);
    tap_ok(gate_wait_held(gate, 1), "its segments are on their way");
    vv_rt_sleep_ns(VV_NS_PER_S);
    tap_is_int(open_commit_of(writer), 2, "and its commit is frozen");
    tap_is_int(puppet_run(writer, puppet_write, &over), 0, "its beginning is overwritten meanwhile");
    tap_is_int(puppet_run(writer, puppet_write, &rest), 0, "and another file is written");
    struct puppet_call *second = puppet_begin(writer, puppet_sync, NULL);
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_ok(first->result == PUPPET_RUNNING && second->result == PUPPET_RUNNING,
           "neither commit is acknowledged");
    gate_forget_rules(gate);
    gate_release(gate);
    tap_ok(puppet_result(first) == 0 && puppet_result(second) == 0, "both become durable");
    tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "everything settles");
    check_file(writer, &over, "the beginning is as it was written last");
    puppet_kill(writer);
    writer = puppet_open(&scene.options);
    check_file(writer, &over, "after opening again too");
    check_file(writer, &rest, "and the other file");
    (void)puppet_run(writer, puppet_unlink, &file_a);
    (void)puppet_run(writer, puppet_unlink, &file_b);
    struct vv_volume_stats stats = {0};
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(writer, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    (void)puppet_run(writer, puppet_stats, &stats);
    tap_is_int((int64_t)stats.live_bytes, 0, "once they are gone, nothing is live");
    puppet_free(writer);
    scene_done(&scene);
}

/* ---- rules 12, 14, 18 ---- */

/* A log object behind the replay point is deleted although it holds file data. */
static void test_log_objects_with_data(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *writer = puppet_open(&scene.options);
    tap_is_int(put_file(writer, &file_a), 0, "a small file is in a log object");
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(writer, puppet_write, &file_b);
        tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "a flush goes past it");
    }
    puppet_kill(writer);
    writer = puppet_open(&scene.options);
    check_file(writer, &file_a, "the file can be read");
    for (int i = 0; i < 3; i++)
        (void)puppet_run(writer, puppet_settle, NULL);
    puppet_kill(writer);
    writer = puppet_open(&scene.options);
    check_file(writer, &file_a, "and after another epoch");
    (void)puppet_run(writer, puppet_unlink, &file_a);
    (void)puppet_run(writer, puppet_unlink, &file_b);
    for (int i = 0; i < 4; i++) {
        (void)puppet_run(writer, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    /* The two fences, and what the last epoch's own tail holds. */
    tap_ok(gate_objects(gate, "log/0000000000000001/") <= 1 &&
               gate_objects(gate, "log/0000000000000002/") <= 1,
           "once the files are gone, so are the objects, but for the fences");
    puppet_free(writer);
    scene_done(&scene);
}

/* A segment is deleted whose debit was only in memory, or not yet behind a manifest. */
static void test_debit_in_memory(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct file_args large = {"a", 7, 0, 1200000};
    struct puppet *writer = puppet_open(&scene.options);
    tap_is_int(put_file(writer, &large), 0, "a file is in segments");
    tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "and in the tables");
    unsigned segments = gate_objects(gate, "data/") + gate_objects(gate, "log/");
    gate_rule(gate, GATE_PUT, "log/", GATE_FAIL, 1000000, 0);
    tap_is_int(puppet_run(writer, puppet_unlink, &file_a), 0, "it is removed, in memory");
    (void)puppet_begin(writer, puppet_sync, NULL);
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_is_int(puppet_run(writer, puppet_manifest, NULL), 0, "a manifest is written meanwhile");
    vv_rt_sleep_ns(120 * VV_NS_PER_S);
    tap_is_int(gate_objects(gate, "data/") + gate_objects(gate, "log/"), segments,
               "while no commit gets through, nothing is deleted");
    gate_forget_rules(gate);
    gate_rule(gate, GATE_PUT, "manifest/", GATE_HOLD, 1, 0);
    (void)puppet_begin(writer, puppet_settle, NULL);
    tap_ok(gate_wait_held(gate, 1), "the commit is through, its manifest is held up");
    vv_rt_sleep_ns(120 * VV_NS_PER_S);
    tap_is_int(gate_events(gate, GATE_REMOVE, "data/", 0), 0, "nothing is deleted yet");
    puppet_kill(writer);
    gate_release(gate);
    struct puppet *next = puppet_open(&scene.options);
    tap_is_int(puppet_run(next, puppet_check, &large), -ENOENT, "after a crash the file is gone");
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(next, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    tap_is_int(gate_objects(gate, "data/"), 0, "and now its segments");
    puppet_free(writer);
    puppet_free(next);
    scene_done(&scene);
}

/* ... or was only in the journal. */
static void test_debit_in_journal(void *arg)
{
    struct scene scene = scene_new(true, "/journal");
    struct gate *gate = scene.gate;
    struct file_args large = {"a", 7, 0, 1200000};
    struct puppet *writer = puppet_open(&scene.options);
    tap_is_int(put_file(writer, &large), 0, "a file is in segments");
    tap_is_int(puppet_run(writer, puppet_settle, NULL), 0, "and in the tables");
    gate_rule(gate, GATE_PUT, "log/", GATE_FAIL, 1000000, 0);
    tap_is_int(puppet_run(writer, puppet_unlink, &file_a), 0, "it is removed");
    tap_is_int(puppet_run(writer, puppet_sync, NULL), 0, "that is durable in the journal");
    (void)puppet_begin(writer, puppet_settle, NULL); /* its upload begins, and fails */
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_is_int(puppet_run(writer, puppet_manifest, NULL), 0, "a manifest is written");
    vv_rt_sleep_ns(120 * VV_NS_PER_S);
    tap_is_int(gate_events(gate, GATE_REMOVE, "data/", 0), 0, "nothing is deleted");
    puppet_kill(writer);
    gate_forget_rules(gate);
    /* The machine with the journal is lost. */
    struct puppet_options bare = scene.options;
    bare.journal_path = NULL;
    struct puppet *refused = puppet_start(&bare);
    tap_is_int(puppet_wait_open(refused), -VV_ERR_JOURNAL, "without its journal it does not open");
    bare.is_abandoning_journal = true;
    struct puppet *next = puppet_open(&bare);
    check_file(next, &large, "told to do without, the file is there, whole");
    puppet_free(writer);
    puppet_free(refused);
    puppet_free(next);
    scene_done(&scene);
}

/* ---- rule 17 ---- */

/* Journal records replayed under old epoch names: applied twice. */
static void test_journal_applied_once(void *arg)
{
    struct scene scene = scene_new(true, "/journal");
    struct gate *gate = scene.gate;
    struct puppet *writer = puppet_open(&scene.options);
    gate_rule(gate, GATE_PUT, "log/", GATE_STRAY, 1000000, 0);
    tap_is_int(put_file(writer, &file_a), 0, "a commit is in the journal");
    (void)puppet_begin(writer, puppet_settle, NULL);
    tap_ok(gate_wait_strays(gate, "log/0000000000000001/", 1), "its upload strays");
    puppet_kill(writer);
    gate_forget_rules(gate);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_a, "the journal's tail is replayed");
    tap_is_int(put_file(next, &file_b), 0, "and built upon");
    tap_is_int(puppet_run(next, puppet_settle, NULL), 0, "it goes to the bucket");
    tap_is_int(gate_land(gate, "log/"), 0, "the stray finds a fence");
    puppet_kill(next);
    next = puppet_open(&scene.options);
    check_file(next, &file_a, "the file is there");
    check_file(next, &file_b, "and the other");
    struct vv_volume_stats stats = {0};
    (void)puppet_run(next, puppet_unlink, &file_a);
    (void)puppet_run(next, puppet_unlink, &file_b);
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(next, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    (void)puppet_run(next, puppet_stats, &stats);
    tap_is_int((int64_t)stats.live_bytes, 0, "nothing was counted twice");
    puppet_free(writer);
    puppet_free(next);
    scene_done(&scene);
}

/* The same when the stray lands before the next opening. */
static void test_journal_upload_landed(void *arg)
{
    struct scene scene = scene_new(true, "/journal");
    struct gate *gate = scene.gate;
    struct puppet *writer = puppet_open(&scene.options);
    gate_rule(gate, GATE_PUT, "log/", GATE_STRAY, 1000000, 0);
    tap_is_int(put_file(writer, &file_a), 0, "a commit is in the journal");
    (void)puppet_begin(writer, puppet_settle, NULL);
    tap_ok(gate_wait_strays(gate, "log/0000000000000001/0000000000000000", 1), "its upload strays");
    puppet_kill(writer);
    gate_forget_rules(gate);
    tap_is_int(gate_land(gate, "log/"), 1, "and lands");
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_a, "the file is there");
    (void)puppet_run(next, puppet_unlink, &file_a);
    struct vv_volume_stats stats = {0};
    for (int i = 0; i < 3; i++) {
        (void)puppet_run(next, puppet_settle, NULL);
        vv_rt_sleep_ns(10 * VV_NS_PER_S);
    }
    (void)puppet_run(next, puppet_stats, &stats);
    tap_is_int((int64_t)stats.live_bytes, 0, "nothing was counted twice");
    puppet_free(writer);
    puppet_free(next);
    scene_done(&scene);
}

/* Journal records are replayed behind a foreign commit. */
static void test_foreign_journal(void *arg)
{
    struct scene scene = scene_new(true, "/journal");
    struct gate *gate = scene.gate;
    struct puppet *writer = puppet_open(&scene.options);
    gate_rule(gate, GATE_PUT, "log/", GATE_FAIL, 1000000, writer->process);
    /* More of them than the others will make: the last ones' numbers would follow on theirs. */
    struct file_args late = {"late", 5, 0, 3000};
    int err = put_file(writer, &file_a);
    for (unsigned i = 0; i < 6 && err == 0; i++) {
        struct file_args file = {"a", 10 + i, 0, 3000};
        err = put_file(writer, &file);
    }
    if (err == 0)
        err = put_file(writer, &late);
    tap_is_int(err, 0, "commits are in the journal alone");
    puppet_kill(writer);
    struct puppet_options elsewhere = scene.options;
    elsewhere.journal_path = NULL;
    elsewhere.is_abandoning_journal = true;
    struct puppet *other = puppet_open(&elsewhere);
    tap_ok(other != NULL, "the volume is opened elsewhere, without the journal");
    tap_is_int(put_file(other, &file_b), 0, "and goes on");
    tap_ok(open_commit_of(other) < 6, "with fewer commits");
    puppet_kill(other);
    struct puppet *back = puppet_start(&scene.options);
    err = puppet_wait_open(back);
    if (err == 0) {
        check_file(back, &file_b, "back on the old machine, what was done elsewhere is there");
        tap_is_int(puppet_run(back, puppet_check, &file_a), -ENOENT, "the old tail is not applied");
        tap_is_int(puppet_run(back, puppet_check, &late), -ENOENT, "no part of it");
    } else {
        tap_is_int(err, -VV_ERR_JOURNAL, "the old journal is not taken for current");
    }
    puppet_free(writer);
    puppet_free(other);
    puppet_free(back);
    scene_done(&scene);
}

/* ---- rule 3 ---- */

/* Two openers seal the same name with different content under one key. */
static void test_salts_differ(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *old = puppet_open(&scene.options);
    tap_is_int(put_file(old, &file_a), 0, "there is an epoch to fence");
    puppet_kill(old);
    /* Both claim the same number, and then fence the same places. */
    gate_rule(gate, GATE_PUT, "manifest/", GATE_STRAY, 1, 0);
    struct puppet *first = puppet_start(&scene.options);
    tap_ok(gate_wait_strays(gate, "manifest/", 1), "the first claim strays");
    puppet_kill(first);
    gate_rule(gate, GATE_PUT, "manifest/", GATE_STRAY, 1, 0);
    gate_rule(gate, GATE_PUT, "log/", GATE_STRAY, 1, 0);
    struct puppet *second = puppet_start(&scene.options);
    tap_ok(gate_wait_strays(gate, "manifest/", 2), "the second claim strays");
    vv_rt_sleep_ns(VV_NS_PER_S);
    const struct gate_stray *a = gate->strays;
    const struct gate_stray *b = a ? a->next : NULL;
    tap_ok(b && strcmp(a->name, b->name) == 0, "they have the same name");
    tap_ok(b && memcmp(a->bytes + 48, b->bytes + 48, 32) != 0, "their salts differ");
    tap_ok(b && memcmp(a->bytes + 32, b->bytes + 32, 16) != 0, "and their attempt ids");
    gate_forget_rules(gate);
    (void)puppet_wait_open(second);
    check_file(second, &file_a, "the volume opens");
    puppet_free(old);
    puppet_free(first);
    puppet_free(second);
    scene_done(&scene);
}

/* ---- rule 8 ---- */

/* A position that is missing before the fence is an error, never the end. Without a fence above it,
 * a free position below the window's width is what a killed writer's unconfirmed put leaves: its
 * commit was never acknowledged, nor any after it, and the fence goes there. */
static void test_gap(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *writer = puppet_open(&scene.options);
    tap_is_int(put_file(writer, &file_a), 0, "a commit");
    tap_is_int(put_file(writer, &file_b), 0, "a second");
    tap_is_int(put_file(writer, &file_c), 0, "a third");
    puppet_kill(writer);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_c, "an opener fences behind the third, and is killed");
    puppet_kill(next);
    tap_is_int(vv_store_remove(gate->direct, "log/0000000000000001/0000000000000001"), 0,
               "the second log object is lost");
    struct puppet *last = puppet_start(&scene.options);
    tap_is_int(puppet_wait_open(last), -VV_ERR_GAP, "without the second it does not open");
    puppet_free(writer);
    puppet_free(next);
    puppet_free(last);
    scene_done(&scene);
}

/* The same without a fence: what lies a window above a free position was put when it was taken. */
static void test_gap_beyond_window(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct puppet *writer = puppet_open(&scene.options);
    int err = 0;
    gate_rule(scene.gate, GATE_PUT, "manifest/", GATE_HOLD, 1000000, writer->process);
    for (unsigned i = 0; i < VV_LOG_WINDOW_MAX + 2 && err == 0; i++) {
        struct file_args file = {"a", i, 0, 100};
        err = put_file(writer, &file);
    }
    tap_is_int(err, 0, "more commits than are ever under way at once");
    tap_ok(gate_wait_held(scene.gate, 1), "none of them behind the replay point yet");
    vv_rt_sleep_ns(60 * VV_NS_PER_S);
    struct vv_volume_stats stats = {0};
    (void)puppet_run(writer, puppet_stats, &stats);
    tap_ok(stats.commits < VV_LOG_WINDOW_MAX + 8, "a flush that hangs begets no commits");
    tap_note("%llu commits", (unsigned long long)stats.commits);
    puppet_kill(writer);
    tap_is_int(vv_store_remove(scene.gate->direct, "log/0000000000000001/0000000000000001"), 0,
               "the second log object is lost");
    struct puppet *next = puppet_start(&scene.options);
    tap_is_int(puppet_wait_open(next), -VV_ERR_GAP, "without the second it does not open");
    puppet_free(writer);
    puppet_free(next);
    scene_done(&scene);
}

/* A put that never arrived, with later ones that did, none acknowledged: the fence goes into the
 * free place, and the volume is as the last acknowledged commit left it. */
static void test_gap_of_unconfirmed(void *arg)
{
    struct scene scene = scene_new(true, NULL);
    struct gate *gate = scene.gate;
    struct puppet *writer = puppet_open(&scene.options);
    tap_is_int(put_file(writer, &file_a), 0, "a commit");
    (void)puppet_run(writer, puppet_write, &file_b);
    gate_rule(gate, GATE_PUT, "log/", GATE_HOLD, 1, 0);
    struct puppet_call *second = puppet_begin(writer, puppet_sync, NULL);
    tap_ok(gate_wait_held(gate, 1), "the next one's put is held up");
    (void)puppet_run(writer, puppet_write, &file_c);
    struct puppet_call *third = puppet_begin(writer, puppet_sync, NULL);
    vv_rt_sleep_ns(10 * VV_NS_PER_S);
    tap_is_int(gate_objects(gate, "log/0000000000000001/0000000000000002"), 1,
               "the one after it is in the bucket");
    tap_ok(second->result == PUPPET_RUNNING && third->result == PUPPET_RUNNING,
           "and not acknowledged");
    puppet_kill(writer);
    struct puppet *next = puppet_open(&scene.options);
    check_file(next, &file_a, "the first is there");
    tap_is_int(puppet_run(next, puppet_check, &file_b), -ENOENT, "the one held up is not");
    tap_is_int(puppet_run(next, puppet_check, &file_c), -ENOENT, "nor the one after it");
    puppet_free(writer);
    puppet_free(next);
    scene_done(&scene);
}

/* A killed writer's object in a dir store is replayed, built upon, and gone after the next power
 * loss: for a kill after every number of steps of a sync, of its first commit (whose directories
 * are new) or of a later one. */
struct replay_test {
    uint64_t steps;
    bool is_first;
    int err;
};

static int kill_and_build(struct scene *scene, const struct replay_test *test)
{
    struct puppet *writer = puppet_open(&scene->options);
    int err = writer ? 0 : -ESRCH;
    if (err == 0 && !test->is_first)
        err = put_file(writer, &file_a);
    if (err == 0)
        err = puppet_run(writer, puppet_write, &file_b);
    if (err == 0) {
        struct puppet_call *sync = puppet_begin(writer, puppet_sync, NULL);
        vv_sim_process_kill_after(writer->process, test->steps);
        (void)puppet_result(sync);
    }
    puppet_free(writer);
    TRY(err);
    struct puppet *next = puppet_open(&scene->options);
    int found = next ? puppet_run(next, puppet_check, &file_b) : -ESRCH;
    err = found == -ENOENT ? 0 : found;
    if (err == 0)
        err = put_file(next, &file_c);
    puppet_free(next);
    return err < 0 ? err : found == 0;
}

static void test_replay_is_synced(void *arg)
{
    struct replay_test *test = arg;
    struct scene scene = scene_new(false, NULL);
    int was_there = kill_and_build(&scene, test);
    vv_sim_disk_power_cut(scene.disk);
    struct puppet *last = puppet_open(&scene.options);
    int err = was_there < 0 ? was_there : last ? 0 : -ESRCH;
    if (err == 0 && !test->is_first)
        err = puppet_run(last, puppet_check, &file_a);
    if (err == 0)
        err = puppet_run(last, puppet_check, &file_c);
    if (err == 0 && was_there == 1)
        err = puppet_run(last, puppet_check, &file_b);
    test->err = err;
    puppet_free(last);
    scene_done(&scene);
}

/* The same with an opener in between that is killed as well, between its fence's name and the sync
 * of that: the last opener finds all in place and puts nothing there that would sync it by the way.
 * Which steps these are is looked for first: the kills are set around the moments from which on the
 * commit, and then the fence, can be seen. */
#define OPENING_STEPS_MAX 3000
#define AROUND 6

struct fence_test {
    bool is_first;
    uint64_t writer_steps, opener_steps; /* opener_steps 0: there is no opener */
    const char *looked_for;              /* NULL: go on, build and cut the power */
    int err;                             /* looked_for: is it there? */
};

static void look_main(void *arg)
{
    struct fence_test *test = arg;
    struct vv_store *store;
    uint64_t size;
    test->err = vv_store_dir_open("/store", false, &store);
    if (test->err < 0)
        return;
    test->err = vv_store_size(store, test->looked_for, &size);
    vv_store_close(store);
}

static void kill_both(struct scene *scene, const struct fence_test *test)
{
    struct puppet *writer = puppet_open(&scene->options);
    if (!test->is_first)
        (void)put_file(writer, &file_a);
    (void)puppet_run(writer, puppet_write, &file_b);
    struct puppet_call *sync = puppet_begin(writer, puppet_sync, NULL);
    vv_sim_process_kill_after(writer->process, test->writer_steps);
    (void)puppet_result(sync);
    puppet_free(writer);
    if (test->opener_steps == 0)
        return;
    struct puppet *opener = puppet_start(&scene->options);
    vv_sim_process_kill_after(opener->process, test->opener_steps);
    (void)puppet_wait_open(opener);
    puppet_free(opener);
}

static int build_and_cut(struct scene *scene, const struct fence_test *test)
{
    struct puppet *next = puppet_open(&scene->options);
    int found = next ? puppet_run(next, puppet_check, &file_b) : -ESRCH;
    int err = found == -ENOENT ? 0 : found;
    if (err == 0)
        err = put_file(next, &file_c);
    puppet_free(next);
    vv_sim_disk_power_cut(scene->disk);
    struct puppet *last = puppet_open(&scene->options);
    if (err == 0)
        err = last ? puppet_run(last, puppet_check, &file_c) : -ESRCH;
    if (err == 0 && !test->is_first)
        err = puppet_run(last, puppet_check, &file_a);
    if (err == 0 && found == 0)
        err = puppet_run(last, puppet_check, &file_b);
    puppet_free(last);
    return err;
}

static void test_fence_is_synced(void *arg)
{
    struct fence_test *test = arg;
    struct scene scene = scene_new(false, NULL);
    kill_both(&scene, test);
    if (test->looked_for) {
        int look = vv_sim_process_start(scene.disk, look_main, test);
        if (look > 0)
            vv_sim_process_wait(look);
    } else {
        test->err = build_and_cut(&scene, test);
    }
    scene_done(&scene);
}

/* A writer is killed between its commit's name and the sync of that, and an opener between its fence's: the power cut
 * that follows may keep the fence and lose the commit, which was never acknowledged. Then there is a gap, and
 * the volume cannot be opened any more: an opener must make durable what it finds below its fence first. */
#define CUT_WORLDS 60

static void test_fence_without_commit(void *arg)
{
    int *err = arg;
    struct scene scene = scene_new(false, NULL);
    struct puppet *writer = puppet_open(&scene.options);
    *err = put_file(writer, &file_a);
    (void)puppet_run(writer, puppet_write, &file_b);
    vv_sim_process_kill_before_sync(writer->process, "/log", 1);
    (void)puppet_result(puppet_begin(writer, puppet_sync, NULL));
    struct puppet *opener = puppet_start(&scene.options);
    /* It may sync there once for what it has found. */
    vv_sim_process_kill_before_sync(opener->process, "/log", 1 + (unsigned)vv_sim_random(2));
    if (puppet_wait_open(opener) != -ESRCH)
        *err = -EBUSY;
    vv_sim_disk_power_cut(scene.disk);
    struct puppet *last = puppet_open(&scene.options);
    if (*err == 0)
        *err = last ? puppet_run(last, puppet_check, &file_a) : -ENODEV;
    puppet_free(writer);
    puppet_free(opener);
    puppet_free(last);
    scene_done(&scene);
}

/* ---- running ---- */

static const struct {
    const char *name;
    void (*fn)(void *);
} tests[] = {
    {"15: a paused put lands where a fence was", test_fences_stay},
    {"6: a claim lands in a deleted number", test_claim_in_deleted_number},
    {"6: a dead claim lands in a deleted number", test_dead_claim_lands},
    {"13: a flush lands in a deleted number", test_flush_in_deleted_number},
    {"13: a lost number ends the writer", test_lost_number_ends_writer},
    {"13: a replay point for each epoch", test_replay_point_per_epoch},
    {"10: truncating what is frozen", test_truncate_frozen},
    {"10: seals that end out of order", test_seals_out_of_order},
    {"10: repack's move of what is overwritten", trace_repack_overwritten},
    {"10: repack's move of what is cut off", trace_repack_truncated},
    {"10, 17: repack's move beside a journal", trace_repack_in_journal},
    {"14: repacked segments before their moves are confirmed", trace_repack_unconfirmed},
    {"14: repacking that cannot put holds nothing back", trace_repack_cannot_put},
    {"12, 14: log objects that hold file data", test_log_objects_with_data},
    {"14: a debit in memory", test_debit_in_memory},
    {"14, 18: a debit in the journal", test_debit_in_journal},
    {"17: a journal is applied once", test_journal_applied_once},
    {"17: an upload that landed", test_journal_upload_landed},
    {"17: a foreign journal", test_foreign_journal},
    {"3: two seals of one name", test_salts_differ},
    {"8: a missing position before a fence", test_gap},
    {"8: a missing position a window below", test_gap_beyond_window},
    {"8, 11: a put that never arrived", test_gap_of_unconfirmed},
    {"16: what crashed servers left", trace_leftovers},
    {"16: a zombie's orphan sweep", trace_zombie_sweep},
    {"16: a sweep that learns that it is fenced", trace_fenced_sweep},
    {"16, 18: a sweep waits for the journal's tail", trace_sweep_waits_for_tail},
};

static int run_world(uint64_t seed, void (*fn)(void *), void *arg)
{
    struct vv_sim_options options = {
        .seed = seed, .latency_min_ns = 1000, .latency_max_ns = 100000, .reorder_permille = 100};
    return vv_sim_run(&options, fn, arg);
}

static void run_rule_8(const char *only)
{
    unsigned bad = 0;
    if (!strstr("8: what is replayed is synced", only))
        return;
    for (uint64_t round = 2; round <= 2 * STEPS_MAX && bad < 5; round++) {
        struct replay_test test = {round / 2, round % 2, -EINTR};
        int err = run_world(round, test_replay_is_synced, &test);
        if (err == 0)
            err = test.err;
        if (err < 0)
            tap_note("killed after %llu steps of the %s commit: %s", (unsigned long long)test.steps,
                     test.is_first ? "first" : "second", vv_err_text(err));
        bad += err < 0;
    }
    tap_is_int(bad, 0, "8: a writer killed after any step, replayed, built upon, power cut");
}

/* The fewest steps, by `steps` of the test, after which what it looks for is there; max = never. */
static uint64_t first_seen(uint64_t seed, struct fence_test *test, uint64_t *steps, uint64_t max)
{
    uint64_t low = 1;
    uint64_t high = max;
    while (low < high) {
        *steps = low + (high - low) / 2;
        bool is_there = run_world(seed, test_fence_is_synced, test) == 0 && test->err == 0;
        if (is_there)
            high = *steps;
        else
            low = *steps + 1;
    }
    return low;
}

static unsigned run_fence_test(uint64_t seed, bool is_first)
{
    unsigned bad = 0;
    struct fence_test test = {.is_first = is_first};
    test.looked_for = is_first ? "log/0000000000000001/0000000000000000"
                               : "log/0000000000000001/0000000000000001";
    uint64_t commit = first_seen(seed, &test, &test.writer_steps, STEPS_MAX);
    for (unsigned i = 0; i < AROUND; i++) {
        test.writer_steps = commit + i;
        test.looked_for = is_first ? "log/0000000000000001/0000000000000001"
                                   : "log/0000000000000001/0000000000000002";
        uint64_t fence = first_seen(seed, &test, &test.opener_steps, OPENING_STEPS_MAX);
        test.looked_for = NULL;
        for (unsigned j = 0; j < AROUND; j++) {
            test.opener_steps = fence + j;
            int err = run_world(seed, test_fence_is_synced, &test);
            if (err == 0)
                err = test.err;
            if (err < 0 && bad++ < 5)
                tap_note("killed after %llu and %llu steps: %s",
                         (unsigned long long)test.writer_steps,
                         (unsigned long long)test.opener_steps, vv_err_text(err));
        }
    }
    return bad;
}

static void run_rule_8_fences(const char *only)
{
    unsigned bad = 0;
    if (!strstr("8: what is replayed is synced", only))
        return;
    for (uint64_t seed = 1; seed <= 6; seed++)
        bad += run_fence_test(seed, seed % 2);
    tap_is_int(bad, 0, "8: a writer and an opener killed, replayed, built upon, power cut");
}

static void run_rule_8_cuts(const char *only)
{
    unsigned bad = 0;
    if (!strstr("8: a fence without the commit before it", only))
        return;
    for (uint64_t seed = 1; seed <= CUT_WORLDS; seed++) {
        struct vv_sim_options options = {.seed = seed,
                                         .latency_min_ns = 1000,
                                         .latency_max_ns = 100000,
                                         .is_reordering_dirs = true};
        int result = -EINTR;
        int err = vv_sim_run(&options, test_fence_without_commit, &result);
        err = err == 0 ? result : err;
        if (err < 0 && bad++ < 5)
            tap_note("world %llu: %s", (unsigned long long)seed, vv_err_text(err));
    }
    tap_is_int(bad, 0, "8: a fence without the commit before it, after a power cut");
}

static void discard_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    vv_alloc_track(true);
    if (!getenv("SIM_VERBOSE"))
        vv_log_set_sink(discard_line, NULL);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (!strstr(tests[i].name, only))
            continue;
        tap_note("rule %s", tests[i].name);
        tap_is_int(run_world(i + 1, tests[i].fn, NULL), 0, "the world of %s ends well",
                   tests[i].name);
    }
    run_rule_8(only);
    run_rule_8_fences(only);
    run_rule_8_cuts(only);
    return tap_done();
}
