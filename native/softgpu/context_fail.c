/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts that fail: the first error stays, and the device tells of it as the real driver does in the kernel's log.
 */
#include "context.h"

#include <unistd.h>

/* What the real driver logs for an application's error. */
static uint32_t xid_of(CUresult error)
{
    switch (error) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
        return 31; /* GPU memory page fault */
    case CUDA_ERROR_ASSERT:
        return 43; /* GPU stopped processing */
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_LAUNCH_FAILED:
        return 13; /* graphics engine exception */
    case CUDA_ERROR_ECC_UNCORRECTABLE:
        return 48; /* double bit ECC error */
    default:
        return 0;
    }
}

void gv_context_fail(struct gv_context *context, CUresult error)
{
    int none = CUDA_SUCCESS;
    if (atomic_compare_exchange_strong(&context->error, &none, (int)error)) {
        const uint32_t xid = xid_of(error);
        if (xid != 0)
            gv_board_raise(gv_driver.board, gv_place(context->device), GV_EVENT_XID, xid, (uint32_t)getpid());
    }
}
