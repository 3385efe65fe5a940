/* What a bucket costs: an estimate from what a server has counted. Plain computation. */
#ifndef VV_CMD_COST_H
#define VV_CMD_COST_H

#include "base/err.h"

struct json_t;

/* US$. The defaults are those of the first tier of AWS's standard class in us-east-1, read out of the region. */
struct vv_prices {
    double put;     /* per 1,000 PUT or LIST */
    double get;     /* per 1,000 GET or HEAD */
    double stored;  /* per GiB and month */
    double out;     /* per GiB read */
};

/* "put=0.005,get=0.0004,gib=0.023,out=0.09", any of them; NULL: the defaults. -EINVAL. */
MUST_CHECK int vv_prices_parse(const char *text, struct vv_prices *out_prices);
/* Add an object "cost" to a status: what the requests since the server started cost, and what a month does if it goes
 * on so. Nothing when the status has no "requests". */
void vv_cost_add(struct json_t *status, const struct vv_prices *prices);

#endif
