/* SPDX-License-Identifier: Apache-2.0 */
#include "bounds.h"

#include "real_driver.h"

enum { SLACK = 512 }; /* the driver rounds allocations up, so it does not notice less either */

int gv_bounds_leave_range(CUdeviceptr address, uint64_t bytes)
{
    struct gv_range range;
    if (__atomic_load_n(&gv_gate.lost, __ATOMIC_RELAXED))
        return 0; /* the driver refuses it in any case, with the error that lasts */
    if (!gv_memory_find(address, 1, &range))
        return 1;
    const uint64_t end = (range.asked_bytes + SLACK - 1) / SLACK * SLACK, offset = address - range.address;
    return offset > end || bytes > end - offset;
}

static int waits(CUdeviceptr address)
{
    struct gv_range range;
    return gv_memory_owns(address) && gv_memory_find(address, 1, &range) && range.sync_memops;
}

void gv_bounds_finish(CUresult result, CUdeviceptr one, CUdeviceptr other, int per_thread)
{
    if (result == CUDA_SUCCESS && (waits(one) || waits(other)))
        REAL(cuStreamSynchronize)(per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY);
}
