/* How to wait: the decision, as a function of samples that are made up here. */
#include "rt/choice_impl.h"

#include "tap.h"

#define SAMPLE_MAX_NS 2000000u
#define SAMPLES_MANY 200000
#define TRIAL (VV_CHOICE_SKIPPED + VV_CHOICE_SAMPLES)

/* What a cycle takes on a machine, by how it is waited. */
struct machine {
    uint64_t ns[VV_WAITS];
    uint64_t noise_ns;  /* each third sample takes so much longer */
    uint64_t moving_ns; /* the first samples after a change do */
};

struct run {
    struct vv_choice choice;
    unsigned taken[VV_WAITS];
    uint64_t total_ns;
    unsigned changes;
    unsigned since_change;
};

static void run_on(struct run *run, const struct machine *machine, unsigned samples)
{
    for (unsigned i = 0; i < samples; i++) {
        enum vv_wait now = run->choice.now;
        uint64_t ns = machine->ns[now];
        ns += i % 3 == 0 ? machine->noise_ns : 0;
        ns += run->since_change++ < VV_CHOICE_SKIPPED ? machine->moving_ns : 0;
        run->taken[now]++;
        run->total_ns += ns;
        vv_choice_note(&run->choice, ns);
        if (run->choice.now != now) {
            run->changes++;
            run->since_change = 0;
        }
    }
}

static struct run run_new(void)
{
    struct run run = {.since_change = VV_CHOICE_SKIPPED};
    vv_choice_init(&run.choice, SAMPLE_MAX_NS);
    return run;
}

/* The way that a machine is made for is found, and hardly anything is lost by trying. */
static void test_best(const char *what, struct machine machine, enum vv_wait best)
{
    struct run run = run_new();
    run_on(&run, &machine, VV_CHOICE_INTERVAL_MIN * (1 + VV_CHOICE_INTERVAL_GROWTH) + 6 * TRIAL);
    tap_is_int(run.choice.usual, best, "%s: found soon", what);
    run_on(&run, &machine, SAMPLES_MANY);
    tap_is_int(run.choice.usual, best, "%s: kept", what);
    run.total_ns = 0;
    run_on(&run, &machine, SAMPLES_MANY);
    uint64_t best_ns = machine.ns[best] + (machine.noise_ns + 2) / 3;
    double ratio = (double)run.total_ns / (double)SAMPLES_MANY / (double)best_ns;
    tap_ok(ratio < 1.02, "%s: trials cost %.2f%%", what, (ratio - 1) * 100);
}

static void test_begin(void)
{
    struct run run = run_new();
    struct machine machine = {{30000, 10000}, 0, 0};
    tap_is_int(run.choice.now, VV_WAIT_POLL, "it polls to begin with");
    run_on(&run, &machine, VV_CHOICE_INTERVAL_MIN - 1);
    tap_is_int(run.taken[VV_WAIT_POLL], VV_CHOICE_INTERVAL_MIN - 1, "and does nothing else at first");
    run_on(&run, &machine, 1 + TRIAL);
    tap_ok(run.changes == 1 && run.choice.usual == VV_WAIT_KEEP && run.choice.now == VV_WAIT_KEEP,
           "a trial that is won is kept, without a change back");
}

static void test_terrible(void)
{
    struct run run = run_new();
    struct machine machine = {{13000, 5000000}, 0, 0};
    run_on(&run, &machine, SAMPLES_MANY);
    tap_is_int(run.choice.usual, VV_WAIT_POLL, "what is terrible is not done");
    tap_ok(run.taken[VV_WAIT_KEEP] > 0 && run.taken[VV_WAIT_KEEP] <= 12,
           "and a trial of it ends at once (%u of %u samples)", run.taken[VV_WAIT_KEEP], SAMPLES_MANY);
}

static void test_no_difference(void)
{
    struct run run = run_new();
    struct machine close = {{20000, 17000}, 0, 0};
    run_on(&run, &close, SAMPLES_MANY);
    tap_is_int(run.choice.usual, VV_WAIT_POLL, "a small gain is no reason to keep a processor awake");
    struct machine slow = {{SAMPLE_MAX_NS * 3ull, SAMPLE_MAX_NS + 1ull}, 0, 0};
    run = run_new();
    run_on(&run, &slow, 20000);
    tap_is_int(run.choice.usual, VV_WAIT_POLL, "nor are waits so long that they tell nothing");
}

static void test_another_load(void)
{
    struct run run = run_new();
    struct machine one_client = {{36000, 11000}, 0, 0};
    struct machine two_clients = {{10000, 10000}, 0, 0};
    run_on(&run, &one_client, SAMPLES_MANY);
    tap_is_int(run.choice.usual, VV_WAIT_KEEP, "one client");
    unsigned taken = 0;
    while (run.choice.usual != VV_WAIT_POLL && taken++ <= 2 * VV_CHOICE_INTERVAL_MAX)
        run_on(&run, &two_clients, 1);
    tap_is_int(run.choice.usual, VV_WAIT_POLL, "another load is noticed (after %u)", taken);
    run_on(&run, &one_client, VV_CHOICE_INTERVAL_MIN * (1 + VV_CHOICE_INTERVAL_GROWTH) + 2 * TRIAL);
    tap_is_int(run.choice.usual, VV_WAIT_KEEP, "and soon after that, the first one again");
}

static void test_pause(void)
{
    struct run run = run_new();
    struct machine machine = {{20000, 20000}, 0, 0};
    run_on(&run, &machine, SAMPLES_MANY);
    while (run.choice.now == run.choice.usual)
        run_on(&run, &machine, 1);
    vv_choice_forget(&run.choice);
    tap_is_int(run.choice.now, VV_WAIT_POLL, "a pause ends a trial");
    unsigned changes = run.changes;
    run_on(&run, &machine, VV_CHOICE_INTERVAL_MIN + 1);
    tap_is_int(run.changes, changes + 1, "and the next one comes soon");
}

int main(void)
{
    test_begin();
    test_best("waking is cheap", (struct machine){{20000, 20000}, 5000, 20000}, VV_WAIT_POLL);
    test_best("waking is dear", (struct machine){{36000, 13000}, 9000, 20000}, VV_WAIT_KEEP);
    test_terrible();
    test_no_difference();
    test_another_load();
    test_pause();
    return tap_done();
}
