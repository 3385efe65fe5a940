#include "cmd/cost.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MONTH_S (30.0 * 86400)
#define GIB (1024.0 * 1024 * 1024)

static const struct vv_prices defaults = {.put = 0.005, .get = 0.0004, .stored = 0.023, .out = 0.09};

static double *price_named(struct vv_prices *prices, const char *name, size_t len)
{
    const struct {
        const char *name;
        double *price;
    } names[] = {{"put", &prices->put}, {"get", &prices->get}, {"gib", &prices->stored},
                 {"out", &prices->out}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strlen(names[i].name) == len && memcmp(names[i].name, name, len) == 0)
            return names[i].price;
    }
    return NULL;
}

int vv_prices_parse(const char *text, struct vv_prices *out_prices)
{
    struct vv_prices prices = defaults;
    while (text != NULL && *text != 0) {
        size_t len = strcspn(text, "=");
        double *price = price_named(&prices, text, len);
        if (price == NULL || text[len] != '=')
            return -EINVAL;
        char *end;
        double value = strtod(text + len + 1, &end);
        if (end == text + len + 1 || !(value >= 0 && value < 1e6) || (*end != ',' && *end != 0))
            return -EINVAL;
        *price = value;
        text = end + (*end == ',');
    }
    *out_prices = prices;
    return 0;
}

static double number(const json_t *object, const char *name)
{
    return (double)json_integer_value(json_object_get(object, name));
}

/* Bytes of segments and of tables. */
static double stored_bytes(const json_t *status)
{
    double bytes = number(status, "held_bytes");
    size_t i;
    json_t *level;
    json_array_foreach (json_object_get(status, "levels"), i, level)
        bytes += number(level, "bytes");
    return bytes;
}

void vv_cost_add(json_t *status, const struct vv_prices *prices)
{
    const json_t *requests = json_object_get(status, "requests");
    if (requests == NULL)
        return;
    double seconds = number(requests, "seconds");
    double so_far = (number(requests, "put") + number(requests, "list")) / 1000 * prices->put +
                    (number(requests, "get") + number(requests, "head")) / 1000 * prices->get +
                    number(requests, "bytes_received") / GIB * prices->out;
    double stored = stored_bytes(status) / GIB * prices->stored;
    double requested = seconds > 0 ? so_far / seconds * MONTH_S : 0;
    json_t *cost = json_object();
    json_object_set_new(cost, "so_far", json_real(so_far));
    json_object_set_new(cost, "stored_per_month", json_real(stored));
    json_object_set_new(cost, "requests_per_month", json_real(requested));
    json_object_set_new(cost, "per_month", json_real(stored + requested));
    json_object_set_new(status, "cost", cost);
}
