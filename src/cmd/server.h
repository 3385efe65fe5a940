/* A serving process: what `varve serve` holds, and how it answers the admin socket. */
#ifndef VV_CMD_SERVER_H
#define VV_CMD_SERVER_H

#include "cmd/cmd.h"
#include "front/conn/conn.h"
#include "log/log.h"
#include "rt/rt.h"

struct json_t;

struct vv_server {
    const struct vv_options *options;
    struct vv_place place;
    struct vv_store *store;
    const struct vv_store *counted; /* the layer of `store` that counts requests */
    uint64_t started_ns;
    struct vv_disk *disk; /* the disk cache, or NULL */
    struct vv_keyring *ring;
    struct vv_log_seen seen; /* until the volume is open */
    struct vv_volume *volume;
    struct vv_fs *fs;
    struct vv_fuse *fuse;
    struct vv_conn_memory conn_memory; /* of the requests of 9P, NFS and NBD together */
    struct vv_ninep *ninep[VV_CMD_ADDRESSES_MAX];
    struct vv_nfs *nfs[VV_CMD_ADDRESSES_MAX];
    struct vv_nbd *nbd;
    struct vv_tls *nbd_tls;
    unsigned nbd_ports[VV_CMD_ADDRESSES_MAX];
    struct vv_admin *admin;
    struct vv_waitq stop;
    bool is_stopping;
    bool is_watching;
};

/* Doors, as fs tells them apart (vv_fs_watch). 9P and NFS take one number for each address. */
enum vv_door { VV_DOOR_FUSE = 1, VV_DOOR_NINEP = 2, VV_DOOR_NFS = 16, VV_DOOR_NBD = 64, VV_DOOR_ADMIN = 65 };

/* Open the NFS door on each address, if there is to be one. Prints on failure. */
MUST_CHECK int vv_server_open_nfs(struct vv_server *server);
void vv_server_close_nfs(struct vv_server *server);
/* Its figures, for status. */
void vv_server_nfs_to_json(const struct vv_server *server, struct json_t *object);

/* Open the NBD door if there is to be one. Prints on failure. */
MUST_CHECK int vv_server_open_nbd(struct vv_server *server);
void vv_server_close_nbd(struct vv_server *server);
/* "device list", "device create SIZE NAME", "device resize SIZE NAME", "device remove NAME": what
 * follows the first word. A new reference, or NULL. May suspend. */
struct json_t *vv_server_device(struct vv_server *server, const char *request);

/* Put the disk cache in front of server->store if there is to be one. Prints on failure. Suspends. */
MUST_CHECK int vv_server_open_cache(struct vv_server *server);
/* Bytes of --memory that are the disk cache's, for what it knows of its entries; 0 without one. */
uint64_t vv_server_cache_memory(const struct vv_options *options);
/* Add its figures to a status. */
void vv_server_cache_to_json(const struct vv_server *server, struct json_t *object);

/* Admin requests: "status", "flush", "device ...", "keys HEX" (a new keys object). `arg` is the server. May suspend. */
void vv_server_answer(void *arg, const char *line, struct vv_writer *answer);
/* The statistics of a volume as a JSON object (a new reference, or NULL). */
struct json_t *vv_stats_to_json(struct vv_volume *volume);

#endif
