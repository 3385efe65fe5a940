#include "rt/choice_impl.h"

#include <stdlib.h>
#include <string.h>

/* How much quicker each has to be for its processor time, in percent of the time. */
static const uint64_t handicap_percent[VV_WAITS] = {[VV_WAIT_POLL] = 100, [VV_WAIT_KEEP] = 115};

void vv_choice_init(struct vv_choice *choice, uint64_t sample_max_ns)
{
    *choice = (struct vv_choice){.usual = VV_WAIT_POLL,
                                 .now = VV_WAIT_POLL,
                                 .interval = VV_CHOICE_INTERVAL_MIN,
                                 .sample_max_ns = sample_max_ns};
}

static int compare(const void *a, const void *b)
{
    uint32_t first = *(const uint32_t *)a;
    uint32_t second = *(const uint32_t *)b;
    return first < second ? -1 : first > second;
}

static uint64_t median_ns(const struct vv_choice *choice, enum vv_wait wait)
{
    uint32_t sorted[VV_CHOICE_SAMPLES];
    memcpy(sorted, choice->samples_ns[wait], sizeof(sorted));
    qsort(sorted, VV_CHOICE_SAMPLES, sizeof(sorted[0]), compare);
    return sorted[VV_CHOICE_SAMPLES / 2];
}

static void begin_trial(struct vv_choice *choice)
{
    choice->now = choice->usual == VV_WAIT_POLL ? VV_WAIT_KEEP : VV_WAIT_POLL;
    choice->since = 0;
    choice->counts[choice->now] = 0;
    choice->trial_ns = 0;
    choice->trial_max_ns = median_ns(choice, choice->usual) * VV_CHOICE_TRIAL_TIMES *
                           (VV_CHOICE_SKIPPED + VV_CHOICE_SAMPLES);
}

static void lose_trial(struct vv_choice *choice)
{
    choice->now = choice->usual;
    choice->since = 0;
    choice->interval *= VV_CHOICE_INTERVAL_GROWTH;
    if (choice->interval > VV_CHOICE_INTERVAL_MAX)
        choice->interval = VV_CHOICE_INTERVAL_MAX;
}

static void end_trial(struct vv_choice *choice)
{
    uint64_t tried = median_ns(choice, choice->now) * handicap_percent[choice->now];
    uint64_t usual = median_ns(choice, choice->usual) * handicap_percent[choice->usual];
    if (tried * 100 >= usual * (100 - VV_CHOICE_GAIN_PERCENT)) {
        lose_trial(choice);
        return;
    }
    choice->usual = choice->now;
    choice->since = 0;
    choice->interval = VV_CHOICE_INTERVAL_MIN;
}

void vv_choice_note(struct vv_choice *choice, uint64_t ns)
{
    bool is_trying = choice->now != choice->usual;
    choice->since++;
    choice->trial_ns += ns;
    if (is_trying && choice->trial_ns > choice->trial_max_ns) {
        lose_trial(choice);
        return;
    }
    if (choice->since <= VV_CHOICE_SKIPPED)
        return;
    uint32_t *count = &choice->counts[choice->now];
    uint64_t kept_ns = ns < choice->sample_max_ns ? ns : choice->sample_max_ns;
    choice->samples_ns[choice->now][*count % VV_CHOICE_SAMPLES] = (uint32_t)kept_ns;
    ++*count;
    if (is_trying && *count == VV_CHOICE_SAMPLES)
        end_trial(choice);
    else if (!is_trying && choice->since >= choice->interval && *count >= VV_CHOICE_SAMPLES)
        begin_trial(choice);
}

void vv_choice_forget(struct vv_choice *choice)
{
    choice->now = choice->usual;
    choice->since = 0;
    choice->interval = VV_CHOICE_INTERVAL_MIN;
    memset(choice->counts, 0, sizeof(choice->counts));
}
