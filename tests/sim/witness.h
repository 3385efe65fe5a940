/* A store wrapper that watches what is put: no two different objects may ever be sealed with the
 * same salt (PROTOCOL 3), whoever sealed them. What it knows is the world's and outlives processes.
 */
#ifndef SIM_WITNESS_H
#define SIM_WITNESS_H

#include <stddef.h>
#include <stdint.h>

#include "store/store.h"

struct witness;
struct witness *witness_new(void);
void witness_free(struct witness *witness);
/* Wrap `inner`, which it then owns. -ENOMEM. */
int witness_open(struct witness *witness, struct vv_store *inner, struct vv_store **out_store);
/* What was seen that must not be; NULL = nothing. */
const char *witness_fault(const struct witness *witness);
/* Puts looked at. */
uint64_t witness_count(const struct witness *witness);

#endif
