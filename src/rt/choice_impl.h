/* How a reactor waits that has nothing to do: judged by trying.
 *
 *   POLL   for a while, then sleep: the reactor need not be woken.
 *   KEEP   the same, and meanwhile a thread of the lowest priority keeps another processor from falling idle
 *          (keeper_impl.h), so that waking the client is cheap, too.
 *
 * Which is quicker can't be told from whether events come soon: it depends on the kernel, the machine, the clients and
 * what else is running. A client that waits for each answer sleeps while it is served; beside a reactor that polls, its
 * processor falls idle meanwhile, and waking an idle virtual processor (an exit of the machine, an interrupt) may
 * cost more than all the work. On a busy machine, or a real one, it costs little.
 * So the reactor does what was better, and now and then tries the other for a short time.
 *
 * What is compared is the time from one event to the next by the fibers that ran for it, as a median, with a handicap for
 * the processor time that keeping costs. Medians do not see a rare long wait, so only ways are compared that have those
 * alike: sleeping at once is not among them (docs/decisions/0012). A pure function of the samples: no clock, no
 * system call. Used by its reactor's thread only. Private to rt. */
#ifndef VV_RT_CHOICE_IMPL_H
#define VV_RT_CHOICE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

enum vv_wait { VV_WAIT_POLL, VV_WAIT_KEEP };
#define VV_WAITS 2

#define VV_CHOICE_SAMPLES 32         /* of a trial, and of what it is compared with */
#define VV_CHOICE_SKIPPED 16         /* not counted after a change: then the scheduler moves threads */
#define VV_CHOICE_INTERVAL_MIN 512   /* samples until the next trial. After one that was lost: */
#define VV_CHOICE_INTERVAL_GROWTH 4  /* so many times as many, */
#define VV_CHOICE_INTERVAL_MAX 32768 /* at most these; the fewest again after one that was won, or a pause */
#define VV_CHOICE_GAIN_PERCENT 10    /* less is no reason to change */
#define VV_CHOICE_TRIAL_TIMES 4      /* a trial that takes so many times as long as usual is lost at once */

struct vv_choice {
    enum vv_wait usual; /* what was better */
    enum vv_wait now;   /* the other during a trial */
    uint32_t since;     /* samples since `now` changed */
    uint32_t interval;
    uint64_t sample_max_ns; /* longer ones count as this */
    uint64_t trial_ns;      /* what the trial has taken so far */
    uint64_t trial_max_ns;
    /* The latest, a ring: how often one was put in, and what. */
    uint32_t counts[VV_WAITS];
    uint32_t samples_ns[VV_WAITS][VV_CHOICE_SAMPLES];
};

/* Polls to begin with. `sample_max_ns` (below 4 s): what takes longer says more about the client than about waiting. */
void vv_choice_init(struct vv_choice *choice, uint64_t sample_max_ns);
/* A wait is over: it took `ns` since the last one was, for each of the fibers that have run in between. */
void vv_choice_note(struct vv_choice *choice, uint64_t ns);
/* Nothing has happened for long: what comes may be other clients. */
void vv_choice_forget(struct vv_choice *choice);

#endif
