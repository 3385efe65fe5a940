/* At the end of a world: the last server flushes, and has swept what crashed ones left (PROTOCOL 16). Then
 * the store must hold what the newest manifest and the 'S' table name, and nothing else. */
#ifndef SIM_LEFTOVERS_H
#define SIM_LEFTOVERS_H

#include "world.h"

/* In the last server's process, with no faults any more. Fails the world. Suspends. */
void leftovers_check(struct server *server);

#endif
