/* Allocation: the only door to the C library's heap.
 *
 * Two services beyond malloc: failing the n-th call (tests walk n upwards until everything
 * succeeds), and domains (the simulator frees everything that a killed process had allocated).
 * Both are off in the product: a call is then one malloc. vv_alloc_track() must be called before
 * the first allocation of the program. Thread-safe, except the test controls. Never suspends. */
#ifndef VV_BASE_ALLOC_H
#define VV_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Set the C library's heap up for the product: once, before there are threads. One arena for all of them:
 * each further one keeps what its threads freed to itself, which cost 80 MiB with --memory 256M. From a MiB
 * on, memory comes from the kernel and goes back to it: large pieces among small ones would leave the heap full
 * of holes (300 MiB after many direct writes at once). */
void vv_alloc_setup(void);
/* Find pages for the whole block now, which costs less than to find each when it is first written. What is written in
 * it stays. */
void vv_alloc_populate(void *ptr, size_t size);

/* Allocate `size` bytes (size 0 gives a unique pointer). NULL when there is no memory. */
void *vv_alloc(size_t size) __attribute__((malloc, alloc_size(1)));
void *vv_zalloc(size_t size) __attribute__((malloc, alloc_size(1)));
/* As calloc: NULL as well when count * size overflows. */
void *vv_calloc(size_t count, size_t size) __attribute__((malloc));
/* As realloc, but size 0 gives a unique pointer and keeps no alignment above 16. */
void *vv_realloc(void *ptr, size_t size);
/* `align` is a power of two >= 16. Freed with vv_free. */
void *vv_alloc_aligned(size_t align, size_t size) __attribute__((malloc));
char *vv_strdup(const char *text);
void *vv_memdup(const void *bytes, size_t len);
void vv_free(void *ptr);
/* For CLEANUP(vv_free_ptr) on any pointer variable. */
void vv_free_ptr(void *ptr_to_ptr);

/* Tests: let the call number `n` from now (0 = the next) and, when `is_sticky`, all after it, fail.
 * n < 0 switches it off. vv_alloc_failed() tells whether a call has failed since n >= 0 was set;
 * switching off does not clear it. */
void vv_alloc_fail_at(int64_t n, bool is_sticky);
bool vv_alloc_failed(void);

/* Domains: with tracking on, each allocation belongs to the domain current at that time, and stays
 * there when it is reallocated. Domain 0 is the world; domains are below VV_ALLOC_DOMAIN_MAX.
 * Freeing works from any domain. */
#define VV_ALLOC_DOMAIN_MAX 65536
void vv_alloc_track(bool is_on);
uint32_t vv_alloc_domain(void);
/* Make `domain` current and return the one before. */
uint32_t vv_alloc_domain_set(uint32_t domain);
/* Free everything that `domain` still owns; returns how many bytes that were. */
size_t vv_alloc_domain_drop(uint32_t domain);
/* Live allocations of a domain (with tracking on), for leak checks. */
size_t vv_alloc_domain_count(uint32_t domain);

#endif
