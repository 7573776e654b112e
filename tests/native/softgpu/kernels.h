/* SPDX-License-Identifier: Apache-2.0
 *
 * A few kernels in PTX for tests of the driver (opcodes are tested with the translator).
 */
#ifndef GPUVIRT_TESTS_SOFTGPU_KERNELS_H
#define GPUVIRT_TESTS_SOFTGPU_KERNELS_H

/* nothing();  store(u64 to, u32 value): *to = value;  count(u64 to): atomic add of 1 by every thread;
 * spin(u64 ns): every thread waits that long;  wait_for(u64 flag): until *flag != 0;  stop(): trap;
 * meet(u64 counts, u64 ns): each block counts itself in counts[0], and in counts[1] if two were there within that time;
 * variable: a .global u32, 5. */
static const char kernels[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".visible .global .align 4 .u32 variable = 5;\n"
    ".visible .entry nothing() { ret; }\n"
    ".visible .entry store(.param .u64 to, .param .u32 value) {\n"
    " .reg .b64 %a<2>; .reg .b32 %v;\n"
    " ld.param.u64 %a0, [to]; ld.param.u32 %v, [value]; cvta.to.global.u64 %a1, %a0; st.global.u32 [%a1], %v; ret; }\n"
    ".visible .entry count(.param .u64 to) {\n"
    " .reg .b64 %a<2>; .reg .b32 %v;\n"
    " ld.param.u64 %a0, [to]; cvta.to.global.u64 %a1, %a0; atom.global.add.u32 %v, [%a1], 1; ret; }\n"
    ".visible .entry spin(.param .u64 time) {\n"
    " .reg .b64 %s, %n, %l; .reg .pred %p;\n"
    " ld.param.u64 %l, [time]; mov.u64 %s, %globaltimer;\n"
    "again: mov.u64 %n, %globaltimer; sub.s64 %n, %n, %s; setp.lt.u64 %p, %n, %l; @%p bra again; ret; }\n"
    ".visible .entry wait_for(.param .u64 flag) {\n"
    " .reg .b64 %a<2>; .reg .b32 %v; .reg .pred %p;\n"
    " ld.param.u64 %a0, [flag]; cvta.to.global.u64 %a1, %a0;\n"
    "again: ld.volatile.global.u32 %v, [%a1]; setp.eq.u32 %p, %v, 0; @%p bra again; ret; }\n"
    ".visible .entry meet(.param .u64 counts, .param .u64 time) {\n"
    " .reg .b64 %a<2>; .reg .b64 %s, %n, %l; .reg .b32 %v; .reg .pred %p;\n"
    " ld.param.u64 %a0, [counts]; ld.param.u64 %l, [time]; cvta.to.global.u64 %a1, %a0; mov.u64 %s, %globaltimer;\n"
    " atom.global.add.u32 %v, [%a1], 1;\n"
    "again: ld.volatile.global.u32 %v, [%a1]; setp.ge.u32 %p, %v, 2; @%p bra met;\n"
    " mov.u64 %n, %globaltimer; sub.s64 %n, %n, %s; setp.lt.u64 %p, %n, %l; @%p bra again; ret;\n"
    "met: atom.global.add.u32 %v, [%a1+4], 1; ret; }\n"
    ".visible .entry stop() { trap; ret; }\n";

#endif
