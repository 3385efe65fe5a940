/* Inside the journal: its files. Private to src/log. One reactor. */
#ifndef VV_LOG_JOURNAL_IMPL_H
#define VV_LOG_JOURNAL_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "log/journal.h"
#include "rt/rt.h"

#define VV_JOURNAL_FILES_MAX 1024
#define VV_JOURNAL_PATH_MAX 4096

struct vv_journal_file {
    uint64_t number;       /* of its name */
    uint64_t size;         /* bytes */
    struct vv_file *file;  /* owned */
    uint64_t first_commit; /* of the record at its start, 0 = none */
    uint64_t last_commit;  /* of its last valid record, once that is known */
    uint64_t session;      /* of the record at its start */
};

struct vv_journal {
    const struct vv_keyring *ring;
    struct vv_seal_settings settings;
    uint64_t file_bytes;
    struct vv_file *id_file; /* the lock is on it */
    uint8_t id[16];
    uint64_t session;

    struct vv_journal_file *files[VV_JOURNAL_FILES_MAX]; /* owned */
    size_t file_count;
    uint64_t next_number;           /* of the next file made */
    struct vv_journal_file *active; /* being written */
    uint64_t offset;                /* in it; where the next record goes */
    bool is_preparing;              /* a fiber is making a spare file, or removing some */
    struct vv_waitq prepared;

    bool is_empty; /* no records when it was opened */
    bool is_ready; /* scanned or reset: appends may begin */
    int broken;    /* not 0: the error that broke it */
    uint64_t next_commit;
    uint64_t trimmed;
    struct vv_list appends; /* those that have not returned, in order of their numbers */
    uint64_t bytes_written;
    char path[VV_JOURNAL_PATH_MAX];
};

/* ---- files (journal_file.c); all suspend but vv_journal_free_* ---- */

/* Make the directory if it is not there, take the lock, read or make the id, open the files. Each file is locked, too: writes
 * by io_uring may outlive their process, and their file's lock says so (-VV_ERR_LOCKED after a minute). */
MUST_CHECK int vv_journal_open_files(struct vv_journal *journal);
void vv_journal_close_files(struct vv_journal *journal);
/* A file of at least `len` bytes that holds nothing needed any more, or NULL. */
struct vv_journal_file *vv_journal_free_file(const struct vv_journal *journal, uint64_t len);
size_t vv_journal_free_count(const struct vv_journal *journal);
/* Make a file of at least `len` bytes: zeros on stable media, its name too. */
MUST_CHECK int vv_journal_make_file(struct vv_journal *journal, uint64_t len);
/* Remove files that hold nothing needed until `keep_max` such are left. */
MUST_CHECK int vv_journal_remove_surplus(struct vv_journal *journal, size_t keep_max);
/* Overwrite the record at a file's start, so that a scan does not enter it; on stable media. */
MUST_CHECK int vv_journal_clear_file(struct vv_journal_file *file);

/* ---- records ---- */

/* The name that the record of `commit` is sealed under, into name[VV_STORE_NAME_MAX + 1]. */
void vv_journal_record_name(const struct vv_journal *journal, uint64_t commit, char *name,
                            size_t size);

static inline uint64_t vv_journal_padded(uint64_t len)
{
    return (len + VV_JOURNAL_BLOCK - 1) / VV_JOURNAL_BLOCK * VV_JOURNAL_BLOCK;
}

#endif
