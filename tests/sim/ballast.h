/* A volume many times larger than memory: files beside those of the clients, written by the first
 * server, made durable, and from then on there whatever happens. A fiber of each server reads and
 * rewrites them, always with the same bytes, so that memory is always full, everything is evicted,
 * tables are flushed and merged and segments die while the clients work and servers are killed. */
#ifndef SIM_BALLAST_H
#define SIM_BALLAST_H

#include "world.h"

/* Write what is missing, and make it durable. Suspends. 0, or the engine's error. */
int ballast_fill(struct server *server);
/* The fiber: until the server's clients have ended, or it is superseded. */
void ballast_main(void *server);
/* Read places from the whole of it, several of each file. 0, or -1 after world_fail. */
int ballast_check(struct server *server);
/* Remove it. 0, or -1 after world_fail. */
int ballast_remove(struct server *server);

#endif
