#include "cmd/cost.h"

#include <errno.h>
#include <jansson.h>

#include "tap.h"

static bool is_near(double a, double b)
{
    return a > b - 1e-6 && a < b + 1e-6;
}

static double cost_of(const json_t *status, const char *name)
{
    return json_real_value(json_object_get(json_object_get(status, "cost"), name));
}

int main(void)
{
    static const char *const wrong[] = {"put", "put=", "put=x", "put=1;get=2", "other=1", "put=-1", "put=1e9", "=1"};
    struct vv_prices prices;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        tap_is_int(vv_prices_parse(wrong[i], &prices), -EINVAL, "wrong prices: %s", wrong[i]);
    tap_is_int(vv_prices_parse(NULL, &prices), 0, "default prices");
    tap_ok(is_near(prices.put, 0.005) && is_near(prices.get, 0.0004) && is_near(prices.stored, 0.023) &&
           is_near(prices.out, 0.09), "are those that are documented");
    tap_is_int(vv_prices_parse("gib=1,put=2,get=0.5,out=0", &prices), 0, "other prices");
    json_t *status = json_pack("{s:i, s:[{s:i},{s:i}]}", "held_bytes", 1 << 29, "levels", "bytes", 1 << 28, "bytes",
                               1 << 28);
    vv_cost_add(status, &prices);
    tap_ok(json_object_get(status, "cost") == NULL, "nothing without requests");
    json_object_set_new(status, "requests",
                        json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "put", 900, "list", 100, "get", 1500, "head", 500,
                                  "delete", 7000, "bytes_received", 1 << 30, "seconds", 864000));
    vv_cost_add(status, &prices);
    tap_ok(is_near(cost_of(status, "so_far"), 3.0), "1,000 PUT and LIST, 2,000 GET and HEAD: %f",
           cost_of(status, "so_far"));
    tap_ok(is_near(cost_of(status, "stored_per_month"), 1.0), "a GiB stored");
    tap_ok(is_near(cost_of(status, "requests_per_month"), 9.0), "ten days are a third of a month");
    tap_ok(is_near(cost_of(status, "per_month"), 10.0), "the sum");
    json_decref(status);
    return tap_done();
}
