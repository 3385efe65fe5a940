#include <string.h>

#include "rt/rt.h"
#include "world.h"

static const struct mode modes[] = {
    {.name = "dir",
     .text = "a directory with its journal; kills and power cuts",
     .has_journal = true,
     .power_permille = 600},
    {.name = "plain",
     .text = "a directory without a journal; kills and power cuts that reorder directories",
     .power_permille = 600,
     .is_reordering_dirs = true},
    {.name = "mem",
     .text = "a perfect bucket; kills",
     .is_mem = true,
     .latency_ns = 2 * VV_NS_PER_MS},
    {.name = "journal",
     .text = "a slow bucket with a journal on a disk; kills and power cuts",
     .is_mem = true,
     .has_journal = true,
     .power_permille = 600,
     .latency_ns = 30 * VV_NS_PER_MS,
     .plan = {.fail_permille = 10, .slow_permille = 50, .slow_max_ns = 500 * VV_NS_PER_MS},
     .is_retrying = true},
    {.name = "slow",
     .text = "a far bucket: 30 ms, 20 MB/s, unknown outcomes that land late; kills",
     .is_mem = true,
     .latency_ns = 30 * VV_NS_PER_MS,
     .bytes_per_s = 20000000,
     .plan = {.unknown_permille = 20,
              .late_max_ns = 20 * VV_NS_PER_S,
              .slow_permille = 100,
              .slow_max_ns = VV_NS_PER_S},
     .is_retrying = true},
    {.name = "faults",
     .text = "a bad bucket: errors that reach the engine, unknown outcomes, late and slow; kills",
     .is_mem = true,
     .latency_ns = 2 * VV_NS_PER_MS,
     .plan = {.fail_permille = 40,
              .unknown_permille = 60,
              .late_max_ns = 10 * VV_NS_PER_S,
              .slow_permille = 100,
              .slow_max_ns = 2 * VV_NS_PER_S}},
    {.name = "outage",
     .text = "a bucket that is away for up to half a minute at a time; kills",
     .is_mem = true,
     .latency_ns = 2 * VV_NS_PER_MS,
     .plan = {.unknown_permille = 10, .late_max_ns = 5 * VV_NS_PER_S},
     .outages = 4},
    {.name = "full",
     .text = "a disk that is full at times, with a journal; kills",
     .has_journal = true,
     .shortages = 3},
    {.name = "brim",
     .text = "a bucket that has no space at times; kills",
     .is_mem = true,
     .latency_ns = 2 * VV_NS_PER_MS,
     .shortages = 3},
    {.name = "race",
     .text = "servers that open while others serve; a bad bucket",
     .is_mem = true,
     .is_racing = true,
     .latency_ns = 2 * VV_NS_PER_MS,
     .plan = {.unknown_permille = 30,
              .late_max_ns = 20 * VV_NS_PER_S,
              .slow_permille = 100,
              .slow_max_ns = VV_NS_PER_S},
     .is_retrying = true},
    {.name = "errors",
     .text = "a directory with a journal on a disk with EIO; kills and power cuts",
     .has_journal = true,
     .is_lawless = true,
     .power_permille = 500,
     .disk_errors_per_10000 = 8},
};

const struct mode *mode_at(unsigned index)
{
    return index < sizeof(modes) / sizeof(modes[0]) ? &modes[index] : NULL;
}

const struct mode *mode_find(const char *name)
{
    for (unsigned i = 0; mode_at(i); i++) {
        if (strcmp(modes[i].name, name) == 0)
            return &modes[i];
    }
    return NULL;
}
