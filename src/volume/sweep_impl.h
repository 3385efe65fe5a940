/* Private to volume: the orphan sweep (PROTOCOL 16). A server that crashed leaves objects in the store which nothing
 * names; they would cost space for ever. Once per opening they are looked for and deleted.
 *
 * What may be an orphan, and why it is safe to delete it: it is of an epoch older than our own, and
 *   data/  no 'S' record knows it. Its upload ended, the commit that was to name it did not. 'S' records of older ids
 *          come from two sources only: the logs of older epochs, which fences made final before we served (7, 9), and
 *          the tail of our journal. The manifest that the sweep goes by holds both.
 *   sst/   it is in no run list, and nobody here reads it. It was written for a flush or compaction whose manifest never
 *          came, or was dropped by a manifest and not yet deleted. Tables of older epochs come into a run list by
 *          manifests of these epochs only, and ours is confirmed above all of them.
 *   log/   no 'S' record knows it, and it is no fence (15). Every log object that was replayed has a record, in its own
 *          batch; without one are those that landed above their epoch's fence, which nobody ever replays.
 * All three may also be objects that were deleted already, record and all, and are back after a power loss (store.h: a
 * removal need not be durable). Before an object goes, its header must say that it is of this volume and of the kind that
 * its name says: what is damaged or foreign stays, for fsck to report.
 *
 * When: after the last manifest of our own that is confirmed (13, 14) holds everything that this opening replayed, the
 * journal's tail included ("confirmed" is in the bucket, 18), and no older epoch is live in it. That is a state, not a
 * time: it is looked at when a manifest was confirmed, so that opening is not held up and an idle volume makes no request.
 * Two writers at once: ids below our epoch are known to us as well as they will ever be to anybody, so that a writer
 * who has been fenced and does not know it deletes nothing that a newer one needs. One who knows it stops at once.
 * Pins (checkpoints) will each bring an 'S' table and a run list to ask; until then a volume with pins is not swept.
 *
 * What is left to others: old manifests (log.h removes them after every flush), dead segments and log objects behind
 * the replay point, which have records (space.c), temporary files of a directory (store.h: with the first put), and
 * what our own epoch leaves (the next opening's sweep). Never touched: fences, keys, varve.volume, probes of stores
 * (another server may be making them), names that are not ours.
 *
 * Cost: one LIST for each thousand objects, one look at the 'S' table for each segment (LOOKUPS at a time), a GET and a
 * DELETE for each orphan (REMOVALS at a time). Memory: one page of names, and 16 bytes for each table. */
#ifndef VV_VOLUME_SWEEP_IMPL_H
#define VV_VOLUME_SWEEP_IMPL_H

#include "volume/volume_impl.h"

/* Start the sweep in a fiber of its own if it is due; it ends by itself. A store that fails, or no memory, only
 * postpones it: call again after the next manifest. Does not suspend. */
void vv_orphans_sweep(struct vv_volume *volume);

#endif
