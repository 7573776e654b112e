# SPDX-License-Identifier: Apache-2.0
#
# First call of any driver function: its slot in gv_real still points to a stub that pushed the slot's number and came here.
# All argument registers are kept (some old entry points take floats), the driver is opened, and the call goes on.
    .text
    .globl gv_open_and_jump
    .hidden gv_open_and_jump
    .type gv_open_and_jump, @function
gv_open_and_jump:
    pushq %rdi
    pushq %rsi
    pushq %rdx
    pushq %rcx
    pushq %r8
    pushq %r9
    pushq %rax
    subq $136, %rsp                 # 8 xmm registers, and rsp back on 16 bytes: 8 (return) + 8 (number) + 56 + 136
    movups %xmm0, 0(%rsp)
    movups %xmm1, 16(%rsp)
    movups %xmm2, 32(%rsp)
    movups %xmm3, 48(%rsp)
    movups %xmm4, 64(%rsp)
    movups %xmm5, 80(%rsp)
    movups %xmm6, 96(%rsp)
    movups %xmm7, 112(%rsp)
    movq 200(%rsp), %rdi            # who called
    call gv_open_driver
    movups 0(%rsp), %xmm0
    movups 16(%rsp), %xmm1
    movups 32(%rsp), %xmm2
    movups 48(%rsp), %xmm3
    movups 64(%rsp), %xmm4
    movups 80(%rsp), %xmm5
    movups 96(%rsp), %xmm6
    movups 112(%rsp), %xmm7
    addq $136, %rsp
    popq %rax
    popq %r9
    popq %r8
    popq %rcx
    popq %rdx
    popq %rsi
    popq %rdi
    popq %r11                       # the slot's number
    leaq gv_resolved(%rip), %r10    # not gv_real: while the driver opens, its own calls find not_yet here
    jmp *(%r10,%r11,8)
    .size gv_open_and_jump, .-gv_open_and_jump
    .section .note.GNU-stack,"",@progbits
