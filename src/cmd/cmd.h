/* What the commands share: opening stores, secrets and volumes with messages that a person can act on. All
 * from a fiber; all may suspend. */
#ifndef VV_CMD_CMD_H
#define VV_CMD_CMD_H

#include "cmd/options.h"
#include "seal/seal.h"
#include "store/store.h"

/* Where a volume lives on this machine. */
struct vv_place {
    char dir[4096];     /* of a file:// URL */
    char journal[4200]; /* its journal's directory */
    char admin[4200];   /* its server's admin socket */
};

/* -EINVAL after printing what is wrong with the URL. */
MUST_CHECK int vv_place_parse(const char *url, struct vv_place *out_place);
/* Open the store, with the retry wrapper (and latency if asked for). Prints on failure. */
MUST_CHECK int vv_place_open(const struct vv_place *place, const struct vv_options *options,
                             bool is_creating, struct vv_store **out_store);
/* The secret that the options name, or asked for on the terminal. `bytes` is wiped by vv_secret_done. Prints on
 * failure. */
struct vv_held_secret {
    struct vv_secret secret;
    uint8_t bytes[1024];
};
MUST_CHECK int vv_secret_read(const char *key_file, const char *passphrase_file, const char *what,
                              struct vv_held_secret *out_secret);
void vv_secret_done(struct vv_held_secret *secret);
/* Fetch the key slots and open them (on a worker). Prints on failure. *out_keys may be NULL. */
MUST_CHECK int vv_ring_open(struct vv_store *store, const struct vv_options *options,
                            struct vv_keyring **out_ring);
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
