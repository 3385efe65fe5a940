/* Context switching, and telling the tools that watch stacks about it. Private to rt.
 *
 * A context is a stopped flow of control with its own stack. Switching saves what the calling
 * convention makes the callee keep; floating point control words are not switched (nothing in
 * varve changes them). context_x86_64.S and context_aarch64.S hold the switch,
 * context_ucontext.c serves other processors (and all with -DVV_RT_UCONTEXT).
 * The annotations at the end do nothing unless the program runs under AddressSanitizer or valgrind.
 * Any thread; a context is used by one thread at a time. */
#ifndef VV_RT_CONTEXT_IMPL_H
#define VV_RT_CONTEXT_IMPL_H

#if (defined(__x86_64__) || defined(__aarch64__)) && !defined(VV_RT_UCONTEXT)
#define VV_CONTEXT_ASM 1
#else
#define VV_CONTEXT_ASM 0
#endif

#ifndef __ASSEMBLER__

#include <stddef.h>

#if VV_CONTEXT_ASM
struct vv_context {
    void *stack_pointer; /* at offset 0: the assembly relies on it */
};
#else
#include <ucontext.h>
struct vv_context {
    ucontext_t ucontext;
    void (*entry)(void *);
    void *arg;
};
#endif

/* Make a context that calls entry(arg), which must never return, on the given stack. */
void vv_context_init(struct vv_context *context, void *stack, size_t size, void (*entry)(void *),
                     void *arg);
/* Save the running flow in `from` and go on with `to`. */
void vv_context_switch(struct vv_context *from, struct vv_context *to);

#if defined(__SANITIZE_ADDRESS__)
#define VV_HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define VV_HAS_ASAN 1
#endif
#endif

#ifdef VV_HAS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
/* Instrumented frames are several times larger. */
#define VV_FIBER_STACK_FACTOR 4

/* Before a switch to the stack given. `out_fake` keeps the fake stack of the flow that is left;
 * NULL when it ends. */
static inline void vv_tools_switch_begin(void **out_fake, const void *stack, size_t size)
{
    __sanitizer_start_switch_fiber(out_fake, stack, size);
}

/* After a switch: `fake` is what the flow entered had kept; the stack that was left is given out.
 */
static inline void vv_tools_switch_end(void *fake, const void **out_stack, size_t *out_size)
{
    __sanitizer_finish_switch_fiber(fake, out_stack, out_size);
}

static inline void vv_tools_unpoison(void *stack, size_t size)
{
    __asan_unpoison_memory_region(stack, size);
}
#else
#define VV_FIBER_STACK_FACTOR 1

static inline void vv_tools_switch_begin(void **out_fake, const void *stack, size_t size)
{
    (void)out_fake;
    (void)stack;
    (void)size;
}

static inline void vv_tools_switch_end(void *fake, const void **out_stack, size_t *out_size)
{
    (void)fake;
    (void)out_stack;
    (void)out_size;
}

static inline void vv_tools_unpoison(void *stack, size_t size)
{
    (void)stack;
    (void)size;
}
#endif

#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#define VV_HAS_VALGRIND 1
#endif
#endif

#ifdef VV_HAS_VALGRIND
#include <valgrind/memcheck.h>

static inline unsigned vv_tools_stack_register(void *stack, size_t size)
{
    return VALGRIND_STACK_REGISTER(stack, (char *)stack + size);
}

static inline void vv_tools_stack_deregister(unsigned id)
{
    VALGRIND_STACK_DEREGISTER(id);
}

/* The stack is used anew: what its last user left there means nothing. */
static inline void vv_tools_stack_reuse(void *stack, size_t size)
{
    VALGRIND_MAKE_MEM_UNDEFINED(stack, size);
    vv_tools_unpoison(stack, size);
}
#else
static inline unsigned vv_tools_stack_register(void *stack, size_t size)
{
    (void)stack;
    (void)size;
    return 0;
}

static inline void vv_tools_stack_deregister(unsigned id)
{
    (void)id;
}

static inline void vv_tools_stack_reuse(void *stack, size_t size)
{
    vv_tools_unpoison(stack, size);
}
#endif

#endif
#endif
