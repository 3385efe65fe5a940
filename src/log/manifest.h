/* The manifest: the numbered root of a volume. Newest wins. "manifest/<20-digit decimal number>".
 *
 * Object header (kind MANIFEST; its number field = the keys object, so that the key slots can be
 * found before anything can be opened), then one frame (index 0, origin {VV_ORIGIN_MANIFEST,
 * number}) to the end of the object. The frame's plain content, all varints unless noted, in the
 * order of struct vv_manifest; the offset table is at the top of manifest.c and in docs/format.md.
 * Plain values; any thread; never suspends. */
#ifndef VV_LOG_MANIFEST_H
#define VV_LOG_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "seal/seal.h"

#define VV_LIVE_EPOCHS_MAX 4096
#define VV_TABLES_MAX 262144
#define VV_PINS_MAX 65536
#define VV_PARENTS_MAX 256
#define VV_TABLE_KEY_MAX 512 /* bytes of a key in the metadata tables */
#define VV_MANIFEST_MAX (64u << 20)

/* A metadata table as the manifest knows it. "sst/<2-hex shard>/<16-hex epoch>-<16-hex counter>".
 */
struct vv_table_ref {
    uint64_t epoch;
    uint64_t counter;
    uint8_t level;
    uint64_t bytes; /* of the object */
    uint64_t entries;
    uint64_t order;   /* among level 0: higher = newer */
    uint8_t *min_key; /* owned (vv_free) */
    uint16_t min_key_len;
    uint8_t *max_key; /* owned */
    uint16_t max_key_len;
};

/* A live epoch and the first sequence of its log that is not wholly in the tables. */
struct vv_epoch_ref {
    uint64_t epoch;
    uint64_t replay_seq;
};

/* A manifest kept for a checkpoint or clone. */
struct vv_pin {
    uint64_t manifest;
    uint8_t id[16];
    char name[64];
};

/* Counters that only grow; an opening takes the maximum of manifest and replayed batches. */
struct vv_counters {
    uint64_t next_inode;
    uint64_t next_data_id;
};

struct vv_manifest {
    uint64_t number;
    uint64_t keys_number;   /* keys/<n> */
    uint64_t epoch;         /* the newest epoch claimed */
    uint8_t owner_id[16];   /* random id of the process that claimed it */
    uint8_t journal_id[16]; /* all zero = no journal */
    uint64_t last_commit;   /* the last commit that the tables hold whole */
    struct vv_counters counters;
    struct vv_seal_settings settings; /* what new objects are sealed with */
    struct vv_epoch_ref *epochs;      /* ascending; owned */
    size_t epoch_count;
    struct vv_table_ref *tables; /* by level, then key (level 0: by order); owned */
    size_t table_count;
    struct vv_pin *pins; /* owned */
    size_t pin_count;
    uint8_t (*parents)[16]; /* volume ids; index 1 of segment references = parents[0]; owned */
    size_t parent_count;
};

/* Zero and then fill; done frees what is owned and zeroes. */
void vv_manifest_done(struct vv_manifest *manifest);
/* A deep copy. -ENOMEM (then *out is untouched). */
MUST_CHECK int vv_manifest_copy(const struct vv_manifest *manifest, struct vv_manifest *out_copy);
void vv_manifest_name(uint64_t number, char *name, size_t size);
/* -EINVAL. */
MUST_CHECK int vv_manifest_name_parse(const char *name, uint64_t *out_number);
/* The sealed object; the caller frees *out_bytes. Every call draws a new salt and attempt id.
 * -ENOMEM, -VV_ERR_LIMIT (a count or the whole is above its maximum). */
MUST_CHECK int vv_manifest_encode(const struct vv_keyring *ring, const struct vv_manifest *manifest,
                                  uint8_t **out_bytes, size_t *out_len, uint8_t out_attempt_id[16]);
/* -VV_ERR_FORMAT, -VV_ERR_CHECKSUM, -VV_ERR_NEWER, -VV_ERR_AUTH, -VV_ERR_NO_KEY, -ENOMEM. */
MUST_CHECK int vv_manifest_decode(const struct vv_keyring *ring, uint64_t number, const void *bytes,
                                  size_t len, struct vv_manifest *out_manifest);
/* The plain content alone, for fuzzing: as decode, without header and seal. */
MUST_CHECK int vv_manifest_decode_plain(const void *bytes, size_t len,
                                        struct vv_manifest *out_manifest);
/* Its twin; the writer is sticky, its check tells. Limits are not checked. */
void vv_manifest_encode_plain(struct vv_writer *writer, const struct vv_manifest *manifest);

#endif
