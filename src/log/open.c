/* Opening: PROTOCOL rules 4 to 9. One round claims, fences and replays; it begins again when
 * another opener's claim shows. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/plant.h"
#include "log/log_impl.h"

/* A round's result: go to rule 4 again. */
#define AGAIN 1

struct survey;

/* One entry of `fences` per older live epoch: where it ends. */
struct opening {
    const struct vv_log_options *options;
    const struct vv_log_replay *replay;
    const struct vv_log_seen *seen; /* to begin with, once */
    struct vv_log_requests requests;
    uint8_t owner_id[16];
    struct vv_manifest base;  /* M(n) */
    struct vv_manifest claim; /* M(n+1) */
    uint64_t *fences;
    struct survey *surveys;
    int survey_err;
    bool is_surveying; /* a fiber does */
    struct vv_waitq surveyed;
    uint64_t *epoch_commits; /* last commit of each older live epoch, 0 = it held none */
    struct vv_log_reading reading;
};

static void forget_round(struct opening *opening)
{
    vv_manifest_done(&opening->base);
    vv_manifest_done(&opening->claim);
    vv_free(opening->fences);
    vv_free(opening->epoch_commits);
    vv_free(opening->surveys);
    opening->surveys = NULL;
    opening->fences = NULL;
    opening->epoch_commits = NULL;
}

static bool is_zero_id(const uint8_t id[16])
{
    static const uint8_t zero[16];
    return memcmp(id, zero, sizeof(zero)) == 0;
}

/* ---- rule 4: the newest manifest ---- */

/* 0, AGAIN when it was gone, -VV_ERR_NOT_VOLUME, ... */
static int fetch_newest(const struct vv_log_requests *requests, const struct vv_keyring *ring,
                        struct vv_manifest *out_manifest)
{
    uint64_t newest;
    TRY(vv_log_newest_above(requests, 0, &newest));
    if (newest == 0)
        return -VV_ERR_NOT_VOLUME;
    int err = vv_log_fetch_manifest(requests, ring, newest, out_manifest);
    return err == -ENOENT ? AGAIN : err; /* 4: if it is gone, start again */
}

/* The first round may begin with what was seen when the keys were looked for. */
static int take_newest(struct opening *opening)
{
    const struct vv_log_seen *seen = opening->seen;
    const struct vv_keyring *ring = opening->options->ring;
    opening->seen = NULL;
    if (seen && seen->number != 0 && vv_rt_now_ns() - seen->at_ns < VV_LOG_SEEN_MAX_NS)
        return vv_log_open_manifest(ring, seen->number, seen->bytes, seen->len, &opening->base);
    return fetch_newest(&opening->requests, ring, &opening->base);
}

/* Rule 17: whether a volume whose manifest names this journal may be opened with ours. */
static int check_journal(const struct vv_log_options *options, const struct vv_manifest *manifest)
{
    if (vv_planted(VV_PLANT_FOREIGN_JOURNAL))
        return 0;
    bool is_named = !is_zero_id(manifest->journal_id);
    bool is_ours =
        options->journal_id && memcmp(options->journal_id, manifest->journal_id, 16) == 0;
    if (is_named && !is_ours && !options->is_abandoning_journal)
        return -VV_ERR_JOURNAL;
    /* Naming it in the claim would make its old records look current after a crash. */
    if (!is_ours && options->journal_id && options->is_journal_holding_records)
        return -VV_ERR_JOURNAL;
    return 0;
}

/* ---- rule 5: the claim ---- */

static int build_claim(const struct opening *opening, struct vv_manifest *claim)
{
    if (claim->number == UINT64_MAX || claim->epoch == UINT64_MAX)
        return -VV_ERR_CORRUPT;
    claim->number++;
    claim->epoch++;
    memcpy(claim->owner_id, opening->owner_id, sizeof(claim->owner_id));
    memset(claim->journal_id, 0, sizeof(claim->journal_id));
    if (opening->options->journal_id)
        memcpy(claim->journal_id, opening->options->journal_id, sizeof(claim->journal_id));
    size_t count = claim->epoch_count + 1;
    struct vv_epoch_ref *epochs = vv_realloc(claim->epochs, count * sizeof(*epochs));
    if (!epochs)
        return -ENOMEM;
    epochs[count - 1] = (struct vv_epoch_ref){.epoch = claim->epoch, .replay_seq = 0};
    claim->epochs = epochs;
    claim->epoch_count = count;
    return 0;
}

static int put_claim(struct opening *opening)
{
    TRY(vv_manifest_copy(&opening->base, &opening->claim));
    TRY(build_claim(opening, &opening->claim));
    size_t older_count = opening->base.epoch_count;
    opening->fences = vv_calloc(older_count + 1, sizeof(*opening->fences));
    opening->epoch_commits = vv_calloc(older_count + 1, sizeof(*opening->epoch_commits));
    if (!opening->fences || !opening->epoch_commits)
        return -ENOMEM;
    int err = vv_log_put_manifest(&opening->requests, opening->options->ring, &opening->claim);
    return err == -VV_ERR_NOT_OURS ? AGAIN : err; /* 5: not ours: go to 4 */
}

/* Rules 6 and 9: 0, or AGAIN when there is a manifest above the claim. */
static int check_alone(struct opening *opening)
{
    if (vv_planted(VV_PLANT_NO_LIST_AFTER_CLAIM))
        return 0;
    uint64_t newer;
    TRY(vv_log_newest_above(&opening->requests, opening->claim.number, &newer));
    return newer ? AGAIN : 0;
}

/* ---- rule 7: fences ---- */

/* What LIST shows of an epoch's log from its replay point on. */
struct survey {
    uint64_t epoch;
    uint64_t seq;     /* everything from the replay point to below this is a log object */
    bool is_at_fence; /* what stands at seq is only a header: a fence */
};

/* Take one name in. A position is free only if nothing speaks against it: a fence above it was put
 * when it was taken, and a writer's window never reached that far. Then an object was lost. */
static int survey_entry(struct survey *survey, const struct vv_store_entry *entry)
{
    struct vv_segment_id id;
    if (survey->is_at_fence || vv_segment_name_parse(entry->name, &id) != 0 ||
        id.kind != VV_SEGMENT_LOG || id.epoch != survey->epoch || id.counter < survey->seq)
        return 0;
    bool is_fence = entry->size <= VV_OBJECT_HEADER_LEN;
    if (id.counter == survey->seq) {
        survey->is_at_fence = is_fence;
        survey->seq += !is_fence;
        return 0;
    }
    bool is_lost = is_fence || id.counter - survey->seq >= VV_LOG_WINDOW_MAX;
    return is_lost && !vv_planted(VV_PLANT_GAP_IS_END) ? -VV_ERR_GAP : 0;
}

/* Find where a fence may go, to save one PUT for each object before it. The PUT then decides. */
static int survey_epoch(struct opening *opening, const struct vv_epoch_ref *ref,
                        struct survey *out_survey)
{
    CLEANUP(vv_free_ptr)
    struct vv_store_entry *page = vv_calloc(VV_STORE_LIST_MAX, sizeof(*page));
    if (!page)
        return -ENOMEM;
    struct survey survey = {.epoch = ref->epoch, .seq = ref->replay_seq};
    char prefix[VV_STORE_NAME_MAX + 1];
    char after[VV_STORE_NAME_MAX + 1] = "";
    struct vv_segment_id id = {
        .epoch = ref->epoch, .counter = ref->replay_seq - 1, .kind = VV_SEGMENT_LOG};
    vv_segment_name(&id, prefix, sizeof(prefix));
    if (ref->replay_seq > 0)
        memcpy(after, prefix, sizeof(after));
    strrchr(prefix, '/')[1] = '\0';
    ssize_t count;
    do {
        count = vv_log_request_list(&opening->requests, prefix, after, page, VV_STORE_LIST_MAX);
        TRY(count);
        for (ssize_t i = 0; i < count; i++)
            TRY(survey_entry(&survey, &page[i]));
        if (count > 0)
            memcpy(after, page[count - 1].name, sizeof(after));
    } while (count == VV_STORE_LIST_MAX);
    *out_survey = survey;
    return 0;
}

/* PUT a fence at log/<epoch>/<seq>. 0: a fence is there, ours or another's; -VV_ERR_NOT_OURS: a
 * commit is; AGAIN: what was there is gone. */
static int put_fence(struct opening *opening, uint64_t epoch, uint64_t seq)
{
    const struct vv_keyring *ring = opening->options->ring;
    char name[VV_STORE_NAME_MAX + 1];
    struct vv_segment_id id = {.epoch = epoch, .counter = seq, .kind = VV_SEGMENT_LOG};
    vv_segment_name(&id, name, sizeof(name));
    /* Rule 3 holds for fences too: a sealer draws salt and attempt id. */
    struct vv_object_header header;
    struct vv_sealer *sealer;
    TRY(vv_sealer_new(ring, VV_KIND_FENCE, name, opening->claim.epoch, &opening->claim.settings,
                      &header, &sealer));
    vv_sealer_free(sealer);
    uint8_t bytes[VV_OBJECT_HEADER_LEN];
    vv_object_header_encode(&header, bytes);
    struct iovec iov = {bytes, sizeof(bytes)};
    struct vv_log_found found;
    int err = vv_log_request_put(&opening->requests, name, header.attempt_id, &iov, 1, &found);
    if (err != -VV_ERR_NOT_OURS)
        return err;
    /* Log objects at or above a replay point are deleted only by a newer owner. */
    if (found.err == -ENOENT)
        return AGAIN;
    TRY(found.err);
    if (memcmp(found.header.volume_id, vv_keyring_volume_id(ring), 16) != 0)
        return -VV_ERR_CORRUPT;
    if (found.header.kind != VV_KIND_FENCE)
        return found.header.kind == VV_KIND_LOG ? -VV_ERR_NOT_OURS : -VV_ERR_CORRUPT;
    /* Rule 8: a killed opener's fence may be visible without being durable. */
    if (opening->options->is_syncing_replay && !vv_planted(VV_PLANT_NO_REPLAY_SYNC))
        return vv_log_request_sync(&opening->requests, name);
    return 0;
}

/* Rule 8: what a killed writer left below may be visible without being durable. A fence that outlives it would
 * be behind a gap, should this opener be killed before it has synced the fence. All of an epoch's log lies in one
 * directory, so syncing the last object is enough. AGAIN: it is gone. */
static int sync_below(struct opening *opening, const struct vv_epoch_ref *ref, uint64_t seq)
{
    char name[VV_STORE_NAME_MAX + 1];
    struct vv_segment_id id = {.epoch = ref->epoch, .counter = seq - 1, .kind = VV_SEGMENT_LOG};
    if (!opening->options->is_syncing_replay || seq <= ref->replay_seq ||
        vv_planted(VV_PLANT_NO_REPLAY_SYNC))
        return 0;
    vv_segment_name(&id, name, sizeof(name));
    int err = vv_log_request_sync(&opening->requests, name);
    return err == -ENOENT ? AGAIN : err;
}

/* Rule 7: at the first free sequence from the epoch's own replay point. 412 on a commit: next
 * sequence; 412 on a fence: done. */
static int fence_epoch(struct opening *opening, const struct vv_epoch_ref *ref, uint64_t first,
                       uint64_t *out_fence)
{
    for (uint64_t seq = first; seq < UINT64_MAX; seq++) {
        int result = sync_below(opening, ref, seq);
        if (result)
            return result;
        result = put_fence(opening, ref->epoch, seq);
        if (result != -VV_ERR_NOT_OURS) {
            *out_fence = seq;
            return result;
        }
    }
    return -VV_ERR_CORRUPT;
}

/* Looking needs no claim: it is done while the LIST of rule 6 is under way. */
static void survey_all(void *arg)
{
    struct opening *opening = arg;
    for (size_t i = 0; i < opening->base.epoch_count && opening->survey_err == 0; i++)
        opening->survey_err =
            survey_epoch(opening, &opening->base.epochs[i], &opening->surveys[i]);
    opening->is_surveying = false;
    vv_waitq_wake_all(&opening->surveyed);
}

static int begin_surveys(struct opening *opening)
{
    vv_waitq_init(&opening->surveyed);
    opening->survey_err = 0;
    opening->surveys = vv_calloc(opening->base.epoch_count + 1, sizeof(*opening->surveys));
    if (!opening->surveys)
        return -ENOMEM;
    if (opening->base.epoch_count == 0)
        return 0;
    opening->is_surveying = true;
    if (vv_fiber_start(survey_all, opening, "log survey") < 0)
        survey_all(opening);
    return 0;
}

static int fence_all(struct opening *opening)
{
    TRY(opening->survey_err);
    for (size_t i = 0; i < opening->base.epoch_count; i++) {
        if (vv_planted(VV_PLANT_NO_FENCES)) {
            opening->fences[i] = UINT64_MAX;
            continue;
        }
        int result = fence_epoch(opening, &opening->base.epochs[i], opening->surveys[i].seq,
                                 &opening->fences[i]);
        if (result)
            return result;
    }
    return 0;
}

/* ---- rule 8: replay ---- */

static void begin_reading(const struct vv_log_options *options, const struct vv_log_replay *replay,
                          const struct vv_log_requests *requests,
                          const struct vv_manifest *manifest, struct vv_log_reading *reading)
{
    *reading = (struct vv_log_reading){
        .requests = requests,
        .ring = options->ring,
        .replay = replay,
        .is_syncing = options->is_syncing_replay,
        .last_commit = manifest->last_commit,
        .counters = manifest->counters,
    };
}

/* Each older live epoch, ascending, from its own replay point to its fence. */
static int replay_all(struct opening *opening)
{
    TRY(opening->replay->base(opening->replay->arg, &opening->claim));
    begin_reading(opening->options, opening->replay, &opening->requests, &opening->claim,
                  &opening->reading);
    for (size_t i = 0; i < opening->base.epoch_count; i++) {
        const struct vv_epoch_ref *ref = &opening->base.epochs[i];
        struct vv_log_epoch_end end;
        uint64_t before = opening->reading.last_commit;
        TRY(vv_log_read_epoch(&opening->reading, ref->epoch, ref->replay_seq, opening->fences[i],
                              &end));
        /* A missing position before the fence is an error, never "the end". */
        bool is_missing_allowed = vv_planted(VV_PLANT_GAP_IS_END) || vv_planted(VV_PLANT_NO_FENCES);
        if (end.is_missing && !is_missing_allowed)
            return -VV_ERR_GAP;
        if (end.seq != opening->fences[i] && !end.is_missing && !vv_planted(VV_PLANT_NO_FENCES))
            return -VV_ERR_CORRUPT; /* a second fence, before the one that we found */
        uint64_t last = opening->reading.last_commit;
        opening->epoch_commits[i] = last > before ? last : 0;
    }
    return 0;
}

/* ---- a round ---- */

static int run_round(struct opening *opening)
{
    const struct vv_log_options *options = opening->options;
    int result = take_newest(opening); /* 4 */
    if (result)
        return result;
    TRY(check_journal(options, &opening->base)); /* 17 */
    if (opening->replay->hint)
        opening->replay->hint(opening->replay->arg, &opening->base);
    result = put_claim(opening); /* 5 */
    if (result)
        return result;
    TRY(begin_surveys(opening));
    result = check_alone(opening); /* 6 */
    while (opening->is_surveying)
        vv_waitq_wait(&opening->surveyed, VV_NEVER);
    if (result)
        return result;
    result = fence_all(opening); /* 7 */
    if (result == 0)
        result = replay_all(opening); /* 8 */
    /* 9: only now serve. With nothing fenced or replayed, the LIST of rule 6 is this one. */
    if (result == 0)
        return opening->base.epoch_count > 0 ? check_alone(opening) : 0;
    /* What is missing may have been deleted by a newer owner: then its manifest shows. */
    if (result == -VV_ERR_GAP || result == -ENOENT) {
        int alone = check_alone(opening);
        if (alone)
            return alone;
    }
    return result;
}

/* Openers that disturb each other draw apart. */
static void pause_between_rounds(const struct opening *opening, unsigned round)
{
    uint64_t max = opening->requests.pause_min_ns << (round < 10 ? round : 10);
    if (max > opening->requests.pause_max_ns)
        max = opening->requests.pause_max_ns;
    vv_rt_sleep_ns(vv_rt_random_u64() % (max + 1));
}

static int run_rounds(struct opening *opening)
{
    for (unsigned round = 0; round < VV_LOG_ROUNDS_MAX; round++) {
        int result = run_round(opening);
        if (result != AGAIN)
            return result;
        forget_round(opening);
        pause_between_rounds(opening, round);
    }
    return -VV_ERR_LIMIT;
}

/* The opening's results become the log's. */
static void fill_log(struct vv_log *log, struct opening *opening)
{
    log->manifest = opening->claim;
    opening->claim = (struct vv_manifest){0};
    log->older = opening->base.epochs;
    log->older_count = opening->base.epoch_count;
    opening->base.epochs = NULL;
    opening->base.epoch_count = 0;
    log->epoch_commits = opening->epoch_commits;
    opening->epoch_commits = NULL;
    log->last_commit = opening->reading.last_commit;
    log->counters = opening->reading.counters;
}

/* Rule 17: the tail counts only if the claimed M(n) named this journal. */
static bool is_journal_current(const struct opening *opening)
{
    const uint8_t *id = opening->options->journal_id;
    if (vv_planted(VV_PLANT_FOREIGN_JOURNAL))
        return id;
    return id && memcmp(opening->base.journal_id, id, 16) == 0;
}

int vv_log_open(const struct vv_log_options *options, const struct vv_log_replay *replay,
                struct vv_log **out_log, bool *out_is_journal_current)
{
    struct vv_log *log;
    TRY(vv_log_new(options, &log));
    struct opening opening = {
        .options = options, .replay = replay, .seen = options->seen, .requests = vv_log_requests_of(options)};
    vv_rt_random(opening.owner_id, sizeof(opening.owner_id));
    int err = run_rounds(&opening);
    if (!err) {
        *out_is_journal_current = is_journal_current(&opening);
        fill_log(log, &opening);
        *out_log = log;
        vv_info("log", "opened: epoch %llu, manifest %llu, last commit %llu",
                (unsigned long long)log->manifest.epoch, (unsigned long long)log->manifest.number,
                (unsigned long long)log->last_commit);
    } else {
        vv_log_free(log);
    }
    forget_round(&opening);
    return err;
}

/* ---- reading without claiming ---- */

/* Every live epoch to its fence or first missing sequence. After an epoch that is not fenced
 * nothing can have been written. */
static int read_all(struct vv_log_reading *reading, const struct vv_manifest *manifest)
{
    TRY(reading->replay->base(reading->replay->arg, manifest));
    for (size_t i = 0; i < manifest->epoch_count; i++) {
        const struct vv_epoch_ref *ref = &manifest->epochs[i];
        struct vv_log_epoch_end end;
        TRY(vv_log_read_epoch(reading, ref->epoch, ref->replay_seq, UINT64_MAX, &end));
        if (end.is_missing)
            reading->is_ended = true;
    }
    return 0;
}

/* AGAIN when a newer manifest explains what is missing. */
static int read_round(const struct vv_log_options *options, const struct vv_log_replay *replay,
                      struct vv_manifest *manifest)
{
    struct vv_log_requests requests = vv_log_requests_of(options);
    int result = fetch_newest(&requests, options->ring, manifest);
    if (result)
        return result;
    struct vv_log_reading reading;
    begin_reading(options, replay, &requests, manifest, &reading);
    reading.is_syncing = false;
    result = read_all(&reading, manifest);
    if (result == -VV_ERR_GAP || result == -ENOENT || result == -VV_ERR_CORRUPT) {
        uint64_t newer;
        TRY(vv_log_newest_above(&requests, manifest->number, &newer));
        return newer ? AGAIN : result;
    }
    return result;
}

int vv_log_read(const struct vv_log_options *options, const struct vv_log_replay *replay,
                struct vv_manifest *out_manifest)
{
    struct vv_manifest manifest = {0};
    for (unsigned round = 0; round < VV_LOG_ROUNDS_MAX; round++) {
        int result = read_round(options, replay, &manifest);
        if (result == 0)
            *out_manifest = manifest;
        else
            vv_manifest_done(&manifest);
        if (result != AGAIN)
            return result;
    }
    return -VV_ERR_LIMIT;
}
