/* The log and the local journal. */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cmd/fsck_impl.h"
#include "log/journal.h"
#include "log/log.h"
#include "lsm/lsm.h"
#include "rt/rt.h"

#define WAL_FILES_MAX 1024
#define ID_TEXT_LEN 32

static int on_base(void *arg, const struct vv_manifest *manifest)
{
    struct vv_fsck *fsck = arg;
    vv_manifest_done(&fsck->manifest);
    TRY(vv_manifest_copy(manifest, &fsck->manifest));
    fsck->counters = manifest->counters;
    fsck->last_commit = manifest->last_commit;
    fsck->report->log_objects = 0;
    return 0;
}

/* The records of a batch must decode; what they say is seen through the volume. */
static int on_batch(void *arg, const struct vv_segment_id *id, const struct vv_batch_header *header,
                    struct vv_bytes payload, uint64_t object_bytes)
{
    struct vv_fsck *fsck = arg;
    struct vv_cursor cursor = vv_cursor_of(payload.ptr, payload.len);
    enum vv_lsm_kind kind;
    struct vv_bytes key, value;
    int more;
    (void)object_bytes;
    while ((more = vv_lsm_record_decode(&cursor, &kind, &key, &value)) > 0)
        continue;
    if (more < 0)
        vv_fsck_add(fsck->report, VV_FSCK_LOG_UNREADABLE,
                    "log object %llx/%llx holds records that do not decode",
                    (unsigned long long)id->epoch, (unsigned long long)id->counter);
    fsck->last_commit = header->first_commit + header->count - 1;
    if (header->counters.next_inode > fsck->counters.next_inode)
        fsck->counters.next_inode = header->counters.next_inode;
    if (header->counters.next_data_id > fsck->counters.next_data_id)
        fsck->counters.next_data_id = header->counters.next_data_id;
    fsck->report->log_objects++;
    vv_fsck_step(fsck, 1);
    return more;
}

int vv_fsck_log(struct vv_fsck *fsck)
{
    struct vv_fsck_report *report = fsck->report;
    struct vv_log_options options = {.store = fsck->options->store, .ring = fsck->options->ring};
    struct vv_log_replay replay = {.arg = fsck, .base = on_base, .batch = on_batch};
    struct vv_manifest manifest;
    vv_fsck_stage(fsck, "log");
    int err = vv_log_read(&options, &replay, &manifest);
    if (err == 0)
        vv_manifest_done(&manifest);
    if (err < 0 && vv_fsck_is_damage(err))
        vv_fsck_add(report, VV_FSCK_LOG_UNREADABLE, "manifest %llu, after %llu log objects: %s",
                    (unsigned long long)fsck->manifest.number,
                    (unsigned long long)report->log_objects, vv_err_text(err));
    report->manifest = fsck->manifest.number;
    report->epoch = fsck->manifest.epoch;
    report->last_commit = fsck->last_commit;
    return err;
}

/* ---- the journal: read without the lock, the rewriting and the clearing that serving it takes
 * ---- */

struct journal {
    struct vv_fsck *fsck;
    uint8_t id[16];
    uint64_t last; /* the last commit known to be safe so far */
    struct vv_file *files[WAL_FILES_MAX];
    uint64_t firsts[WAL_FILES_MAX]; /* the number of the first record */
    size_t count;
    char names[WAL_FILES_MAX][16];
};

static int on_name(void *arg, const char *name, bool is_dir)
{
    struct journal *journal = arg;
    size_t len = strlen(name);
    if (is_dir || len != 12 || strcmp(name + 8, ".wal") != 0 || journal->count == WAL_FILES_MAX)
        return 0;
    return vv_copy_text(journal->names[journal->count++], sizeof journal->names[0], name);
}

static int read_id(struct journal *journal, const char *path)
{
    char name[4400];
    char text[ID_TEXT_LEN + 1] = "";
    struct vv_file *file;
    vv_format(name, sizeof name, "%s/journal.id", path);
    TRY(vv_file_open(name, VV_FILE_READ, &file));
    ssize_t got = vv_file_pread(file, text, ID_TEXT_LEN, 0);
    vv_file_close(file);
    TRY(got);
    return vv_unhex(text, journal->id, sizeof journal->id);
}

/* The record at `offset`; its number, 0 when there is none. */
static uint64_t record_at(struct vv_file *file, uint64_t offset, struct vv_journal_record *record)
{
    uint8_t bytes[VV_JOURNAL_RECORD_HEADER_LEN];
    ssize_t got = vv_file_pread(file, bytes, sizeof bytes, offset);
    if (got < 0 || vv_journal_record_decode(bytes, (size_t)got, record) < 0)
        return 0;
    return record->commit;
}

/* Does the record authenticate? */
static bool is_sealed_well(struct journal *journal, struct vv_file *file, uint64_t offset,
                           const struct vv_journal_record *record)
{
    char name[96];
    char hex[ID_TEXT_LEN + 1];
    struct vv_object_header header;
    struct vv_sealer *sealer = NULL;
    struct vv_origin origin = {VV_ORIGIN_JOURNAL, record->commit};
    CLEANUP(vv_free_ptr) uint8_t *sealed = vv_alloc(record->sealed_len);
    if (sealed == NULL)
        return false;
    ssize_t got =
        vv_file_pread(file, sealed, record->sealed_len, offset + VV_JOURNAL_RECORD_HEADER_LEN);
    if (got != (ssize_t)record->sealed_len ||
        vv_object_header_decode(sealed, (size_t)got, &header) < 0 || header.kind != VV_KIND_JOURNAL)
        return false;
    vv_hex(journal->id, sizeof journal->id, hex);
    vv_format(name, sizeof name, "journal/%s/%016llx", hex, (unsigned long long)record->commit);
    const uint8_t *frame = sealed + VV_OBJECT_HEADER_LEN;
    size_t frame_len = (size_t)got - VV_OBJECT_HEADER_LEN;
    ssize_t plain_len = vv_frame_plain_len(frame, frame_len);
    if (plain_len < 0 || vv_sealer_open(journal->fsck->options->ring, &header, name, &sealer) < 0)
        return false;
    CLEANUP(vv_free_ptr) uint8_t *plain = vv_alloc((size_t)plain_len);
    bool is_good = plain != NULL && vv_frame_open(sealer, 0, &origin, frame, frame_len, plain,
                                                  (size_t)plain_len) >= 0;
    vv_sealer_free(sealer);
    return is_good;
}

static void walk_file(struct journal *journal, struct vv_file *file)
{
    struct vv_journal_record record;
    uint64_t offset = 0;
    uint64_t commit = record_at(file, 0, &record);
    uint64_t session = record.session;
    for (uint64_t expected = commit; commit != 0 && commit == expected && record.session == session;
         expected++) {
        if (commit > journal->last + 1)
            return;
        if (commit == journal->last + 1) {
            if (!is_sealed_well(journal, file, offset, &record))
                return;
            journal->last = commit;
            journal->fsck->report->journal_commits++;
        }
        uint64_t len = VV_JOURNAL_RECORD_HEADER_LEN + (uint64_t)record.sealed_len;
        offset += (len + VV_JOURNAL_BLOCK - 1) / VV_JOURNAL_BLOCK * VV_JOURNAL_BLOCK;
        commit = record_at(file, offset, &record);
        vv_fsck_step(journal->fsck, 1);
    }
}

static int open_files(struct journal *journal, const char *path)
{
    for (size_t i = 0; i < journal->count; i++) {
        char name[4400];
        struct vv_journal_record record;
        vv_format(name, sizeof name, "%s/%s", path, journal->names[i]);
        TRY(vv_file_open(name, VV_FILE_READ, &journal->files[i]));
        journal->firsts[i] = record_at(journal->files[i], 0, &record);
    }
    return 0;
}

static void walk_files(struct journal *journal)
{
    for (;;) {
        size_t next = journal->count;
        for (size_t i = 0; i < journal->count; i++) {
            if (journal->firsts[i] != 0 &&
                (next == journal->count || journal->firsts[i] < journal->firsts[next]))
                next = i;
        }
        if (next == journal->count)
            return;
        walk_file(journal, journal->files[next]);
        journal->firsts[next] = 0;
    }
}

int vv_fsck_journal(struct vv_fsck *fsck)
{
    const char *path = fsck->options->journal_path;
    struct journal *journal = vv_zalloc(sizeof *journal);
    if (journal == NULL)
        return -ENOMEM;
    vv_fsck_stage(fsck, "journal");
    journal->fsck = fsck;
    journal->last = fsck->last_commit;
    int err = read_id(journal, path);
    if (err == 0) {
        fsck->report->has_journal = true;
        err = vv_path_list(path, on_name, journal);
    }
    if (err == 0)
        err = open_files(journal, path);
    /* Records count only if the manifest names this journal (PROTOCOL 17). */
    if (err == 0 && memcmp(journal->id, fsck->manifest.journal_id, sizeof journal->id) == 0)
        walk_files(journal);
    for (size_t i = 0; i < journal->count; i++) {
        if (journal->files[i] != NULL)
            vv_file_close(journal->files[i]);
    }
    vv_free(journal);
    if (err < 0 && err != -ENOENT)
        vv_fsck_incomplete(fsck, "the journal");
    return err == -ENOMEM ? err : 0;
}
