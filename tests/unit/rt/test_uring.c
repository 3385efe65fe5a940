/* Synced writes by io_uring, and by workers where it is not to be had. What may be refused is refused in a child process. */
#include "both.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/alloc.h"
#include "base/log.h"
#include "rt/real_impl.h"

#define DIRECT (VV_FILE_READ | VV_FILE_WRITE | VV_FILE_CREATE | VV_FILE_DIRECT_SYNCED)
#define BLOCK 4096u

static char dir[64] = "/tmp/varve-uring-XXXXXX";

static struct vv_file *open_direct(const char *name, int number)
{
    char path[128];
    struct vv_file *file = NULL;
    snprintf(path, sizeof(path), "%s/%s-%d", dir, name, number);
    return vv_file_open(path, DIRECT, &file) == 0 ? file : NULL;
}

static int write_block(struct vv_file *file, uint8_t fill, uint64_t offset)
{
    uint8_t *block = vv_alloc_aligned(BLOCK, BLOCK);
    if (!block)
        return -ENOMEM;
    memset(block, fill, BLOCK);
    struct iovec iov = {block, BLOCK};
    int err = vv_file_pwritev_sync(file, &iov, 1, offset);
    vv_free(block);
    return err;
}

static bool has_block(struct vv_file *file, uint8_t fill, uint64_t offset)
{
    uint8_t block[BLOCK];
    if (vv_file_pread(file, block, BLOCK, offset) != BLOCK)
        return false;
    for (size_t i = 0; i < BLOCK; i++) {
        if (block[i] != fill)
            return false;
    }
    return true;
}

/* A file of `count` blocks that were written once: the kernel can write them again without waiting. */
static struct vv_file *open_filled(const char *name, int number, unsigned count)
{
    struct vv_file *file = open_direct(name, number);
    uint8_t *blocks = vv_zalloc((size_t)count * BLOCK);
    struct iovec iov = {blocks, (size_t)count * BLOCK};
    if (file && blocks && vv_file_pwritev(file, &iov, 1, 0) == 0 && vv_file_datasync(file) == 0) {
        vv_free(blocks);
        return file;
    }
    vv_free(blocks);
    vv_file_close(file);
    return NULL;
}

/* Whether the kernel does such writes on this filesystem without waiting. */
static bool has_ring_writes;

static void try_ring(void *arg)
{
    struct vv_file *file = open_filled("try", 0, 1);
    (void)arg;
    for (int i = 0; file && i < 10; i++) {
        if (write_block(file, 1, 0) != 0)
            abort();
    }
    has_ring_writes = vv_rt_uring_writes() > 0;
    vv_file_close(file);
}

static int run(void (*fn)(void *), void *arg, bool is_without_uring)
{
    struct vv_rt_options options = {.workers = 2,
                                    .spin_ns = VV_RT_SPIN_DEFAULT_NS,
                                    .uring = is_without_uring ? VV_RT_URING_NEVER
                                                              : VV_RT_URING_ALWAYS};
    return vv_rt_run(&options, fn, arg);
}

/* ---- more at once than the ring takes ---- */

#define WRITERS 100
#define WRITES 4

struct many {
    struct vv_waitq done;
    int left;
    int errors;
    int next;
    bool was_on;
    uint64_t written;
};

static void write_some(void *arg)
{
    struct many *many = arg;
    int number = many->next++;
    struct vv_file *file = open_filled("many", number, WRITES);
    for (int i = 0; file && i < WRITES; i++)
        many->errors += write_block(file, (uint8_t)(number + i), (uint64_t)i * BLOCK) != 0;
    for (int i = 0; file && i < WRITES; i++)
        many->errors += !has_block(file, (uint8_t)(number + i), (uint64_t)i * BLOCK);
    many->errors += file == NULL;
    vv_file_close(file);
    if (--many->left == 0)
        vv_waitq_wake_all(&many->done);
}

static void run_many(void *arg)
{
    struct many *many = arg;
    vv_waitq_init(&many->done);
    many->left = WRITERS;
    for (int i = 0; i < WRITERS; i++) {
        if (vv_fiber_start(write_some, many, "writer") != 0)
            abort();
    }
    vv_waitq_wait(&many->done, VV_NEVER);
    many->was_on = vv_rt_uses_uring();
    many->written = vv_rt_uring_writes();
}

static void test_many(void)
{
    struct many with = {0};
    struct many without = {0};
    tap_is_int(run(run_many, &with, false), 0, "runs");
    tap_is_int(run(run_many, &without, true), 0, "runs without io_uring");
    tap_is_int(with.errors, 0, "%d writers: all is written", WRITERS);
    tap_is_int(without.errors, 0, "%d writers without io_uring: all is written", WRITERS);
    tap_ok(!without.was_on && without.written == 0, "it is off when it is to be");
    if (has_ring_writes)
        tap_ok(with.written >= WRITERS, "it was used: %llu of %d", (unsigned long long)with.written,
               WRITERS * WRITES);
    else
        tap_skip("no direct writes by io_uring here");
}

/* ---- what only fdatasync makes durable ---- */

struct before {
    int errors;
    bool is_by_worker[4]; /* the synced write behind: nothing, a write, a change of size, a synced write */
};

static bool is_by_worker(struct before *before, struct vv_file *file)
{
    uint64_t written = vv_rt_uring_writes();
    before->errors += write_block(file, 5, 0) != 0;
    return vv_rt_uring_writes() == written;
}

static void run_before(void *arg)
{
    struct before *before = arg;
    struct vv_file *file = open_filled("before", 0, 2);
    char text[] = "not aligned";
    struct iovec iov = {text, sizeof(text)};
    if (!file)
        abort();
    before->is_by_worker[0] = is_by_worker(before, file);
    before->errors += vv_file_pwritev(file, &iov, 1, BLOCK + 1) != 0;
    before->is_by_worker[1] = is_by_worker(before, file);
    before->errors += vv_file_truncate(file, 3 * BLOCK) != 0;
    before->is_by_worker[2] = is_by_worker(before, file);
    before->is_by_worker[3] = is_by_worker(before, file);
    vv_file_close(file);
}

/* A synced write by io_uring syncs nothing else: a worker does the first one behind what waits for fdatasync. */
static void test_before(void)
{
    struct before before = {0};
    tap_is_int(run(run_before, &before, false), 0, "runs");
    tap_is_int(before.errors, 0, "all is written");
    tap_ok(before.is_by_worker[1], "a synced write behind one that is not also syncs that");
    tap_ok(before.is_by_worker[2], "or a change of the size");
    if (has_ring_writes)
        tap_ok(!before.is_by_worker[0] && !before.is_by_worker[3], "and otherwise no worker is asked");
    else
        tap_skip("no direct writes by io_uring here");
}

/* ---- which way ---- */

/* Of 320 writes, how many go by the ring when they take so long either way. */
static int count_by_ring(struct vv_uring *uring, uint64_t ring_ns, uint64_t worker_ns)
{
    int count = 0;
    for (int i = 0; i < 320; i++) {
        bool is_by_ring = vv_uring_is_quicker(uring);
        count += is_by_ring;
        vv_uring_learn(uring, is_by_ring, is_by_ring ? ring_ns : worker_ns);
    }
    return count;
}

static void test_quicker(void)
{
    struct vv_uring uring = {.is_on = true};
    tap_is_int(count_by_ring(&uring, 150, 240), 310, "the quicker way is taken but for a trial in 32");
    tap_ok(count_by_ring(&uring, 500, 240) < 60, "when it is so no more, the other");
    tap_is_int(count_by_ring(&uring, 500, 240), 10, "and from then on");
    tap_ok(count_by_ring(&uring, 100, 240) > 20, "and back");
    tap_is_int(count_by_ring(&uring, 100, 240), 310, "for good");
    vv_uring_learn(&uring, true, 1000000);
    tap_ok(uring.ring_ns < 240, "one that takes long says little");
    uring.use = VV_RT_URING_ALWAYS;
    tap_is_int(count_by_ring(&uring, 500, 240), 320, "unless it is to be io_uring");
    uring.is_on = false;
    tap_is_int(count_by_ring(&uring, 100, 240), 0, "which is to be had");
}

/* ---- who waits gives up, and the program ends, while a write is in flight ---- */

struct ending {
    struct vv_file *file;
    struct vv_waitq done;
    bool has_ended;
    bool was_in_flight;
    int wait_result;
    int err;
};

static void write_last(void *arg)
{
    struct ending *ending = arg;
    ending->err = write_block(ending->file, 77, 0);
    ending->has_ended = true;
    vv_waitq_wake_all(&ending->done);
    vv_file_close(ending->file);
}

static void run_ending(void *arg)
{
    struct ending *ending = arg;
    vv_waitq_init(&ending->done);
    ending->file = open_filled("ending", 0, 1);
    if (!ending->file || write_block(ending->file, 1, 0) != 0 ||
        vv_fiber_start(write_last, ending, "last") != 0)
        abort();
    vv_fiber_yield();
    ending->wait_result = vv_waitq_wait(&ending->done, vv_rt_now_ns());
    ending->was_in_flight = !ending->has_ended;
}

static void check_ending(void *arg)
{
    bool *is_right = arg;
    struct vv_file *file = open_direct("ending", 0);
    *is_right = file && has_block(file, 77, 0);
    vv_file_close(file);
}

static void test_ending(void)
{
    for (int i = 0; i < 2; i++) {
        struct ending ending = {0};
        bool is_right = false;
        int err = 0;
        /* A quick disk may have done it by then. */
        for (int n = 0; n < 50 && err == 0 && !ending.was_in_flight; n++) {
            ending = (struct ending){0};
            err = run(run_ending, &ending, i == 1);
        }
        tap_is_int(err, 0, "runs");
        tap_is_int(ending.wait_result, -ETIMEDOUT, "a waiter's time is over");
        tap_ok(ending.was_in_flight, "while the write is in flight");
        tap_ok(ending.has_ended && ending.err == 0, "which ends before the runtime does");
        tap_is_int(run(check_ending, &is_right, true), 0, "runs");
        tap_ok(is_right, "with the right bytes");
    }
}

/* ---- in child processes ---- */

/* The exit status of fn, run in a child. */
static int in_child(int (*fn)(void *), void *arg)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        vv_log_set_level(VV_LOG_ERROR);
        _exit(fn(arg));
    }
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* Let this thread's system call `number` fail with `error` from now on. */
static bool refuse(int number, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

enum { RIGHT = 0, WRONG = 1, CANNOT = 2 };

struct refusal {
    int number; /* system call */
    int error;
    int before; /* writes before it is refused; -1: before the runtime begins */
    int result;
};

static void run_refusal(void *arg)
{
    struct refusal *refusal = arg;
    struct vv_file *file = open_filled("refused", refusal->number, 6);
    bool was_on = vv_rt_uses_uring();
    refusal->result = file ? RIGHT : WRONG;
    for (int i = 0; file && i < 6; i++) {
        if (i == refusal->before && !refuse(refusal->number, refusal->error)) {
            refusal->result = CANNOT;
            break;
        }
        if (write_block(file, (uint8_t)(i + 1), (uint64_t)i * BLOCK) != 0)
            refusal->result = WRONG;
    }
    for (int i = 0; refusal->result == RIGHT && i < 6; i++) {
        if (!has_block(file, (uint8_t)(i + 1), (uint64_t)i * BLOCK))
            refusal->result = WRONG;
    }
    uint64_t wanted = was_on && refusal->before > 0 ? (uint64_t)refusal->before : 0;
    if (refusal->result == RIGHT && (vv_rt_uses_uring() || vv_rt_uring_writes() != wanted))
        refusal->result = WRONG;
    if (refusal->before >= 0 && !(was_on && has_ring_writes))
        refusal->result = CANNOT;
    vv_file_close(file);
}

static int refusal_child(void *arg)
{
    struct refusal *refusal = arg;
    if (refusal->before < 0 && !refuse(refusal->number, refusal->error))
        return CANNOT;
    return run(run_refusal, refusal, false) == 0 ? refusal->result : WRONG;
}

static void test_refusals(void)
{
    static struct refusal refusals[] = {
        {SYS_io_uring_setup, EPERM, -1, 0}, {SYS_io_uring_setup, ENOSYS, -1, 0},
        {SYS_io_uring_setup, ENOMEM, -1, 0}, {SYS_io_uring_enter, EPERM, -1, 0},
        {SYS_io_uring_enter, EAGAIN, 0, 0}, {SYS_io_uring_enter, EBUSY, 3, 0},
    };
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *refusal = &refusals[i];
        int result = in_child(refusal_child, &refusals[i]);
        if (result == CANNOT)
            tap_skip("no io_uring, or no filter of system calls, here");
        else
            tap_is_int(result, RIGHT, "%s is refused (%s) from write %d on: workers serve",
                       refusal->number == SYS_io_uring_setup ? "io_uring_setup" : "io_uring_enter",
                       vv_err_text(-refusal->error), refusal->before);
    }
}

/* With few descriptors to be had, the runtime begins without a ring, or not at all. */
static void note_ring(void *arg)
{
    *(bool *)arg = vv_rt_uses_uring();
}

static int descriptors_child(void *arg)
{
    struct rlimit limit = {0, 0};
    (void)arg;
    bool has_begun = false;
    for (limit.rlim_cur = 3; limit.rlim_cur < 12; limit.rlim_cur++) {
        bool is_on = false;
        limit.rlim_max = 64;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
            return CANNOT;
        int err = run(note_ring, &is_on, false);
        if (err != 0 && (err != -EMFILE || has_begun))
            return WRONG;
        has_begun = has_begun || err == 0;
        if (is_on)
            return RIGHT;
    }
    return has_begun ? CANNOT : WRONG;
}

/* Writes past the limit of a file's size fail, the n-th and those after it; what came before is there. */
static void run_limited(void *arg)
{
    int *result = arg;
    struct vv_file *file = open_filled("limited", *result, 1);
    *result = file ? RIGHT : WRONG;
    for (unsigned n = 0; file && n < 5; n++) {
        struct rlimit limit = {n * BLOCK, RLIM_INFINITY};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
            *result = CANNOT;
        for (unsigned i = 0; i < 6; i++) {
            int err = write_block(file, (uint8_t)(10 * n + i), (uint64_t)i * BLOCK);
            if (err != (i < n ? 0 : -EFBIG))
                *result = WRONG;
        }
        for (unsigned i = 0; i < n; i++) {
            if (!has_block(file, (uint8_t)(10 * n + i), (uint64_t)i * BLOCK))
                *result = WRONG;
        }
    }
    vv_file_close(file);
}

static int limited_child(void *arg)
{
    int result = *(int *)arg;
    signal(SIGXFSZ, SIG_IGN);
    return run(run_limited, &result, *(int *)arg == 1) == 0 ? result : WRONG;
}

static void test_errors(void)
{
    int result = in_child(descriptors_child, NULL);
    if (result == CANNOT)
        tap_skip("io_uring is not to be had here");
    else
        tap_is_int(result, RIGHT, "with few descriptors there is no ring, and no leak");
    for (int i = 0; i < 2; i++) {
        result = in_child(limited_child, &i);
        tap_is_int(result, RIGHT, "the n-th write fails%s", i ? ", by a worker" : "");
    }
}

int main(void)
{
    char command[128];
    if (!tap_ok(mkdtemp(dir) != NULL, "a directory was made"))
        return tap_done();
    vv_alloc_track(true);
    tap_is_int(run(try_ring, NULL, false), 0, "runs");
    test_many();
    test_before();
    test_quicker();
    test_ending();
    test_refusals();
    test_errors();
    tap_is_int((int64_t)vv_alloc_domain_count(0), 0, "nothing is left allocated");
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    tap_is_int(system(command), 0, "the directory was removed");
    return tap_done();
}
