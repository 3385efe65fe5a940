/* One simulated world: a disk or a bucket, servers that come and go on it, their clients, and what
 * must be true.
 *
 * Processes: number 1 runs world_main, the harness; each server (volume, fs and its clients) is a
 * process of its own, so that killing it is all that a crash is. What the harness knows is plain
 * malloc, which a kill does not free. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine.h"
#include "generate.h"
#include "cache/disk.h"
#include "history.h"
#include "record.h"
#include "rt/sim.h"
#include "seal/seal.h"
#include "store/store.h"
#include "volume/volume.h"
#include "witness.h"

#define SERVERS_MAX 128 /* more than contests and rounds can start, see world.c */
#define CLIENTS_MAX (OWNERS_MAX - 1)
#define REGION_BYTES 50000u /* of the shared file, per owner: regions share extents */

/* What a world is made of and what may go wrong in it. */
struct mode {
    const char *name;
    const char *text;
    bool is_mem;             /* the store: memory (a bucket), else a directory of the disk */
    bool has_journal;        /* and durability is the journal's */
    bool has_cache;          /* a disk cache on the disk, in front of a mem store */
    bool is_racing;          /* the next server opens while the one before serves */
    bool is_settling;        /* servers flush again and again while their clients rest; of racing
                              * ones, successors come then, and the clients never go on */
    bool is_late;            /* a server opens with the manifest that it saw up to LATE_NS before */
    bool is_moving;          /* a server is on one of two machines, each with its own journal;
                              * on another one it goes on without what only the journal has */
    bool is_clustered;       /* CLUSTERED times as many crashes, most soon after another one, and
                              * many while opening */
    bool is_shutting_down;   /* most crashes are vv_volume_shut_down: the process goes on for a while */
    bool is_lawless;         /* a server may fail for good without a crash (disk errors) */
    unsigned unsynced_permille; /* of the crashes that come between a name in the log and its
                                 * directory's sync */
    unsigned power_permille; /* of the crashes that are power cuts too */
    struct vv_store_fault_plan plan;  /* of a mem store */
    bool is_retrying;                 /* requests that fail are repeated below the engine */
    uint64_t latency_ns, bytes_per_s; /* of a mem store */
    unsigned outages;                 /* periods in which every request fails, */
    unsigned outage_max_ms;           /* so long at most; 0 = 40 s */
    unsigned shortages;               /* periods in which there is no space */
    unsigned disk_errors_per_10000;
    bool is_reordering_dirs;
    unsigned ballast_mib; /* of files that are always there (ballast.h); memory is then 16 MiB */
};

const struct mode *mode_find(const char *name);
/* The modes by number; NULL at the end. */
const struct mode *mode_at(unsigned index);

enum server_stage { SERVER_OPENING, SERVER_SERVING, SERVER_ENDED };

struct server;
struct client {
    struct server *server;
    unsigned index;
};

struct server {
    struct world *world;
    unsigned number;
    int process;
    enum server_stage stage;
    char journal[32]; /* of a moving world: the one it opened with */
    int open_error;
    bool is_superseded;  /* another one has begun to open since, or at the same time: being
                          * fenced is right, and it ends after a few operations */
    bool is_reader;      /* the last one: only looks */
    bool is_buried;      /* its end has been looked at */
    bool has_ended_well; /* everything done, compared and closed */
    bool is_down_due;    /* its next client shuts the volume down */
    bool is_down;        /* ... and has: errors are right, and it ends after a few operations */
    unsigned clients_running;
    unsigned zombie_ops; /* done while superseded */
    struct era *era;     /* what its clients do; NULL before it serves */
    bool is_common_busy;
    bool is_resting;        /* its clients do nothing, for it settles */
    bool is_silent;         /* ... and never will again */
    unsigned clients_going; /* between two rests */
    /* What it had repacked when it was last looked at, and whether it was at it. */
    uint64_t repacked_segments, repacked_frames, repack_refused, merged_writes;
    bool is_repacking;
    struct vv_store *store, *fault;
    struct vv_disk *cache;
    struct vv_volume *volume;
    struct vv_fs *fs;
    struct client clients[CLIENTS_MAX];
    struct engine engines[OWNERS_MAX];
    struct engine_part parts[OWNERS_MAX]; /* what it found when it opened */
};

struct world_options {
    uint64_t seed;
    const struct mode *mode;
    unsigned ops;
    unsigned crashes;
    bool is_verbose;
    bool is_tracing; /* tells each operation */
};

struct world_facts {
    uint64_t fingerprint;
    uint64_t ops_by_kind[OP_KINDS];
    uint64_t ops, failed_ops, excused_ops; /* failed_ops: as the model says they must */
    uint64_t kills, shutdowns, power_cuts, races, opens, failed_opens, outages, shortages;
    uint64_t syncs, failed_syncs;
    uint64_t plan_rounds_max;
    uint64_t records_lost; /* operations that crashes undid */
    uint64_t replies;      /* kept, found by a later server or at the end */
    uint64_t commits, early_commits, segments_deleted;
    uint64_t leftovers_deleted; /* by sweeps for orphans */
    uint64_t repacked_segments, repacked_frames, repack_refused; /* emptied; moved; changed meanwhile */
    uint64_t repack_kills; /* of servers that were repacking */
    uint64_t removals;   /* of segments, with what the manifest said */
    uint64_t references; /* from log objects to data segments, looked at */
    uint64_t merged_writes; /* that went into a layer of their commit */
    uint64_t counted_files, counted_aside; /* whose st_blocks were added up; and had space set aside */
};

struct world {
    struct world_options options;
    const struct mode *mode;
    struct rng rng;
    enum profile profile;
    unsigned client_count, owner_count; /* the last owner is common property */
    uint64_t memory_bytes, segment_bytes, commit_delay_ns, think_ns;
    struct vv_sim_disk *disk;
    struct vv_store_backend *backend;
    struct witness *witness;
    struct recorder *recorder;
    struct vv_keyring *ring;
    uint8_t *keys;
    size_t keys_len;
    struct vv_seal_settings settings;
    struct vv_repack_options repack;
    bool is_created;
    bool has_ballast; /* durably */
    struct vv_store_fault_plan plan; /* now */
    bool is_bad_weather;             /* an outage or a shortage, until then */
    uint64_t weather_until;
    unsigned next_weather; /* the next begins when that many operations are done */
    bool is_calm;          /* no more faults: everything must succeed */
    bool is_cleaning;      /* ... and everything is being removed */
    struct generator generators[OWNERS_MAX];
    struct sight *sights; /* per owner */
    uint8_t *buffers[OWNERS_MAX];
    struct era *era;    /* the newest whose start is known; NULL before the first */
    uint64_t era_epoch; /* the volume's epoch of the server whose era it is */
    uint64_t events;
    unsigned ops_done;
    struct server *servers[SERVERS_MAX];
    unsigned server_count;
    unsigned *turns; /* when, in operations done, the next server's turn comes; ascending */
    unsigned turn_count, turns_done;
    unsigned journals[2]; /* a moving world: the number of each machine's journal at hand */
    char journal[32];     /* ... the one that the newest era's server had, */
    bool is_left_behind;  /* ... and whether another one has been used since: then what was
                           * acknowledged may be lost with it */
    bool is_failed;
    char failure[4096];
    struct world_facts facts;
};

/* Run one world from its seed to its end. 0, or -1 with world->failure. The world is the caller's,
 * zeroed. */
int world_run(struct world *world, const struct world_options *options);
void world_done(struct world *world);

/* ---- for the files of the simulator ---- */

/* The first failure counts; the world stops soon after. */
void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_note(const struct world *world, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Is this error one that the world's faults explain? */
bool world_excuses(const struct server *server, int err);
/* Compare a state found (server->parts) with world->era, and begin a new one from it for the
 * server. is_exact: nothing may be missing. 0, or -1 after world_fail. */
int judge_state(struct server *server, bool is_exact);
/* Before it: note in the era's records whose replies are in the volume. `is_fresh`: the server has just
 * opened it, and so must find them too. Suspends; an error of reading. */
int judge_replies(struct server *server, bool is_fresh);
/* Once more, when acknowledgements may have come since: for servers that were superseded. */
void judge_era(struct world *world, const struct era *era);
/* No more faults from now on. */
void world_calm(struct world *world);
/* The faults of now for all stores. */
void world_apply_plan(struct world *world);

/* Look at what a server that is alive has repacked. */
void server_note_repacking(struct server *server);
/* The main fiber of a server's process. */
void server_main(void *server);
/* The main fiber of a client. */
void client_main(void *client);
/* Do one operation of an owner and compare it. */
void client_do(struct server *server, unsigned owner, struct op *op);
/* Remove everything that the owners have. */
void client_clean(struct server *server);

#endif
