/* The varve command. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "rt/rt.h"

#ifndef VV_VERSION
#define VV_VERSION "0.1"
#endif

struct run {
    int (*command)(const struct vv_options *options);
    struct vv_options options;
    int exit_code;
};

static const struct {
    const char *name;
    int (*command)(const struct vv_options *options);
} commands[] = {
    {"init", vv_cmd_init},   {"serve", vv_cmd_serve},   {"status", vv_cmd_status},
    {"flush", vv_cmd_flush}, {"passwd", vv_cmd_passwd}, {"fsck", vv_cmd_fsck},
    {"device", vv_cmd_device},
};

static void run_main(void *arg)
{
    struct run *run = arg;
    run->exit_code = run->command(&run->options);
}

static int run_command(const char *name, struct run *run, int argc, char **argv)
{
    if (vv_options_parse(name, argc, argv, &run->options) < 0)
        return VV_EXIT_USAGE;
    if (run->options.is_help) {
        vv_options_help(name);
        return VV_EXIT_OK;
    }
    if (run->options.is_quiet)
        vv_log_set_level(VV_LOG_ERROR);
    if (run->options.is_verbose)
        vv_log_set_level(VV_LOG_DEBUG);
    vv_alloc_setup();
    struct vv_rt_options options = {.spin_ns = VV_RT_SPIN_DEFAULT_NS,
                                    .uring = vv_environment_uring()};
    int err = vv_rt_run(&options, run_main, run);
    if (err < 0)
        return vv_fail("starting", err);
    return run->exit_code;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "help";
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        printf("varve %s\n", VV_VERSION);
        return VV_EXIT_OK;
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        vv_options_help(argc > 2 ? argv[2] : NULL);
        return argc > 1 ? VV_EXIT_OK : VV_EXIT_USAGE;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        struct run run = {.command = commands[i].command, .exit_code = VV_EXIT_FAILED};
        if (strcmp(name, commands[i].name) == 0)
            return run_command(name, &run, argc, argv);
    }
    fprintf(stderr, "varve: there is no command \"%s\" (see varve help)\n", name);
    return VV_EXIT_USAGE;
}
