/* The switch for aarch64 (AAPCS64: x19 to x30 and d8 to d15 belong to the caller). */
#include "rt/context_impl.h"

#if defined(__aarch64__) && VV_CONTEXT_ASM
    .text

/* void vv_context_switch(struct vv_context *from, struct vv_context *to) */
    .globl vv_context_switch
    .type vv_context_switch, %function
    .p2align 4
vv_context_switch:
    .cfi_startproc
    hint #34 /* bti c */
    sub sp, sp, #160
    .cfi_adjust_cfa_offset 160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    ldr x9, [x1]
    mov sp, x9
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    .cfi_adjust_cfa_offset -160
    .cfi_restore x29
    .cfi_restore x30
    ret
    .cfi_endproc
    .size vv_context_switch, .-vv_context_switch

/* Where a new context begins: x19 is the argument, x20 the entry. */
    .globl vv_context_begin
    .hidden vv_context_begin
    .type vv_context_begin, %function
    .p2align 4
vv_context_begin:
    .cfi_startproc
    .cfi_undefined x30
    hint #36 /* bti j */
    mov x0, x19
    blr x20
    brk #1
    .cfi_endproc
    .size vv_context_begin, .-vv_context_begin
#endif

    .section .note.GNU-stack, "", %progbits
