/* The simulator of the engine: worlds from seeds.
 *   sim_fs [--mode NAME|all] [--seed N | --seeds FROM..TO] [--ops N] [--crashes N]
 *          [--twice] [--jobs N] [--time-limit S] [--modes] [--facts] [--verbose] [--trace]
 * Each seed runs in a child process (with --seed alone: in this one, for a debugger). One line is
 * printed for each seed that fails, with how to repeat it; the exit status is then 1. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "world.h"

#define JOBS_MAX 64
#define CRASH_STATUS 3 /* of a child whose signal handler has told already */

struct settings {
    const struct mode *mode; /* NULL = all in turn */
    uint64_t from, to;
    unsigned ops, crashes, jobs, time_limit_s;
    bool is_twice, is_verbose, is_tracing, is_single, is_telling;
};

/* What children add up for their parent, in shared order: one struct over a pipe. */
struct message {
    struct world_facts facts;
};

static struct settings settings = {
    .from = 1, .to = 100, .ops = 2000, .crashes = 3, .jobs = 1, .time_limit_s = 60};
static uint64_t seed_running;
static const struct mode *mode_running;

/* ---- one seed ---- */

static void print_repeat(const struct mode *mode, uint64_t seed)
{
    printf("# repeat with: sim_fs --mode %s --seed %" PRIu64 " --ops %u --crashes %u%s --verbose\n",
           mode->name, seed, settings.ops, settings.crashes, settings.is_twice ? " --twice" : "");
}

static int run_once(const struct mode *mode, uint64_t seed, struct world_facts *out_facts)
{
    struct world *world = calloc(1, sizeof(*world));
    struct world_options options = {.seed = seed,
                                    .mode = mode,
                                    .ops = settings.ops,
                                    .crashes = settings.crashes,
                                    .is_verbose = settings.is_verbose,
                                    .is_tracing = settings.is_tracing};
    if (!world)
        abort();
    int err = world_run(world, &options);
    if (err < 0) {
        printf("FAIL mode %s seed %" PRIu64 ": %s\n", mode->name, seed, world->failure);
        print_repeat(mode, seed);
    }
    *out_facts = world->facts;
    world_done(world);
    free(world);
    return err;
}

static int run_seed(const struct mode *mode, uint64_t seed, struct world_facts *out_facts)
{
    struct world_facts again;
    seed_running = seed;
    mode_running = mode;
    if (run_once(mode, seed, out_facts) < 0)
        return -1;
    if (!settings.is_twice)
        return 0;
    if (run_once(mode, seed, &again) < 0)
        return -1;
    if (memcmp(out_facts, &again, sizeof(again)) == 0)
        return 0;
    printf("FAIL mode %s seed %" PRIu64 ": two runs differ: fingerprints %" PRIx64 " and %" PRIx64
           "\n",
           mode->name, seed, out_facts->fingerprint, again.fingerprint);
    print_repeat(mode, seed);
    return -1;
}

/* A crash of the engine itself: tell which seed it was. */
static void on_signal(int signo)
{
    char line[200];
    int len = snprintf(line, sizeof(line), "FAIL mode %s seed %" PRIu64 ": signal %d\n",
                       mode_running ? mode_running->name : "?", seed_running, signo);
    if (write(STDOUT_FILENO, line, (size_t)len) < 0)
        _exit(CRASH_STATUS);
    signal(signo, SIG_DFL);
    raise(signo);
}

/* ---- many seeds ---- */

struct job {
    pid_t pid;
    int pipe;
    const struct mode *mode;
    uint64_t seed;
};

static void add_facts(struct world_facts *sum, const struct world_facts *facts)
{
    uint64_t *to = (uint64_t *)sum;
    const uint64_t *from = (const uint64_t *)facts;
    uint64_t rounds = sum->plan_rounds_max > facts->plan_rounds_max ? sum->plan_rounds_max
                                                                    : facts->plan_rounds_max;
    for (size_t i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
        to[i] += from[i];
    sum->plan_rounds_max = rounds;
}

static void start_job(struct job *job, const struct mode *mode, uint64_t seed)
{
    int ends[2];
    fflush(stdout);
    if (pipe(ends) < 0)
        abort();
    *job = (struct job){fork(), ends[0], mode, seed};
    if (job->pid != 0) {
        close(ends[1]);
        return;
    }
    struct message message;
    close(ends[0]);
    /* Of the processor's time: the machine may be busy. */
    struct rlimit limit = {settings.time_limit_s, settings.time_limit_s + 5};
    (void)setrlimit(RLIMIT_CPU, &limit);
    int err = run_seed(mode, seed, &message.facts);
    fflush(stdout);
    if (err == 0 && write(ends[1], &message, sizeof(message)) < 0)
        _exit(2);
    exit(err < 0 ? 1 : 0);
}

/* Wait for one to end. Returns its place; *out_failed is raised when it failed. */
static unsigned end_job(struct job *jobs, unsigned count, struct world_facts *sum,
                        unsigned *out_failed)
{
    struct message message;
    int status;
    pid_t pid = wait(&status);
    unsigned at = 0;
    while (at < count && jobs[at].pid != pid)
        at++;
    if (pid < 0 || at == count)
        abort();
    if (read(jobs[at].pipe, &message, sizeof(message)) == (ssize_t)sizeof(message))
        add_facts(sum, &message.facts);
    close(jobs[at].pipe);
    jobs[at].pid = 0;
    if (WIFSIGNALED(status)) {
        if (WTERMSIG(status) == SIGXCPU)
            printf("FAIL mode %s seed %" PRIu64 ": not done within %u s of the processor\n",
                   jobs[at].mode->name, jobs[at].seed, settings.time_limit_s);
        print_repeat(jobs[at].mode, jobs[at].seed);
    } else if (WEXITSTATUS(status) > 1) {
        print_repeat(jobs[at].mode, jobs[at].seed);
    }
    *out_failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    return at;
}

static const struct mode *mode_of(uint64_t seed)
{
    unsigned count = 0;
    while (mode_at(count))
        count++;
    return settings.mode ? settings.mode : mode_at((unsigned)(seed % count));
}

static unsigned run_seeds(struct world_facts *sum)
{
    struct job jobs[JOBS_MAX] = {{0}};
    unsigned failed = 0;
    unsigned running = 0;
    for (uint64_t seed = settings.from; seed <= settings.to || running > 0; seed++) {
        unsigned at = 0;
        while (at < settings.jobs && jobs[at].pid != 0)
            at++;
        if (at == settings.jobs || seed > settings.to) {
            at = end_job(jobs, settings.jobs, sum, &failed);
            running--;
        }
        if (seed <= settings.to) {
            start_job(&jobs[at], mode_of(seed), seed);
            running++;
        }
    }
    return failed;
}

static void print_facts(const struct world_facts *facts, unsigned failed)
{
    printf("# %" PRIu64 " operations (%" PRIu64 " that must fail, %" PRIu64
           " failed for other reasons), %" PRIu64 " syncs (%" PRIu64 " failed)\n",
           facts->ops, facts->failed_ops, facts->excused_ops, facts->syncs, facts->failed_syncs);
    printf("# %" PRIu64 " openings (%" PRIu64 " failed), %" PRIu64 " kills, %" PRIu64 " shutdowns, %" PRIu64
           " power cuts, %" PRIu64 " takeovers, %" PRIu64 " outages, %" PRIu64 " shortages\n",
           facts->opens, facts->failed_opens, facts->kills, facts->shutdowns, facts->power_cuts, facts->races,
           facts->outages, facts->shortages);
    printf("# %" PRIu64 " operations undone by crashes, %" PRIu64 " commits (%" PRIu64 " begun early), %" PRIu64
           " segments deleted, %" PRIu64
           " left-overs deleted, %" PRIu64 " removals looked at, %" PRIu64 " references all durable before, %" PRIu64 " replies found, at most %" PRIu64 " plan rounds, %u seeds failed\n",
           facts->records_lost, facts->commits, facts->early_commits, facts->segments_deleted,
           facts->leftovers_deleted, facts->removals, facts->references,
           facts->replies, facts->plan_rounds_max,
           failed);
    printf("# repacked: %" PRIu64 " segments emptied, %" PRIu64 " frames moved, %" PRIu64
           " refused, %" PRIu64 " kills while at it; st_blocks of %" PRIu64 " files added up, %" PRIu64
           " with space set aside; %" PRIu64 " writes merged\n",
           facts->repacked_segments, facts->repacked_frames, facts->repack_refused,
           facts->repack_kills, facts->counted_files, facts->counted_aside,
           facts->merged_writes);
    for (int i = 0; i < OP_KINDS && settings.is_telling; i++)
        printf("#   %-12s %" PRIu64 "\n", op_kind_name(i), facts->ops_by_kind[i]);
}

/* ---- the command line ---- */

static void usage(const char *what)
{
    fprintf(stderr,
            "sim_fs: %s\nusage: sim_fs [--mode NAME|all] [--seed N | --seeds FROM..TO] [--ops N] "
            "[--crashes N]\n              [--twice] [--jobs N] [--time-limit S] [--modes] "
            "[--facts] [--verbose] [--trace]\n",
            what);
    exit(2);
}

static void set_seeds(const char *text)
{
    char *end;
    settings.from = strtoull(text, &end, 10);
    if (strncmp(end, "..", 2) != 0)
        usage("--seeds wants FROM..TO");
    settings.to = strtoull(end + 2, NULL, 10);
}

static void set_mode(const char *name)
{
    settings.mode = mode_find(name);
    if (!settings.mode && strcmp(name, "all") != 0)
        usage("there is no such mode");
}

static bool set_flag(const char *name)
{
    if (strcmp(name, "--twice") == 0)
        return settings.is_twice = true;
    if (strcmp(name, "--facts") == 0)
        return settings.is_telling = true;
    if (strcmp(name, "--verbose") == 0)
        return settings.is_verbose = true;
    if (strcmp(name, "--trace") == 0)
        return settings.is_verbose = settings.is_tracing = true;
    if (strcmp(name, "--modes") != 0)
        return false;
    for (unsigned i = 0; mode_at(i); i++)
        printf("%-8s %s\n", mode_at(i)->name, mode_at(i)->text);
    exit(0);
}

static void set_option(const char *name, const char *value)
{
    if (!value)
        usage("an option wants a value, or does not exist");
    if (strcmp(name, "--mode") == 0)
        set_mode(value);
    else if (strcmp(name, "--seeds") == 0)
        set_seeds(value);
    else if (strcmp(name, "--ops") == 0)
        settings.ops = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--crashes") == 0)
        settings.crashes = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--jobs") == 0)
        settings.jobs = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--time-limit") == 0)
        settings.time_limit_s = (unsigned)strtoul(value, NULL, 10);
    else if (strcmp(name, "--seed") == 0) {
        settings.is_single = true;
        settings.from = settings.to = strtoull(value, NULL, 10);
    } else {
        usage(name);
    }
}

static void discard_line(void *arg, enum vv_log_level level, const char *line)
{
}

int main(int argc, char **argv)
{
    struct world_facts sum = {0};
    vv_alloc_track(true);
    for (int i = 1; i < argc; i++) {
        if (!set_flag(argv[i])) {
            set_option(argv[i], i + 1 < argc ? argv[i + 1] : NULL);
            i++;
        }
    }
    if (settings.jobs < 1 || settings.jobs > JOBS_MAX || settings.ops < 1)
        usage("--jobs is 1 to 64, --ops at least 1");
    if (settings.is_verbose)
        vv_log_set_level(VV_LOG_DEBUG);
    else
        vv_log_set_sink(discard_line, NULL);
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    unsigned failed = settings.is_single ? run_seed(mode_of(settings.from), settings.from, &sum) < 0
                                         : run_seeds(&sum);
    print_facts(&sum, failed);
    return failed > 0;
}
