/* What the scripts of sim_protocol share: a volume behind a gate (puppet.h) or on a disk, and files to put there. */
#ifndef SIM_SCENE_H
#define SIM_SCENE_H

#include "puppet.h"

struct scene {
    struct gate *gate;
    struct vv_sim_disk *disk;
    struct vv_keyring *ring;
    struct puppet_options options;
};

/* Of 20,000 bytes each. */
extern struct file_args file_a, file_b, file_c;

struct scene scene_new(bool is_gate, const char *journal_path);
void scene_done(struct scene *scene);
/* Write a file and sync everything. */
int put_file(struct puppet *puppet, struct file_args *args);
void check_file(struct puppet *puppet, struct file_args *args, const char *what);
uint64_t epoch_of(struct puppet *puppet);

/* ---- rule 16 (trace_orphans.c) ---- */
void trace_leftovers(void *arg);
void trace_zombie_sweep(void *arg);
void trace_fenced_sweep(void *arg);
void trace_sweep_waits_for_tail(void *arg);

/* ---- repacking (trace_repack.c) ---- */
void trace_repack_overwritten(void *arg);
void trace_repack_truncated(void *arg);
void trace_repack_unconfirmed(void *arg);
void trace_repack_in_journal(void *arg);
void trace_repack_cannot_put(void *arg);

#endif
