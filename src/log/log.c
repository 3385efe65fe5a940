#include "log/log.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/plant.h"
#include "log/log_impl.h"

#define REMOVE_PAGE_ENTRIES 64

/* ---- life ---- */

int vv_log_new(const struct vv_log_options *options, struct vv_log **out_log)
{
    struct vv_log *log = vv_zalloc(sizeof(*log));
    if (!log)
        return -ENOMEM;
    log->options = *options;
    log->requests = vv_log_requests_of(options);
    log->requests.log = log;
    if (options->journal_id)
        memcpy(log->journal_id, options->journal_id, sizeof(log->journal_id));
    log->options.journal_id = log->journal_id;
    vv_list_init(&log->done);
    vv_waitq_init(&log->acknowledged);
    vv_waitq_init(&log->manifest_turn);
    vv_waitq_init(&log->ended);
    vv_waitq_init(&log->idle);
    *out_log = log;
    return 0;
}

void vv_log_free(struct vv_log *log)
{
    if (!log)
        return;
    vv_manifest_done(&log->manifest);
    vv_free(log->epoch_commits);
    vv_free(log->older);
    vv_free(log);
}

static void wake_everybody(struct vv_log *log)
{
    vv_waitq_wake_all(&log->ended);
    vv_waitq_wake_all(&log->acknowledged);
    vv_waitq_wake_all(&log->manifest_turn);
}

void vv_log_stop(struct vv_log *log)
{
    if (!log)
        return;
    log->is_closing = true;
    wake_everybody(log);
}

void vv_log_close(struct vv_log *log)
{
    if (!log)
        return;
    vv_log_stop(log);
    while (log->calls > 0)
        vv_waitq_wait(&log->idle, VV_NEVER);
    vv_log_free(log);
}

int vv_log_ended(const struct vv_log *log)
{
    if (log->is_fenced)
        return -VV_ERR_FENCED;
    return log->is_closing ? -VV_ERR_STOPPED : 0;
}

/* Rule 11: fenced, for good. */
static void fence(struct vv_log *log, const char *name)
{
    if (log->is_fenced)
        return;
    log->is_fenced = true;
    vv_error("log", "%s: epoch %llu is over: %s", name, (unsigned long long)log->manifest.epoch,
             vv_err_text(-VV_ERR_FENCED));
    wake_everybody(log);
}

void vv_log_tell_store_state(struct vv_log *log, int err)
{
    if (err == 0 && log->store_err == 0)
        return;
    log->store_err = err;
    if (log->options.on_store_state)
        log->options.on_store_state(log->options.on_store_state_arg, err);
}

/* Calls under way keep the log from being freed. */
static int enter(struct vv_log *log)
{
    TRY(vv_log_ended(log));
    log->calls++;
    return 0;
}

static int leave(struct vv_log *log, int result)
{
    assert(log->calls > 0);
    if (--log->calls == 0)
        vv_waitq_wake_all(&log->idle);
    return result;
}

/* ---- what is known ---- */

uint64_t vv_log_epoch(const struct vv_log *log)
{
    return log->manifest.epoch;
}

uint64_t vv_log_last_commit(const struct vv_log *log)
{
    return log->last_commit;
}

struct vv_counters vv_log_counters(const struct vv_log *log)
{
    return log->counters;
}

uint64_t vv_log_confirmed_seq(const struct vv_log *log)
{
    return log->confirmed_seq;
}

const struct vv_manifest *vv_log_manifest(const struct vv_log *log)
{
    return &log->manifest;
}

bool vv_log_is_fenced(const struct vv_log *log)
{
    return log->is_fenced;
}

/* ---- appending ---- */

struct vv_segment_id vv_log_next_id(const struct vv_log *log)
{
    /* Rule 2: a log exists only once the claim of its epoch is confirmed. */
    return (struct vv_segment_id){
        .epoch = log->manifest.epoch, .counter = log->next_seq, .kind = VV_SEGMENT_LOG};
}

void vv_log_assign(struct vv_log *log, const uint8_t attempt_id[16],
                   uint8_t out_previous_attempt_id[16])
{
    memcpy(out_previous_attempt_id, log->last_attempt_id, sizeof(log->last_attempt_id));
    memcpy(log->last_attempt_id, attempt_id, sizeof(log->last_attempt_id));
    log->next_seq++;
}

/* A put whose object is known to be there. Lives on the stack of the fiber that put it. */
struct log_put {
    struct vv_list node;
    uint64_t seq;
};

static void confirm_in_order(struct vv_log *log)
{
    bool is_moving = true;
    while (is_moving) {
        is_moving = false;
        vv_list_each_safe (node, &log->done) {
            if (vv_list_entry(node, struct log_put, node)->seq == log->confirmed_seq) {
                vv_list_remove(node);
                log->confirmed_seq++;
                is_moving = true;
            }
        }
    }
    vv_waitq_wake_all(&log->acknowledged);
}

/* Rule 11: acknowledge in order. Once fenced nothing is acknowledged any more: what lies before the
 * fence is durable, but every later fsync must fail anyway. */
static int wait_for_turn(struct vv_log *log, uint64_t seq)
{
    if (vv_planted(VV_PLANT_ACK_UNCONFIRMED) && seq > log->confirmed_seq)
        log->confirmed_seq = seq;
    struct log_put put = {.seq = seq};
    vv_list_push_back(&log->done, &put.node);
    confirm_in_order(log);
    int err = 0;
    while (log->confirmed_seq <= seq && !err) {
        vv_waitq_wait(&log->acknowledged, VV_NEVER);
        err = log->confirmed_seq <= seq ? vv_log_ended(log) : 0;
    }
    vv_list_remove(&put.node);
    return log->is_fenced ? -VV_ERR_FENCED : err;
}

static int put_in_order(struct vv_log *log, const struct vv_segment_id *id,
                        const uint8_t attempt_id[16], const struct iovec *iov, int count)
{
    /* The window is bounded, so that openers can tell a lost object from one still under way. */
    while (id->counter - log->confirmed_seq >= VV_LOG_WINDOW_MAX) {
        vv_waitq_wait(&log->acknowledged, VV_NEVER);
        TRY(vv_log_ended(log));
    }
    char name[VV_STORE_NAME_MAX + 1];
    vv_segment_name(id, name, sizeof(name));
    int err = vv_log_request_put(&log->requests, name, attempt_id, iov, count, NULL);
    if (err == -VV_ERR_NOT_OURS)
        fence(log, name); /* 11: also when what we found is gone again */
    TRY(vv_log_ended(log));
    TRY(err);
    return wait_for_turn(log, id->counter);
}

int vv_log_put(struct vv_log *log, const struct vv_segment_id *id, const uint8_t attempt_id[16],
               const struct iovec *iov, int count)
{
    TRY(enter(log));
    assert(id->kind == VV_SEGMENT_LOG && id->epoch == log->manifest.epoch);
    assert(id->counter >= log->confirmed_seq && id->counter < log->next_seq);
    return leave(log, put_in_order(log, id, attempt_id, iov, count));
}

int vv_log_put_object(struct vv_log *log, const char *name, const uint8_t attempt_id[16],
                      const struct iovec *iov, int count)
{
    TRY(enter(log));
    int err = vv_log_request_put(&log->requests, name, attempt_id, iov, count, NULL);
    return leave(log, err);
}

/* ---- manifests ---- */

/* The last commit that must be in the tables before this epoch of the last manifest may be dropped.
 */
static uint64_t last_commit_of(const struct vv_log *log, uint64_t epoch)
{
    for (size_t i = 0; i < log->older_count; i++) {
        if (log->older[i].epoch == epoch)
            return log->epoch_commits[i];
    }
    return 0;
}

static const struct vv_epoch_ref *find_epoch(const struct vv_manifest *manifest, uint64_t epoch)
{
    for (size_t i = 0; i < manifest->epoch_count; i++) {
        if (manifest->epochs[i].epoch == epoch)
            return &manifest->epochs[i];
    }
    return NULL;
}

/* Rule 13, as far as it can be seen here: a replay point never goes back, ours not beyond what is
 * confirmed in the bucket (18), and an older epoch goes only when the tables hold its whole replay.
 */
static void assert_replay_points(const struct vv_log *log, const struct vv_manifest *manifest)
{
    const struct vv_epoch_ref *own = find_epoch(manifest, log->manifest.epoch);
    assert(own);
    assert(own->replay_seq <= log->confirmed_seq || vv_planted(VV_PLANT_WRONG_REPLAY));
    assert(manifest->last_commit >= log->manifest.last_commit);
    for (size_t i = 0; i < log->manifest.epoch_count; i++) {
        const struct vv_epoch_ref *before = &log->manifest.epochs[i];
        const struct vv_epoch_ref *after = find_epoch(manifest, before->epoch);
        if (after)
            assert(after->replay_seq >= before->replay_seq);
        else
            assert(manifest->last_commit >= last_commit_of(log, before->epoch));
    }
}

static int build_manifest(const struct vv_log *log, const struct vv_manifest *manifest,
                          struct vv_manifest *out_next)
{
    struct vv_manifest next;
    TRY(vv_manifest_copy(manifest, &next));
    next.number = log->manifest.number + 1;
    next.epoch = log->manifest.epoch;
    memcpy(next.owner_id, log->manifest.owner_id, sizeof(next.owner_id));
    memcpy(next.journal_id, log->journal_id, sizeof(next.journal_id));
    if (vv_planted(VV_PLANT_ONE_REPLAY_POINT) && next.epoch_count > 0) {
        next.epochs[0] = next.epochs[next.epoch_count - 1];
        next.epoch_count = 1;
    }
    *out_next = next;
    return 0;
}

/* Rule 13: put, then LIST above: empty = confirmed; else fenced. A number is never abandoned for
 * the next. */
static int put_and_confirm(struct vv_log *log, const struct vv_log_requests *requests,
                           struct vv_manifest *next)
{
    char name[VV_STORE_NAME_MAX + 1];
    vv_manifest_name(next->number, name, sizeof(name));
    int err = vv_log_put_manifest(requests, log->options.ring, next);
    while (vv_planted(VV_PLANT_NEXT_MANIFEST) && err == -VV_ERR_NOT_OURS) {
        next->number++;
        err = vv_log_put_manifest(requests, log->options.ring, next);
    }
    uint64_t newer = 0;
    if (!err && !vv_planted(VV_PLANT_NO_LIST_AFTER_MANIFEST))
        err = vv_log_newest_above(requests, next->number, &newer);
    if (err == -VV_ERR_NOT_OURS || newer)
        fence(log, name);
    TRY(vv_log_ended(log));
    return err;
}

static int write_next_manifest(struct vv_log *log, const struct vv_manifest *manifest)
{
    struct vv_manifest next;
    assert_replay_points(log, manifest);
    TRY(build_manifest(log, manifest, &next));
    int err = put_and_confirm(log, &log->requests, &next);
    if (err) {
        vv_manifest_done(&next);
        return err;
    }
    vv_manifest_done(&log->manifest);
    log->manifest = next;
    return 0;
}

int vv_log_write_manifest(struct vv_log *log, const struct vv_manifest *manifest)
{
    TRY(enter(log));
    while (log->is_writing_manifest && !vv_log_ended(log))
        vv_waitq_wait(&log->manifest_turn, VV_NEVER);
    int err = vv_log_ended(log);
    if (err)
        return leave(log, err);
    log->is_writing_manifest = true;
    err = write_next_manifest(log, manifest);
    log->is_writing_manifest = false;
    vv_waitq_wake_one(&log->manifest_turn);
    return leave(log, err);
}

/* Nothing of ours is outside the tables, and no other epoch is live. */
static bool is_all_in_tables(const struct vv_log *log)
{
    const struct vv_epoch_ref *own = find_epoch(&log->manifest, log->manifest.epoch);
    return own && log->manifest.epoch_count == 1 && own->replay_seq == log->confirmed_seq &&
           log->next_seq == log->confirmed_seq && log->manifest.last_commit >= log->last_commit;
}

/* Every put of ours is confirmed, and there will be no other: an epoch that can grow no more, and is in the
 * tables as a whole, needs no fence and may be dropped (13). */
static int write_last_manifest(struct vv_log *log)
{
    struct vv_manifest next;
    TRY(build_manifest(log, &log->manifest, &next));
    next.epoch_count = 0;
    struct vv_log_requests requests = log->requests;
    requests.log = NULL; /* not worth waiting for a store that is away */
    int err = put_and_confirm(log, &requests, &next);
    vv_manifest_done(&next);
    return err;
}

int vv_log_end(struct vv_log *log)
{
    TRY(enter(log));
    while (log->is_writing_manifest && !vv_log_ended(log))
        vv_waitq_wait(&log->manifest_turn, VV_NEVER);
    int err = vv_log_ended(log);
    if (!err && is_all_in_tables(log)) {
        log->is_writing_manifest = true;
        err = write_last_manifest(log);
        log->is_writing_manifest = false;
        if (err < 0 && !log->is_fenced) {
            vv_warn("log", "ending the epoch: %s; the next opening does it", vv_err_text(err));
            err = 0;
        }
    }
    vv_log_stop(log);
    return leave(log, log->is_fenced ? -VV_ERR_FENCED : err);
}

static bool is_pinned(const struct vv_manifest *manifest, uint64_t number)
{
    for (size_t i = 0; i < manifest->pin_count; i++) {
        if (manifest->pins[i].manifest == number)
            return true;
    }
    return false;
}

/* Rule 14: only on the strength of the last confirmed manifest, which is looked at again after each
 * suspension; a fenced writer deletes nothing. */
static int remove_page(struct vv_log *log, const struct vv_store_entry *page, ssize_t count)
{
    for (ssize_t i = 0; i < count; i++) {
        uint64_t number;
        if (vv_manifest_name_parse(page[i].name, &number) != 0)
            continue;
        TRY(vv_log_ended(log));
        if (number < log->manifest.number && !is_pinned(&log->manifest, number))
            TRY(vv_log_request_remove(&log->requests, page[i].name));
    }
    return 0;
}

static int remove_old(struct vv_log *log)
{
    CLEANUP(vv_free_ptr)
    struct vv_store_entry *page = vv_calloc(REMOVE_PAGE_ENTRIES, sizeof(*page));
    if (!page)
        return -ENOMEM;
    char after[VV_STORE_NAME_MAX + 1] = "";
    ssize_t count;
    do {
        count = vv_log_request_list(&log->requests, "manifest/", after, page, REMOVE_PAGE_ENTRIES);
        TRY(count);
        TRY(remove_page(log, page, count));
        if (count > 0)
            memcpy(after, page[count - 1].name, sizeof(after));
    } while (count == REMOVE_PAGE_ENTRIES);
    return 0;
}

/* Rule 15 left out: a fence goes with its epoch's log. */
static int plant_remove_fences(struct vv_log *log)
{
    struct vv_store_entry page[REMOVE_PAGE_ENTRIES];
    ssize_t count = vv_log_request_list(&log->requests, "log/", "", page, REMOVE_PAGE_ENTRIES);
    for (ssize_t i = 0; i < count; i++) {
        struct vv_segment_id id;
        if (vv_segment_name_parse(page[i].name, &id) == 0 &&
            page[i].size <= VV_OBJECT_HEADER_LEN && !find_epoch(&log->manifest, id.epoch))
            TRY(vv_log_request_remove(&log->requests, page[i].name));
    }
    return count < 0 ? (int)count : 0;
}

int vv_log_remove_old_manifests(struct vv_log *log)
{
    TRY(enter(log));
    if (vv_planted(VV_PLANT_FENCES_COLLECTED))
        return leave(log, plant_remove_fences(log));
    return leave(log, remove_old(log));
}

static int check_newer(struct vv_log *log)
{
    /* A manifest of our own that is being written is followed by the same LIST. */
    if (log->is_writing_manifest)
        return 0;
    struct vv_log_requests requests = log->requests;
    requests.log = NULL; /* a look, not worth waiting for a store that is away */
    uint64_t number = log->manifest.number;
    uint64_t newer;
    TRY(vv_log_newest_above(&requests, number, &newer));
    /* One that was written by us since then is no news. */
    if (newer > log->manifest.number && !log->is_writing_manifest) {
        char name[VV_STORE_NAME_MAX + 1];
        vv_manifest_name(newer, name, sizeof(name));
        fence(log, name);
    }
    return vv_log_ended(log);
}

int vv_log_check_fenced(struct vv_log *log)
{
    TRY(enter(log));
    return leave(log, check_newer(log));
}
