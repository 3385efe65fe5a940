#include "rt/context_impl.h"

#include <stdint.h>
#include <string.h>

#if VV_CONTEXT_ASM

/* In the assembly file: calls the entry with its argument, from two registers. */
void vv_context_begin(void);

/* What vv_context_switch pops from a new stack, lowest address first. */
#if defined(__x86_64__)
struct first_frame {
    void *arg;             /* r15 */
    void (*entry)(void *); /* r14 */
    void *others[4];       /* r13, r12, rbx, rbp */
    void (*begin)(void);
};
#else
struct first_frame {
    void *arg;             /* x19 */
    void (*entry)(void *); /* x20 */
    void *others[9];       /* x21 to x29 */
    void (*begin)(void);   /* x30 */
    double floats[8];      /* d8 to d15 */
};
#endif

void vv_context_init(struct vv_context *context, void *stack, size_t size, void (*entry)(void *),
                     void *arg)
{
    uintptr_t top = ((uintptr_t)stack + size) & ~(uintptr_t)15;
    struct first_frame frame = {.arg = arg, .entry = entry, .begin = vv_context_begin};
    char *place = (char *)stack + (top - (uintptr_t)stack) - sizeof(frame);
    memcpy(place, &frame, sizeof(frame));
    context->stack_pointer = place;
}

#endif
