/* How a reactor waits that has nothing to do: judged by trying.
 *
 *   SLEEP  in the kernel until there is an event.
 *   POLL   for a while first, so that the reactor need not be woken.
 *   KEEP   polls, and meanwhile a thread of the lowest priority keeps another processor from falling idle
 *          (keeper_impl.h), so that waking the client is cheap, too.
 *
 * Which is quickest can't be told from whether events come soon: it depends on the kernel, the machine, the clients and
 * what else is running. A client that waits for each answer sleeps while it is served. Beside a reactor that polls, its
 * processor falls idle meanwhile, and waking an idle virtual processor (an exit of the machine, an interrupt) may
 * cost more than all the work. Beside one that sleeps, too, the scheduler may have both on one processor, or wake two.
 * So the reactor does what was best, and now and then tries another for a short time.
 *
 * What is compared is the time from one event to the next by the fibers that ran for it, as a median, with a handicap for
 * the processor time that the way of waiting costs. A pure function of the samples: no clock, no system call. Used by
 * its reactor's thread only. Private to rt. */
#ifndef VV_RT_CHOICE_IMPL_H
#define VV_RT_CHOICE_IMPL_H

#include <stdbool.h>
#include <stdint.h>

enum vv_wait { VV_WAIT_SLEEP, VV_WAIT_POLL, VV_WAIT_KEEP };
#define VV_WAITS 3

#define VV_CHOICE_SAMPLES 32         /* of a trial, and of what it is compared with */
#define VV_CHOICE_SKIPPED 16         /* not counted after a change: then the scheduler moves threads */
#define VV_CHOICE_INTERVAL_MIN 512   /* samples until the next trial. After one that was lost: */
#define VV_CHOICE_INTERVAL_GROWTH 3  /* so many times as many, */
#define VV_CHOICE_INTERVAL_MAX 40000 /* at most these; the fewest again after one that was won, or a pause */
#define VV_CHOICE_GAIN_PERCENT 10    /* less is no reason to change */
#define VV_CHOICE_TRIAL_TIMES 3      /* a trial that takes so many times as long as usual is lost at once. After a single */
#define VV_CHOICE_DEAR_NS 1000000u   /* sample of this length that way of waiting is left out */
#define VV_CHOICE_LEFT_OUT_MAX 255   /* 1, 3, 7, ... times, pauses or not, at most these */

struct vv_choice {
    enum vv_wait usual; /* what was best */
    enum vv_wait now;   /* another one during a trial */
    enum vv_wait next;  /* to be tried, unless it is the usual one */
    uint32_t since;     /* samples since `now` changed */
    uint32_t interval;
    uint64_t sample_max_ns; /* longer ones count as this */
    uint64_t trial_ns;      /* what the trial has taken so far */
    uint64_t trial_max_ns;
    uint32_t penalty[VV_WAITS];  /* how many trials were left out after the last one, which took too long */
    uint32_t left_out[VV_WAITS]; /* how many still are */
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
