/* The local journal: commits on stable media at the cost of one write and one fdatasync (PROTOCOL
 * 17, 18).
 *
 * A directory of preallocated, zero-written files "<8-digit n>.wal" and a file "journal.id" (16
 * random bytes in hex and a newline) that is also what the lock is taken on. A record:
 *
 *   0  4  magic "vvjr"
 *   4  4  CRC32C of bytes 8..31
 *   8  8  commit number (of the record; contiguous)
 *  16  4  length of the sealed part that follows (object header + frame)
 *  20  8  session: random, drawn when the journal is opened or reset
 *  28  4  index of the record in its group, that is in one write and sync
 *  32  n  object header (kind JOURNAL, number = commit number) and one frame, index 0,
 *         origin {VV_ORIGIN_JOURNAL, commit number}; the name it is sealed under is
 *         "journal/<journal id in hex>/<16-hex commit number>"
 *
 * padded with zeros to 512 bytes. A file is used from its start, by one session; the end of its
 * valid records is the first place where magic, checksum, number, session or seal does not fit.
 * Files are reused when all their records are confirmed in the bucket, without rewriting their
 * blocks: what lies behind the end are older records, of other sessions or lower numbers, which is
 * why both are checked.
 *
 * A group is written only when the one before it is on stable media. So a record that does not fit,
 * with one of a later group behind it, was acknowledged and is damaged: that is an error, not the
 * end.
 *
 * One reactor. Appends of several fibers are grouped into one write and sync. */
#ifndef VV_LOG_JOURNAL_H
#define VV_LOG_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/bytes.h"
#include "base/err.h"
#include "seal/seal.h"

#define VV_JOURNAL_FILE_BYTES (64u << 20)
#define VV_JOURNAL_RECORD_MAX (48u << 20) /* plain bytes of a record */

struct vv_journal;

/* A record's header, as drawn above. */
#define VV_JOURNAL_RECORD_HEADER_LEN 32
#define VV_JOURNAL_BLOCK 512
struct vv_journal_record {
    uint64_t commit;
    uint32_t sealed_len;
    uint64_t session;
    uint32_t group_index;
};
void vv_journal_record_encode(const struct vv_journal_record *record,
                              uint8_t out[VV_JOURNAL_RECORD_HEADER_LEN]);
/* -VV_ERR_FORMAT, -VV_ERR_CHECKSUM. */
MUST_CHECK int vv_journal_record_decode(const void *bytes, size_t len,
                                        struct vv_journal_record *out_record);

/* Open or create the journal in directory `path` and take its lock. -VV_ERR_LOCKED, -VV_ERR_FORMAT,
 * -errno. Suspends. file_bytes 0 = VV_JOURNAL_FILE_BYTES. */
MUST_CHECK int vv_journal_open(const char *path, const struct vv_keyring *ring,
                               const struct vv_seal_settings *settings, uint64_t file_bytes,
                               struct vv_journal **out_journal);
/* Whether the journal held no records when it was opened. */
bool vv_journal_is_empty(const struct vv_journal *journal);
/* Releases the lock. Nobody may be appending. Suspends. */
void vv_journal_close(struct vv_journal *journal);
const uint8_t *vv_journal_id(const struct vv_journal *journal);
/* Calls record(arg, commit, plain) for each valid record with a number above `after`, in order,
 * beginning with after + 1, ending at the first gap or torn record. What is given is on stable
 * media. Must be called once, before the first append (which then is *out_last + 1), or
 * vv_journal_reset instead. Suspends, as may `record`; its negative return ends the scan. *out_last
 * = last number seen, or `after`. -VV_ERR_CORRUPT: a record that was acknowledged is damaged (those
 * before it were given). -errno. */
MUST_CHECK int vv_journal_scan(struct vv_journal *journal, uint64_t after,
                               int (*record)(void *arg, uint64_t commit, struct vv_bytes plain),
                               void *arg, uint64_t *out_last);
/* Forget all records (they are in the bucket, or were abandoned) and begin at `next_commit`. Nobody
 * may be appending. Suspends. -errno; then the journal is broken. */
MUST_CHECK int vv_journal_reset(struct vv_journal *journal, uint64_t next_commit);
/* Append one record and return when it is on stable media. Numbers must be contiguous; fibers may
 * append concurrently (the caller calls in the order of the numbers; they return in order).
 * Suspends. -VV_ERR_LIMIT (too long), -ENOMEM: nothing happened, the number may be used again if
 * the journal is not broken. -ENOSPC, -EIO...: the journal is broken: this and every later append
 * fails, because what is on the disk is unknown. */
MUST_CHECK int vv_journal_append(struct vv_journal *journal, uint64_t commit,
                                 const struct iovec *plain, int count);
bool vv_journal_is_broken(const struct vv_journal *journal);
/* A commit will not be appended: those that follow it may not either. -VV_ERR_LIMIT from now on. Does not suspend. */
void vv_journal_give_up(struct vv_journal *journal);
/* All commits up to and including `commit` are confirmed in the bucket (18). */
void vv_journal_trim(struct vv_journal *journal, uint64_t commit);
/* Bytes written to the journal since opening; and bytes that its files take. */
uint64_t vv_journal_bytes_written(const struct vv_journal *journal);
uint64_t vv_journal_bytes_held(const struct vv_journal *journal);

#endif
