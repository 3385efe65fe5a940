#include "rt/context_impl.h"

#include <signal.h>
#include <stdint.h>

#if !VV_CONTEXT_ASM

/* makecontext passes ints only: the pointer comes in two halves. */
static void begin(unsigned high, unsigned low)
{
    struct vv_context *context = (void *)(uintptr_t)((uint64_t)high << 32 | low);
    context->entry(context->arg);
}

void vv_context_init(struct vv_context *context, void *stack, size_t size, void (*entry)(void *),
                     void *arg)
{
    uint64_t bits = (uint64_t)(uintptr_t)context;
    getcontext(&context->ucontext);
    context->ucontext.uc_stack.ss_sp = stack;
    context->ucontext.uc_stack.ss_size = size;
    context->ucontext.uc_link = NULL;
    context->entry = entry;
    context->arg = arg;
    makecontext(&context->ucontext, (void (*)(void))begin, 2, (unsigned)(bits >> 32),
                (unsigned)bits);
}

/* swapcontext switches the signal mask, too; ours belongs to the thread. */
void vv_context_switch(struct vv_context *from, struct vv_context *to)
{
    pthread_sigmask(SIG_SETMASK, NULL, &to->ucontext.uc_sigmask);
    swapcontext(&from->ucontext, &to->ucontext);
}

#endif
