/* A store wrapper that records every request, and proves the order of uploads: when the put of a
 * log object begins, every data segment that its batch refers to is durable already (PROTOCOL 11); and
 * no table is removed that the last manifest lists which its remover can have confirmed (13, 14), nor a segment that
 * has live bytes in that manifest's tables.
 * What it knows is plain malloc and outlives processes; several stores may share one recorder. */
#ifndef SIM_RECORD_H
#define SIM_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "seal/seal.h"
#include "store/store.h"

enum request_kind { REQUEST_PUT, REQUEST_GET, REQUEST_SIZE, REQUEST_LIST, REQUEST_REMOVE,
                    REQUEST_SYNC };

struct request {
    enum request_kind kind;
    char name[VV_STORE_NAME_MAX + 1];
    uint64_t offset, len; /* asked for; of a put: all of it */
    uint64_t begun_ns, ended_ns; /* ended_ns 0 = under way, or its process is dead */
    int64_t result;
};

struct recorder;
/* `ring` opens log objects; NULL: the order is not looked at. */
struct recorder *recorder_new(const struct vv_keyring *ring);
void recorder_free(struct recorder *recorder);
/* Wrap `inner`, which it then owns. -ENOMEM. */
int recorder_open(struct recorder *recorder, struct vv_store *inner, struct vv_store **out_store);
/* Look at removals of segments, too, by another door to the same store, which it then owns. */
void recorder_watch_segments(struct vv_store *store, struct vv_store *direct);
size_t recorder_count(const struct recorder *recorder);
const struct request *recorder_at(const struct recorder *recorder, size_t i);
/* Print requests from number `first` on as TAP comments. */
void recorder_print(const struct recorder *recorder, size_t first);
/* The first thing seen that must not be; NULL = nothing. */
const char *recorder_fault(const struct recorder *recorder);
/* Log objects looked into, and references from them to data segments. */
uint64_t recorder_logs(const struct recorder *recorder);
uint64_t recorder_references(const struct recorder *recorder);
/* Removals of segments that were looked at. */
uint64_t recorder_removals(const struct recorder *recorder);

#endif
