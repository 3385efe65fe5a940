/* The simulated runtime: a world of processes and disks in one thread, in virtual time, in which
 * one seed decides every latency, order and fault. tests/sim is written against this header.
 *
 * A process is a set of fibers with an allocation domain (base/alloc.h): killing it ends its fibers
 * wherever they are suspended and frees all that they allocated. A disk is a directory tree; a path
 * of a process is resolved on the disk that the process was given. A disk keeps, for everything
 * written, whether it was synced: a power cut keeps of the unsynced writes to a file an arbitrary
 * subset, torn at 512 bytes, and of the unsynced changes of a directory an arbitrary prefix (or,
 * with `is_reordering_dirs`, an arbitrary subset). File sizes grow and shrink with the writes kept.
 * A file system check never runs: what is kept is what is there.
 *
 * Faults: each file operation may fail with EIO, and writes with ENOSPC once `capacity_bytes` is
 * reached. Two worlds run from the same seed with the same calls end with the same clock and the
 * same next random number (vv_sim_fingerprint). */
#ifndef VV_RT_SIM_H
#define VV_RT_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct vv_sim_options {
    uint64_t seed;
    uint64_t latency_min_ns; /* of a file operation or offload */
    uint64_t latency_max_ns;
    unsigned reorder_permille; /* how often a runnable fiber is not taken in order */
    bool is_reordering_dirs;
};

/* Run main_fn as the first fiber of process 1 (domain 1) of a new world, until all fibers have
 * ended or vv_sim_stop. 0, -ENOMEM; -EDEADLK when fibers wait and nothing can wake them. */
MUST_CHECK int vv_sim_run(const struct vv_sim_options *options, void (*main_fn)(void *), void *arg);
void vv_sim_stop(void);

/* A number in [0, bound) from the world's seed. From anywhere inside the world. */
uint64_t vv_sim_random(uint64_t bound);
/* True `permille` times of a thousand. */
bool vv_sim_chance(unsigned permille);
/* Clock and next random number mixed; for comparing two runs. Read it in main_fn at the end. */
uint64_t vv_sim_fingerprint(void);
/* How many fiber switches have happened. */
uint64_t vv_sim_steps(void);

struct vv_sim_disk;
/* Disks belong to the world; they are freed with it. capacity 0 = unbounded. */
struct vv_sim_disk *vv_sim_disk_new(uint64_t capacity_bytes);
void vv_sim_disk_set_capacity(struct vv_sim_disk *disk, uint64_t capacity_bytes);
uint64_t vv_sim_disk_used(const struct vv_sim_disk *disk);
/* Out of 10,000 operations, how many fail with EIO (the operation has no effect, or, for writes and
 * syncs, any part of its effect). */
void vv_sim_disk_set_errors(struct vv_sim_disk *disk, unsigned per_10000);
/* Lose unsynced state as described above. The processes that use the disk must have been killed. */
void vv_sim_disk_power_cut(struct vv_sim_disk *disk);
/* Flip one random bit of a random file whose path contains `part`; false when there is none. */
bool vv_sim_disk_rot(struct vv_sim_disk *disk, const char *part);

/* Start a process whose paths resolve on `disk` (NULL: no files). Returns its number, > 1, or an
 * error. May be called from any fiber of the world, outlives its parent. */
MUST_CHECK int vv_sim_process_start(struct vv_sim_disk *disk, void (*fn)(void *), void *arg);
/* End a process now; a caller that belongs to it never returns. File locks are released; what it
 * wrote stays in the disk's page cache. */
void vv_sim_process_kill(int process);
bool vv_sim_process_is_alive(int process);
/* Wait until its last fiber has ended or it was killed. Suspends. */
void vv_sim_process_wait(int process);
/* The process of the running fiber. */
int vv_sim_process_self(void);
/* Kill `process` after `steps` more fiber switches of its own (0 cancels): crashes anywhere. When
 * it happens, hook(arg) is called outside fibers, if given. */
void vv_sim_process_kill_after(int process, uint64_t steps);

#endif
