/* What the commands share: opening stores, secrets and volumes with messages that a person can act on. All
 * from a fiber; all may suspend. */
#ifndef VV_CMD_CMD_H
#define VV_CMD_CMD_H

#include "cmd/options.h"
#include "seal/seal.h"
#include "store/store.h"

/* Where a volume lives, and where on this machine things are that belong to it.
 *
 * A local volume keeps its journal and its server's admin socket inside its directory. What belongs to a
 * volume in a bucket is in STATE/HASH, HASH being made of endpoint, bucket and prefix, and STATE --state,
 * or /var/lib/varve for root, or $XDG_STATE_HOME/varve (~/.local/state/varve) for others. */
struct vv_place {
    bool is_s3;
    char dir[4096];     /* of a file:// URL */
    char bucket[256];   /* of an s3:// URL */
    char prefix[513];   /* "": the whole bucket */
    char endpoint[512];
    char region[64];
    bool is_virtual_hosted;
    char state[4096];   /* STATE/HASH */
    char journal[4200]; /* its journal's directory; --journal */
    char admin[4200];   /* its server's admin socket */
};

/* -EINVAL after printing what is wrong with the URL or the options. */
MUST_CHECK int vv_place_parse(const char *url, const struct vv_options *options,
                              struct vv_place *out_place);
/* Make the directories for what belongs to the volume on this machine. Prints on failure. */
MUST_CHECK int vv_place_make(const struct vv_place *place);
/* What a command does with a store: one that writes makes sure first that the store keeps what PROTOCOL
 * needs (a probe, remembered in the state directory for a month). */
enum vv_access { VV_ACCESS_READ, VV_ACCESS_WRITE, VV_ACCESS_CREATE };
/* Open the store, counted, with the retry wrapper (and latency if asked for). Prints on failure.
 * *out_counted, if wanted, is the layer that counts; it belongs to the store. */
MUST_CHECK int vv_place_open(const struct vv_place *place, const struct vv_options *options,
                             enum vv_access access, struct vv_store **out_store,
                             const struct vv_store **out_counted);
/* The s3 part of it: the bare store. Prints on failure. */
MUST_CHECK int vv_place_open_s3(const struct vv_place *place, const struct vv_options *options,
                                struct vv_store **out_store);
/* Bucket, prefix, endpoint and region of an s3:// URL. As vv_place_parse. */
MUST_CHECK int vv_place_parse_s3(const char *url, const struct vv_options *options,
                                 struct vv_place *out_place);
/* What AWS's own tools take from the environment, and the options over it; borrowed texts. */
struct vv_s3_sources;
void vv_environment_s3(const struct vv_options *options, struct vv_s3_sources *out_sources);
/* A variable, NULL when it is not set or empty. */
const char *vv_environment(const char *name);
/* VARVE_IO_URING: "off" (worker threads do what it would), "on" (always), else whichever is quicker. */
enum vv_rt_uring vv_environment_uring(void);
/* How fsync is kept: the option, or the default of the place. */
enum vv_durability vv_place_durability(const struct vv_place *place, const struct vv_options *options);
/* At most size - 1 bytes of a file ("-": standard input), NUL-ended; their number, or -errno. */
MUST_CHECK int vv_read_text(const char *path, char *out, size_t size);
/* The secret that the options name, or asked for on the terminal. `bytes` is wiped by vv_secret_done. Prints on
 * failure. */
struct vv_held_secret {
    struct vv_secret secret;
    uint8_t bytes[1024];
};
MUST_CHECK int vv_secret_read(const char *key_file, const char *passphrase_file, const char *what,
                              struct vv_held_secret *out_secret);
void vv_secret_done(struct vv_held_secret *secret);
/* Fetch the key slots and open them (on a worker). Prints on failure. `out_seen`: of vv_volume_keys, the caller's, also
 * on failure; may be NULL. */
struct vv_log_seen;
MUST_CHECK int vv_ring_open(struct vv_store *store, const struct vv_options *options,
                            struct vv_keyring **out_ring, struct vv_log_seen *out_seen);
/* What to exit with for an error. */
int vv_exit_of(int err);
/* Print "varve: what: text" and return the exit code. */
int vv_fail(const char *what, int err);
/* Ask the running server; the answer (one JSON text, NUL-ended) is the caller's. -ECONNREFUSED or -ENOENT when
 * no server runs. */
MUST_CHECK int vv_admin_ask(const struct vv_place *place, const char *request, char **out_answer);

/* The commands; each returns its exit code. */
int vv_cmd_init(const struct vv_options *options);
int vv_cmd_serve(const struct vv_options *options);
int vv_cmd_status(const struct vv_options *options);
int vv_cmd_flush(const struct vv_options *options);
int vv_cmd_passwd(const struct vv_options *options);
int vv_cmd_fsck(const struct vv_options *options);
int vv_cmd_device(const struct vv_options *options);

#endif
