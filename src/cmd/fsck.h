/* Checking a volume: reading everything that a volume holds and proving that it fits together.
 * Nothing is changed, nothing is repaired.
 *
 * What is checked, in this order (each kind of finding has a short name that stays the same, see
 * enum vv_fsck_kind):
 *   log      the newest manifest, and every log object behind its replay points
 *   objects  the store's objects against what manifest and segment records name
 *   tables   every metadata table by itself
 *   records  those of replies, and those that nothing writes
 *   tree     inodes, entries, links, attributes, orphans; one pass over the sorted tables
 *   data     part lists, data ids, extent records (and whether they know what is set aside), tombstones,
 *            allocation counters
 *   segments segment records and directories against the extent records; with is_checking_data each
 *            live frame is opened
 *
 * Memory: a few fixed buffers, 96 bytes for each segment, 16 for each directory, and arrays that
 * take at most half of memory_bytes; what does not fit takes further passes over the tables.
 *
 * One reactor; the functions that suspend say so. */
#ifndef VV_CMD_FSCK_H
#define VV_CMD_FSCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "seal/seal.h"
#include "store/store.h"
#include "volume/volume.h"

#define VV_FSCK_PROBLEMS_MAX 1000 /* kept with their text; more are only counted */
#define VV_FSCK_TEXT_MAX 240

/* What can be found. The names (vv_fsck_kind_name) are these in lower case with dashes. */
enum vv_fsck_kind {
    /* log, objects, tables */
    VV_FSCK_OPEN_FAILED,        /* the volume cannot be opened */
    VV_FSCK_LOG_UNREADABLE,     /* manifest or log objects cannot be read */
    VV_FSCK_RECORDS_UNREADABLE, /* a scan of a metadata table ended early: what needs it is not
                                   checked */
    VV_FSCK_VOLUME_OBJECT,      /* varve.volume is missing or damaged */
    VV_FSCK_KEYS_OBJECT,        /* the keys object that the manifest names */
    VV_FSCK_PIN_MISSING,        /* a pinned manifest */
    VV_FSCK_TABLE_MISSING,
    VV_FSCK_TABLE_DAMAGED,
    VV_FSCK_RECORD_UNKNOWN, /* a record under a prefix that nothing writes, or a key of a wrong
                               shape */
    VV_FSCK_REPLY_FORMAT,   /* a record of a reply that cannot be used */
    /* tree */
    VV_FSCK_ROOT_MISSING,
    VV_FSCK_INODE_FORMAT,
    VV_FSCK_INODE_NUMBER, /* not below the counter */
    VV_FSCK_INODE_LINKS,  /* link count */
    VV_FSCK_INODE_PARENT, /* parent and cookie make no sense */
    VV_FSCK_INODE_LOST,   /* no entry where the inode says that its link is */
    VV_FSCK_ENTRY_FORMAT,
    VV_FSCK_ENTRY_PAIR,     /* the records by name and by cookie differ */
    VV_FSCK_ENTRY_DANGLING, /* names an inode that is not there */
    VV_FSCK_ENTRY_TYPE,
    VV_FSCK_ENTRY_PLACE,      /* its inode knows of no link there */
    VV_FSCK_ENTRY_NOWHERE,    /* in what is no directory */
    VV_FSCK_DIRECTORY_SIZE,   /* entry count */
    VV_FSCK_DIRECTORY_COOKIE, /* a cookie not below the next one */
    VV_FSCK_DIRECTORY_LOOP,   /* not reachable from the root */
    VV_FSCK_LINK_FORMAT,
    VV_FSCK_LINK_STRAY,  /* of an inode that is not there, or cannot have it */
    VV_FSCK_XATTR_STRAY, /* of an inode that is not there */
    VV_FSCK_XATTR_COUNT,
    VV_FSCK_ORPHAN_STRAY,   /* an orphan record of an inode that is not there or has links */
    VV_FSCK_ORPHAN_MISSING, /* an inode without links that is in no orphan record */
    VV_FSCK_ASIDE,          /* what is set aside: its record, that of an inode without it, or the
                               marks of extents */
    /* data */
    VV_FSCK_PARTS_FORMAT,
    VV_FSCK_DATA_NUMBER, /* a data id not below the counter */
    VV_FSCK_DATA_SHARED, /* used by two inodes, or used and dropped */
    VV_FSCK_DROP_FORMAT,
    VV_FSCK_EXTENT_FORMAT,
    VV_FSCK_EXTENT_STRAY,   /* of a data id that nothing uses */
    VV_FSCK_EXTENT_SEGMENT, /* names a segment without a record */
    VV_FSCK_EXTENT_FRAME,   /* names a frame that is not there, or another's */
    VV_FSCK_RANGE_FORMAT,
    VV_FSCK_RANGE_STRAY,
    VV_FSCK_ALLOCATION_SUM,
    VV_FSCK_ALLOCATION_STRAY,
    VV_FSCK_COMMIT_NUMBER, /* of a commit that never was */
    /* segments */
    VV_FSCK_SEGMENT_FORMAT,
    VV_FSCK_SEGMENT_MISSING,
    VV_FSCK_SEGMENT_DIRECTORY, /* header, footer or directory damaged */
    VV_FSCK_SEGMENT_TOTAL,
    VV_FSCK_SEGMENT_LIVE,
    VV_FSCK_FRAME_DAMAGED, /* with is_checking_data */
    VV_FSCK_KINDS
};

struct vv_fsck_problem {
    enum vv_fsck_kind kind;
    char text[VV_FSCK_TEXT_MAX];
};

struct vv_fsck_report {
    uint64_t problem_count;
    uint64_t kind_counts[VV_FSCK_KINDS];
    struct vv_fsck_problem *problems; /* the first VV_FSCK_PROBLEMS_MAX; owned */
    size_t kept;
    bool is_incomplete; /* damage kept something from being checked, or memory did */
    char not_checked[VV_FSCK_TEXT_MAX]; /* what, if so */

    /* Counts of what was read. */
    uint64_t manifest, epoch, last_commit, log_objects;
    uint64_t tables, table_bytes, records;
    uint64_t inodes, files, directories, symlinks, others, orphans, entries, links, xattrs;
    uint64_t replies; /* to requests, kept for clients that ask again */
    uint64_t file_bytes; /* sum of sizes of regular files */
    uint64_t data_ids, drops, extents, ranges, frames_checked, bytes_checked;
    uint64_t segments, segment_bytes, live_bytes, fences;
    uint64_t old_manifests; /* every server leaves some, and removes those before it */
    uint64_t garbage_objects, garbage_bytes; /* harmless: nothing knows them (PROTOCOL 16) */
    bool has_journal;
    uint64_t journal_commits; /* that only the journal holds */
};

struct vv_fsck_options {
    struct vv_store *store; /* the volume's */
    const struct vv_keyring *ring;
    const char *journal_path; /* directory, NULL = do not look */
    uint64_t memory_bytes;    /* 0 = 64 MiB */
    bool is_checking_data;
    /* Called now and then, with the stage and what was read of it so far. May be NULL. Must not
     * suspend. */
    void (*on_progress)(void *arg, const char *stage, uint64_t done);
    void *progress_arg;
};

/* Check a volume. `volume` was opened read-only (NULL: it could not be; then only what needs no
 * open volume is checked), and nobody writes to the store meanwhile. `*report` is zeroed by the
 * caller before, and released with vv_fsck_report_done in any case. 0 when it was checked, whatever
 * was found; else what kept it from being checked: -ENOMEM, store errors. Suspends. */
MUST_CHECK int vv_fsck_volume(struct vv_volume *volume, const struct vv_fsck_options *options,
                              struct vv_fsck_report *report);
void vv_fsck_report_done(struct vv_fsck_report *report);
/* Note a finding. Does not suspend. */
void vv_fsck_add(struct vv_fsck_report *report, enum vv_fsck_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* "inode-links" and so on; static. */
const char *vv_fsck_kind_name(enum vv_fsck_kind kind);
/* The whole report as one JSON object and a newline, or as text for people. Appends to `writer`. */
void vv_fsck_report_json(const struct vv_fsck_report *report, const char *url,
                         struct vv_writer *writer);
void vv_fsck_report_text(const struct vv_fsck_report *report, const char *url,
                         struct vv_writer *writer);

#endif
