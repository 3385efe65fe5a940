/* The model against the host's own file system: the same random operations on both, compared after
 * each, and the whole trees now and then. What the host does not have is left out. sim_model
 * [seeds] [operations] Works in a new directory below $TMPDIR or /tmp. Needs root (chown, mknod);
 * else it is skipped. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "expect.h"
#include "generate.h"
#include "host.h"
#include "model.h"
#include "tap.h"

#define COMPARE_EVERY 100

struct run {
    struct host host;
    struct model *model;
    struct generator generator;
    struct sight sight;
    unsigned done[OP_KINDS];
    unsigned failed, left_out;
    bool is_wrong;
};

static void note(void *arg, const char *text)
{
    tap_note("  %s", text);
}

static void compare_trees(struct run *run)
{
    struct model_dump is;
    struct model_dump should;
    host_dump(&run->host, run->model, &is);
    model_dump(run->model, &should);
    if (!hash_equal(model_dump_hash(&is), model_dump_hash(&should))) {
        run->is_wrong = true;
        tap_note("  the trees differ (the host's is what is):");
        (void)model_dump_diff(&is, &should, 10, note, NULL);
    }
    model_dump_done(&is);
    model_dump_done(&should);
}

static void wrong(struct run *run, const struct op *op, const char *text)
{
    char line[1024];
    op_to_text(op, line, sizeof(line));
    tap_note("  %s: %s", line, text);
    run->is_wrong = true;
}

static void change(struct run *run, const struct op *op)
{
    char text[200];
    struct model_result result;
    uint64_t value;
    int is = host_apply(&run->host, run->model, op, &value);
    if (is == -ENOSYS || is == -EOPNOTSUPP || is == -ENOSPC) {
        run->left_out++;
        return;
    }
    int should = model_apply(run->model, op, &result);
    run->model->clock++;
    run->failed += should < 0;
    if (is != should && -is != result.other_errno) {
        snprintf(text, sizeof(text), "the host says %s, the model %s", strerror(-is),
                 strerror(-should));
        wrong(run, op, text);
    } else if (should == 0 && (op->kind == OP_WRITE || op->kind == OP_APPEND) &&
               value != result.value) {
        wrong(run, op, "another number of bytes");
    }
}

static void look(struct run *run, const struct op *op)
{
    char text[400];
    if (!host_look(&run->host, run->model, op, &run->sight))
        run->left_out++;
    else if (expect_check(run->model, op, &run->sight, text, sizeof(text)) < 0)
        wrong(run, op, text);
}

static void run_seed(struct run *run, uint64_t seed, unsigned operations)
{
    char path[300];
    run->is_wrong = false;
    run->model = model_new();
    run->generator = (struct generator){.rng = {seed},
                                        .profile = (enum profile)(seed % PROFILES),
                                        .prefix = "c0-",
                                        .inodes_max = 60,
                                        .file_bytes_max = 300000,
                                        .total_bytes_max = 4 << 20,
                                        .is_host = true};
    model_add_root(run->model, "/c0", S_IFDIR | 0755, 0, false);
    run->generator.hidden = model_add_root(run->model, "/shared", S_IFDIR | 0755, 0, true);
    for (unsigned i = 0; i < run->model->root_count; i++) {
        snprintf(path, sizeof(path), "%s%s", run->host.base, run->model->roots[i].path);
        if (mkdir(path, 0755) < 0)
            run->is_wrong = true;
    }
    for (unsigned i = 0; i < operations && !run->is_wrong; i++) {
        struct op op;
        generate(&run->generator, run->model, &op);
        run->done[op.kind]++;
        if (op_is_reading(op.kind))
            look(run, &op);
        else
            change(run, &op);
        if (i % COMPARE_EVERY == COMPARE_EVERY - 1)
            compare_trees(run);
    }
    /* A copy goes its own way. */
    struct model *copy = model_copy(run->model);
    tap_ok(!run->is_wrong && hash_equal(model_hash(copy), model_hash(run->model)),
           "the model does what the host does (seed %llu, %s)", (unsigned long long)seed,
           profile_name(run->generator.profile));
    model_free(copy);
    model_free(run->model);
    host_close(&run->host);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    return remove(path);
}

int main(int argc, char **argv)
{
    static struct run run;
    unsigned seeds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 10;
    unsigned operations = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 2000;
    const char *parent = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    if (geteuid() != 0) {
        tap_skip("needs root");
        return tap_done();
    }
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        snprintf(run.host.base, sizeof(run.host.base), "%s/sim_model.XXXXXX", parent);
        if (!mkdtemp(run.host.base)) {
            tap_skip("cannot make a directory in %s", parent);
            continue;
        }
        run_seed(&run, seed, operations);
        (void)nftw(run.host.base, remove_one, 32, FTW_DEPTH | FTW_PHYS);
    }
    unsigned done = 0;
    for (int i = 0; i < OP_KINDS; i++) {
        done += run.done[i];
        tap_note("%-12s %u", op_kind_name(i), run.done[i]);
    }
    tap_note("%u operations, %u that fail, %u left out", done, run.failed, run.left_out);
    return tap_done();
}
