/* What a manifest's own tables say of a segment: the state that a server may delete on the strength of (PROTOCOL
 * 14, 18), whatever it knows besides in memory or in its journal. */
#ifndef SIM_CONFIRMED_H
#define SIM_CONFIRMED_H

#include <stdint.h>

#include "log/manifest.h"
#include "segment/segment.h"
#include "store/store.h"

/* The segment's live bytes there, 0 when it has no record. `direct` is a door to the store without faults. 0; an error when
 * the tables cannot be read (any more). Suspends. */
int confirmed_live(const struct vv_manifest *manifest, const struct vv_keyring *ring,
                   struct vv_store *direct, const struct vv_segment_id *id, int64_t *out_live);

#endif
