/* The disk cache of a server. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>

#include "base/log.h"
#include "cache/disk.h"
#include "cmd/server.h"

/* Part of the memory, for what is known of the disk cache's entries. */
#define CACHE_MEMORY_SHARE 8

uint64_t vv_server_cache_memory(const struct vv_options *options)
{
    return options->cache ? options->memory_bytes / CACHE_MEMORY_SHARE : 0;
}

int vv_server_open_cache(struct vv_server *server)
{
    const struct vv_options *options = server->options;
    if (options->cache == NULL)
        return 0;
    uint64_t memory = vv_server_cache_memory(options);
    if (options->cache_bytes > vv_disk_reach(memory))
        vv_warn("cache", "%s: with this --memory at most %llu MiB of it can be used, less when what is kept is in small pieces",
                options->cache, (unsigned long long)(vv_disk_reach(memory) >> 20));
    int err = vv_disk_open(options->cache, options->cache_bytes, memory, &server->disk);
    if (err == -VV_ERR_LOCKED)
        fprintf(stderr, "varve: %s: another server uses this cache; give each its own directory\n",
                options->cache);
    else if (err < 0)
        vv_fail(options->cache, err);
    if (err == 0) {
        err = vv_store_cached_new(server->store, server->disk,
                                  vv_keyring_volume_id(server->ring), &server->store);
        if (err < 0)
            vv_fail(options->cache, err);
    }
    return err;
}

static void set(json_t *object, const char *name, uint64_t value)
{
    json_object_set_new(object, name, json_integer((json_int_t)value));
}

void vv_server_cache_to_json(const struct vv_server *server, json_t *object)
{
    struct vv_disk_stats stats;
    if (server->disk == NULL)
        return;
    vv_disk_stats(server->disk, &stats);
    json_object_set_new(object, "disk_cache", json_string(server->options->cache));
    set(object, "disk_cache_size_bytes", stats.size_bytes);
    set(object, "disk_cache_held_bytes", stats.held_bytes);
    set(object, "disk_cache_files", stats.files);
    set(object, "disk_cache_entries", stats.entries);
    set(object, "disk_cache_memory_bytes", stats.memory_bytes);
    set(object, "disk_cache_memory_max_bytes", stats.memory_max_bytes);
    set(object, "disk_cache_hits", stats.hits);
    set(object, "disk_cache_misses", stats.misses);
    set(object, "disk_cache_hit_bytes", stats.bytes_hit);
    set(object, "disk_cache_missed_bytes", stats.bytes_missed);
    set(object, "disk_cache_written_bytes", stats.bytes_written);
    set(object, "disk_cache_damaged", stats.damaged);
    set(object, "disk_cache_errors", stats.errors);
}
