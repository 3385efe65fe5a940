/* Runs a test's body as a fiber of the real runtime and of the simulated one: what rt.h promises
 * holds in both. In the simulation the body is a process with a disk of its own. */
#ifndef TEST_RT_BOTH_H
#define TEST_RT_BOTH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rt/rt.h"
#include "rt/sim.h"
#include "tap.h"

struct both {
    const char *runtime; /* for the names of checks */
    char dir[64];        /* an empty directory for the body's files */
    bool is_real;
    void (*body)(struct both *both);
};

static inline void both_body(void *arg)
{
    struct both *both = arg;
    if (!both->is_real && vv_path_mkdir(both->dir) != 0)
        tap_ok(false, "the simulated directory was made");
    both->body(both);
}

static inline void both_sim_main(void *arg)
{
    int process = vv_sim_process_start(vv_sim_disk_new(0), both_body, arg);
    if (tap_ok(process > 1, "a process was started"))
        vv_sim_process_wait(process);
}

static inline void run_real_with(void (*body)(struct both *both), bool is_without_uring)
{
    struct both both = {.runtime = is_without_uring ? "real, workers" : "real", .dir = "/tmp/varve-rt-XXXXXX", .is_real = true};
    struct vv_rt_options options = {.workers = 2,
                                    .spin_ns = VV_RT_SPIN_DEFAULT_NS,
                                    .uring = is_without_uring ? VV_RT_URING_NEVER
                                                              : VV_RT_URING_ALWAYS};
    char command[128];
    both.body = body;
    if (!tap_ok(mkdtemp(both.dir) != NULL, "a directory was made"))
        return;
    tap_is_int(vv_rt_run(&options, both_body, &both), 0, "the real runtime ends");
    snprintf(command, sizeof(command), "rm -rf %s", both.dir);
    tap_is_int(system(command), 0, "the directory was removed");
}

static inline void run_real(void (*body)(struct both *both))
{
    run_real_with(body, false);
}

static inline void run_sim(void (*body)(struct both *both), uint64_t seed)
{
    struct both both = {.runtime = "sim", .dir = "/test", .body = body};
    struct vv_sim_options options = {
        .seed = seed, .latency_min_ns = 1000, .latency_max_ns = 1000000, .reorder_permille = 100};
    tap_is_int(vv_sim_run(&options, both_sim_main, &both), 0, "the simulated runtime ends");
}

static inline void run_both(void (*body)(struct both *both))
{
    run_real(body);
    for (uint64_t seed = 1; seed <= 3; seed++)
        run_sim(body, seed);
}

#endif
