/* Commits that begin before they are asked for. Who writes and syncs, again and again, waits in between for the answer to its
 * write; meanwhile the commit that its sync will wait for can be on its way to the journal. So where the last syncs
 * came each after the same few operations, and nobody else waits for one, the commit begins behind the last of these
 * operations. A sync promises no less: it waits for that commit. What a wrong guess costs is a record of the
 * journal that had not been needed: after one, it takes more syncs that keep to the rule before the next guess. */
#include "volume/volume_impl.h"

#define OPS_MAX 8u              /* of a sync that is foreseen */
#define BYTES_MAX (64u << 10)   /* ... and so much in its commit */
#define NEEDED_MIN 8u           /* syncs in turn that kept to the rule, before a guess */
#define NEEDED_MAX 1024u

void vv_early_init(struct vv_early *early, unsigned after)
{
    unsigned needed = after > 0 ? after : NEEDED_MIN;
    *early = (struct vv_early){.needed = needed, .needed_min = needed};
}

bool vv_early_is_due(struct vv_early *early, uint64_t commit, uint64_t bytes)
{
    if (early->is_begun) {
        early->is_begun = false;
        early->streak = 0;
        early->needed = early->needed < NEEDED_MAX / 2 ? early->needed * 2 : NEEDED_MAX;
    }
    early->newest = commit;
    early->ops += early->ops <= OPS_MAX;
    early->is_begun = early->streak >= early->needed && early->ops == early->period &&
                      early->waiting == 0 && bytes <= BYTES_MAX;
    return early->is_begun;
}

void vv_early_learn(struct vv_early *early, uint64_t target)
{
    if (early->ops == 0 || target < early->newest)
        return;
    bool is_alone = early->waiting == 0 && early->ops <= OPS_MAX;
    bool is_same = is_alone && early->ops == early->period;
    early->period = is_alone ? early->ops : 0;
    if (!is_same)
        early->streak = 0;
    early->streak += is_alone && early->streak < NEEDED_MAX;
    if (early->is_begun && early->needed > early->needed_min)
        early->needed--;
    early->is_begun = false;
    early->ops = 0;
}
