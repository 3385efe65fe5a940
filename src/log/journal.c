#include "log/journal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "base/plant.h"
#include "base/text.h"
#include "log/journal_impl.h"
#include "log/log_impl.h"

static_assert(VV_JOURNAL_BLOCK % VV_FILE_SECTOR == 0, "records may be written around the cache");

#define GROUP_MAX 64                /* records of one write; more wait for the next */
#define SPARE_FILES_MAX 3           /* files kept though nothing in them is needed */
#define GROUP_BYTES_MAX (32u << 20) /* likewise, unless the first alone is longer */

/* ---- life ---- */

int vv_journal_open(const char *path, const struct vv_keyring *ring,
                    const struct vv_seal_settings *settings, uint64_t file_bytes,
                    struct vv_journal **out_journal)
{
    struct vv_journal *journal = vv_zalloc(sizeof(*journal));
    if (!journal)
        return -ENOMEM;
    journal->ring = ring;
    journal->settings = *settings;
    journal->file_bytes = file_bytes ? file_bytes : VV_JOURNAL_FILE_BYTES;
    vv_rt_random(&journal->session, sizeof(journal->session));
    vv_list_init(&journal->appends);
    vv_waitq_init(&journal->prepared);
    int err = vv_copy_text(journal->path, sizeof(journal->path), path);
    if (!err)
        err = vv_journal_open_files(journal);
    if (err) {
        vv_journal_close(journal);
        return err;
    }
    *out_journal = journal;
    return 0;
}

void vv_journal_close(struct vv_journal *journal)
{
    if (!journal)
        return;
    assert(vv_list_is_empty(&journal->appends));
    while (journal->is_preparing)
        vv_waitq_wait(&journal->prepared, VV_NEVER);
    vv_journal_close_files(journal);
    vv_free(journal);
}

const uint8_t *vv_journal_id(const struct vv_journal *journal)
{
    return journal->id;
}

bool vv_journal_is_empty(const struct vv_journal *journal)
{
    return journal->is_empty;
}

bool vv_journal_is_broken(const struct vv_journal *journal)
{
    return journal->broken != 0;
}

uint64_t vv_journal_bytes_written(const struct vv_journal *journal)
{
    return journal->bytes_written;
}

uint64_t vv_journal_bytes_held(const struct vv_journal *journal)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < journal->file_count; i++)
        bytes += journal->files[i]->size;
    return bytes;
}

static void break_journal(struct vv_journal *journal, int err)
{
    if (journal->broken)
        return;
    journal->broken = err;
    vv_error("journal", "%s: writing commit %llu: %s", journal->path,
             (unsigned long long)journal->next_commit, vv_err_text(err));
}

/* Newest first: a reset that is interrupted leaves a beginning of the journal, never a gap. Files
 * that seem to be cleared are cleared again: that may have failed to reach the disk. */
static int clear_files(struct vv_journal *journal)
{
    for (size_t i = 0; i < journal->file_count; i++) {
        if (journal->files[i]->first_commit == 0)
            TRY(vv_journal_clear_file(journal->files[i]));
    }
    for (;;) {
        struct vv_journal_file *newest = NULL;
        for (size_t i = 0; i < journal->file_count; i++) {
            struct vv_journal_file *file = journal->files[i];
            if (file->first_commit && (!newest || file->first_commit > newest->first_commit))
                newest = file;
        }
        if (!newest)
            return 0;
        TRY(vv_journal_clear_file(newest));
    }
}

int vv_journal_reset(struct vv_journal *journal, uint64_t next_commit)
{
    assert(vv_list_is_empty(&journal->appends));
    assert(next_commit > 0);
    while (journal->is_preparing)
        vv_waitq_wait(&journal->prepared, VV_NEVER);
    if (journal->broken)
        return journal->broken;
    int err = clear_files(journal);
    if (err) {
        break_journal(journal, err);
        return err;
    }
    vv_rt_random(&journal->session, sizeof(journal->session));
    journal->active = NULL;
    journal->trimmed = next_commit - 1;
    journal->next_commit = next_commit;
    journal->is_ready = true;
    return 0;
}

/* ---- files to write to ---- */

static void run_prepare(void *arg)
{
    struct vv_journal *journal = arg;
    int err = vv_journal_make_file(journal, 0);
    if (err) /* tried again, and then reported, when it is needed */
        vv_warn("journal", "%s: preparing a file: %s", journal->path, vv_err_text(err));
    journal->is_preparing = false;
    vv_waitq_wake_all(&journal->prepared);
}

static void run_remove(void *arg)
{
    struct vv_journal *journal = arg;
    int err = vv_journal_remove_surplus(journal, SPARE_FILES_MAX);
    if (err)
        vv_warn("journal", "%s: removing a file: %s", journal->path, vv_err_text(err));
    journal->is_preparing = false;
    vv_waitq_wake_all(&journal->prepared);
}

/* One fiber at a time changes the set of files in the background. */
static void start_preparing(struct vv_journal *journal, void (*fn)(void *), const char *name)
{
    if (journal->is_preparing)
        return;
    journal->is_preparing = true;
    if (vv_fiber_start(fn, journal, name) != 0)
        journal->is_preparing = false; /* it is done when it is needed, or next time */
}

/* Make a spare file in the background, so that no append waits for it, once half of the active
 * one is used. */
static void prepare_spare(struct vv_journal *journal)
{
    if (journal->offset >= journal->active->size / 2 && vv_journal_free_count(journal) == 0)
        start_preparing(journal, run_prepare, "journal prepare");
}

void vv_journal_trim(struct vv_journal *journal, uint64_t commit)
{
    if (commit <= journal->trimmed)
        return;
    journal->trimmed = commit;
    /* After a long time without the bucket the journal shrinks again. */
    if (journal->is_ready && !journal->broken && vv_journal_free_count(journal) > SPARE_FILES_MAX)
        start_preparing(journal, run_remove, "journal remove");
}

/* Go on at the start of a file that has room for `len` bytes. */
static int rotate(struct vv_journal *journal, uint64_t len)
{
    while (journal->is_preparing)
        vv_waitq_wait(&journal->prepared, VV_NEVER);
    journal->active = NULL;
    struct vv_journal_file *file = vv_journal_free_file(journal, len);
    if (!file) {
        TRY(vv_journal_make_file(journal, len));
        file = journal->files[journal->file_count - 1];
    }
    file->session = journal->session;
    journal->active = file;
    journal->offset = 0;
    return 0;
}

/* ---- appending ---- */

/* One append. Lives on the stack of its fiber. */
struct append {
    struct vv_list node;
    struct vv_journal *journal;
    uint64_t commit;
    const uint8_t *plain;
    size_t plain_len;
    uint8_t *bytes; /* the record; owned */
    size_t capacity;
    size_t len; /* of the record, padded; 0 = not sealed yet */
    size_t sealed_len;
    bool is_written;
    int err;
    struct vv_waitq turn; /* woken when it becomes the first in the list */
};

/* Seal the record behind its header. On any thread. */
static int seal_record(struct append *append)
{
    struct vv_journal *journal = append->journal;
    char name[VV_STORE_NAME_MAX + 1];
    vv_journal_record_name(journal, append->commit, name, sizeof(name));
    /* Rule 3: each record has its own sealer, and so its own salt. */
    struct vv_object_header header;
    struct vv_sealer *sealer;
    TRY(vv_sealer_new(journal->ring, VV_KIND_JOURNAL, name, append->commit, &journal->settings,
                      &header, &sealer));
    uint8_t *at = append->bytes + VV_JOURNAL_RECORD_HEADER_LEN;
    vv_object_header_encode(&header, at);
    size_t before = VV_JOURNAL_RECORD_HEADER_LEN + VV_OBJECT_HEADER_LEN;
    struct vv_origin origin = {VV_ORIGIN_JOURNAL, append->commit};
    ssize_t frame_len = vv_frame_seal(sealer, 0, &origin, append->plain, append->plain_len,
                                      at + VV_OBJECT_HEADER_LEN, append->capacity - before);
    vv_sealer_free(sealer);
    TRY(frame_len);
    size_t len = before + (size_t)frame_len;
    append->sealed_len = VV_OBJECT_HEADER_LEN + (size_t)frame_len;
    append->len = (size_t)vv_journal_padded(len);
    memset(append->bytes + len, 0, append->len - len);
    return 0;
}

static void run_seal(void *arg)
{
    struct append *append = arg;
    append->err = seal_record(append);
}

/* The group: the first append and those sealed that follow it and fit. Returns how many. */
static int gather(struct vv_journal *journal, struct append *group[GROUP_MAX],
                  struct iovec iov[GROUP_MAX])
{
    int count = 0;
    uint64_t bytes = 0;
    vv_list_each (node, &journal->appends) {
        struct append *append = vv_list_entry(node, struct append, node);
        uint64_t with = bytes + append->len;
        bool has_room = journal->offset + with <= journal->active->size &&
                        (count == 0 || with <= GROUP_BYTES_MAX);
        if (count == GROUP_MAX || append->len == 0 || append->is_written || !has_room)
            break;
        struct vv_journal_record record = {.commit = append->commit,
                                           .sealed_len = (uint32_t)append->sealed_len,
                                           .session = journal->session,
                                           .group_index = (uint32_t)count};
        vv_journal_record_encode(&record, append->bytes);
        iov[count] = (struct iovec){append->bytes, append->len};
        group[count++] = append;
        bytes = with;
    }
    return count;
}

static int write_iov(struct vv_journal *journal, struct iovec *iov, int count)
{
    struct vv_file *file = journal->active->file;
    if (vv_planted(VV_PLANT_JOURNAL_NO_SYNC))
        return vv_file_pwritev(file, iov, count, journal->offset);
    return vv_file_pwritev_sync(file, iov, count, journal->offset);
}

/* Write and sync the first append and what can go with it. Only the first one's fiber does this. */
static void write_group(struct vv_journal *journal, struct append *first)
{
    struct append *group[GROUP_MAX];
    struct iovec iov[GROUP_MAX];
    int err = journal->broken;
    if (!err && (!journal->active || journal->offset + first->len > journal->active->size))
        err = rotate(journal, first->len);
    if (err) {
        break_journal(journal, err);
        first->err = err;
        return;
    }
    int count = gather(journal, group, iov);
    assert(count > 0 && group[0] == first);
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += group[i]->len;
    if (journal->offset == 0)
        journal->active->first_commit = first->commit;
    journal->active->last_commit = group[count - 1]->commit;
    err = write_iov(journal, iov, count);
    if (err)
        break_journal(journal, err);
    for (int i = 0; i < count; i++) {
        group[i]->is_written = true;
        group[i]->err = err;
    }
    journal->offset += bytes;
    journal->bytes_written += bytes;
    if (!err)
        prepare_spare(journal);
}

/* Seal, wait to be the first, write unless somebody did. */
static void run_append(struct vv_journal *journal, struct append *append)
{
    if (append->plain_len > VV_LOG_OFFLOAD_BYTES)
        vv_rt_offload(run_seal, append);
    else
        run_seal(append);
    while (journal->appends.next != &append->node)
        vv_waitq_wait(&append->turn, VV_NEVER);
    bool is_last = append->commit + 1 == journal->next_commit;
    if (append->len == 0 && is_last)
        journal->next_commit--; /* not sealed, and nothing happened */
    else if (append->len == 0)
        break_journal(journal, append->err); /* the numbers that follow would leave a gap */
    else if (!append->is_written)
        write_group(journal, append);
    vv_list_remove(&append->node);
    if (!vv_list_is_empty(&journal->appends))
        vv_waitq_wake_one(&vv_list_first(&journal->appends, struct append, node)->turn);
}

/* The plain bytes in one piece: the caller's, or a copy that is to be freed. */
static int flatten(const struct iovec *plain, int count, struct append *append, uint8_t **out_copy)
{
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        if (__builtin_add_overflow(len, plain[i].iov_len, &len) || len > VV_JOURNAL_RECORD_MAX)
            return -VV_ERR_LIMIT;
    }
    append->plain_len = len;
    *out_copy = NULL;
    if (count == 1) {
        append->plain = plain[0].iov_base;
        return 0;
    }
    uint8_t *copy = vv_alloc(len);
    if (!copy)
        return -ENOMEM;
    append->plain = copy;
    *out_copy = copy;
    for (int i = 0; i < count; i++) {
        if (plain[i].iov_len > 0)
            memcpy(copy, plain[i].iov_base, plain[i].iov_len);
        copy += plain[i].iov_len;
    }
    return 0;
}

void vv_journal_give_up(struct vv_journal *journal)
{
    break_journal(journal, -VV_ERR_LIMIT);
}

int vv_journal_append(struct vv_journal *journal, uint64_t commit, const struct iovec *plain,
                      int count)
{
    assert(journal->is_ready);
    if (journal->broken)
        return journal->broken;
    assert(commit == journal->next_commit);
    struct append append = {.journal = journal, .commit = commit};
    CLEANUP(vv_free_ptr) uint8_t *copy = NULL;
    TRY(flatten(plain, count, &append, &copy));
    append.capacity = (size_t)vv_journal_padded(
        VV_JOURNAL_RECORD_HEADER_LEN + VV_OBJECT_HEADER_LEN + vv_frame_bound(append.plain_len));
    append.bytes = vv_alloc_aligned(VV_FILE_SECTOR, append.capacity);
    if (!append.bytes)
        return -ENOMEM;
    vv_waitq_init(&append.turn);
    vv_list_push_back(&journal->appends, &append.node);
    journal->next_commit++;
    run_append(journal, &append);
    vv_free(append.bytes);
    return append.err;
}
