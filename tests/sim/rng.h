/* Random numbers of the simulator's own: the operations of a seed do not depend on how many numbers
 * the engine draws. splitmix64 (Steele, Lea, Flood 2014). Plain values. */
#ifndef SIM_RNG_H
#define SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t rng_next(struct rng *rng)
{
    uint64_t z = (rng->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* In [0, bound); bound > 0. */
static inline uint64_t rng_below(struct rng *rng, uint64_t bound)
{
    return rng_next(rng) % bound;
}

/* In [from, to]. */
static inline uint64_t rng_between(struct rng *rng, uint64_t from, uint64_t to)
{
    return from + rng_below(rng, to - from + 1);
}

static inline bool rng_chance(struct rng *rng, unsigned permille)
{
    return rng_below(rng, 1000) < permille;
}

/* In [from, to], small values as likely as large ones (uniform in the logarithm); from >= 1. */
static inline uint64_t rng_log_between(struct rng *rng, uint64_t from, uint64_t to)
{
    unsigned bits = 64 - (unsigned)__builtin_clzll(to / from);
    uint64_t low = from << rng_below(rng, bits);
    uint64_t high = low > to / 2 ? to : 2 * low;
    return low >= to ? to : rng_between(rng, low, high);
}

#endif
