/* For scripted tests: a store that does as it is told, and processes that do one thing at a time.
 *
 * The gate is a store over a mem backend. Rules say what happens to the requests that match them:
 * they are held until released, or they stray: the caller is told "unknown" and the put lands when
 * the script says so, even after its process is gone. Everything that took effect is noted in
 * order. A puppet is a process with a volume and its fs; the script has it run functions. */
#ifndef SIM_PUPPET_H
#define SIM_PUPPET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/fs.h"
#include "rt/sim.h"
#include "store/store.h"
#include "volume/volume.h"

/* ---- the gate ---- */

#define GATE_RULES_MAX 16
#define GATE_EVENTS_MAX 4096

enum gate_request { GATE_PUT, GATE_GET, GATE_LIST, GATE_REMOVE };
enum gate_fate {
    GATE_PASS,
    GATE_HOLD,  /* wait for gate_release, then go on; if the process dies meanwhile, nothing happens
                 */
    GATE_STRAY, /* puts: -VV_ERR_UNKNOWN at once; lands with gate_land */
    GATE_FAIL   /* -EIO, no effect */
};

struct gate_event {
    enum gate_request request;
    char name[VV_STORE_NAME_MAX + 1];
    int result;
    bool is_late; /* a stray that landed */
};

struct gate {
    struct vv_store_backend *backend;
    struct vv_store *direct; /* the script's own door */
    struct {
        enum gate_request request;
        enum gate_fate fate;
        char prefix[VV_STORE_NAME_MAX + 1];
        unsigned left; /* requests that it still applies to; 0 = the rule is gone */
        int process;   /* whose requests; 0 = anybody's */
    } rules[GATE_RULES_MAX];
    struct gate_stray {
        struct gate_stray *next;
        char name[VV_STORE_NAME_MAX + 1];
        size_t len;
        uint8_t bytes[];
    } * strays;
    unsigned held;                             /* requests waiting now */
    uint64_t releases;                         /* counts gate_release calls */
    struct gate_event events[GATE_EVENTS_MAX]; /* those that took effect, and removes */
    size_t event_count;
};

/* From inside a world. */
struct gate *gate_new(void);
void gate_free(struct gate *gate);
/* A process's door; closed as any store. */
int gate_open(struct gate *gate, struct vv_store **out_store);
/* The next `times` requests of the kind for names that begin with `prefix`. */
void gate_rule(struct gate *gate, enum gate_request request, const char *prefix,
               enum gate_fate fate, unsigned times, int process);
void gate_forget_rules(struct gate *gate);
/* Let all held requests go on. */
void gate_release(struct gate *gate);
/* Let the strays land whose names begin with prefix, in the order in which they were sent. Returns
 * how many took effect. Suspends. */
unsigned gate_land(struct gate *gate, const char *prefix);
unsigned gate_strays(const struct gate *gate, const char *prefix);
/* Wait until so many requests are held, or strays wander; false after ten virtual minutes. */
bool gate_wait_held(const struct gate *gate, unsigned count);
bool gate_wait_strays(const struct gate *gate, const char *prefix, unsigned count);
/* Objects there now whose names begin with prefix; and events from number `from` on. */
unsigned gate_objects(const struct gate *gate, const char *prefix);
unsigned gate_events(const struct gate *gate, enum gate_request request, const char *prefix,
                     size_t from);

/* ---- puppets ---- */

struct puppet;
typedef int puppet_fn(struct puppet *puppet, void *arg);

struct puppet_options {
    struct gate *gate; /* or, when NULL, a directory of the disk */
    struct vv_sim_disk *disk;
    const char *journal_path; /* NULL = none */
    bool is_abandoning_journal;
    const struct vv_keyring *ring;
    uint64_t commit_delay_ns; /* 0 = an hour: nothing goes by itself */
    struct vv_repack_options repack;
};

struct puppet {
    struct puppet_options options;
    int process;
    int opened; /* 1 = not yet, else the result of opening */
    bool is_closing;
    int close_result;
    struct vv_store *store;
    struct vv_volume *volume;
    struct vv_fs *fs;
    struct puppet_call {
        struct puppet *puppet;
        struct puppet_call *next;
        puppet_fn *fn;
        void *arg;
        int result; /* PUPPET_RUNNING until it has returned */
        bool is_started;
    } * calls;
};
#define PUPPET_RUNNING 1000000

/* Creates the volume in the gate or on the disk, with a new ring. */
int puppet_create(struct gate *gate, struct vv_sim_disk *disk, struct vv_keyring **out_ring);
/* Start a process that opens the volume; does not wait. */
struct puppet *puppet_start(const struct puppet_options *options);
/* Wait until it has opened (its result) or died (-ESRCH). */
int puppet_wait_open(const struct puppet *puppet);
/* Both. NULL when it could not be opened. */
struct puppet *puppet_open(const struct puppet_options *options);
/* Run fn in the puppet's process; puppet_result waits for it: its result, -ESRCH when the process
 * died, -ETIMEDOUT after ten virtual minutes. */
struct puppet_call *puppet_begin(struct puppet *puppet, puppet_fn *fn, void *arg);
int puppet_result(const struct puppet_call *call);
int puppet_run(struct puppet *puppet, puppet_fn *fn, void *arg);
void puppet_kill(struct puppet *puppet);
/* Close the volume in good order. Its result. */
int puppet_close(struct puppet *puppet);
void puppet_free(struct puppet *puppet);

/* ---- things to do ---- */

/* Files of the root directory; contents follow from the tag and length. */
struct file_args {
    const char *name;
    uint64_t tag;
    uint64_t offset;
    size_t len;
};
puppet_fn puppet_write;    /* makes the file if need be */
puppet_fn puppet_check;    /* 0 = there, with these bytes at that offset; -EILSEQ = other bytes */
puppet_fn puppet_check_zeros; /* 0 = `len` zeros at that offset */
puppet_fn puppet_truncate; /* to `len` */
puppet_fn puppet_unlink;
puppet_fn puppet_sync;  /* everything; arg ignored */
puppet_fn puppet_fsync; /* the file */
puppet_fn puppet_settle;
puppet_fn puppet_manifest; /* has a manifest written, without a flush of the tables */
/* Into *(struct vv_volume_stats *)arg. */
puppet_fn puppet_stats;

#endif
