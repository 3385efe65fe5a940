/* varve status and varve flush. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/text.h"
#include "cmd/cost.h"
#include "cmd/server.h"

static void print_size(const json_t *object, const char *name, const char *label)
{
    char text[32];
    const json_t *value = json_object_get(object, name);
    if (json_is_integer(value))
        printf("  %-22s %s\n", label,
               vv_size_to_text((uint64_t)json_integer_value(value), text, sizeof text));
}

static void print_text(const json_t *object, const char *name, const char *label)
{
    const json_t *value = json_object_get(object, name);
    if (json_is_string(value))
        printf("  %-22s %s\n", label, json_string_value(value));
    else if (json_is_integer(value))
        printf("  %-22s %" JSON_INTEGER_FORMAT "\n", label, json_integer_value(value));
}

static void print_requests(const json_t *requests)
{
    static const char *const kinds[] = {"put", "get", "head", "list", "delete", "failed"};
    if (requests == NULL)
        return;
    printf("  %-22s", "requests to the store");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        printf(" %s %" JSON_INTEGER_FORMAT "%s", kinds[i],
               json_integer_value(json_object_get(requests, kinds[i])),
               i + 1 < sizeof kinds / sizeof kinds[0] ? "," : "\n");
    print_text(requests, "seconds", "  in seconds");
    print_size(requests, "bytes_sent", "  sent");
    print_size(requests, "bytes_received", "  received");
}

static void print_cost(const json_t *cost)
{
    if (cost == NULL)
        return;
    printf("  %-22s $%.4f so far; a month at this rate: $%.2f (stored $%.2f, requests $%.2f)\n",
           "estimated cost", json_real_value(json_object_get(cost, "so_far")),
           json_real_value(json_object_get(cost, "per_month")),
           json_real_value(json_object_get(cost, "stored_per_month")),
           json_real_value(json_object_get(cost, "requests_per_month")));
}

static void print_status(const struct vv_options *options, const json_t *object)
{
    bool is_served = json_is_true(json_object_get(object, "is_served"));
    printf("%s: %s\n", options->url, is_served ? "being served" : "not being served");
    if (json_is_true(json_object_get(object, "is_shut_down")))
        printf("  shut down: everything fails until it is unmounted and served again\n");
    print_text(object, "label", "label");
    print_text(object, "volume", "volume");
    print_text(object, "pid", "server's process");
    print_text(object, "mount", "mounted at");
    print_text(object, "durability", "durability");
    print_text(object, "synced_writes", "synced writes by");
    print_text(object, "cipher", "cipher");
    print_text(object, "compression", "compression");
    print_text(object, "epoch", "epoch");
    print_text(object, "last_commit", "last commit");
    print_text(object, "durable_commit", "durable up to commit");
    print_text(object, "bucket_commit", "in the store up to");
    print_size(object, "live_bytes", "file data in use");
    print_size(object, "held_bytes", "file data held");
    print_text(object, "segments", "segments");
    print_text(object, "segments_repacked", "segments repacked");
    print_size(object, "repacked_bytes_written", "  bytes written for it");
    print_text(object, "leftovers_deleted", "left-overs deleted");
    print_size(object, "unsent_bytes", "waiting to be sent");
    print_text(object, "unsent_commits", "  in so many commits");
    print_size(object, "memory_bytes", "memory budget");
    print_size(object, "dirty_bytes", "  unsealed data");
    print_size(object, "memtable_bytes", "  metadata");
    print_size(object, "cache_bytes", "  cache");
    print_text(object, "disk_cache", "disk cache");
    print_size(object, "disk_cache_held_bytes", "  held");
    print_size(object, "disk_cache_size_bytes", "  of at most");
    print_text(object, "disk_cache_hits", "  reads without the store");
    print_text(object, "disk_cache_misses", "  reads with it");
    print_size(object, "store_free_bytes", "free in the store");
    print_text(object, "store_error", "store error");
    print_requests(json_object_get(object, "requests"));
    print_cost(json_object_get(object, "cost"));
}

static int print_answer(const struct vv_options *options, const char *text)
{
    struct vv_prices prices;
    json_t *object = json_loads(text, 0, NULL);
    if (object == NULL) {
        fprintf(stderr, "varve: the server's answer makes no sense\n");
        return VV_EXIT_FAILED;
    }
    if (vv_prices_parse(options->s3.prices, &prices) < 0) {
        fprintf(stderr, "varve: --prices %s: not put=,get=,gib=,out= with prices\n",
                options->s3.prices);
        json_decref(object);
        return VV_EXIT_USAGE;
    }
    /* A local directory costs nothing that is known here. */
    if (strncmp(options->url, "s3://", 5) == 0)
        vv_cost_add(object, &prices);
    if (options->is_json) {
        char *dump = json_dumps(object, JSON_INDENT(2));
        printf("%s\n", dump != NULL ? dump : "{}");
        free(dump);
    } else {
        print_status(options, object);
    }
    json_decref(object);
    return VV_EXIT_OK;
}

/* Nobody serves it: look into the store. */
static int status_offline(const struct vv_options *options, const struct vv_place *place)
{
    struct vv_store *store;
    struct vv_keyring *ring = NULL;
    struct vv_volume *volume;
    int err = vv_place_open(place, options, VV_ACCESS_READ, &store, NULL);
    if (err < 0)
        return vv_exit_of(err);
    err = vv_ring_open(store, options, &ring, NULL);
    if (err == 0) {
        struct vv_volume_options open = {.store = store, .ring = ring, .is_read_only = true,
                                         .memory_bytes = options->memory_bytes};
        err = vv_volume_open(&open, &volume);
        if (err < 0)
            vv_fail(options->url, err);
    }
    if (err == 0) {
        json_t *object = vv_stats_to_json(volume);
        json_object_set_new(object, "is_served", json_false());
        json_object_del(object, "last_commit");
        char *text = json_dumps(object, JSON_INDENT(2));
        if (text != NULL)
            err = print_answer(options, text) == VV_EXIT_OK ? 0 : -EIO;
        free(text);
        json_decref(object);
        if (vv_volume_close(volume) < 0)
            err = -EIO;
    }
    vv_keyring_free(ring);
    vv_store_close(store);
    return vv_exit_of(err);
}

int vv_cmd_status(const struct vv_options *options)
{
    struct vv_place place;
    char *answer;
    if (vv_place_parse(options->url, options, &place) < 0)
        return VV_EXIT_USAGE;
    if (vv_admin_ask(&place, "status\n", &answer) < 0)
        return status_offline(options, &place);
    int code = print_answer(options, answer);
    vv_free(answer);
    return code;
}

int vv_cmd_flush(const struct vv_options *options)
{
    struct vv_place place;
    char *answer;
    if (vv_place_parse(options->url, options, &place) < 0)
        return VV_EXIT_USAGE;
    int err = vv_admin_ask(&place, "flush\n", &answer);
    if (err < 0) {
        fprintf(stderr, "varve: no server answers for %s: nothing to flush\n", options->url);
        return VV_EXIT_FAILED;
    }
    json_t *object = json_loads(answer, 0, NULL);
    const char *text = json_string_value(json_object_get(object, "error"));
    if (text != NULL)
        fprintf(stderr, "varve: flush: %s\n", text);
    int code = text == NULL && object != NULL ? VV_EXIT_OK : VV_EXIT_FAILED;
    json_decref(object);
    vv_free(answer);
    return code;
}
