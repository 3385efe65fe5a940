/* The simulated runtime: a world of processes and disks in one thread, in virtual time, in which
 * one seed decides every latency, order and fault. tests/sim is written against this header.
 *
 * A process is a set of fibers with an allocation domain (base/alloc.h): killing it ends its fibers
 * wherever they are suspended and frees all that they allocated. A disk is a directory tree; a path
 * of a process is resolved on the disk that the process was given. A disk keeps, for everything
 * written, whether it was synced: a power cut keeps of the unsynced writes to a file an arbitrary
 * subset, torn at 512 bytes, and of the unsynced changes of a directory an arbitrary prefix (or,
 * with `is_reordering_dirs`, an arbitrary subset). File sizes grow and shrink with the writes kept.
 * A file system check never runs: what is kept is what is there. A file that moves between two
 * directories may be found in both afterwards, never in neither (when both are there); moves and
 * removals of directories are kept in their order. A name is durable when its directory was synced,
 * content when its file was: neither brings the other.
 *
 * Faults: each file operation may fail with EIO, and writes with ENOSPC once `capacity_bytes` is
 * reached. A sync that fails makes some sectors durable, forgets about others (they are read, but a
 * power cut loses them unless they are written and synced again), and leaves the rest for the next.
 *
 * A fiber switch takes 100 ns of virtual time. An offload runs on the loop's stack, between two
 * random latencies; posts go to the process that posts. Killing frees memory only with
 * vv_alloc_track(true). Two worlds run from the same seed with the same calls end with the same
 * clock and the same next random number (vv_sim_fingerprint). */
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
/* End the world when the caller next suspends: all processes are killed, vv_sim_run returns 0. */
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
/* Lose unsynced state as described above. The processes that use the disk must have ended. */
void vv_sim_disk_power_cut(struct vv_sim_disk *disk);
/* Flip one random bit of a random file whose path contains `part`; false when there is none. */
bool vv_sim_disk_rot(struct vv_sim_disk *disk, const char *part);

/* Start a process whose paths resolve on `disk` (NULL: no files). Returns its number, > 1, or an
 * error. May be called from any fiber of the world, outlives its parent. It ends with its last
 * fiber, as a program does: timers that are still set never fire, open files are closed. What it
 * has left allocated is logged, and kept until the end of the world (for vv_alloc_domain_count).
 * -ENOMEM, -VV_ERR_LIMIT (of processes, VV_ALLOC_DOMAIN_MAX, or of fibers). */
MUST_CHECK int vv_sim_process_start(struct vv_sim_disk *disk, void (*fn)(void *), void *arg);
/* End a process now; a fiber that belongs to it never returns (a timer's function of it does, and
 * then it ends). File locks are released; what it wrote stays in the disk's page cache. */
void vv_sim_process_kill(int process);
bool vv_sim_process_is_alive(int process);
/* Wait until its last fiber has ended or it was killed. Suspends. */
void vv_sim_process_wait(int process);
/* The process of the running fiber. */
int vv_sim_process_self(void);
/* Kill `process` after `steps` more fiber switches of its own (0 cancels): crashes anywhere. The
 * switch that the caller is in does not count. vv_sim_process_wait tells when it has happened. */
void vv_sim_process_kill_after(int process, uint64_t steps);
/* Kill `process` when it is about to sync a directory whose path contains `part` (borrowed until then) for the
 * `count`th time from now (0 cancels): what it has put there last can be seen, and is not durable. */
void vv_sim_process_kill_before_sync(int process, const char *part, unsigned count);

#endif
