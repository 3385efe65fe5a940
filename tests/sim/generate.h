/* The generator: the next random operation for a model as it is now. It makes mostly operations
 * that succeed, some that must fail, and keeps a tree within bounds. */
#ifndef SIM_GENERATE_H
#define SIM_GENERATE_H

#include <stdbool.h>

#include "model.h"
#include "op.h"
#include "rng.h"

/* What one seed does more of. */
enum profile {
    PROFILE_MIXED,
    PROFILE_NAMES,
    PROFILE_OVERWRITE,
    PROFILE_RANGES,
    PROFILE_BIG,
    PROFILES
};

struct generator {
    struct rng rng;
    enum profile profile;
    char prefix[16];     /* of names in hidden roots */
    unsigned inodes_max; /* the tree shrinks above it */
    uint64_t file_bytes_max;
    uint64_t total_bytes_max; /* of the model's blocks; above it files shrink */
    bool is_freeing;          /* only operations that free space */
    bool is_host;             /* only what a common host file system has */
    bool is_copying;          /* OP_COPY too */
    uint32_t region;          /* the inode of a file whose size must stay; 0 = none */
    uint32_t hidden;          /* the hidden root; 0 = none */
    unsigned pairs_left;      /* operations of a run of writes that are each synced */
};

const char *profile_name(enum profile profile);
void generate(struct generator *generator, const struct model *model, struct op *out_op);

#endif
