/* The switch for x86-64 (System V ABI: rbx, rbp, r12 to r15 belong to the caller). */
#include "rt/context_impl.h"

#if defined(__x86_64__) && VV_CONTEXT_ASM
    .text

/* void vv_context_switch(struct vv_context *from, struct vv_context *to) */
    .globl vv_context_switch
    .type vv_context_switch, @function
    .p2align 4
vv_context_switch:
    .cfi_startproc
    endbr64
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movq %rsp, (%rdi)
    movq (%rsi), %rsp
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    /* Not ret: the return predictor would guess the caller on the old stack. */
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    jmpq *%rcx
    .cfi_endproc
    .size vv_context_switch, .-vv_context_switch

/* Where a new context begins: r14 is the entry, r15 its argument. */
    .globl vv_context_begin
    .hidden vv_context_begin
    .type vv_context_begin, @function
    .p2align 4
vv_context_begin:
    .cfi_startproc
    .cfi_undefined %rip
    endbr64
    movq %r15, %rdi
    callq *%r14
    ud2
    .cfi_endproc
    .size vv_context_begin, .-vv_context_begin
#endif

    .section .note.GNU-stack, "", %progbits
