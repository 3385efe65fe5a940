/* The command line: which options there are, for which commands, and what they were set to.
 *
 * Options come from the command line and from an INI file (--config; section [varve] or none, keys as
 * the long names without dashes). The command line wins. Plain values; no fiber needed. */
#ifndef VV_CMD_OPTIONS_H
#define VV_CMD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/fs.h"
#include "seal/seal.h"
#include "volume/volume.h"

#define VV_CMD_ADDRESSES_MAX 8
#define VV_CMD_EXPORTS_MAX 64
#define VV_CMD_WORDS_MAX 4

/* What concerns s3:// stores only. */
struct vv_s3_words {
    const char *endpoint, *region, *profile, *access_key_file, *ca_file, *storage_class;
    const char *headers[16];
    unsigned header_count;
    bool is_path_style, is_virtual_hosted, is_signing_payload;
    unsigned checksum; /* enum vv_s3_checksum */
    uint64_t timeout_s;
    const char *prices;
};

/* Exit codes, as documented by `varve help`. */
enum vv_exit {
    VV_EXIT_OK = 0,
    VV_EXIT_FAILED = 1,    /* anything else; the text says what */
    VV_EXIT_USAGE = 2,     /* the command line makes no sense */
    VV_EXIT_NO_VOLUME = 3, /* no volume there (init: there is one already) */
    VV_EXIT_NO_KEY = 4,    /* passphrase or key file opens no key slot */
    VV_EXIT_IN_USE = 5,    /* another server has it, or its journal is elsewhere */
    VV_EXIT_DAMAGED = 6,   /* fsck found damage */
    VV_EXIT_FENCED = 7,    /* another server took the volume over */
};

struct vv_options {
    const char *url;
    const char *words[VV_CMD_WORDS_MAX]; /* further words */
    unsigned word_count;
    const char *config;
    const char *key_file, *passphrase_file;
    const char *new_key_file, *new_passphrase_file;
    const char *mount;
    const char *label;
    const char *ninep[VV_CMD_ADDRESSES_MAX];
    unsigned ninep_count;
    const char *nfs[VV_CMD_ADDRESSES_MAX];
    unsigned nfs_count;
    const char *exports[VV_CMD_EXPORTS_MAX];
    unsigned export_count;
    bool is_nfs_registering;
    const char *nbd[VV_CMD_ADDRESSES_MAX];
    unsigned nbd_count;
    const char *nbd_tls_cert, *nbd_tls_key, *nbd_tls_ca, *nbd_psk_file;
    bool is_nbd_tls_required, is_nbd_tls_set;
    uint64_t memory_bytes;
    const char *cache; /* directory of the disk cache, or NULL */
    uint64_t cache_bytes;
    enum vv_durability durability;
    bool is_durability_set;
    enum vv_atime atime;
    struct vv_seal_settings settings;
    bool is_cipher_set, is_compression_set;
    bool is_json, is_no_cache, is_writeback, is_abandoning_journal, is_checking_data;
    bool is_locking_locally;
    bool is_hearing_syncs, is_opening_handles;
    bool is_read_only, is_allowing_other, is_quiet, is_verbose, is_help;
    struct vv_s3_words s3;
    const char *state, *journal;
    bool is_unsafe_no_fencing;
    uint64_t store_latency_ms; /* for trying things out: added to each store request */
};

/* Fill *out from argv[2..] for `command` (and its config file). Strings are borrowed from argv or from the config file's
 * content, which lives as long as the process. 0, or -EINVAL after the reason was printed. */
MUST_CHECK int vv_options_parse(const char *command, int argc, char **argv,
                                struct vv_options *out_options);
/* Print what the command is for and its options. */
void vv_options_help(const char *command);

#endif
