/* SPDX-License-Identifier: Apache-2.0
 *
 * The text of the hash kernel, which `make generate` writes.
 */
    .section .rodata
    .globl gv_page_hash_ptx
    .hidden gv_page_hash_ptx
gv_page_hash_ptx:
    .incbin "page_hash.ptx"
    .byte 0

    .section .note.GNU-stack, "", %progbits
