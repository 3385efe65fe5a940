/* Reading what a journal holds: its files in the order of their first records, each from its start
 * to the first place that does not fit. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "log/journal_impl.h"
#include "log/log_impl.h"

#define WINDOW_BYTES (64u << 10)  /* read at once while looking for evidence of damage, ... */
#define LOOK_BYTES_MAX (1u << 20) /* ... and looked through of a file whose start does not fit */

struct scan {
    struct vv_journal *journal;
    uint64_t expected; /* the number to be given next */
    int (*record)(void *arg, uint64_t commit, struct vv_bytes plain);
    void *arg;
    /* Where the record before `expected` lies, if the journal has it. */
    struct vv_journal_file *last;
    uint64_t last_group; /* offset of its group */
    uint64_t last_end;   /* offset behind it */
};

/* A record in a file. */
struct place {
    struct vv_journal_file *file;
    uint64_t offset;
    struct vv_journal_record record;
};

/* ---- one record ---- */

struct open_job {
    const struct vv_keyring *ring;
    const char *name;
    uint64_t commit;
    const uint8_t *sealed;
    size_t sealed_len;
    uint8_t *plain;
    size_t plain_len;
    int err;
};

static int open_record(struct open_job *job)
{
    struct vv_object_header header;
    TRY(vv_object_header_decode(job->sealed, job->sealed_len, &header));
    if (header.kind != VV_KIND_JOURNAL || header.number != job->commit)
        return -VV_ERR_FORMAT;
    const uint8_t *frame = job->sealed + VV_OBJECT_HEADER_LEN;
    size_t frame_len = job->sealed_len - VV_OBJECT_HEADER_LEN;
    ssize_t plain_len = vv_frame_plain_len(frame, frame_len);
    TRY(plain_len);
    struct vv_sealer *sealer;
    TRY(vv_sealer_open(job->ring, &header, job->name, &sealer));
    struct vv_origin origin = {VV_ORIGIN_JOURNAL, job->commit};
    job->plain = vv_alloc((size_t)plain_len);
    ssize_t opened = -ENOMEM;
    if (job->plain)
        opened = vv_frame_open(sealer, 0, &origin, frame, frame_len, job->plain, (size_t)plain_len);
    vv_sealer_free(sealer);
    TRY(opened);
    job->plain_len = (size_t)opened;
    return 0;
}

static void run_open_job(void *arg)
{
    struct open_job *job = arg;
    job->err = open_record(job);
}

/* What a torn or old record may look like: the end of the valid ones, not a failure. */
static bool is_torn(int err)
{
    return err == -VV_ERR_FORMAT || err == -VV_ERR_CHECKSUM || err == -VV_ERR_AUTH;
}

/* Read, authenticate and give a record. 1; 0 when it is not whole; or an error. */
static int give_record(struct scan *scan, const struct place *place)
{
    size_t len = place->record.sealed_len;
    CLEANUP(vv_free_ptr) uint8_t *sealed = vv_alloc(len);
    if (!sealed)
        return -ENOMEM;
    ssize_t got =
        vv_file_pread(place->file->file, sealed, len, place->offset + VV_JOURNAL_RECORD_HEADER_LEN);
    TRY(got);
    if ((size_t)got < len)
        return 0;
    char name[VV_STORE_NAME_MAX + 1];
    vv_journal_record_name(scan->journal, place->record.commit, name, sizeof(name));
    struct open_job job = {.ring = scan->journal->ring,
                           .name = name,
                           .commit = place->record.commit,
                           .sealed = sealed,
                           .sealed_len = len};
    if (len > VV_LOG_OFFLOAD_BYTES)
        vv_rt_offload(run_open_job, &job);
    else
        run_open_job(&job);
    CLEANUP(vv_free_ptr) uint8_t *plain = job.plain;
    if (is_torn(job.err))
        return 0;
    TRY(job.err);
    TRY(scan->record(scan->arg, place->record.commit, (struct vv_bytes){plain, job.plain_len}));
    return 1;
}

/* Whether the record `commit`, of the file's session, begins at place->offset. 1, 0 or an error. */
static int find_record(struct place *place, uint64_t commit)
{
    uint8_t bytes[VV_JOURNAL_RECORD_HEADER_LEN];
    ssize_t len = vv_file_pread(place->file->file, bytes, sizeof(bytes), place->offset);
    TRY(len);
    if (vv_journal_record_decode(bytes, (size_t)len, &place->record) != 0)
        return 0;
    return place->record.commit == commit && place->record.session == place->file->session;
}

/* ---- one file ---- */

/* Walk a file's records and give those that are expected. Sets its last_commit (0 when nothing in
 * it counts). 0 or an error. */
static int walk_file(struct scan *scan, struct vv_journal_file *file)
{
    struct place place = {.file = file};
    uint64_t commit = file->first_commit;
    uint64_t group = 0;
    file->last_commit = 0;
    while (commit <= scan->expected) {
        int found = find_record(&place, commit);
        TRY(found);
        /* What is in the bucket already need not be opened. */
        if (found && commit == scan->expected) {
            found = give_record(scan, &place);
            TRY(found);
            scan->expected += (uint64_t)found;
        }
        if (!found)
            break;
        if (place.record.group_index == 0)
            group = place.offset;
        file->last_commit = commit++;
        place.offset +=
            vv_journal_padded(VV_JOURNAL_RECORD_HEADER_LEN + (uint64_t)place.record.sealed_len);
    }
    if (commit == scan->expected && place.offset > 0) {
        scan->last = file;
        scan->last_group = group;
        scan->last_end = place.offset;
    }
    return 0;
}

/* Whether `record` proves that `expected` was once on stable media: a session writes its groups one
 * after the other, and this one is of a later group. */
static bool is_evidence(const struct scan *scan, uint64_t session,
                        const struct vv_journal_record *record)
{
    return record->session == session && record->commit > scan->expected &&
           record->commit - record->group_index > scan->expected;
}

/* Look in a part of a file for a record of a later group: then what does not fit was acknowledged,
 * and is damaged. 0 or an error. */
static int look_for_evidence(const struct scan *scan, uint64_t session,
                             const struct vv_journal_file *file, uint64_t offset, uint64_t end)
{
    CLEANUP(vv_free_ptr) uint8_t *window = vv_alloc(WINDOW_BYTES);
    if (!window)
        return -ENOMEM;
    for (; offset < end; offset += WINDOW_BYTES) {
        ssize_t len = vv_file_pread(file->file, window, WINDOW_BYTES, offset);
        TRY(len);
        for (size_t at = 0; at + VV_JOURNAL_RECORD_HEADER_LEN <= (size_t)len;
             at += VV_JOURNAL_BLOCK) {
            struct vv_journal_record record;
            int err = vv_journal_record_decode(window + at, VV_JOURNAL_RECORD_HEADER_LEN, &record);
            if (!err && is_evidence(scan, session, &record))
                return -VV_ERR_CORRUPT;
        }
        if ((size_t)len < WINDOW_BYTES)
            break;
    }
    return 0;
}

/* ---- all files ---- */

static void sort_files(struct vv_journal *journal)
{
    for (size_t i = 1; i < journal->file_count; i++) {
        struct vv_journal_file *file = journal->files[i];
        size_t at = i;
        for (; at > 0 && journal->files[at - 1]->first_commit > file->first_commit; at--)
            journal->files[at] = journal->files[at - 1];
        journal->files[at] = file;
    }
}

/* After the walk: the file that gave the last record was written in the newest session. Did that go
 * on, there or in a file whose start is damaged? */
static int check_damage(const struct scan *scan)
{
    const struct vv_journal *journal = scan->journal;
    const struct vv_journal_file *last = scan->last;
    if (!last)
        return 0;
    TRY(look_for_evidence(scan, last->session, last, scan->last_end, last->size));
    for (size_t i = 0; i < journal->file_count; i++) {
        const struct vv_journal_file *file = journal->files[i];
        if (file->first_commit == 0)
            TRY(look_for_evidence(scan, last->session, file, 0, LOOK_BYTES_MAX));
    }
    return 0;
}

static int walk_files(struct scan *scan)
{
    struct vv_journal *journal = scan->journal;
    for (size_t i = 0; i < journal->file_count; i++) {
        struct vv_journal_file *file = journal->files[i];
        if (file->first_commit == 0)
            continue;
        /* A file is begun when everything before it is on stable media: a gap before it is damage.
         */
        if (file->first_commit > scan->expected)
            return -VV_ERR_CORRUPT;
        TRY(walk_file(scan, file));
    }
    return check_damage(scan);
}

/* Write what a file holds in a range once more, and sync it. */
static int rewrite(struct vv_journal_file *file, uint64_t from, uint64_t to)
{
    CLEANUP(vv_free_ptr) uint8_t *window = vv_alloc(WINDOW_BYTES);
    if (!window)
        return -ENOMEM;
    while (from < to) {
        size_t len = to - from < WINDOW_BYTES ? (size_t)(to - from) : WINDOW_BYTES;
        ssize_t got = vv_file_pread(file->file, window, len, from);
        TRY(got);
        if ((size_t)got < len)
            return -EIO;
        struct iovec iov = {window, len};
        TRY(vv_file_pwritev(file->file, &iov, 1, from));
        from += len;
    }
    return vv_file_datasync(file->file);
}

/* What the scan went by must stay so: the last group may have been written without a sync that
 * succeeded, by a process that was killed or met an error. A sync alone does not help after one
 * that failed: the system may hold the pages to be clean. So the last group is written again, and
 * so are the starts of all files that do not count, so that their numbers can be used again. */
static int settle(const struct scan *scan, uint64_t after)
{
    const struct vv_journal *journal = scan->journal;
    if (scan->expected > after + 1)
        TRY(rewrite(scan->last, scan->last_group, scan->last_end));
    for (size_t i = 0; i < journal->file_count; i++) {
        if (journal->files[i]->last_commit == 0)
            TRY(vv_journal_clear_file(journal->files[i]));
    }
    return 0;
}

int vv_journal_scan(struct vv_journal *journal, uint64_t after,
                    int (*record)(void *arg, uint64_t commit, struct vv_bytes plain), void *arg,
                    uint64_t *out_last)
{
    assert(!journal->is_ready);
    struct scan scan = {.journal = journal, .expected = after + 1, .record = record, .arg = arg};
    sort_files(journal);
    TRY(walk_files(&scan));
    TRY(settle(&scan, after));
    journal->trimmed = after;
    journal->next_commit = scan.expected;
    journal->is_ready = true;
    *out_last = scan.expected - 1;
    return 0;
}
