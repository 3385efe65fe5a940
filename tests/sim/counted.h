/* At the end of a world, when nothing waits to be reclaimed: what st_blocks says of each file must be the blocks that have
 * data or are set aside, each counted once, and their extents must know which are both. */
#ifndef SIM_COUNTED_H
#define SIM_COUNTED_H

#include "world.h"

/* In the last server's process, settled. Fails the world. Suspends. */
MUST_CHECK int counted_check(struct server *server);

#endif
