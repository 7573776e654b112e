// SPDX-License-Identifier: Apache-2.0
//
// First call of any driver function: its slot in gv_real still points to a stub that put the slot's number into x16 and came
// here. All argument registers are kept (x8: where a result is stored; vectors: some old entry points take floats), the driver
// is opened, and the call goes on.
    .text
    .globl gv_open_and_jump
    .hidden gv_open_and_jump
    .type gv_open_and_jump, %function
gv_open_and_jump:
    stp x29, x30, [sp, #-224]!
    mov x29, sp
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    stp x8, x16, [sp, #80]
    stp q0, q1, [sp, #96]
    stp q2, q3, [sp, #128]
    stp q4, q5, [sp, #160]
    stp q6, q7, [sp, #192]
    mov x0, x30                     // who called
    bl gv_open_driver
    ldp q6, q7, [sp, #192]
    ldp q4, q5, [sp, #160]
    ldp q2, q3, [sp, #128]
    ldp q0, q1, [sp, #96]
    ldp x8, x16, [sp, #80]
    ldp x6, x7, [sp, #64]
    ldp x4, x5, [sp, #48]
    ldp x2, x3, [sp, #32]
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #224
    adrp x17, gv_resolved           // not gv_real: while the driver opens, its own calls find not_yet here
    add x17, x17, :lo12:gv_resolved
    ldr x16, [x17, x16, lsl #3]
    br x16
    .size gv_open_and_jump, .-gv_open_and_jump
    .section .note.GNU-stack,"",%progbits
