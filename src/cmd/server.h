/* A serving process: what `varve serve` holds, and how it answers the admin socket. */
#ifndef VV_CMD_SERVER_H
#define VV_CMD_SERVER_H

#include "cmd/cmd.h"
#include "rt/rt.h"

struct vv_server {
    const struct vv_options *options;
    struct vv_place place;
    struct vv_store *store;
    struct vv_keyring *ring;
    struct vv_volume *volume;
    struct vv_fs *fs;
    struct vv_fuse *fuse;
    struct vv_ninep *ninep[VV_CMD_ADDRESSES_MAX];
    struct vv_admin *admin;
    struct vv_waitq stop;
    bool is_stopping;
    bool is_watching;
};

/* Admin requests: "status", "flush", "keys HEX" (a new keys object). `arg` is the server. May suspend. */
void vv_server_answer(void *arg, const char *line, struct vv_writer *answer);
/* The statistics of a volume as a JSON object (a new reference, or NULL). */
struct json_t *vv_stats_to_json(struct vv_volume *volume);

#endif
