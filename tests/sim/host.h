/* Operations on the host's own file system, below a directory: what the model is proved against. */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "expect.h"
#include "model.h"
#include "op.h"

struct host {
    char base[256]; /* absolute path of the directory that stands for "/" */
    int fds[OP_HANDLES_MAX];
};

/* Do an operation that changes something; `model` is as it was before it. 0 or a negative errno;
 * -EOPNOTSUPP when the host does not have it, -ENOSYS when it cannot be expressed (paths that are
 * too long): then nothing was done. *out_value: bytes written or copied. */
int host_apply(struct host *host, const struct model *model, const struct op *op,
               uint64_t *out_value);
/* Do one that reads. False when it cannot be expressed. */
bool host_look(struct host *host, const struct model *model, const struct op *op,
               struct sight *sight);
/* Walk the model's roots on the host. */
void host_dump(const struct host *host, const struct model *model, struct model_dump *out_dump);
void host_close(struct host *host);

#endif
